"""controllers.takeover: an export whose ledger cannot be written, and a volume that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.takeover import Takeover
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import NfsSource
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree, no_fault

NAS, OTHER = Location("nas", "/exports"), Location("other", "/exports")


def context(served: Mapping[Location, Export]) -> ControllerContext:
    """A context with an empty cluster."""
    exports, cache = ExportRegistry(served, NAS, lambda *_: pytest.fail("no other")), ClusterCache(samples.US)
    clock, metrics, cluster = LoopClock(), Metrics(), MemoryCluster()
    return controller_context(
        cluster=cluster,
        cache=cache,
        exports=exports,
        metrics=metrics,
        clock=clock,
        cluster_id="memory",
    )


def test_an_unexpected_error_of_one_export() -> None:
    """The volumes of other exports are entered at the start, those of this one when the error has passed."""

    async def scene() -> None:
        async def odd(call: str, path: RelPath) -> None:
            if call == "make_symlink" and "volumes" in path:
                raise RuntimeError("odd")

        trees = {NAS: MemoryTree(), OTHER: MemoryTree()}
        served = {where: Export(where, tree) for where, tree in trees.items()}
        ctx = context(served)
        health, cache = ctx.health, ctx.cache
        for name, where in (("v1", NAS), ("v2", OTHER)):
            volume = samples.peers_volume(phase="Bound", nfs=NfsSource(where.server, where.below((name,))))
            named = structs.replace(volume, metadata=structs.replace(volume.metadata, name=name))
            cache.volumes.apply(named, deleted=False)
        takeover = Takeover(ctx, entered=lambda _: None)
        trees[NAS].before = odd
        with takeover.subscribed():
            tasks = [asyncio.create_task(health.run()), asyncio.create_task(takeover.run())]
            await health.lead()
            await asyncio.sleep(100.0)
            assert [list(export.records) for export in served.values()] == [[], ["v2"]]
            trees[NAS].before = no_fault
            await asyncio.sleep(60.0)
            assert [list(export.records) for export in served.values()] == [["v1"], ["v2"]]
            for task in tasks:
                assert not task.done()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    simulate(scene())


async def test_a_refused_volume_is_reported_once() -> None:
    """The log and the metric have the machine reason of a refusal once, however often the volume is looked at."""
    export = Export(NAS, MemoryTree())
    ctx = context({NAS: export})
    await export.open()
    volume = samples.peers_volume(claim_uid=None, phase="Bound")
    takeover = Takeover(ctx, entered=lambda _: None)
    with capture_logs() as logs:
        for _ in range(2):
            refusal = await takeover.enter(volume, export, (samples.DIRECTORY,))
            assert refusal is not None
            assert refusal.reason == "MissingClaimRef"
    assert [(line["event"], line["reason"]) for line in logs] == [("volume_not_taken_over", "MissingClaimRef")]
    labels = {"work": "takeover", "reason": "MissingClaimRef"}
    assert ctx.metrics.registry.get_sample_value("nfs_provisioner_failures_total", labels) == 1
