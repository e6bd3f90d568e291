"""Health checks for exports.

Each export is opened and probed periodically. Claims and volumes read the cached result instead of blocking on a server
that hangs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Set
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from provisioner.core import names
from provisioner.core.locations import Location
from provisioner.core.objects import Volume
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.aio import wait_for_event
from provisioner.ports.clock import Clock
from provisioner.ports.tree import Cause, ExportError, FilesystemStats
from provisioner.runtime.supervision import AGAIN, Supervisor
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_PROBE_EVERY_S = 3.0
"""Between two probes of an export that is in use, or fails."""
_IDLE_PROBE_EVERY_S = 15.0
_IDLE_AFTER_S = 60.0
_FRESH_S = 10.0
"""An older probe does not count when the export is to be used: it is probed again first."""
_PROBE_LIMIT_S = 4.0
"""Below the time limit of a call, so that a hung export is known before the first claim on it times out."""

_EXPOSED = (
    "the server did not set mode 0700 on .provisioner: make sure on the server that pods can neither read nor write it"
)

Listener = Callable[[Export], None]


@dataclass(slots=True)
class _State:
    """What is known of one export."""

    configured: bool = False
    """Whether it is an export of the settings, without which this replica is not ready."""
    named: bool = False
    """Whether a setting or a class names it. A volume alone may be forged, and must not cause a write anywhere."""
    error: ExportError | None = None
    exposed: bool = False
    """Whether the log already says that its ledger may be open to others."""
    opened: bool = False
    united: bool = False
    """Whether it turned out to be a second name of another export."""
    space: FilesystemStats | None = None
    checked_s: float = -math.inf
    added_s: float = -math.inf
    used_s: float = -math.inf
    crashes: int = 0
    """How many checks in a row met an unexpected error."""
    limits: set[asyncio.Timeout] = field(default_factory=set)
    """Time limits of callers that wait for calls on the export: ended early when a probe fails."""
    due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to check the export now."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the export has been checked since the last demand."""
    task: asyncio.Task[None] | None = None
    """The task that checks the export periodically."""


class ExportHealth:
    """Probes every export while it runs.

    On the leader it also opens them, and gates their use.
    """

    def __init__(
        self,
        exports: ExportRegistry,
        clock: Clock,
        metrics: Metrics,
        *,
        marked: Callable[[Location], Iterable[Volume]] = lambda export: (),
    ) -> None:
        """`marked` returns the volumes on an export that carry an export id.

        The ledger must have one of these ids.
        """
        self._marked = marked
        self._exports = exports
        self._clock = clock
        self._metrics = metrics
        self._supervisor = Supervisor(clock, metrics)
        self._states: dict[Export, _State] = {export: _State(configured=True, named=True) for export in exports}
        for export in self._states:
            metrics.admit_export(export.name)
        self._leading = False
        self._on_ready: list[Listener] = []
        self._on_forgotten: list[Listener] = []
        self._group: asyncio.TaskGroup | None = None

    @contextmanager
    def listening(self, ready: Listener, *, forgotten: Listener | None = None) -> Iterator[None]:
        """While the context is open, call `ready` for each export that is or becomes ready.

        `forgotten` is called right before an export is forgotten.
        """
        for export, state in list(self._states.items()):
            if state.opened and state.error is None:
                self._notify(ready, export)
        with ExitStack() as stack:
            for listeners, listener in ((self._on_ready, ready), (self._on_forgotten, forgotten)):
                if listener is not None:
                    listeners.append(listener)
                    stack.callback(listeners.remove, listener)
            yield

    def _notify(self, listener: Listener, export: Export) -> None:
        with self._supervisor.shield("listener", export=export.name):
            listener(export)

    def add(self, export: Export, *, named: bool) -> None:
        """Check an export from now on.

        A ledger may be created on it only if a setting or a class names it.
        """
        export = self._exports.primary(export)
        state = self._states.get(export)
        if named:
            self._metrics.admit_export(export.name)
        if state is None:
            state = self._states[export] = _State(named=named, added_s=self._clock.monotonic())
            if self._group is not None:
                self._start(self._group, export, state)
        elif named and not state.named:
            state.named = True
            state.due.set()

    def keep_named(self, named: Container[Location]) -> None:
        """Set the locations that classes name now.

        On other exports no ledger may be created any more.
        """
        for export, state in self._states.items():
            by_class = any(location in named for location in self._exports.places.same(export.location))
            state.named = state.configured or (state.named and by_class)

    def touch(self, export: Export) -> None:
        """Note that an export is in use."""
        if export in self._states:
            self._states[export].used_s = self._clock.monotonic()

    def is_needed(self, export: Export, *, idle_s: float) -> bool:
        """Whether a setting or a class names the export, or it was in use recently.

        Recently means: added or used within the last `idle_s` seconds, or there are calls on it now.
        """
        state = self._states.get(export)
        if state is None:
            return False
        idle_since_s = max(state.added_s, state.used_s)
        return state.named or bool(state.limits) or self._clock.monotonic() - idle_since_s < idle_s

    async def forget(self, export: Export) -> None:
        """Stop checking an export: no probe, no series, no connection."""
        for listener in list(self._on_forgotten):
            self._notify(listener, export)
        state = self._states.pop(export, None)
        if state is not None:
            state.opened = False
            state.known.set()  # a caller that waits for it learns now that it is not usable
            if state.task is not None:
                state.task.cancel()
                await asyncio.wait({state.task})
        self._metrics.forget_export(export.name)
        await export.close()

    def is_named(self, export: Export) -> bool:
        """Whether a setting or a class names an export.

        Returns False for one that was never added, or was forgotten.
        """
        state = self._states.get(self._exports.primary(export))
        return state is not None and state.named

    def is_read(self, export: Export) -> bool:
        """Whether the ledger of an export has been read, by a leader since it leads."""
        state = self._states.get(export)
        return state is not None and state.opened

    def is_known(self, export: Export) -> bool:
        """Whether a setting or a class names the export, or its id is known.

        The id is known once the export has been opened.
        """
        state = self._states.get(self._exports.primary(export))
        return state is not None and (state.named or state.opened)

    async def lead(self) -> None:
        """Begin to lead: read every ledger again, because another replica has written them.

        Returns when each export is ready or known to fail, and after a few seconds in any case.
        """
        self._leading = True
        states = list(self._states.values())
        for state in states:
            state.opened = False
            self._demand(state)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_LIMIT_S):
                for state in states:
                    await state.known.wait()

    def follow(self) -> None:
        """Stop leading."""
        self._leading = False

    async def require_ready(self, export: Export) -> Export:
        """Return the primary object of an export that was added, if the export may be used.

        Raises the ExportError of the last check. If that is too old, the export is checked first, so that no call runs
        into a server that died a while ago.
        """
        state = self._state(export)
        if not self._in_use(state):
            state.due.set()  # the pause of an idle export is too long for one in use
        state.used_s = self._clock.monotonic()
        stale = state.used_s - state.checked_s > _FRESH_S
        if stale or not (state.opened or state.error is not None):
            self._demand(state)
            await wait_for_event(state.known, timeout_s=_PROBE_LIMIT_S + 1.0)
        if state.united:
            return await self.require_ready(export)
        if state.error is not None:
            raise state.error
        if not state.opened:
            raise ExportError(Cause.UNREACHABLE, "it has not answered yet", hint=export.unreachable_hint)
        return self._exports.primary(export)

    @asynccontextmanager
    async def fail_fast(self, export: Export) -> AsyncIterator[None]:
        """Abort calls on an export as soon as a probe of it fails, and raise the error of the probe.

        The outcome of the call is unknown then, as after its own time limit, which may be much longer.
        """
        state = self._state(export)
        try:
            async with asyncio.timeout(None) as limit:
                state.limits.add(limit)
                try:
                    yield
                finally:
                    state.limits.discard(limit)
        except TimeoutError:
            if not limit.expired() or state.error is None:
                raise
            raise state.error from None

    def _state(self, export: Export) -> _State:
        """What is known of an export, by any of its names.

        Raises ExportError for one that was forgotten.
        """
        try:
            return self._states[self._exports.primary(export)]
        except KeyError as exc:
            raise ExportError(Cause.MISSING, "no setting, class or volume names it") from exc

    def _demand(self, state: _State) -> None:
        """Check an export now; `known` is set after that."""
        state.known.clear()
        state.due.set()

    def space(self, export: Export) -> FilesystemStats | None:
        """The free space by the last probe, which is at most a few seconds old."""
        return self._state(export).space

    def failing(self) -> dict[str, ExportError]:
        """The exports of the settings that cannot be used, by name, and why.

        One not checked yet counts as well. Exports that only a class or a volume names do not count: one team's dead
        server must not make the replica unready for all.
        """
        early = ExportError(Cause.UNREACHABLE, "it has not answered yet")
        return {
            export.name: state.error or early
            for export, state in self._states.items()
            if state.configured
            and (state.error or state.checked_s == -math.inf or (self._leading and not state.opened))
        }

    async def run(self) -> None:
        """Check all exports in parallel until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for export, state in self._states.items():
                    self._start(self._group, export, state)
                await asyncio.Event().wait()
        finally:
            self._group = None

    def _start(self, group: asyncio.TaskGroup, export: Export, state: _State) -> None:
        kept = self._supervisor.keep("exports", partial(self._keep, export, state), export=export.name)
        state.task = group.create_task(kept)

    async def _keep(self, export: Export, state: _State) -> None:
        """Check an export periodically, and when demanded, until cancelled or united with another one."""
        while True:
            state.due.clear()
            was_usable, leading = state.opened and state.error is None, self._leading
            error = await self._check(export, state)
            unexpected = error is not None and error.cause is Cause.UNEXPECTED
            state.crashes = state.crashes + 1 if unexpected else 0
            if error is not None:
                self._failed(export, state, error)
            else:
                state.error = None
                if state.opened and not was_usable:
                    self._ready(export, state)
            state.checked_s = self._clock.monotonic()
            if leading == self._leading:  # else this check began before leading, and did not open the export
                state.known.set()
            if state.united:
                await export.close()
                return
            self._measure(export, state)
            await wait_for_event(state.due, timeout_s=self._pause_s(state))

    def _ready(self, export: Export, state: _State) -> None:
        log.info("export_ready", export=export.name, records=len(export.records))
        if export.exposed and not state.exposed:
            state.exposed = True
            log.warning("ledger_not_private", export=export.name, error=export.exposed, hint=_EXPOSED)
        for listener in list(self._on_ready):
            self._notify(listener, export)

    def _measure(self, export: Export, state: _State) -> None:
        if state.named or state.opened:
            self._metrics.admit_export(export.name)
        self._metrics.export_state(export.name, up=state.error is None)
        if (space := state.space) is not None:
            self._metrics.export_space(
                export.name,
                size_bytes=space.size_bytes,
                free_bytes=space.free_bytes,
                files=space.inodes,
                files_free=space.free_inodes,
            )

    def _pause_s(self, state: _State) -> float:
        if state.crashes:
            return AGAIN.delay_s(state.crashes, self._clock.random())
        return _PROBE_EVERY_S if self._in_use(state) or state.error is not None else _IDLE_PROBE_EVERY_S

    def _in_use(self, state: _State) -> bool:
        return self._clock.monotonic() - state.used_s < _IDLE_AFTER_S

    async def _check(self, export: Export, state: _State) -> ExportError | None:
        """Open the export if that is still to be done, and probe it; return the error, or None."""
        with self._supervisor.shield("exports", export=export.name):
            try:
                if self._leading and not state.opened:
                    # This may take long on a large ledger; each of its calls has a time limit.
                    primary = await export.open(create=state.named, others=self._exports, carried=self._carried(export))
                    if primary is not export:
                        return self._unite(export, state, primary)
                    self._exports.places.note(export.location, folds=export.folds)
                    state.opened = True
                async with asyncio.timeout(_PROBE_LIMIT_S):
                    state.space = await export.probe()
            except TimeoutError:
                detail = f"no answer within {_PROBE_LIMIT_S:g} s"
                return ExportError(Cause.UNREACHABLE, detail, hint=export.unreachable_hint)
            except ExportError as exc:
                return exc
            return None
        return ExportError(Cause.UNEXPECTED)

    def _carried(self, export: Export) -> Set[str]:
        """The export ids that the volumes on an export carry.

        Another port of the server may be another export.
        """
        located = ((volume, self._exports.locate(volume)) for volume in self._marked(export.location))
        return {
            volume.metadata.annotations[names.EXPORT_ID]
            for volume, found in located
            if found is not None and self._exports.primary(found[0]) is self._exports.primary(export)
        }

    def _unite(self, export: Export, state: _State, primary: Export) -> ExportError | None:
        """Replace an export that turned out to be a second name of `primary`.

        From now on `primary` is checked instead.
        """
        log.info("export_known", export=export.name, same_as=primary.name)
        self._exports.unite(export, primary)
        del self._states[export]
        state.united = True
        self.add(primary, named=state.named)
        self._states[primary].configured |= state.configured
        self._metrics.forget_export(export.name)
        return None

    def _failed(self, export: Export, state: _State, error: ExportError) -> None:
        if state.error is None or state.error.cause is not error.cause:
            log.warning("export_failing", export=export.name, error=str(error), hint=error.advice)
        state.error = error
        for limit in state.limits:
            limit.reschedule(asyncio.get_running_loop().time())
        state.limits.clear()
        if error.cause is Cause.CHANGED:
            state.opened = False  # its root changed: only opening it again shows whether it is the same export
