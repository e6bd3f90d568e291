"""The purge: removes the directories in the trash of all exports.

Removals run in parallel, and are limited per export and in total. A removal that has used up its turn gives its slot to
one that waits, so a huge directory tree never holds back the trash of another export.

A crash loses nothing: everything in the trash is still to be removed. If a delayed rename by an earlier leader may
still arrive under the name of a purged directory, a remainder of that directory keeps the name taken for a while.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import dropwhile, islice, takewhile

import structlog

from provisioner.controllers.instances import Guard
from provisioner.core.backoff import Backoff
from provisioner.core.returned import volume_of
from provisioner.ledger.export import Export
from provisioner.ports.aio import map_bounded, wait_for_event
from provisioner.ports.clock import Clock
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

IN_PARALLEL = 16
"""Removals on all exports together; each has up to 32 calls in flight, and they share 8 MiB of buffers."""
PER_EXPORT = 4
TURN_S = 10.0
"""How long a removal keeps its slot while another one waits."""

TAKEN_S = 600.0
"""How long a name stays taken after the purge."""
TAKEN_LIMIT = 5_000
"""Names kept taken per export; beyond this number the oldest are freed earlier."""

_SIDE_BY_SIDE = 32
"""Calls on one export for entries without content. Many that arrive together cost little more than one."""
_EVERY_S = 60.0
_PAUSE_S = 0.25
"""Between two looks at one trash, however fast volumes are deleted."""
_NAMES_PER_PAUSE = 1_000
"""Each look lists all names that are kept taken: with more of them, the looks are rarer."""
_AGAIN = Backoff(first_s=10.0, limit_s=900.0)
"""For entries that cannot be removed: a file that is held open goes soon, an immutable one stays long."""

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
"""Causes that concern the whole export: its health check reports them, and all of its trash waits."""


@dataclass(slots=True)
class _Refusal:
    """An entry in the trash that could not be removed."""

    why: str
    failures: int
    due_s: float


@dataclass(slots=True)
class _Trash:
    """The state of one export's trash; entries are the names of directories in it."""

    look: asyncio.Event = field(default_factory=asyncio.Event)
    former: set[str] | None = None
    """Entries of the first listing that were not looked at: an earlier leader can have removed their directories."""
    waiting: deque[str] = field(default_factory=deque)
    taken: set[str] = field(default_factory=set)
    """Entries that wait for a worker or have one."""
    refused: dict[str, _Refusal] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    """Entries that are kept for a volume, and when to check again whether they must be."""
    entries: dict[str, int] = field(default_factory=dict)
    """The number of files and directories removed so far, of entries that are not removed completely."""
    seen_s: dict[str, float] = field(default_factory=dict)
    """When each entry was first seen."""
    free_s: dict[str, float] = field(default_factory=dict)
    """When each name whose directory was purged becomes free, the oldest first."""
    workers: int = 0
    interrupted: bool = False
    """Whether the whole trash waits for the next regular look, because of an error of the export."""


Keeps = Callable[[Export, str], Awaitable[bool]]
"""Returns True if an entry in an export's trash must stay there."""

Looked = Callable[[Export, list[str]], Awaitable[None]]
"""Called with an export and the names in its trash that are not purged yet. Raises ExportError."""


class Purge:
    """Empties the trash of each export that `keep` runs for."""

    def __init__(self, clock: Clock, metrics: Metrics, keeps: Keeps, guard: Guard, looked: Looked) -> None:
        """Entries for which `keeps` returns True stay; `looked` is called after each look."""
        self._clock = clock
        self._guard = guard
        self._metrics = metrics
        self._keeps = keeps
        self._looked = looked
        self._supervisor = Supervisor(clock, metrics)
        self._trash: dict[Export, _Trash] = {}
        self._slots = asyncio.Semaphore(IN_PARALLEL)
        self._waiting = 0
        """The number of removals that wait for a slot."""

    def look(self, export: Export) -> None:
        """Look at an export's trash now: a directory was moved there, or the export is ready."""
        if export in self._trash:  # else its first look is still to come
            self._trash[export].look.set()

    def freed(self, volume_name: str) -> None:
        """Look again at entries that were kept for a volume: it is gone."""
        for trash in self._trash.values():
            kept = [name for name in trash.kept if name.startswith(volume_name) and volume_of(name) == volume_name]
            for name in kept:
                del trash.kept[name]
                trash.look.set()

    def is_busy(self, export: Export) -> bool:
        """Whether anything in an export's trash is being removed, or is about to be."""
        return export in self._trash and bool(self._trash[export].taken)

    async def keep(self, export: Export) -> None:
        """Empty an export's trash until cancelled."""
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
                under_way = frozenset(trash.taken)  # some of it may be removed during the listing
                try:
                    entries = await export.trash.entries()
                    due = self._take(export, trash, entries.keys(), under_way)
                    trash.waiting.extend(await self._without_content(export, trash, due, entries))
                    await self._looked(export, sorted(entries.keys() - trash.free_s.keys()))
                except ExportError as exc:
                    log.debug("trash_not_seen", export=export.name, error=str(exc))
                while trash.workers < min(PER_EXPORT, len(trash.taken)):
                    trash.workers += 1
                    group.create_task(self._work(export, trash))
                await self._clock.sleep(_PAUSE_S * (1 + len(trash.free_s) / _NAMES_PER_PAUSE))
                await wait_for_event(trash.look, timeout_s=self._rest_s(trash))

    def _take(self, export: Export, trash: _Trash, there: Set[str], under_way: Set[str]) -> list[str]:
        """Take the entries of a listing that are due, which are all except those that must still wait."""
        now_s, taken = self._clock.monotonic(), []
        if trash.former is None:
            trash.former = set(there)
        # Forget what is known of entries that are gone.
        for known in (trash.refused, trash.kept):
            for gone in known.keys() - there:
                del known[gone]
        for gone in trash.entries.keys() - there - trash.taken:
            del trash.entries[gone]
        for gone in trash.free_s.keys() - there - trash.taken:
            del trash.free_s[gone]
        # Free the oldest names beyond the limit.
        for name in list(trash.free_s)[: max(0, len(trash.free_s) - TAKEN_LIMIT)]:
            trash.free_s[name] = now_s
        # An entry is due once neither an error, nor its volume, nor a taken name makes it wait. Most of a long listing
        # are taken names.
        free = set(takewhile(lambda name: trash.free_s[name] <= now_s, trash.free_s))
        for name in sorted(there - trash.taken - under_way - (trash.free_s.keys() - free)):
            refusal = trash.refused.get(name)
            if max(refusal.due_s if refusal is not None else now_s, trash.kept.get(name, now_s)) <= now_s:
                trash.taken.add(name)
                taken.append(name)
        self._measure(export, trash, there - trash.free_s.keys())
        return taken

    def _measure(self, export: Export, trash: _Trash, names: Set[str]) -> None:
        now_s = self._clock.monotonic()
        trash.seen_s = {name: trash.seen_s.get(name, now_s) for name in names}
        self._metrics.trash_entries.labels(export.name).set(len(names))
        self._metrics.trash_oldest_s.labels(export.name).set(now_s - min(trash.seen_s.values(), default=now_s))
        self._metrics.trash_refused.labels(export.name).set(len(trash.refused))

    def _rest_s(self, trash: _Trash) -> float:
        """Seconds until the next look, unless something happens before."""
        now_s = self._clock.monotonic()
        taken_s = dropwhile(lambda free_s: free_s <= now_s, trash.free_s.values())
        refused_s = (refusal.due_s for refusal in trash.refused.values())
        dues_s = (now_s + _EVERY_S, *islice(taken_s, 1), *refused_s, *trash.kept.values())
        return min(due_s for due_s in dues_s if due_s > now_s) - now_s

    # ------------------------------------------------------------------------------------------- removing

    async def _without_content(
        self, export: Export, trash: _Trash, names: Sequence[str], begun: Mapping[str, bool]
    ) -> list[str]:
        """Finish the entries of which at most their name is left, side by side, and return all others.

        That are all empty volumes of a server that does not verify, and the names that are to be free.
        """

        async def is_finished(name: str) -> bool:
            finished = False
            with self._supervisor.shield("purge", export=export.name, trash=name), suppress(ExportError):
                finished = await self._is_finished(export, trash, name)
            return finished

        candidates = [name for name in names if not begun[name] and export.trash.may_come_late(name)]
        results = await map_bounded(is_finished, candidates, limit=min(_SIDE_BY_SIDE, len(candidates)))
        finished = {name for name, result in zip(candidates, results, strict=True) if result}
        trash.taken -= finished
        if finished:
            trash.look.set()  # to update the metrics
        return [name for name in names if name not in finished]

    async def _is_finished(self, export: Export, trash: _Trash, name: str) -> bool:
        """Whether nothing is to be removed but perhaps the name; it is removed if it is to be free.

        Where an earlier leader can have removed the directory, the volume need not be read: nothing is destroyed, and a
        restart finds thousands of such names.
        """
        former = trash.former is not None and name in trash.former
        if trash.former is not None:
            trash.former.discard(name)
        if name in trash.free_s:
            await self._guard.require(export)
            if not await export.trash.release(name):
                return False
            del trash.free_s[name]
        elif not former and await self._is_kept(export, trash, name):
            pass  # asked first, because the answer is in memory while the volume is being reclaimed
        elif not await export.trash.is_over(name):
            return False
        elif former:
            trash.free_s[name] = self._clock.monotonic() + TAKEN_S
        else:
            trash.entries[name] = 1
            self._metrics.purged.labels(export.name).inc()
            self._removed(export, trash, name)
        return True

    async def _work(self, export: Export, trash: _Trash) -> None:
        """Remove waiting entries, one after the other, until none waits."""
        while trash.waiting:
            name = trash.waiting.popleft()
            try:
                if name not in trash.free_s and await self._is_kept(export, trash, name):
                    continue
                complete = await self._try(export, trash, name)
            except ExportError as exc:
                self._refused(export, trash, name, exc)
            else:
                if not complete:  # its turn is over: others first
                    trash.waiting.append(name)
                    continue
                self._removed(export, trash, name)
            trash.taken.discard(name)
        trash.workers -= 1
        if not trash.workers and not trash.interrupted:
            trash.look.set()  # to update the metrics, and plan the next try of what is left

    async def _is_kept(self, export: Export, trash: _Trash, name: str) -> bool:
        """Whether an entry stays for now.

        Checked for each turn of a removal, which may take hours in all.
        """
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
        """Like _remove(), but turn an unexpected error into ExportError, so that only this entry is retried."""
        with self._supervisor.shield("purge", (ExportError,), export=export.name, trash=name):
            return await self._remove(export, trash, name)
        raise ExportError(Cause.UNEXPECTED)

    async def _remove(self, export: Export, trash: _Trash, name: str) -> bool:
        """Continue one removal for a minute, or until another one needs the slot.

        Returns whether it is complete.
        """
        purged = self._metrics.purged.labels(export.name)
        async with self._slot():
            await self._guard.require(export)
            began_s = self._clock.monotonic()
            gives_way = False

            def on_progress(removed: int) -> bool:
                nonlocal gives_way
                purged.inc(removed)
                trash.entries[name] = trash.entries.get(name, 0) + removed
                took_s = self._clock.monotonic() - began_s
                is_over = took_s >= (TURN_S if self._waiting > 0 else _EVERY_S)
                gives_way = is_over or not self._guard.allows(export)
                return not gives_way

            await export.trash.purge(name, on_progress=on_progress, taken=self._stays_taken(export, trash, name))
        return not gives_way

    def _stays_taken(self, export: Export, trash: _Trash, name: str) -> bool:
        """Whether a name stays taken after the purge of its directory.

        The remainder is removed after that time.
        """
        return name not in trash.free_s and export.trash.may_come_late(name)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Hold one of the slots, which are given in the order of asking."""
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    def _removed(self, export: Export, trash: _Trash, name: str) -> None:
        entries = trash.entries.pop(name, 0)
        trash.refused.pop(name, None)
        self._metrics.trash_refused.labels(export.name).set(len(trash.refused))
        if trash.free_s.pop(name, None) is not None:
            return
        if export.trash.may_come_late(name):
            trash.free_s[name] = self._clock.monotonic() + TAKEN_S
        self._metrics.trash_entries.labels(export.name).dec()
        log.info("purged", export=export.name, volume=volume_of(name), trash=name, entries=entries)

    def _refused(self, export: Export, trash: _Trash, name: str, exc: ExportError) -> None:
        """Plan the next try: of one entry, or of the whole trash if the error concerns the export."""
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
