"""controllers.claims and controllers.sweep: a claim waits until a group of its class's range is free."""

from __future__ import annotations

import asyncio

from msgspec import structs

from provisioner.controllers.instances import Instances
from provisioner.controllers.sweep import Sweep
from provisioner.core.groups import GidRange
from provisioner.core.locations import Location
from provisioner.ledger import layout
from provisioner.ledger.export import Export
from provisioner.ports.tree import Ownership
from provisioner.runtime.leadership import Alone
from provisioner.runtime.requeue import REFUSED
from tests.support import samples
from tests.support.fakes.clock import simulate
from tests.support.fakes.tree import MemoryTree
from tests.unit.controllers.test_enforcement import Site


def test_a_group_becomes_free() -> None:
    """The claim is looked at again as soon as the entry of a group is gone, however long it has waited."""

    async def scene() -> None:
        site = Site({"gid": "auto", "gidRange": "70-70"})
        instances = Instances(Alone("pod"), site.clock, site.metrics, cluster="memory", provisioner=samples.US)
        async with site.led():
            former = structs.replace(samples.record("former", claim_uid="former"), cluster="memory")
            await site.export.provision("pvc-former", former, Ownership(), gid_range=GidRange(70, 70))
            await site.export.settle("pvc-former")
            site.queue.add(site.uid)
            for _ in range(9):
                assert await site.queue.get() == site.uid
                assert await site.reconcile() is REFUSED
                site.queue.done(site.uid)
            assert any("no group id of gidRange 70-70 is free" in each for each in await site.warnings())
            assert len(site.queue) == 0

            await site.export.move_to_trash("pvc-former")
            await site.export.forget("pvc-former")
            sweep = Sweep(
                site.ctx,
                instances,
                revisit=site.queue.add,
                freed=site.controller.path_freed,
                groups_freed=site.controller.groups_freed,
            )
            sweeping = asyncio.create_task(sweep.run())
            sweep.export_ready(site.export)
            await asyncio.sleep(60.0)
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

            assert site.tree.look(layout.group(70)) is None
            assert len(site.queue) == 1
            assert await site.reconcile() is None
            assert site.export.records[site.volume_name].gid == 70

    simulate(scene())


def test_as_many_claims_as_groups() -> None:
    """For one group that is free only one claim is looked at again, and none for another export or volume."""

    async def scene() -> None:
        site = Site({"gid": "auto", "gidRange": "70-70"})
        async with site.led():
            former = structs.replace(samples.record("former", claim_uid="former"), cluster="memory")
            await site.export.provision("pvc-former", former, Ownership(), gid_range=GidRange(70, 70))
            assert await site.reconcile() is REFUSED
            waiting = len(site.queue)
            site.controller.path_freed()
            site.controller.groups_freed(Export(Location("other", "/x"), MemoryTree()), 5)
            site.controller.groups_freed(site.export, 0)
            assert len(site.queue) == waiting == 0
            site.controller.groups_freed(site.export, 2)
            assert len(site.queue) == 1
            site.cluster.delete("claims", "shop/data")
            await site.reconcile()
            site.controller.groups_freed(site.export, 2)
            assert len(site.queue) == 1

    simulate(scene())
