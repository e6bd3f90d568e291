"""The purge: empties the trash of all exports, side by side, bounded, and fair between them.

An export has a few removals at a time, all exports together have so many places, and a removal that has had its turn
gives its place to one that waits: a huge tree never keeps another export's trash. Nothing needs to be remembered across
a crash: what is still in the trash is what is still to be removed. Where the rename of a leader that was held up may
still come, what is left of a directory keeps its name taken for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from provisioner.controllers.instances import Guard
from provisioner.core.backoff import Backoff
from provisioner.core.returned import volume_of
from provisioner.ledger.export import Export
from provisioner.ports.aio import wait_for_event
from provisioner.ports.clock import Clock
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

AT_ONCE = 16
"""Removals on all exports together; each has up to 32 calls in flight, and they share what may be held (8 MiB)."""
PER_EXPORT = 4
TURN_S = 10.0
"""How long a removal keeps its place while another one waits."""

TAKEN_S = 600.0
"""How long a name stays taken after the purge."""
TAKEN_LIMIT = 5_000
"""Names that are taken at a time on an export: beyond that the oldest are free earlier."""

_EVERY_S = 60.0
_PAUSE_S = 0.25
"""Between two looks at one trash, however fast volumes go."""
_AGAIN = Backoff(first_s=10.0, limit_s=900.0)
"""For what cannot be removed: a file that is held open goes soon, one that is immutable stays for long."""

_OF_THE_EXPORT = (
    Cause.UNREACHABLE,
    Cause.BUSY,
    Cause.MISSING,
    Cause.NOT_MOUNTED,
    Cause.CHANGED,
    Cause.READ_ONLY,
    Cause.STALE,
    Cause.NOT_YET,
    Cause.VERSION,
    Cause.KERBEROS,
    Cause.TRANSPORT,
    Cause.TWICE,
    Cause.UNSETTLED,
)
"""What concerns the whole export: it is told of as such, and all of its trash waits."""


@dataclass(slots=True)
class _Refusal:
    """That something in the trash could not be removed."""

    why: str
    failures: int
    due_s: float


@dataclass(slots=True)
class _Trash:
    """What is known of one export's trash."""

    look: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: deque[str] = field(default_factory=deque)
    taken: set[str] = field(default_factory=set)
    """What waits for a worker or has one."""
    refused: dict[str, _Refusal] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    """What is kept, and when to ask again whether it is to be."""
    entries: dict[str, int] = field(default_factory=dict)
    """How many went of what is not removed as a whole yet."""
    seen_s: dict[str, float] = field(default_factory=dict)
    """Since when each name has been there, as far as we have seen."""
    free_s: dict[str, float] = field(default_factory=dict)
    """When each name is free whose directory has been purged, the oldest first."""
    workers: int = 0
    interrupted: bool = False
    """Whether all of it waits, because of the export, for the next look that nobody hurries."""


Keeps = Callable[[Export, str], Awaitable[bool]]
"""Whether an entry in an export's trash must stay there."""


class Purge:
    """Empties the trash of the exports that it is told to keep empty, but for what `keeps` says."""

    def __init__(self, clock: Clock, metrics: Metrics, keeps: Keeps, guard: Guard) -> None:
        self._clock = clock
        self._guard = guard
        self._metrics = metrics
        self._keeps = keeps
        self._supervisor = Supervisor(clock, metrics)
        self._trash: dict[Export, _Trash] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._in_line = 0
        """How many removals wait for a place."""

    def look(self, export: Export) -> None:
        """Something went into an export's trash, or the export is usable again."""
        if export in self._trash:  # else its first look at the trash is still to come
            self._trash[export].look.set()

    def freed(self, volume: str) -> None:
        """A volume is gone: what was kept for it may go."""
        for trash in self._trash.values():
            for name in [name for name in trash.kept if volume_of(name) == volume]:
                del trash.kept[name]
                trash.look.set()

    def is_busy(self, export: Export) -> bool:
        """Whether anything of an export's trash is being removed, or is about to be."""
        return export in self._trash and bool(self._trash[export].taken)

    async def keep(self, export: Export) -> None:
        """Empty an export's trash, for ever."""
        trash = self._trash[export] = _Trash()
        try:
            await self._keep(export, trash)
        finally:
            self._trash.pop(export, None)

    async def _keep(self, export: Export, trash: _Trash) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                trash.look.clear()
                trash.interrupted = False
                under_way = frozenset(trash.taken)  # some of it may go while we look
                try:
                    self._take(export, trash, await export.trash.names(), under_way)
                except ExportError as exc:
                    log.debug("trash_not_seen", export=export.name, error=str(exc))
                while trash.workers < min(PER_EXPORT, len(trash.taken)):
                    trash.workers += 1
                    group.create_task(self._work(export, trash))
                await self._clock.sleep(_PAUSE_S)
                await wait_for_event(trash.look, timeout_s=self._rest_s(trash))

    def _take(self, export: Export, trash: _Trash, names: list[str], under_way: Set[str]) -> None:
        """Have what is in the trash removed, but for what was refused a short while ago."""
        now_s, there = self._clock.monotonic(), set(names)
        for known in (trash.refused, trash.kept):
            for gone in known.keys() - there:
                del known[gone]
        for gone in trash.entries.keys() - there - trash.taken:
            del trash.entries[gone]
        for gone in trash.free_s.keys() - there - trash.taken:
            del trash.free_s[gone]
        for name in list(trash.free_s)[: max(0, len(trash.free_s) - TAKEN_LIMIT)]:
            trash.free_s[name] = now_s
        for name in sorted(there - trash.taken - under_way):
            refusal = trash.refused.get(name)
            due_s = max(
                refusal.due_s if refusal is not None else now_s,
                trash.kept.get(name, now_s),
                trash.free_s.get(name, now_s),
            )
            if due_s <= now_s:
                trash.taken.add(name)
                trash.waiting.append(name)
        self._measure(export, trash, there - trash.free_s.keys())

    def _measure(self, export: Export, trash: _Trash, names: Set[str]) -> None:
        now_s = self._clock.monotonic()
        trash.seen_s = {name: trash.seen_s.get(name, now_s) for name in names}
        self._metrics.trash_entries.labels(export.name).set(len(names))
        self._metrics.trash_oldest_s.labels(export.name).set(now_s - min(trash.seen_s.values(), default=now_s))
        self._metrics.trash_refused.labels(export.name).set(len(trash.refused))

    def _rest_s(self, trash: _Trash) -> float:
        """Until the next look where nothing happens before."""
        now_s = self._clock.monotonic()
        dues_s = (*(each.due_s for each in trash.refused.values()), *trash.kept.values(), *trash.free_s.values())
        due_s = min((each_s for each_s in dues_s if each_s > now_s), default=now_s + _EVERY_S)
        return min(due_s - now_s, _EVERY_S)

    # ------------------------------------------------------------------------------------------- removing

    async def _work(self, export: Export, trash: _Trash) -> None:
        """Remove what waits, one after the other, until there is nothing."""
        while trash.waiting:
            name = trash.waiting.popleft()
            try:
                if name not in trash.free_s and await self._is_kept(export, trash, name):
                    continue
                whole = await self._try(export, trash, name)
            except ExportError as exc:
                self._refused(export, trash, name, exc)
            else:
                if not whole:
                    trash.waiting.append(name)
                    continue
                self._removed(export, trash, name)
            trash.taken.discard(name)
        trash.workers -= 1
        if not trash.workers and not trash.interrupted:
            trash.look.set()  # for what is left, when to try that again, and what is told of it

    async def _is_kept(self, export: Export, trash: _Trash, name: str) -> bool:
        """Whether an entry stays for now; asked again for each turn of a removal, which may take hours."""
        kept = True
        with self._supervisor.shield("purge", export=export.name, trash=name):
            kept = await self._keeps(export, name)
        if kept:
            trash.kept[name] = self._clock.monotonic() + _EVERY_S
            trash.taken.discard(name)
        else:
            trash.kept.pop(name, None)
        return kept

    async def _try(self, export: Export, trash: _Trash, name: str) -> bool:
        """As _remove(); what nobody expects is an ExportError as well, so that only this directory waits for it."""
        with self._supervisor.shield("purge", (ExportError,), export=export.name, trash=name):
            return await self._remove(export, trash, name)
        raise ExportError(Cause.UNEXPECTED)

    async def _remove(self, export: Export, trash: _Trash, name: str) -> bool:
        """Go on with one removal for a minute, or until another one needs the place; whether it has come to its end."""
        purged = self._metrics.purged.labels(export.name)
        async with self._place():
            await self._guard.require(export)
            began_s = self._clock.monotonic()
            gives_way = False

            def on_progress(removed: int) -> bool:
                nonlocal gives_way
                purged.inc(removed)
                trash.entries[name] = trash.entries.get(name, 0) + removed
                took_s = self._clock.monotonic() - began_s
                is_over = took_s >= (TURN_S if self._in_line > 0 else _EVERY_S)
                gives_way = is_over or not self._guard.allows(export)
                return not gives_way

            await export.trash.purge(name, on_progress=on_progress, taken=self._stays_taken(export, trash, name))
        return not gives_way

    def _stays_taken(self, export: Export, trash: _Trash, name: str) -> bool:
        """Whether a name stays taken once its directory is purged; afterwards what is left of that goes as well."""
        return name not in trash.free_s and export.trash.may_come_late(name)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places, in the order of asking."""
        self._in_line += 1
        try:
            await self._places.acquire()
        finally:
            self._in_line -= 1
        try:
            yield
        finally:
            self._places.release()

    def _removed(self, export: Export, trash: _Trash, name: str) -> None:
        entries = trash.entries.pop(name, 0)
        trash.refused.pop(name, None)
        self._metrics.trash_refused.labels(export.name).set(len(trash.refused))
        if trash.free_s.pop(name, None) is not None:
            return
        if export.trash.may_come_late(name):
            trash.free_s[name] = self._clock.monotonic() + TAKEN_S
        self._metrics.trash_entries.labels(export.name).dec()
        log.info("purged", export=export.name, trash=name, entries=entries)

    def _refused(self, export: Export, trash: _Trash, name: str, exc: ExportError) -> None:
        """Try again later; where all of the export is concerned, with everything."""
        if exc.cause in _OF_THE_EXPORT:
            log.debug("purge_interrupted", export=export.name, error=str(exc))
            trash.interrupted = True
            trash.taken.difference_update(trash.waiting)
            trash.waiting.clear()
            return
        before, why = trash.refused.get(name), str(exc)
        failures = before.failures + 1 if before is not None else 1
        due_s = self._clock.monotonic() + _AGAIN.delay_s(failures, self._clock.random())
        trash.refused[name] = _Refusal(why, failures, due_s)
        self._metrics.trash_refused.labels(export.name).set(len(trash.refused))
        if before is None or before.why != why:
            log.warning("not_purged", export=export.name, trash=name, error=why, hint=exc.advice)
