"""The composition root of `run`: puts the parts together, and reads like a table of contents."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from provisioner import __version__
from provisioner.clock import SystemClock
from provisioner.control.elector import Elector
from provisioner.control.exports import ExportWatch
from provisioner.control.forgetting import Forgetting
from provisioner.control.recorder import EventRecorder
from provisioner.control.reflector import reflect
from provisioner.control.store import Store
from provisioner.control.surroundings import Surroundings
from provisioner.control.term import Term
from provisioner.core import times
from provisioner.core.quantities import parse_bytes
from provisioner.exports import served
from provisioner.kube.cluster import open_cluster
from provisioner.ports import Clock, Cluster, ClusterError, Kind
from provisioner.settings import Settings, identity
from provisioner.telemetry import endpoint
from provisioner.telemetry.metrics import Metrics, Sample

log = structlog.get_logger(__name__)

_RESOURCES: dict[Kind, str] = {
    "claims": "persistentvolumeclaims",
    "volumes": "persistentvolumes",
    "classes": "storageclasses",
}
_DRAIN_S = 1.0


async def run(settings: Settings) -> None:
    """Provision and reclaim until SIGTERM or SIGINT. Raises InvalidSettings before anything has begun."""
    # Directories have the modes that classes ask for from the beginning: some servers refuse to change them later.
    os.umask(0)
    clock, metrics, me = SystemClock(), Metrics(), identity()
    stopping = _stop_on_signals()
    exports = served(settings, observe=metrics.export_call)
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
        around = Surroundings(
            provisioner=settings.provisioner,
            cluster=cluster,
            store=store,
            exports=exports,
            watch=(watch := ExportWatch(exports, clock, metrics)),
            recorder=(recorder := EventRecorder(cluster, clock, busy=lambda: term.busy(), count=metrics.unexpected)),
            metrics=metrics,
            clock=clock,
        )
        keep = around.supervisor.keep
        term = Term(around, workers=settings.workers)
        _sample(metrics, store, settings.provisioner, term.queue_depths, clock)
        async with endpoint.serve(
            settings.listen_host,
            settings.listen_port,
            registry=metrics.registry,
            readiness=partial(_unready, store, watch, cluster),
        ):
            background = [
                *(keep("reflector", partial(_reflect, kind, around), kind=kind) for kind in _RESOURCES),
                keep("exports", watch.run),
                keep("exports", Forgetting(around).run),
                keep("events", recorder.run),
            ]

            async def lead(stopping: asyncio.Event) -> None:
                await keep("leader", partial(term.lead, stopping), until=stopping)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(coroutine) for coroutine in background]
                if settings.leader_election:
                    await _elector(settings, around, me).run(lead, stopping)
                else:
                    await lead(stopping)
                await asyncio.wait([asyncio.create_task(recorder.drain())], timeout=_DRAIN_S)
                for task in tasks:
                    task.cancel()
    for export in exports:
        with around.supervisor.shield("exports", export=export.name):
            await export.close()
    log.info("stopped")


def _stop_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def _reflect(kind: Kind, around: Surroundings) -> None:
    def restarted(what: Kind) -> None:
        around.metrics.watch_restarts.labels(_RESOURCES[what]).inc()

    await reflect(kind, cluster=around.cluster, store=around.store, clock=around.clock, restarted=restarted)


def _elector(settings: Settings, around: Surroundings, me: str) -> Elector:
    return Elector(
        around.cluster,
        around.clock,
        namespace=settings.lease_namespace,
        name=settings.lease_name,
        identity=me,
        times=settings.lease_times,
        count=around.metrics.unexpected,
    )


def _described(settings: Settings) -> dict[str, object]:
    exports = [f"{each.location}={each.directory or 'direct'}" for each in settings.exports]
    return {"exports": exports, "workers": settings.workers, "leader_election": settings.leader_election}


async def _unready(store: Store, watch: ExportWatch, cluster: Cluster) -> Mapping[str, str]:
    """What /readyz finds missing."""
    missing = {f"cache of {kind}": "not listed yet" for kind in store.missing}
    missing |= {f"export {name}": str(error) for name, error in watch.failing().items()}
    try:
        await cluster.ping()
    except ClusterError as exc:
        missing["API server"] = str(exc)
    return missing


def _sample(metrics: Metrics, store: Store, provisioner: str, queue_depths: Callable[[], Sample], clock: Clock) -> None:
    """Have the gauges that count what is in memory read at each scrape."""

    def volumes() -> Sample:
        ours = (volume for volume in store.volumes.values() if volume.is_by(provisioner))
        return dict(Counter((volume.spec.storage_class_name, volume.status.phase) for volume in ours))

    def capacity() -> Sample:
        total: Counter[tuple[str, ...]] = Counter()
        for volume in store.volumes.values():
            if volume.is_by(provisioner):
                total[(volume.spec.storage_class_name,)] += parse_bytes(volume.capacity)
        return dict(total)

    def pending() -> dict[str, list[str]]:
        """When the claims without a volume were made, by class: one that exists, for a tenant may write any name."""
        made: defaultdict[str, list[str]] = defaultdict(list)
        for claim in store.claims.values():
            if claim.is_for(provisioner) and not claim.spec.volume_name and claim.class_name in store.classes:
                made[claim.class_name].append(claim.metadata.creation_timestamp)
        return made

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
