"""The context of controllers for tests: real parts over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.instances import Guard, Unguarded
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import Cluster
from provisioner.runtime.events import EventRecorder
from provisioner.telemetry.metrics import Metrics
from tests.support import samples


def controller_context(
    *,
    cluster: Cluster,
    cache: ClusterCache,
    exports: ExportRegistry,
    clock: Clock,
    metrics: Metrics,
    health: ExportHealth | None = None,
    recorder: EventRecorder | None = None,
    cluster_id: str = "",
    guard: Guard | None = None,
) -> ControllerContext:
    """Return a context of the samples' provisioner. Health and recorder are made of the other parts if left out."""
    return ControllerContext(
        provisioner=samples.US,
        cluster=cluster,
        cache=cache,
        exports=exports,
        health=health or ExportHealth(exports, clock, metrics),
        recorder=recorder or EventRecorder(cluster, clock),
        metrics=metrics,
        clock=clock,
        cluster_id=cluster_id,
        guard=guard or Unguarded(),
    )


@asynccontextmanager
async def running(*work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run parts of a daemon while the context is open."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
