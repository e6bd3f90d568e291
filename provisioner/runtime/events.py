"""Kubernetes events: recorded without waiting, and written in the background.

No event is written more often than core.events allows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import structlog

from provisioner.core.events import Occurrence, clip, occurred
from provisioner.core.objects import Claim, Snapshot, Volume
from provisioner.core.texts import encodable
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import Cluster, ClusterError, Event, EventType, ObjectRef
from provisioner.runtime.supervision import Count, Shield

log = structlog.get_logger(__name__)

_BACKLOG = 20_000
"""Events waiting to be written; beyond this number the oldest are dropped, as client-go does."""
_REMEMBERED = 10_000
_SENDERS = 4
_GIVE_WAY_S = 10.0
_GIVE_WAY = _BACKLOG // 2


class EventRecorder:
    """Records events without waiting, and writes them in turn."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        count: Count = lambda loop: None,
    ) -> None:
        """`count` is called for unexpected errors."""
        self._cluster = cluster
        self._clock = clock
        self._busy: Callable[[], bool] = lambda: False
        self._count = count
        self._seen: OrderedDict[str, tuple[Occurrence, datetime]] = OrderedDict()
        self._backlog: OrderedDict[str, tuple[Event, float]] = OrderedDict()
        """Events to write, by name, and when each was recorded; the next one first."""
        self._passing: dict[str, str] = {}
        """The passing event in the backlog, by the uid of its object."""
        self._recorded = asyncio.Semaphore(0)
        """Released for each event, so that each wakes one sender."""

    def give_way_while(self, busy: Callable[[], bool]) -> None:
        """Let Normal events wait while `busy()` returns True.

        The API server then serves work that matters more. An event waits for at most ten seconds, and none waits once
        so many do that some might be dropped.
        """
        self._busy = busy

    def claim(self, claim: Claim, type: EventType, reason: str, message: str, *, passing: bool = False) -> None:
        """Record an event on a claim, unless the same one was recorded a short while ago.

        A `passing` event is dropped if the next event on the claim is recorded before it is written.
        """
        meta = claim.metadata
        about = ObjectRef("PersistentVolumeClaim", meta.namespace, meta.name, meta.uid, meta.resource_version)
        self._record(Event(about, type, reason, clip(message)), passing=passing)

    def volume(self, volume: Volume, type: EventType, reason: str, message: str) -> None:
        """Record an event on a volume, unless the same one was recorded a short while ago."""
        meta = volume.metadata
        about = ObjectRef("PersistentVolume", "", meta.name, meta.uid, meta.resource_version)
        self._record(Event(about, type, reason, clip(message)))

    def snapshot(self, snapshot: Snapshot, type: EventType, reason: str, message: str) -> None:
        """Record an event on a VolumeSnapshot, unless the same one was recorded a short while ago."""
        meta = snapshot.metadata
        about = ObjectRef("VolumeSnapshot", meta.namespace, meta.name, meta.uid, meta.resource_version)
        self._record(Event(about, type, reason, clip(message)))

    def _record(self, event: Event, *, passing: bool = False) -> None:
        name = _name(event)
        previous, first_seen = self._seen.get(name, (None, self._clock.now()))
        occurrence = occurred(previous, self._clock.monotonic())
        if occurrence is None:
            return
        self._drop_passing(event.about.uid)
        self._seen[name] = occurrence, first_seen
        self._seen.move_to_end(name)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        normal = event.type == "Normal"
        self._backlog[name] = event, self._clock.monotonic()
        self._backlog.move_to_end(name, last=normal)
        if len(self._backlog) > _BACKLOG:
            self._backlog.popitem(last=not normal)
        if passing:
            self._passing[event.about.uid] = name
        self._recorded.release()

    def _drop_passing(self, uid: str) -> None:
        """Forget the passing event of an object that is still to be written."""
        name = self._passing.pop(uid, None)
        if name is not None and self._backlog.pop(name, None) is not None:
            self._seen.pop(name, None)

    async def run(self) -> None:
        """Write recorded events until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(self._send())

    async def drain(self) -> None:
        """Wait until no event is waiting any more; the caller sets the time limit."""
        while self._backlog:
            await self._clock.sleep(0.05)

    async def _send(self) -> None:
        while True:
            await self._recorded.acquire()
            while self._gives_way():
                await self._clock.sleep(0.1)
            if not self._backlog:
                continue  # the oldest events were dropped
            name, (event, _) = self._backlog.popitem(last=False)
            if self._passing.get(event.about.uid) == name:
                del self._passing[event.about.uid]
            # An event is news, not state: a retry is not worth the delay of the next event.
            with Shield("events", self._count, about=event.about.name):
                await self._write(event, name)

    def _gives_way(self) -> bool:
        """Whether the next event is a Normal one, and leaves the API server to a burst of work for now."""
        if not 0 < len(self._backlog) <= _GIVE_WAY or not self._busy():
            return False
        event, recorded_s = next(iter(self._backlog.values()))
        return event.type == "Normal" and self._clock.monotonic() < recorded_s + _GIVE_WAY_S

    async def _write(self, event: Event, name: str) -> None:
        occurrence, first_seen = self._seen.get(name, (Occurrence(1, 0.0), self._clock.now()))
        try:
            await self._cluster.record_event(
                event, count=occurrence.count, name=name, first_seen=first_seen, seen=self._clock.now()
            )
        except ClusterError as exc:
            log.info("event_not_written", reason=event.reason, about=event.about.name, error=str(exc))


def _name(event: Event) -> str:
    """The name of the Event object: the same for the same message on the same object.

    So a repetition increases the count of one Event, even after a restart.
    """
    content = "\0".join((event.about.uid, event.type, event.reason, event.message))
    digest = hashlib.sha256(encodable(content).encode()).hexdigest()[:16]
    return f"{event.about.name[:200].rstrip('-.')}.{digest}"
