"""One term of leadership: from the lease until it is lost or we are told to stop, everything that acts runs in here."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import structlog

from provisioner.control.claims import ClaimController
from provisioner.control.lanes import Lanes
from provisioner.control.queue import WorkQueue
from provisioner.control.surroundings import Surroundings
from provisioner.control.sweep import Sweep
from provisioner.control.volumes import VolumeController
from provisioner.control.workers import work
from provisioner.telemetry.metrics import Sample

log = structlog.get_logger(__name__)

_FINISH_S = 6.5
"""What is in flight when we are told to stop may take this long; the process has 10 s in all, for the lease too."""


class Term:
    """The leader's work, made anew for each term: nothing of an older one, no key and no count, is carried over."""

    def __init__(self, around: Surroundings, *, workers: int) -> None:
        self._around = around
        self._workers = workers
        self._queues: dict[str, WorkQueue] = {}

    def queue_depths(self) -> Sample:
        """The keys that wait, by queue; nothing while another replica leads."""
        return {(name,): float(len(queue)) for name, queue in self._queues.items()}

    async def lead(self, stopping: asyncio.Event) -> None:
        """Work until told to stop, then finish what is in flight; cancelled at once when the lease is lost."""
        around = self._around
        await self._wait_synced(stopping)
        if stopping.is_set():
            return
        await around.watch.lead()
        around.metrics.leader.set(1)
        try:
            await self._work(stopping)
        finally:
            around.metrics.leader.set(0)
            around.watch.follow()
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()

    async def _wait_synced(self, stopping: asyncio.Event) -> None:
        """Nothing may be decided before the caches are whole; a stop need not wait for that."""
        waits = [asyncio.create_task(what) for what in (self._around.store.wait_synced(), stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _work(self, stopping: asyncio.Event) -> None:
        around = self._around
        claim_queue, volume_queue = self._queue("claims"), self._queue("volumes")
        claim_lanes, volume_lanes = (Lanes(self._workers, queue.add) for queue in (claim_queue, volume_queue))
        claims = ClaimController(around, claim_queue, claim_lanes)
        sweep = Sweep(around, revisit=claim_queue.add, freed=claims.path_freed)
        volumes = VolumeController(
            around, volume_queue, volume_lanes, freed=claims.path_freed, discarded=sweep.discarded
        )
        with ExitStack() as stack:
            for ready in (sweep.export_ready, claims.export_ready, volumes.export_ready):
                stack.enter_context(around.watch.listening(ready))
            for changed in (claims.changed, volumes.changed):
                stack.enter_context(around.store.listening(changed))
            async with asyncio.TaskGroup() as group:
                background = group.create_task(sweep.run())
                workers = [
                    group.create_task(work(claim_queue, claim_lanes, claims.reconcile, workers=self._workers)),
                    group.create_task(work(volume_queue, volume_lanes, volumes.reconcile, workers=self._workers)),
                ]
                await stopping.wait()
                for queue in (claim_queue, volume_queue):
                    queue.shut_down()
                _, unfinished = await asyncio.wait(workers, timeout=_FINISH_S)
                for task in (background, *unfinished):
                    task.cancel()
        log.info("work_ended", given_up=len(unfinished))

    def _queue(self, name: str) -> WorkQueue:
        waited = self._around.metrics.queue_wait_s.labels(name).observe
        queue = self._queues[name] = WorkQueue(self._around.clock, waited=waited)
        return queue
