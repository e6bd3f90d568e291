"""The composition root of `run`: builds the daemon from its parts, and runs it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog

from provisioner import __version__
from provisioner.commands.wiring import build_registry
from provisioner.controllers import gauges
from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.leader import LeaderTasks
from provisioner.controllers.unused_exports import UnusedExports
from provisioner.kube.cluster import KubeCluster, open_cluster
from provisioner.ports.clock import SystemClock
from provisioner.ports.cluster import ClusterError, Kind
from provisioner.runtime.election import Elector
from provisioner.runtime.events import EventRecorder
from provisioner.runtime.leadership import Alone
from provisioner.runtime.reflector import Reflector, relist
from provisioner.settings import Settings, replica_identity
from provisioner.telemetry import endpoint, memory
from provisioner.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_RESOURCES: dict[Kind, str] = {
    "claims": "persistentvolumeclaims",
    "volumes": "persistentvolumes",
    "classes": "storageclasses",
    "snapshots": "volumesnapshots",
    "snapshot_contents": "volumesnapshotcontents",
    "snapshot_classes": "volumesnapshotclasses",
}
_DRAIN_S = 1.0
"""How long the process writes outstanding events after the Lease is released."""
_PING_S = 5.0
"""How long /readyz waits for the API server."""


async def run(settings: Settings) -> None:
    """Provision and reclaim until SIGTERM or SIGINT. Raises InvalidSettings before any work has begun."""
    # New directories must have the modes that classes ask for from the start: some servers refuse to change them later.
    os.umask(0)
    clock, metrics, identity = SystemClock(), Metrics(), replica_identity()
    metrics.memory_limit.set(memory.limit_bytes())
    stopping = _stop_on_signals()
    _collect_rarely()
    exports = build_registry(settings, observe=metrics.export_call)
    _log_start(settings, identity)
    async with _cluster(settings, identity, metrics) as cluster:
        cache = ClusterCache(
            settings.provisioner,
            places=exports.places,
            count=metrics.unexpected,
            with_snapshots=settings.snapshots,
        )
        health = ExportHealth(exports, clock, metrics, marked=cache.marked)
        recorder = EventRecorder(cluster, clock, count=metrics.unexpected)
        ctx = ControllerContext(
            provisioner=settings.provisioner,
            cluster=cluster,
            cache=cache,
            exports=exports,
            health=health,
            recorder=recorder,
            metrics=metrics,
            clock=clock,
        )
        reflectors = [
            Reflector(informer, cluster=cluster, clock=clock, restarted=partial(_count_restart, metrics))
            for informer in cache.informers
        ]
        elector = _elector(settings, ctx, identity, reflectors) if settings.leader_election else None
        tasks = LeaderTasks(
            ctx, elector or Alone(identity), workers=settings.workers, relist=partial(relist, reflectors)
        )
        recorder.give_way_while(tasks.busy)
        with gauges.sampled(ctx, queue_depths=tasks.queue_depths, volume_metrics=settings.volume_metrics):
            async with endpoint.serve(
                settings.listen_host,
                settings.listen_port,
                registry=metrics.registry,
                prepare=metrics.take_samples,
                readiness=partial(_unready, ctx, reflectors, elector, tasks),
            ):
                await _work(ctx, reflectors, elector, tasks, stopping)
    for export in exports:
        with ctx.supervisor.shield("exports", export=export.name):
            await export.close()
    log.info("stopped")


async def _work(
    ctx: ControllerContext,
    reflectors: Sequence[Reflector],
    elector: Elector | None,
    tasks: LeaderTasks,
    stopping: asyncio.Event,
) -> None:
    """Run the loops of every replica, and the leader's tasks while this replica leads, until `stopping` is set."""
    keep = ctx.supervisor.keep
    loops = [
        *(keep("reflector", each.run, kind=each.kind) for each in reflectors),
        keep("exports", ctx.health.run),
        keep("exports", UnusedExports(ctx).run),
        keep("events", ctx.recorder.run),
    ]

    async def lead(stopping: asyncio.Event) -> None:
        await keep("leader", partial(tasks.run, stopping), until=stopping)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(loop) for loop in loops]
        if elector is not None:
            await elector.run(lead, stopping)
        else:
            await lead(stopping)
        await asyncio.wait([asyncio.create_task(ctx.recorder.drain())], timeout=_DRAIN_S)
        for task in running:
            task.cancel()


def _count_restart(metrics: Metrics, kind: Kind) -> None:
    metrics.watch_restarts.labels(_RESOURCES[kind]).inc()


def _cluster(settings: Settings, identity: str, metrics: Metrics) -> AbstractAsyncContextManager[KubeCluster]:
    return open_cluster(
        settings.kubeconfig,
        context=settings.context,
        provisioner=settings.provisioner,
        identity=identity,
        observe=metrics.api_request,
        on_undecodable=lambda kind, name, reason: log.error("undecodable", kind=kind, name=name, reason=reason),
        # The API server is no faster with more of them, and each needs a handshake.
        connections=settings.workers // 2 + 16,
    )


def _collect_rarely() -> None:
    """Keep the garbage collector below one or two percent of the CPU; with Python's defaults it takes 6 to 9.

    It only finds cycles, and the daemon creates few: reference counts free the rest. So the modules, which stay anyway,
    are never traversed again, and young objects after 10,000 new ones instead of 700. Older ones follow after 60,000
    and 360,000, so the memory that cycles hold has a limit.
    """
    gc.freeze()
    gc.set_threshold(10_000, 5, 5)


def _stop_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _elector(settings: Settings, ctx: ControllerContext, identity: str, reflectors: Sequence[Reflector]) -> Elector:
    def went_back() -> None:
        for reflector in reflectors:
            reflector.relist()

    return Elector(
        ctx.cluster,
        ctx.clock,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=identity,
        times=settings.lease_times,
        count=ctx.metrics.unexpected,
        went_back=went_back,
    )


def _log_start(settings: Settings, identity: str) -> None:
    log.info(
        "starting",
        version=__version__,
        provisioner=settings.provisioner,
        identity=identity,
        exports=[f"{each.location}={each.directory or 'direct'}" for each in settings.exports],
        workers=settings.workers,
        leader_election=settings.leader_election,
    )


async def _unready(
    ctx: ControllerContext, reflectors: Sequence[Reflector], elector: Elector | None, tasks: LeaderTasks
) -> Mapping[str, str]:
    """Return what is not ready, and why, for /readyz."""
    missing = {f"cache of {kind}": "not listed yet" for kind in ctx.cache.missing}
    missing |= {f"cache of {each.kind}": each.trouble for each in reflectors if each.trouble}
    missing |= {f"export {name}": str(error) for name, error in ctx.health.failing().items()}
    if elector is not None and elector.trouble:
        missing["Lease"] = elector.trouble
    if tasks.trouble:
        missing["cluster"] = tasks.trouble
    try:
        async with asyncio.timeout(_PING_S):
            await ctx.cluster.ping()
    except ClusterError as exc:
        missing["API server"] = str(exc)
    except TimeoutError:
        missing["API server"] = f"no answer within {_PING_S:g} s"
    return missing
