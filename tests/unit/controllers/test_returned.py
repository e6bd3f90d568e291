"""controllers.returned: data is destroyed only if its volume is gone, by a fresh look or by a fresh deletion."""

from __future__ import annotations

import pytest
from msgspec import structs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.returned import Returned
from provisioner.core.locations import Location
from provisioner.core.objects import Volume
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import ApiUnavailable
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import ManualClock
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")
DELETED, OTHER = samples.volume(), samples.volume(name="pvc-other")


class ReadCluster(MemoryCluster):
    """A cluster that counts reads of volumes, and answers each with `live`."""

    def __init__(self) -> None:
        super().__init__()
        self.live: Volume | ApiUnavailable | None = None
        self.reads = 0

    async def get_volume(self, name: str) -> Volume | None:
        self.reads += 1
        if isinstance(self.live, ApiUnavailable):
            raise self.live
        return self.live


class Site:
    """A process with an empty cache."""

    def __init__(self) -> None:
        self.clock, self.cluster = ManualClock(), ReadCluster()
        self.cache = ClusterCache(samples.US)
        self.export = Export(NAS, MemoryTree())
        self.returned = Returned(
            controller_context(
                cluster=self.cluster,
                cache=self.cache,
                exports=ExportRegistry({}, None, lambda where, options: pytest.fail("there is no other export")),
                clock=self.clock,
                metrics=Metrics(),
            )
        )

    async def keeps(self) -> bool:
        """Whether the trash entry of the sample volume must stay."""
        return await self.returned.keeps(self.export, DELETED.name, name=DELETED.name, where="the trash")


@pytest.fixture
def site() -> Site:
    """A process that has just begun to lead."""
    return Site()


async def test_a_volume_that_is_gone(site: Site) -> None:
    """Without news of its deletion, a volume is read each time."""
    assert not await site.keeps()
    assert not await site.keeps()
    assert site.cluster.reads == 2


async def test_a_volume_that_exists(site: Site) -> None:
    """The data of a volume that exists is kept, and so is that of one that cannot be read."""
    site.cluster.live = DELETED
    assert await site.keeps()
    site.cluster.live = ApiUnavailable("no answer")
    assert await site.keeps()


async def test_a_volume_that_was_just_deleted(site: Site) -> None:
    """The answer to a deletion counts as a read for five seconds, whatever the cache still has of that volume."""
    site.cache.volumes.apply(DELETED, deleted=False)
    site.returned.deleted(DELETED)
    site.clock.advance(5.0)
    assert not await site.keeps()
    assert site.cluster.reads == 0
    site.clock.advance(0.1)
    assert await site.keeps()


async def test_another_volume_of_the_name(site: Site) -> None:
    """Data is kept if the cache has another volume of that name since the deletion."""
    again = structs.replace(DELETED, metadata=structs.replace(DELETED.metadata, uid="another"))
    site.returned.deleted(DELETED)
    site.cache.volumes.apply(again, deleted=False)
    assert await site.keeps()


async def test_old_deletions_are_forgotten(site: Site) -> None:
    """The process does not remember deletions for longer than they count."""
    for _ in range(3):
        site.returned.deleted(DELETED)
        site.clock.advance(6.0)
    site.returned.deleted(OTHER)
    assert not await site.keeps()
    assert site.cluster.reads == 1
