"""The composition root of `run`: puts the parts together, and reads like a table of contents."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import structlog

from provisioner import __version__
from provisioner.commands.wiring import build_registry
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.gauges import Tally
from provisioner.controllers.leader import LeaderTasks
from provisioner.controllers.unused_exports import Forgetting
from provisioner.core import times
from provisioner.kube.cluster import open_cluster
from provisioner.ports.clock import Clock, SystemClock
from provisioner.ports.cluster import Cluster, ClusterError, Kind
from provisioner.runtime.election import Elector
from provisioner.runtime.events import EventRecorder
from provisioner.runtime.informer import Store
from provisioner.runtime.leadership import Alone
from provisioner.runtime.reflector import Reflector, relist
from provisioner.settings import Settings, replica_identity
from provisioner.telemetry import endpoint
from provisioner.telemetry.metrics import Metrics, Sample

log = structlog.get_logger(__name__)

_RESOURCES: dict[Kind, str] = {
    "claims": "persistentvolumeclaims",
    "volumes": "persistentvolumes",
    "classes": "storageclasses",
}
_DRAIN_S = 1.0
_PING_S = 5.0
"""How long /readyz waits for the API server."""


async def run(settings: Settings) -> None:
    """Provision and reclaim until SIGTERM or SIGINT. Raises InvalidSettings before anything has begun."""
    # Directories have the modes that classes ask for from the beginning: some servers refuse to change them later.
    os.umask(0)
    clock, metrics, me = SystemClock(), Metrics(), replica_identity()
    stopping = _stop_on_signals()
    exports = build_registry(settings, observe=metrics.export_call)
    log.info("starting", version=__version__, provisioner=settings.provisioner, identity=me, **_described(settings))
    async with open_cluster(
        settings.kubeconfig,
        provisioner=settings.provisioner,
        identity=me,
        observe=lambda verb, resource, code: metrics.api_requests.labels(verb, resource, code).inc(),
        on_undecodable=lambda kind, name, reason: log.error("undecodable", kind=kind, name=name, reason=reason),
        connections=settings.workers // 2 + 16,  # each takes 256 KiB for TLS, and the API server is no faster with more
    ) as cluster:
        store = Store(settings.provisioner, count=metrics.unexpected)
        ctx = ControllerContext(
            provisioner=settings.provisioner,
            cluster=cluster,
            store=store,
            exports=exports,
            health=(watch := ExportHealth(exports, clock, metrics, marked=store.marked)),
            recorder=(recorder := EventRecorder(cluster, clock, busy=lambda: term.busy(), count=metrics.unexpected)),
            metrics=metrics,
            clock=clock,
        )
        keep = ctx.supervisor.keep
        reflectors = [
            Reflector(
                kind,
                cluster=cluster,
                store=store,
                clock=clock,
                restarted=lambda what: metrics.watch_restarts.labels(_RESOURCES[what]).inc(),
            )
            for kind in _RESOURCES
        ]
        elector = _elector(settings, ctx, me, reflectors) if settings.leader_election else None
        leadership = elector or Alone(me)
        term = LeaderTasks(ctx, leadership, workers=settings.workers, relist=partial(relist, reflectors))
        _sample(metrics, store, settings.provisioner, term.queue_depths, clock)
        async with endpoint.serve(
            settings.listen_host,
            settings.listen_port,
            registry=metrics.registry,
            prepare=metrics.take_samples,
            readiness=partial(_unready, cluster, store, watch, reflectors, elector, term),
        ):
            background = [
                *(keep("reflector", each.run, kind=each.kind) for each in reflectors),
                keep("exports", watch.run),
                keep("exports", Forgetting(ctx).run),
                keep("events", recorder.run),
            ]

            async def lead(stopping: asyncio.Event) -> None:
                await keep("leader", partial(term.lead, stopping), until=stopping)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(coroutine) for coroutine in background]
                if elector is not None:
                    await elector.run(lead, stopping)
                else:
                    await lead(stopping)
                await asyncio.wait([asyncio.create_task(recorder.drain())], timeout=_DRAIN_S)
                for task in tasks:
                    task.cancel()
    for export in exports:
        with ctx.supervisor.shield("exports", export=export.name):
            await export.close()
    log.info("stopped")


def _stop_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _elector(settings: Settings, ctx: ControllerContext, me: str, reflectors: Sequence[Reflector]) -> Elector:
    def went_back() -> None:
        for reflector in reflectors:
            reflector.relist()

    return Elector(
        ctx.cluster,
        ctx.clock,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=me,
        times=settings.lease_times,
        count=ctx.metrics.unexpected,
        went_back=went_back,
    )


def _described(settings: Settings) -> dict[str, object]:
    exports = [f"{each.location}={each.directory or 'direct'}" for each in settings.exports]
    return {"exports": exports, "workers": settings.workers, "leader_election": settings.leader_election}


async def _unready(
    cluster: Cluster,
    store: Store,
    watch: ExportHealth,
    reflectors: Sequence[Reflector],
    elector: Elector | None,
    term: LeaderTasks,
) -> Mapping[str, str]:
    """What /readyz finds missing."""
    missing = {f"cache of {kind}": "not listed yet" for kind in store.missing}
    missing |= {f"cache of {each.kind}": each.trouble for each in reflectors if each.trouble}
    missing |= {f"export {name}": str(error) for name, error in watch.failing().items()}
    if elector is not None and elector.trouble:
        missing["Lease"] = elector.trouble
    if term.trouble:
        missing["cluster"] = term.trouble
    try:
        async with asyncio.timeout(_PING_S):
            await cluster.ping()
    except ClusterError as exc:
        missing["API server"] = str(exc)
    except TimeoutError:
        missing["API server"] = f"no answer within {_PING_S:g} s"
    return missing


def _sample(metrics: Metrics, store: Store, provisioner: str, queue_depths: Callable[[], Sample], clock: Clock) -> None:
    """Have the gauges that count what is in memory read for each scrape; the sums are kept as objects change."""
    tally = Tally(provisioner)
    store.listen(tally.changed)

    def volumes() -> Sample:
        return {(name, phase): count for (name, phase), count in tally.volumes.items()}

    def capacity() -> Sample:
        return {(name,): capacity_bytes for name, capacity_bytes in tally.capacity_bytes.items()}

    def pending() -> dict[str, Collection[str]]:
        """When the claims without a volume were made, by class: one that exists, for a tenant may write any name."""
        return {name: made.values() for name, made in tally.pending.items() if name in store.classes}

    def counts() -> Sample:
        return {(name,): len(made) for name, made in pending().items()}

    def waits() -> Sample:
        oldest = {(name,): times.parse(min(made)) for name, made in pending().items()}
        return {label: (clock.now() - at).total_seconds() for label, at in oldest.items() if at is not None}

    metrics.sample("claims_pending", "Claims that have no volume yet.", ("class",), counts)
    metrics.sample("claim_pending_seconds", "Age of the oldest claim that has no volume yet.", ("class",), waits)
    metrics.sample("volumes", "Volumes of ours.", ("class", "phase"), volumes)
    metrics.sample("capacity_bytes", "Sum of their capacities.", ("class",), capacity)
    metrics.sample("queue_depth", "Keys that wait for a worker.", ("queue",), queue_depths)
