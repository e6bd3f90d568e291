"""One term of leadership: from the lease until it is lost or we are told to stop, everything that acts runs in here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace

import structlog

from provisioner.controllers.claims import ClaimController
from provisioner.controllers.context import Surroundings
from provisioner.controllers.instances import Instances
from provisioner.controllers.sweep import Sweep
from provisioner.controllers.takeover import Takeover
from provisioner.controllers.unlocated_volumes import Homeless
from provisioner.controllers.volumes import VolumeController
from provisioner.core.backoff import is_logged
from provisioner.ports.cluster import ClusterError
from provisioner.runtime.fair_share import Lanes
from provisioner.runtime.leadership import Leadership
from provisioner.runtime.locks import Turns
from provisioner.runtime.workers import Reconcile, work
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Loop, Sample

log = structlog.get_logger(__name__)

_FINISH_S = 6.5
"""What is in flight when we are told to stop may take this long; the process has 10 s in all, for the lease too."""


class Term:
    """The leader's work, made anew for each term: nothing of an older one, no key and no count, is carried over."""

    def __init__(
        self,
        around: Surroundings,
        leadership: Leadership,
        *,
        workers: int,
        relist: Callable[[], Awaitable[None]],
    ) -> None:
        """`relist` lists all kinds again: the cache of a standby replica may be out of date after a restore of etcd."""
        self._around = around
        self._leadership = leadership
        around.store.places = around.exports.places
        self._workers = workers
        self._relist = relist
        self._trouble = ""
        self._queues: dict[str, WorkQueue] = {}

    @property
    def trouble(self) -> str:
        """Why a term cannot begin although we lead; empty where it can, and while another replica leads."""
        return self._trouble

    def busy(self) -> bool:
        """Whether more keys wait than there are workers."""
        return sum(len(queue) for queue in self._queues.values()) > self._workers

    def queue_depths(self) -> Sample:
        """The keys that wait, by queue; nothing while another replica leads."""
        return {(name,): float(len(queue)) for name, queue in self._queues.items()}

    async def lead(self, stopping: asyncio.Event) -> None:
        """Work until told to stop, then finish what is in flight; cancelled at once when the lease is lost."""
        around = await self._prepare(stopping)
        if around is None:
            return
        await around.watch.lead()
        around.metrics.leader.set(1)
        try:
            await self._work(around, stopping)
        finally:
            around.metrics.leader.set(0)
            around.watch.follow()
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()

    async def _prepare(self, stopping: asyncio.Event) -> Surroundings | None:
        """Nothing may be decided before the caches are whole and the cluster has a name; a stop waits for neither."""
        known, stopped = asyncio.create_task(self._known()), asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({known, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return None if stopping.is_set() else known.result()
        finally:
            known.cancel()
            stopped.cancel()
            self._trouble = ""

    async def _known(self) -> Surroundings:
        await self._relist()
        failures = 0
        while True:
            try:
                return replace(self._around, cluster_id=await self._around.cluster.identity())
            except ClusterError as exc:
                hint = "grant get on the namespace kube-system, as the chart's ClusterRole does"
                self._trouble = f"its id, the uid of the namespace kube-system, cannot be read: {exc}; {hint}"
                failures += 1
                if is_logged(failures):
                    log.error("cluster_not_identified", failures=failures, error=str(exc), hint=hint)
                await self._around.clock.sleep(2.0)

    async def _work(self, around: Surroundings, stopping: asyncio.Event) -> None:
        claim_queue, volume_queue = self._queue("claims"), self._queue("volumes")
        claim_lanes, volume_lanes = (Lanes(self._workers, queue.add) for queue in (claim_queue, volume_queue))
        turns = Turns()
        instances = Instances(
            self._leadership,
            around.clock,
            around.metrics,
            cluster=around.cluster_id,
            provisioner=around.provisioner,
        )
        around = replace(around, guard=instances)
        claims = ClaimController(around, claim_queue, claim_lanes, turns)
        sweep = Sweep(around, instances, revisit=claim_queue.add, freed=claims.path_freed)
        takeover = Takeover(around, entered=volume_queue.add)
        volumes = VolumeController(
            around,
            volume_queue,
            volume_lanes,
            turns,
            freed=claims.path_freed,
            discarded=sweep.discarded,
            take_over=takeover.enter,
        )
        instances.resumed += (volumes.export_ready, sweep.resumed)
        keep = around.supervisor.keep
        with ExitStack() as stack:
            stack.enter_context(around.watch.listening(sweep.export_ready, forgotten=sweep.export_forgotten))
            for ready in (claims.export_ready, volumes.export_ready, takeover.export_ready):
                stack.enter_context(around.watch.listening(ready))
            for changed in (claims.changed, volumes.changed, takeover.changed):
                stack.enter_context(around.store.listening(changed))
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(keep("sweep", sweep.run)),
                    group.create_task(keep("takeover", takeover.run)),
                    group.create_task(keep("exports", Homeless(around).run)),
                ]
                workers = [
                    group.create_task(self._reconcile("claims", claim_queue, claim_lanes, claims.reconcile)),
                    group.create_task(self._reconcile("volumes", volume_queue, volume_lanes, volumes.reconcile)),
                ]
                await stopping.wait()
                for queue in (claim_queue, volume_queue):
                    queue.shut_down()
                _, unfinished = await asyncio.wait(workers, timeout=_FINISH_S)
                for task in (*background, *unfinished):
                    task.cancel()
        await instances.leave()
        log.info("work_ended", given_up=len(unfinished))

    async def _reconcile(self, loop: Loop, queue: WorkQueue, lanes: Lanes, reconcile: Reconcile) -> None:
        supervisor = self._around.supervisor
        await work(queue, lanes, reconcile, workers=self._workers, supervisor=supervisor, loop=loop)

    def _queue(self, name: str) -> WorkQueue:
        waited = self._around.metrics.queue_wait_s.labels(name).observe
        queue = self._queues[name] = WorkQueue(self._around.clock, waited=waited)
        return queue
