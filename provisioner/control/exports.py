"""Watches over the exports: opens each, asks each in turn whether it answers, and tells when one is back.

A claim never has to wait to learn that its export hangs: it is told what the last probe found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from provisioner.core.locations import Location
from provisioner.ports import Cause, Clock, Export, ExportError, Exports, Space
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_PROBE_EVERY_S = 3.0
_PROBE_LIMIT_S = 4.0
"""Below the time limit of a call: a hung export is known before the first claim that met it times out."""


@dataclass(slots=True)
class _State:
    """What we know of one export."""

    error: ExportError | None = None
    opened: bool = False
    space: Space | None = None
    due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have it looked at now."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a leader has opened it, or has met an error."""


class ExportWatch:
    """Probes every export for as long as it runs; a leader also opens them, and asks before it uses one."""

    def __init__(self, exports: Exports, clock: Clock, metrics: Metrics) -> None:
        self._exports = exports
        self._clock = clock
        self._metrics = metrics
        self._states = {export.location: _State() for export in exports}
        self._leading = False
        self._on_ready: list[Callable[[Export], None]] = []

    @contextmanager
    def listening(self, listener: Callable[[Export], None]) -> Iterator[None]:
        """Call the listener for each export that is usable, and each time that one becomes so, while this is open."""
        for export in self._exports:
            if self._usable(export):
                listener(export)
        self._on_ready.append(listener)
        try:
            yield
        finally:
            self._on_ready.remove(listener)

    def _usable(self, export: Export) -> bool:
        state = self._states[export.location]
        return state.opened and state.error is None

    async def lead(self) -> None:
        """We lead: read every ledger anew, for another replica has written them. Returns when each export is usable or

        known not to be, and after a few seconds in any case.
        """
        self._leading = True
        for state in self._states.values():
            state.opened = False
            state.known.clear()
            state.due.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_LIMIT_S):
                for state in self._states.values():
                    await state.known.wait()

    def follow(self) -> None:
        """We lead no longer."""
        self._leading = False

    def check(self, export: Export) -> None:
        """Raise the ExportError that the last look at an export met, or nothing when it may be used."""
        state = self._states[export.location]
        if state.error is not None:
            raise state.error
        if not state.opened:
            raise ExportError(Cause.UNREACHABLE, "it has not answered yet")

    def space(self, export: Export) -> Space | None:
        """What the last probe found, at most a few seconds old."""
        return self._states[export.location].space

    def failing(self) -> dict[Location, ExportError]:
        """The exports that do not answer as they should, and why."""
        return {where: state.error for where, state in self._states.items() if state.error is not None}

    async def run(self) -> None:
        """Probe all exports side by side, for ever."""
        async with asyncio.TaskGroup() as group:
            for export in self._exports:
                group.create_task(self._keep(export))

    async def _keep(self, export: Export) -> None:
        state = self._states[export.location]
        while True:
            state.due.clear()
            usable = self._usable(export)
            try:
                await self._look(export, state)
            except ExportError as exc:
                self._failed(export, state, exc)
            else:
                state.error = None
                if state.opened and not usable:
                    log.info("export_ready", export=str(export.location), records=len(export.records))
                    for listener in self._on_ready:
                        listener(export)
            size, free = (state.space.size_bytes, state.space.free_bytes) if state.space else (None, None)
            self._metrics.export_state(str(export.location), state.error is None, size, free)
            if state.opened or state.error is not None:
                state.known.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_EVERY_S):
                    await state.due.wait()

    async def _look(self, export: Export, state: _State) -> None:
        if self._leading and not state.opened:
            await export.open()
            state.opened = True
        try:
            async with asyncio.timeout(_PROBE_LIMIT_S):
                state.space = await export.probe()
        except TimeoutError as exc:
            raise ExportError(Cause.UNREACHABLE, f"no answer within {_PROBE_LIMIT_S:g} s") from exc

    def _failed(self, export: Export, state: _State, error: ExportError) -> None:
        if state.error is None or state.error.cause is not error.cause:
            log.warning("export_failing", export=str(export.location), error=str(error), hint=error.hint or None)
        state.error = error
        if error.cause is Cause.CHANGED:
            state.opened = False  # the root is another one: only opening tells whether it is the same export
