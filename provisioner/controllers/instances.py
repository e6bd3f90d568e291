"""A guard against two provisioners on one export in the name of one cluster.

Each instance leaves a sign on the export. The sign is read every few seconds, and again right before anything is
destroyed; core.instances judges it. If two instances are at work, nothing is destroyed on that export until an admin
has decided which one stays. The sign itself records this, so a restart of either instance does not end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from provisioner.core import instances, times
from provisioner.core.errors import ProvisionerError
from provisioner.core.instances import LOOK_AGAIN_S, LOOK_EVERY_S, Sign, Standing, Step
from provisioner.ledger.export import Export
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import ClusterError
from provisioner.ports.tree import Cause, ExportError, PathExists, Proof
from provisioner.runtime.leadership import Leadership
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_UNWRITABLE = (Cause.NO_SPACE, Cause.NO_INODES, Cause.QUOTA, Cause.NOT_FOUND)
"""Causes for which a sign cannot be written, and volumes must still be reclaimed.

NOT_FOUND: the ledger of an export that only a volume names is not repaired, so it may lack the directory for signs.
"""
_LEAVING_S = 0.5
"""Time for signing off on all exports together when the daemon stops."""
_HINT = ExportError(Cause.TWICE).advice


class Guard(Protocol):
    """Asked before anything is destroyed on an export."""

    async def require(self, export: Export) -> None:
        """Raise ExportError with Cause.TWICE or Cause.UNSETTLED if nothing may be destroyed now."""
        ...

    def proof(self, export: Export) -> Proof | None:
        """Return what a rename can rely on instead of a call of `require` right before it; None if on nothing."""
        ...

    def allows(self, export: Export) -> bool:
        """Return True if data can be destroyed, by the last look at the sign.

        Long work checks this repeatedly.
        """
        ...


class Unguarded:
    """The guard before there is a leader: it allows everything, and nothing asks it."""

    async def require(self, export: Export) -> None:
        """See `Guard`."""

    def proof(self, export: Export) -> Proof | None:
        """See `Guard`."""
        return None

    def allows(self, export: Export) -> bool:
        """See `Guard`."""
        return True


def is_unsettled(error: ProvisionerError) -> bool:
    """Whether an error only means waiting.

    A former leader did not sign off, and may still be at work.
    """
    return isinstance(error, ExportError) and error.cause is Cause.UNSETTLED


@dataclass(slots=True)
class _State:
    """What is known of one export."""

    standing: Standing = field(default_factory=Standing)
    looks: int = 0
    """The number of looks that have begun."""
    shared: int = 0
    """The number of the last look that succeeded."""
    text: str = ""
    """The text of this instance's sign, if the last look found or wrote it; else empty."""
    held_up: bool = False
    """Whether anything is to be destroyed, and waits."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Instances:
    """The `Guard` of one term of leadership."""

    def __init__(
        self, leadership: Leadership, clock: Clock, metrics: Metrics, *, cluster: str, provisioner: str
    ) -> None:
        self._leadership = leadership
        self._clock = clock
        self._metrics = metrics
        self._cluster = cluster
        self._name = instances.name(cluster, provisioner)
        self._states: dict[Export, _State] = {}
        self.on_resumed: list[Callable[[Export], None]] = []
        """Called when things may be destroyed again on an export where something had to wait."""

    async def keep(self, export: Export) -> None:
        """Look at an export's sign periodically until cancelled."""
        while True:
            pause_s = LOOK_EVERY_S
            try:
                await self._look(export, self._state(export))
            except ExportError as exc:
                log.debug("instance_not_looked_for", export=export.name, error=str(exc))
                pause_s = LOOK_AGAIN_S
            left_s = self._state(export).standing.settled_s - self._clock.monotonic()
            await self._clock.sleep(left_s if 0 < left_s < pause_s else pause_s)

    def forget(self, export: Export) -> None:
        """Stop looking at an export."""
        self._states.pop(export, None)

    async def require(self, export: Export) -> None:
        """See `Guard`."""
        state = self._state(export)
        await self._look(export, state)
        # Ask last: during the wait another replica may have got the lease.
        if self.allows(export):
            return
        state.held_up = True
        raise ExportError(Cause.UNSETTLED if state.standing.stopped is None else Cause.TWICE)

    def proof(self, export: Export) -> Proof | None:
        """See `Guard`.

        A rename that relies on the sign of this instance is as good as a look that finds this sign right before it.
        """
        text = self._state(export).text
        return export.heartbeats.proof(self._name, text) if text and self.allows(export) else None

    def allows(self, export: Export) -> bool:
        """See `Guard`."""
        return self._state(export).standing.is_settled(self._clock.monotonic()) and self._leadership.holds()

    async def leave(self) -> None:
        """Sign off on all exports, best effort, so that the next leader need not wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_S):
                await asyncio.gather(*map(self._leave, list(self._states)))

    async def _leave(self, export: Export) -> None:
        with suppress(ExportError):
            async with self._state(export).lock:
                sign = instances.parse(await export.heartbeats.instance(self._name))
                if self.allows(export) and instances.is_of(sign, self._me()):
                    await export.heartbeats.sign_instance(self._name, str(self._me("left")), over=True)

    # ------------------------------------------------------------------------------------------- looking

    async def _look(self, export: Export, state: _State) -> None:
        """Read the sign, and write this instance's if due.

        Callers that wait share one look. Raises ExportError.
        """
        asked = state.looks
        async with state.lock:
            if state.shared > asked:
                return  # that look began after this call, so its result is fresh enough
            state.looks += 1
            stopped = state.standing.stopped
            try:
                await self._step(export, state)
            except PathExists:
                await self._step(export, state)  # another instance has just written the first sign
            state.shared = state.looks
            self._report(export, state, stopped)

    async def _step(self, export: Export, state: _State) -> None:
        known, me = state.standing, self._me()
        found = await export.heartbeats.instance(self._name)
        sign = instances.parse(found) if found else None
        leads = await self._leads() if instances.is_strange(known, sign, me) else None
        now_s = self._clock.monotonic()
        step = instances.judge(known, sign, me, leads=leads, now_s=now_s)
        if step.write is not None:
            state.text = ""  # nothing relies on a sign before the standing that belongs to it is known
            try:
                await self._write(export, step)
            except ExportError as exc:
                full = exc.cause in _UNWRITABLE
                state.standing = instances.unwritten(known, sign, me, full=full, now_s=now_s)
                if full:
                    return
                raise
        if step.standing.doubted and not known.doubted:
            log.info("foreign_sign", export=export.name, sign=found)
        state.standing = step.standing
        is_mine = instances.is_of(step.write or sign, me)
        state.text = (str(step.write) if step.write is not None else found) if is_mine else ""

    async def _write(self, export: Export, step: Step) -> None:
        if not self._leadership.holds():
            raise ExportError(Cause.UNSETTLED)
        await export.heartbeats.sign_instance(self._name, str(step.write), over=step.over)

    async def _leads(self) -> bool | None:
        try:
            return await self._leadership.confirm()
        except ClusterError as exc:
            log.debug("lease_not_confirmed", error=str(exc))
            return False  # not confirmed until the cluster answers

    def _report(self, export: Export, state: _State, before: Sign | None) -> None:
        stopped = state.standing.stopped
        self._metrics.second_cluster.labels(export.name).set(stopped is not None)
        if stopped is not None and before is None:
            log.error("second_cluster", export=export.name, cluster=self._cluster, sign=str(stopped), hint=_HINT)
        elif stopped is None and before is not None:
            log.info("second_cluster_over", export=export.name, cluster=self._cluster)
        if state.held_up and self.allows(export):
            state.held_up = False
            for resumed in self.on_resumed:
                resumed(export)

    def _state(self, export: Export) -> _State:
        return self._states.setdefault(export, _State())

    def _me(self, state: instances.State = "") -> Sign:
        leadership = self._leadership
        at = times.text(self._clock.now())
        return Sign(at=at, term=leadership.term, instance=leadership.instance, state=state)
