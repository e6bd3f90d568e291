"""controllers.claims: the outcomes of an attempt at provisioning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.claims import ClaimController
from provisioner.controllers.clones import Clones
from provisioner.core import names
from provisioner.core.locations import Location, RelPath
from provisioner.core.records import Record
from provisioner.ledger.errors import InProgress
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.runtime.fair_share import FairShare, NoSlot
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import FAILED, LOCKED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context, running
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")


class SlowExport(Export):
    """An export whose directories are not ready at the first attempts."""

    def __init__(self) -> None:
        self.tree = MemoryTree()
        super().__init__(NAS, self.tree)
        self.outcomes: list[Exception] = []
        """The errors of the next attempts."""

    async def provision(self, volume_name: str, record: Record, ownership: Ownership, **how: Any) -> Record:
        if self.outcomes:
            raise self.outcomes.pop(0)
        return await super().provision(volume_name, record, ownership, **how)


class Site:
    """A leader with one pending claim."""

    def __init__(self) -> None:
        clock, self.metrics, self.export = LoopClock(), Metrics(), SlowExport()
        self.cluster, cache = MemoryCluster(), ClusterCache(samples.US)
        exports = ExportRegistry({NAS: self.export}, NAS, lambda *_: pytest.fail("no other"))
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=cache,
            exports=exports,
            metrics=self.metrics,
            clock=clock,
            cluster_id="memory",
        )
        self.cluster.namespaces.add("shop")
        body: Any = msgspec.to_builtins(samples.claim())
        self.uid = str(self.cluster.create("claims", body)["metadata"]["uid"])
        claim = self.cluster.claim("shop/data")
        assert claim is not None
        cache.claims.apply(claim, deleted=False)
        cache.classes.apply(samples.storage_class(), deleted=False)
        queue = WorkQueue(clock, waited=lambda _: None)
        self.share = FairShare(2, queue.add)
        locks = VolumeLocks()
        clones = Clones(self.ctx, locks, revisit=queue.add, released=lambda _: None)
        self.controller = ClaimController(self.ctx, queue, self.share, locks, clones)

    async def warnings(self) -> list[str]:
        """The reasons of the Warning events so far."""
        await self.ctx.recorder.drain()
        await asyncio.sleep(1.0)
        return [each.event.reason for each in self.cluster.events.values() if each.event.type == "Warning"]

    def failures(self) -> float:
        """The number of failed attempts by the metric."""
        samples_of = (sample for family in self.metrics.registry.collect() for sample in family.samples)
        return sum(each.value for each in samples_of if each.name == "nfs_provisioner_failures_total")

    @asynccontextmanager
    async def led(self) -> AsyncIterator[None]:
        """Check the export, and write events, while the context is open."""
        async with running(self.ctx.health.run(), self.ctx.recorder.run()):
            await self.ctx.health.lead()
            yield


def test_an_attempt_that_is_still_running() -> None:
    """It is looked at again after its time, is no failure in events and metrics, and ends in a volume."""

    async def scene() -> None:
        site = Site()
        async with site.led():
            site.export.outcomes = [InProgress(30.0), InProgress(60.0)]
            assert await site.controller.reconcile(site.uid) == Requeue.after(30.0)
            assert await site.controller.reconcile(site.uid) == Requeue.after(60.0)
            assert (await site.warnings(), site.failures()) == ([], 0)
            assert site.cluster.volumes() == []
            assert await site.controller.reconcile(site.uid) is None
            assert [volume.name for volume in site.cluster.volumes()] == [names.volume_name(site.uid)]

    simulate(scene())


def test_an_attempt_that_fails() -> None:
    """A failure is counted, is an event on the claim, and is tried again with back-off."""

    async def scene() -> None:
        site = Site()
        async with site.led():
            site.export.outcomes = [ExportError(Cause.NO_SPACE)]
            assert await site.controller.reconcile(site.uid) is FAILED
            assert (await site.warnings(), site.failures()) == ([names.PROVISIONING_FAILED], 1)

    simulate(scene())


def test_two_workers_do_not_work_on_one_claim() -> None:
    """While a worker holds the volume of a claim, another one leaves the claim alone and comes back soon."""

    async def scene() -> None:
        site = Site()

        async def slow(_call: str, _path: RelPath) -> None:
            await asyncio.sleep(0.1)

        async with site.led():
            site.export.tree.before = slow
            outcomes = await asyncio.gather(*(site.controller.reconcile(site.uid) for _ in range(2)))
            assert outcomes == [None, LOCKED]

    simulate(scene())


def test_a_claim_of_a_busy_export() -> None:
    """While all workers of its export are busy, a claim is parked before it is judged: there is no event for it."""

    async def scene() -> None:
        site = Site()
        site.export.outcomes = [ExportError(Cause.NO_SPACE)]
        async with site.led():
            with site.share.slot(site.export.name, "a"), site.share.slot(site.export.name, "b"):
                with pytest.raises(NoSlot):
                    await site.controller.reconcile(site.uid)
                assert await site.warnings() == []
            assert await site.controller.reconcile(site.uid) is FAILED

    simulate(scene())


def test_a_claim_of_an_unusable_class() -> None:
    """A claim whose class names an export that cannot be used is refused with an event, whatever other workers do."""

    async def scene() -> None:
        site = Site()
        site.ctx.cache.classes.apply(samples.storage_class({"colour": "red"}), deleted=False)
        async with site.led():
            with site.share.slot(site.export.name, "a"), site.share.slot(site.export.name, "b"):
                assert await site.controller.reconcile(site.uid) is REFUSED
                assert await site.warnings() == [names.PROVISIONING_FAILED]

    simulate(scene())
