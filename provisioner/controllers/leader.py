"""The tasks of the leader.

Everything that changes volumes runs in here, from acquiring the lease until losing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace

import structlog

from provisioner.controllers.claims import ClaimController
from provisioner.controllers.clones import Clones
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.instances import Instances
from provisioner.controllers.schedules import Schedules
from provisioner.controllers.snapshots import WORKERS, SnapshotController
from provisioner.controllers.sweep import Sweep
from provisioner.controllers.takeover import Takeover
from provisioner.controllers.unlocated_volumes import UnlocatedVolumes
from provisioner.controllers.volumes import VolumeController
from provisioner.core.backoff import is_logged
from provisioner.ports.cluster import ClusterError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.leadership import Leadership
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.workers import Reconcile, work
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Loop, Sample

log = structlog.get_logger(__name__)

_FINISH_S = 6.5
"""How long work in flight can take after the signal to stop; the process has 10 s, for the lease as well."""
_IDENTIFY_EVERY_S = 2.0


class LeaderTasks:
    """The leader's work, built again for each term.

    No key and no count of an earlier term is carried over.
    """

    def __init__(
        self,
        ctx: ControllerContext,
        leadership: Leadership,
        *,
        workers: int,
        relist: Callable[[], Awaitable[None]],
    ) -> None:
        """`relist` lists all kinds again.

        The cache of a standby replica may be out of date after a restore of etcd.
        """
        self._ctx = ctx
        self._leadership = leadership
        self._workers = workers
        self._relist = relist
        self._trouble = ""
        self._queues: dict[str, WorkQueue] = {}

    @property
    def trouble(self) -> str:
        """Why the leader cannot start its work; empty if it can, and while another replica leads."""
        return self._trouble

    def busy(self) -> bool:
        """Whether more keys wait than there are workers."""
        return sum(len(queue) for queue in self._queues.values()) > self._workers

    def queue_depths(self) -> Sample:
        """The number of waiting keys per queue; empty while another replica leads."""
        return {(name,): float(len(queue)) for name, queue in self._queues.items()}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set, then finish the work in flight.

        Cancelled when the lease is lost.
        """
        ctx = await self._prepare(stopping)
        if ctx is None:
            return
        await ctx.health.lead()
        ctx.metrics.leader.set(1)
        try:
            await self._work(ctx, stopping)
        finally:
            ctx.metrics.leader.set(0)
            ctx.health.follow()
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()

    async def _prepare(self, stopping: asyncio.Event) -> ControllerContext | None:
        """Wait until the caches are complete and the cluster is identified.

        Returns None if stopped before that. Nothing may be decided earlier.
        """
        identified, stopped = asyncio.create_task(self._identify()), asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({identified, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return None if stopping.is_set() else identified.result()
        finally:
            identified.cancel()
            stopped.cancel()
            self._trouble = ""

    async def _identify(self) -> ControllerContext:
        await self._relist()
        failures = 0
        while True:
            try:
                return replace(self._ctx, cluster_id=await self._ctx.cluster.cluster_uid())
            except ClusterError as exc:
                hint = "grant get on the namespace kube-system, as the chart's ClusterRole does"
                self._trouble = f"its id, the uid of the namespace kube-system, cannot be read: {exc}; {hint}"
                failures += 1
                if is_logged(failures):
                    log.error("cluster_not_identified", failures=failures, error=str(exc), hint=hint)
                await self._ctx.clock.sleep(_IDENTIFY_EVERY_S)

    async def _work(self, ctx: ControllerContext, stopping: asyncio.Event) -> None:
        instances = Instances(
            self._leadership, ctx.clock, ctx.metrics, cluster=ctx.cluster_id, provisioner=ctx.provisioner
        )
        ctx = replace(ctx, guard=instances)
        claim_queue, volume_queue = self._queue("claims"), self._queue("volumes")
        claim_share, volume_share = (FairShare(self._workers, queue.add) for queue in (claim_queue, volume_queue))
        locks = VolumeLocks()
        clones = Clones(ctx, locks, revisit=claim_queue.add, released=volume_queue.add)
        claims = ClaimController(ctx, claim_queue, claim_share, locks, clones)
        sweep = Sweep(
            ctx, instances, revisit=claim_queue.add, freed=claims.path_freed, groups_freed=claims.groups_freed
        )
        takeover = Takeover(ctx, entered=volume_queue.add)
        volumes = VolumeController(
            ctx, volume_queue, volume_share, locks, claims=claims, sweep=sweep, takeover=takeover, clones=clones
        )
        clones.on_discarded = sweep.trash_added
        snapshot_queue = self._queue("snapshots")
        snapshots = SnapshotController(
            ctx, snapshot_queue, locks, clones, discarded=sweep.trash_added, released=volume_queue.add
        )
        schedules = Schedules(ctx)
        unlocated = UnlocatedVolumes(ctx)
        instances.on_resumed += (volumes.export_ready, sweep.resumed)
        keep = ctx.supervisor.keep
        with ExitStack() as stack:
            for part in (sweep, claims, volumes, takeover, snapshots):
                stack.enter_context(part.subscribed())
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(keep("copies", clones.run)),
                    group.create_task(keep("copies", snapshots.run)),
                    group.create_task(keep("snapshots", schedules.run)),
                    group.create_task(keep("sweep", sweep.run)),
                    group.create_task(keep("takeover", takeover.run)),
                    group.create_task(keep("exports", unlocated.run)),
                ]
                workers = [
                    group.create_task(self._reconcile("claims", claim_queue, claim_share, claims.reconcile)),
                    group.create_task(self._reconcile("volumes", volume_queue, volume_share, volumes.reconcile)),
                    group.create_task(
                        work(
                            snapshot_queue,
                            FairShare(WORKERS, snapshot_queue.add),
                            snapshots.reconcile,
                            workers=WORKERS,
                            supervisor=ctx.supervisor,
                            loop="snapshots",
                        )
                    ),
                ]
                await stopping.wait()
                # Hand out no more keys, and give the workers time for those that they have.
                for queue in (claim_queue, volume_queue, snapshot_queue):
                    queue.shut_down()
                _, unfinished = await asyncio.wait(workers, timeout=_FINISH_S)
                for task in (*background, *unfinished):
                    task.cancel()
        await instances.leave()
        log.info("work_ended", given_up=len(unfinished))

    async def _reconcile(self, loop: Loop, queue: WorkQueue, share: FairShare, reconcile: Reconcile) -> None:
        supervisor = self._ctx.supervisor
        await work(queue, share, reconcile, workers=self._workers, supervisor=supervisor, loop=loop)

    def _queue(self, name: str) -> WorkQueue:
        waited = self._ctx.metrics.queue_wait_s.labels(name).observe
        queue = self._queues[name] = WorkQueue(self._ctx.clock, waited=waited)
        return queue
