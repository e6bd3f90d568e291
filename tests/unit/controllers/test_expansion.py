"""controllers.expansion: when a volume can grow, and what the ledger records of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.expansion import expand, note_sizes
from provisioner.core import expansion
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import ClaimStatus, NfsSource
from provisioner.core.records import require_room
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import AnyItem, Kind
from provisioner.ports.tree import Cause, ExportError, FilesystemStats, Ownership
from provisioner.runtime.events import EventRecorder
from provisioner.runtime.requeue import FAILED, REFUSED, Requeue
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, ManualClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree, no_fault

NAS = Location("nas", "/exports")


async def test_a_record_that_has_no_room_for_a_larger_size() -> None:
    """It stays as it is, with a warning: the record must still fit as one of an archive, and back."""
    record = structs.replace(samples.record("a"), cluster="memory")
    for length in range(1023):
        try:
            require_room(samples.VOLUME, longer := structs.replace(record, mount_options="x" * length))
        except InvalidRecord:
            break
        fits = longer
    export, clock, cluster, metrics = Export(NAS, MemoryTree()), ManualClock(), MemoryCluster(), Metrics()
    exports, cache = ExportRegistry({NAS: export}, NAS, lambda *_: pytest.fail("no other")), ClusterCache(samples.US)
    ctx = controller_context(
        cluster=cluster,
        cache=cache,
        exports=exports,
        metrics=metrics,
        clock=clock,
        cluster_id="memory",
    )
    await export.open()
    await export.provision(samples.VOLUME, fits, Ownership())
    await export.settle(samples.VOLUME)
    cache.volumes.apply(samples.volume(phase="Bound", capacity="1000000Gi"), deleted=False)
    with capture_logs() as logs:
        await note_sizes(export, ctx)
    assert export.records[samples.VOLUME].capacity == fits.capacity
    assert [line["event"] for line in logs] == ["size_not_recorded"]
    cache.volumes.apply(samples.volume(phase="Bound", capacity="9Gi"), deleted=False)
    await note_sizes(export, ctx)
    assert export.records[samples.VOLUME].capacity == "9Gi"
    assert await export.archive(samples.VOLUME, clock.now()) is not None


class Growing:
    """A bound claim of a class with limits, on an export of 100 bytes of which 50 are free, beside another volume."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.tree = MemoryTree(space=FilesystemStats(size_bytes=100, free_bytes=50, inodes=1, free_inodes=1))
        export, clock, metrics = Export(NAS, self.tree), LoopClock(), Metrics()
        self.cluster, self.cache = MemoryCluster(), ClusterCache(samples.US)
        exports = ExportRegistry({NAS: export}, NAS, lambda *_: pytest.fail("no other"))
        self.recorder = EventRecorder(self.cluster, clock)
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=exports,
            recorder=self.recorder,
            metrics=metrics,
            clock=clock,
            cluster_id="memory",
        )
        self.cluster.namespaces.add("shop")
        self.cache.classes.apply(samples.storage_class(parameters), deleted=False)
        status = ClaimStatus(phase="Bound", capacity={"storage": "10"})
        claim = samples.claim(spec=samples.claim_spec(size="30", volume_name=samples.VOLUME), status=status)
        uid = self._create("claims", claim)
        self._create("volumes", samples.volume(phase="Bound", capacity="10", claim_uid=uid))
        self.put_other("60")

    def _create(self, kind: Kind, item: AnyItem) -> str:
        body: Any = msgspec.to_builtins(item)
        return str(self.cluster.create(kind, body)["metadata"]["uid"])

    def put_other(self, capacity: str) -> None:
        """Give another volume on the export this size."""
        other = samples.volume(name="other", phase="Bound", capacity=capacity, nfs=NfsSource("nas", "/exports/other"))
        self.cache.volumes.apply(other, deleted=False)

    async def expand(self) -> Requeue | None:
        """Reconcile the claim once, as the API server has it."""
        claim, volume = self.cluster.claim("shop/data"), self.cluster.volume(samples.VOLUME)
        assert claim is not None
        assert volume is not None
        self.cache.volumes.apply(volume, deleted=False)
        return await expand(claim, self.ctx)

    def sizes(self) -> tuple[str, str]:
        """The sizes of claim and volume."""
        claim, volume = self.cluster.claim("shop/data"), self.cluster.volume(samples.VOLUME)
        assert claim is not None
        assert volume is not None
        assert not expansion.is_marked(claim)
        return claim.status.capacity["storage"], volume.capacity

    async def warnings(self) -> list[str]:
        """The messages of the warnings on the claim."""
        sending = asyncio.create_task(self.recorder.run())
        await self.recorder.drain()
        sending.cancel()
        return [each.event.message for each in self.cluster.events.values() if each.event.type == "Warning"]

    @asynccontextmanager
    async def led(self) -> AsyncIterator[None]:
        """Check the export while the context is open."""
        task = asyncio.create_task(self.ctx.health.run())
        await self.ctx.health.lead()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_overcommit_limits_growth() -> None:
    """A claim keeps its size, with an event, while the sum would exceed the limit, and grows once there is room.

    The log and the metric have the machine reason.
    """

    async def scene() -> None:
        site = Growing({"overcommit": "0.8"})
        async with site.led():
            with capture_logs() as logs:
                assert await site.expand() is REFUSED
            assert [line["reason"] for line in logs if line["event"] == "resize_refused"] == ["OvercommitExceeded"]
            labels = {"work": "resize", "reason": "OvercommitExceeded"}
            assert site.ctx.metrics.registry.get_sample_value("nfs_provisioner_failures_total", labels) == 1
            assert site.sizes() == ("10", "10")
            (warning,) = await site.warnings()
            assert warning.startswith("resizing to 30 is refused for now: export nas:/exports: ")
            site.put_other("50")
            assert await site.expand() is None
            assert site.sizes() == ("30", "30")

    simulate(scene())


def test_min_free_limits_growth() -> None:
    """No claim grows on an export with less free space than its class requires."""

    async def scene() -> None:
        site = Growing({"minFree": "60"})
        async with site.led():
            assert await site.expand() is REFUSED
            assert site.sizes() == ("10", "10")
            site.tree.statfs = dataclasses.replace(site.tree.statfs, free_bytes=60)
            await asyncio.sleep(120.0)
            assert await site.expand() is None
            assert site.sizes() == ("30", "30")

    simulate(scene())


def test_limits_that_cannot_be_checked() -> None:
    """A claim of a class with a limit waits while the export does not answer; without a limit it does not."""

    async def scene() -> None:
        site, free = Growing({"overcommit": "5"}), Growing({})

        async def silent(call: str, path: RelPath) -> None:
            raise ExportError(Cause.UNREACHABLE, "no answer")

        site.tree.before = free.tree.before = silent
        async with site.led(), free.led():
            assert await site.expand() is FAILED
            assert site.sizes() == ("10", "10")
            assert ["is not responding" in warning for warning in await site.warnings()] == [True]
            assert await free.expand() is None
            assert free.sizes() == ("30", "30")
            site.tree.before = no_fault
            await asyncio.sleep(120.0)
            assert await site.expand() is None

    simulate(scene())


@pytest.mark.parametrize("parameters", [{"overcommit": "much"}, None], ids=["unusable", "gone"])
def test_a_class_without_a_limit(parameters: Mapping[str, str] | None) -> None:
    """A class that is gone, or has invalid parameters, limits nothing."""

    async def scene() -> None:
        site = Growing(parameters or {"overcommit": "0.1"})
        if parameters is None:
            site.cache.classes.apply(samples.storage_class(), deleted=True)
        async with site.led():
            assert await site.expand() is None
            assert site.sizes() == ("30", "30")

    simulate(scene())
