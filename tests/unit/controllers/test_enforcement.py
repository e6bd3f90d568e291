"""controllers.enforcement: claims and expansions of classes with a quota wait for the quota agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.claims import ClaimController
from provisioner.controllers.clones import Clones
from provisioner.core import expansion, names
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.ledger import layout
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import ApiUnavailable
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import ENFORCING, FAILED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import Directory, MemoryTree, no_fault
from tests.support.quota_agent import AgentBeside

NAS = Location("nas", "/exports")
REQUIRED = {"quota": "required"}


class Site:
    """A leader with one pending claim, and an export beside which a quota agent can run."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.clock, self.cluster, self.tree = LoopClock(), MemoryCluster(), MemoryTree()
        self.agent = AgentBeside(self.tree, self.clock.now)
        self.metrics = Metrics()
        self.cluster.namespaces.add("shop")
        body: Any = msgspec.to_builtins(samples.claim())
        self.uid = str(self.cluster.create("claims", body)["metadata"]["uid"])
        self.volume_name = names.volume_name(self.uid)
        self.storage_class = samples.storage_class(parameters)
        self.start()

    def start(self) -> None:
        """Start another process, with an empty memory."""
        self.export, self.cache = Export(NAS, self.tree), ClusterCache(samples.US)
        self.cache.classes.apply(self.storage_class, deleted=False)
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=ExportRegistry({NAS: self.export}, NAS, lambda *_: pytest.fail("no other")),
            metrics=self.metrics,
            clock=self.clock,
            cluster_id="memory",
        )
        self.queue = WorkQueue(self.clock, waited=lambda _: None)
        self.share = FairShare(2, self.queue.add)
        locks = VolumeLocks()
        clones = Clones(self.ctx, locks, revisit=self.queue.add, released=lambda _: None)
        self.controller = ClaimController(self.ctx, self.queue, self.share, locks, clones)

    @asynccontextmanager
    async def led(self) -> AsyncIterator[None]:
        """Check the export, and write events, while the context is open."""
        tasks = [asyncio.create_task(each) for each in (self.ctx.health.run(), self.ctx.recorder.run())]
        await self.ctx.health.lead()
        try:
            yield
        finally:
            self.queue.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reconcile(self) -> Requeue | None:
        """Reconcile the claim once, with the cache as the API server is now, and count the outcome."""
        claim, volume = self.cluster.claim("shop/data"), self.cluster.volume(self.volume_name)
        for known in list(self.cache.claims.values()):
            if claim is None or claim.uid != known.uid:
                self.cache.claims.apply(known, deleted=True)
        if claim is not None:
            self.cache.claims.apply(claim, deleted=False)
        if volume is not None:
            self.cache.volumes.apply(volume, deleted=False)
        outcome = await self.controller.reconcile(self.uid)
        self.queue.requeue(self.uid, outcome)
        return outcome

    async def bound(self) -> None:
        """Provision the claim, and bind it as Kubernetes does."""
        self.agent.look()
        await self.reconcile()
        self.agent.look()
        assert await self.reconcile() is None
        self.change("volumes", self.volume_name, {"phase": "Bound"})
        self.cluster.change("claims", "shop/data", lambda body: body["spec"].update(volumeName=self.volume_name))
        self.change("claims", "shop/data", {"phase": "Bound", "capacity": {"storage": "1Gi"}})
        assert await self.reconcile() is None

    def change(self, kind: Any, key: str, status: dict[str, object]) -> None:
        """Change the status of an object."""
        self.cluster.change(kind, key, lambda body: body["status"].update(status))

    def request(self, size: str) -> None:
        """Request another size, as a user does."""
        self.cluster.change(
            "claims", "shop/data", lambda body: body["spec"]["resources"].update(requests={"storage": size})
        )

    @property
    def claim(self) -> Claim:
        """The claim, which must exist."""
        claim = self.cluster.claim("shop/data")
        assert claim is not None
        return claim

    @property
    def volume(self) -> Volume | None:
        """The volume of the claim."""
        return self.cluster.volume(self.volume_name)

    @property
    def limits(self) -> list[int]:
        """The limits that are in force."""
        return [limit for limit in self.agent.quotas.limits.values() if limit]

    async def warnings(self) -> list[str]:
        """The messages of the Warning events so far."""
        await self.ctx.recorder.drain()
        await asyncio.sleep(1.0)
        return [each.event.message for each in self.cluster.events.values() if each.event.type == "Warning"]

    def failures(self, work: str) -> float:
        """The number of failures for want of a quota, by the metric."""
        labels = {"work": work, "reason": "QuotaNotInForce"}
        return self.metrics.registry.get_sample_value("nfs_provisioner_failures_total", labels) or 0.0


# --------------------------------------------------------------------------------------------------- new volumes


def test_a_claim_that_waits_for_its_quota() -> None:
    """With `required` record and directory come first, and the volume when the agent enforces its size."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            site.agent.look()
            assert await site.reconcile() is ENFORCING
            assert (site.volume, list(site.export.pending)) == (None, [site.volume_name])
            assert site.export.records[site.volume_name].quota == "required"
            site.agent.look()
            assert site.limits == [1 << 30]
            assert await site.reconcile() is None
            assert site.volume is not None
            assert site.volume.metadata.annotations[names.QUOTA] == "required"
            assert (await site.warnings(), site.failures("provision"), list(site.export.pending)) == ([], 0, [])

    simulate(scene())


@pytest.mark.parametrize("wish", ["preferred", "none"])
def test_a_claim_that_does_not_wait(wish: str) -> None:
    """With `preferred` the volume is created immediately, and limited later; with `none` it is never limited."""

    async def scene() -> None:
        site = Site({"quota": wish})
        async with site.led():
            site.agent.look()
            assert await site.reconcile() is None
            assert site.volume is not None
            site.agent.look()
            assert site.limits == ([1 << 30] if wish == "preferred" else [])

    simulate(scene())


def test_no_agent() -> None:
    """Without an agent the claim waits, holds no worker, and its event says once what to do; with one it is bound."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            with capture_logs() as logs:
                for _ in range(8):
                    assert await site.reconcile() is ENFORCING
            assert len([line for line in logs if line["event"] == "provisioning_failed"]) == 1
            (message,) = await site.warnings()
            assert message == (
                "the class asks for quota: required, and no quota agent has reported on export nas:/exports: run"
                " `nfs-provisioner quota-agent` on its server"
            )
            assert site.failures("provision") == 8
            with site.share.slot(site.export.name, "a"), site.share.slot(site.export.name, "b"):
                pass  # all workers are free
            site.agent.look()
            assert await site.reconcile() is None
            assert site.volume is not None

    simulate(scene())


def test_an_agent_that_lacks_something() -> None:
    """The event says what the agent lacks."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            site.agent.quotas.lacks = ("it is mounted without prjquota: add it",)
            site.agent.look()
            assert await site.reconcile() is ENFORCING
            assert ["it is mounted without prjquota: add it" in each for each in await site.warnings()] == [True]

    simulate(scene())


def test_root_on_ext4() -> None:
    """On ext4 no volume is created, although its limit is in force, until an admin says that root is held."""

    async def scene() -> None:
        site = Site(REQUIRED)
        site.agent.quotas.filesystem = "ext4"
        async with site.led():
            for _ in range(2):
                assert await site.reconcile() is ENFORCING
                site.agent.look()
            assert site.limits == [1 << 30]
            assert any("--root-is-held" in each for each in await site.warnings())
            site.agent.start(root_is_held=True)
            site.agent.look()
            assert await site.reconcile() is None

    simulate(scene())


def test_a_slow_agent() -> None:
    """An agent that answers within a second causes no warning; one that takes longer causes one."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            site.agent.look()
            for _ in range(5):
                assert await site.reconcile() is ENFORCING
            assert (await site.warnings(), site.failures("provision")) == ([], 0)
            assert await site.reconcile() is ENFORCING
            assert ["has not answered for the volume yet" in each for each in await site.warnings()] == [True]

    simulate(scene())


def test_an_agent_that_is_gone() -> None:
    """An agent that was there and is silent is what the event names."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            site.agent.look()
            await asyncio.sleep(600.0)
            for _ in range(6):
                assert await site.reconcile() is ENFORCING
            assert ["has been silent since 2026-01-01T" in each for each in await site.warnings()] == [True]

    simulate(scene())


def test_a_look_at_a_claim_that_waits_costs_no_request() -> None:
    """A claim whose class's pattern reads labels is read once, again after claim or class changed, and at the end."""

    async def scene() -> None:
        site = Site({**REQUIRED, "pathPattern": "${.PVC.labels.app:-x}"})
        calls: list[str] = []

        async def count(call: str, _about: str) -> None:
            calls.append(call)

        async with site.led():
            assert await site.reconcile() is ENFORCING
            await site.warnings()
            site.cluster.before = count
            for _ in range(5):
                assert await site.reconcile() is ENFORCING
            assert "get_claim" not in calls
            site.cluster.change("claims", "shop/data", lambda body: body["metadata"].update(labels={"app": "y"}))
            for _ in range(5):
                assert await site.reconcile() is ENFORCING
            assert calls.count("get_claim") == 1
            other = samples.storage_class({**REQUIRED, "pathPattern": "${.PVC.labels.app}"})
            site.cache.classes.apply(other, deleted=False)
            for _ in range(5):
                assert await site.reconcile() is ENFORCING
            assert calls.count("get_claim") == 2
            site.agent.look()
            assert await site.reconcile() is None
            assert calls.count("get_claim") == 3

    simulate(scene())


def test_the_claim_is_deleted_while_it_waits() -> None:
    """Directory and record go with the claim, as for any other attempt."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            site.cluster.delete("claims", "shop/data")
            assert await site.reconcile() is None
            assert (site.volume, dict(site.export.records)) == (None, {})
            assert set(site.tree.root.entries) == {".provisioner"}
            site.agent.look()
            assert site.limits == []

    simulate(scene())


def test_the_claim_is_deleted_during_a_look() -> None:
    """A claim that is deleted while the answer is read gets no volume."""

    async def scene() -> None:
        site = Site(REQUIRED)

        async with site.led():
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            claim = site.claim
            site.cluster.delete("claims", "shop/data")

            async def gone(_call: str, _path: RelPath) -> None:
                if claim.uid in site.cache.claims:
                    site.cache.claims.apply(claim, deleted=True)

            site.cache.claims.apply(claim, deleted=False)
            site.tree.after = gone
            assert await site.controller.reconcile(site.uid) is None
            assert (site.volume, dict(site.export.records)) == (None, {})

    simulate(scene())


def test_a_restart_while_a_claim_waits() -> None:
    """Another process continues with the same record and the same directory."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            assert await site.reconcile() is ENFORCING
        before = dict(site.export.records)
        site.start()
        async with site.led():
            assert await site.reconcile() is ENFORCING
            assert site.export.records == before
            site.agent.look()
            assert await site.reconcile() is None
            assert set(site.tree.root.entries) == {".provisioner", before[site.volume_name].directory}

    simulate(scene())


def test_the_record_changes_while_a_claim_waits() -> None:
    """If another leader has ended the attempt, all of it is done again."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            site.agent.look()
            assert await site.reconcile() is ENFORCING
            directory = site.export.records[site.volume_name].directory
            await site.tree.remove_directory((directory,))
            await site.tree.remove_symlink(layout.of("pending", site.volume_name))
            assert await site.reconcile() is ENFORCING
            assert isinstance(site.tree.look((directory,)), Directory)
            site.agent.look()
            assert await site.reconcile() is None

    simulate(scene())


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("first", "then"), [("required", "none"), ("required", "preferred")])
def test_the_class_is_replaced_while_a_claim_waits(first: str, then: str, restarted: bool) -> None:
    """A claim follows the class as it is now: it need not wait for an agent that the class no longer requires."""

    async def scene() -> None:
        site = Site({"quota": first})
        async with site.led():
            assert await site.reconcile() is ENFORCING
            before = site.export.records[site.volume_name]
        site.storage_class = samples.storage_class({"quota": then})
        site.cache.classes.apply(site.storage_class, deleted=False)
        if restarted:
            site.start()
        async with site.led():
            assert await site.reconcile() is None
            assert site.volume is not None
            assert names.QUOTA in site.volume.metadata.annotations or then == "none"
            record = site.export.records[site.volume_name]
            assert (record.quota, record.directory) == (then, before.directory)

    simulate(scene())


def test_a_class_that_begins_to_require_a_quota() -> None:
    """A claim that has its directory, and no volume yet, waits for the agent as the class says now."""

    async def scene() -> None:
        site = Site({"quota": "none"})
        async with site.led():

            async def unavailable(call: str, _about: str) -> None:
                if call == "create_volume":
                    raise ApiUnavailable("the API server is restarting")

            before, site.cluster.before = site.cluster.before, unavailable
            assert await site.reconcile() is FAILED
            site.cluster.before = before
            site.cache.classes.apply(samples.storage_class(REQUIRED), deleted=False)
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            assert await site.reconcile() is None
            assert site.limits == [1 << 30]

    simulate(scene())


def test_data_that_was_there_first() -> None:
    """A claim that adopts a directory waits until all content counts, and until the content fits its size."""

    async def scene() -> None:
        site = Site({**REQUIRED, "onDelete": "retain", "pathPattern": "kept"})
        async with site.led():
            former = structs.replace(samples.record("kept", claim_uid="former"), cluster="memory")
            await site.export.provision("pvc-former", former, Ownership())
            await site.export.settle("pvc-former")
            site.tree.write_file(("kept", "file"), b"x" * 4096)
            await site.export.retain("pvc-former", site.clock.now())
            kept = site.tree.look(("kept", "file"))
            site.agent.quotas.busy.add(id(kept))
            site.agent.look()
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            for _ in range(6):
                assert await site.reconcile() is ENFORCING
            assert any("NFS clients hold files open" in each for each in await site.warnings())
            site.agent.quotas.busy.clear()
            site.agent.look()
            assert await site.reconcile() is None
            assert dict(site.export.records).keys() == {site.volume_name}

    simulate(scene())


# --------------------------------------------------------------------------------------------------- expansion


def sizes(site: Site) -> tuple[str, str, str]:
    """Return the sizes of claim, volume and record."""
    assert site.volume is not None
    claim = site.claim.status.capacity["storage"]
    return claim, site.volume.capacity, site.export.records[site.volume_name].capacity


def test_an_expansion_waits_for_its_quota() -> None:
    """The record grows first, the claim is marked and waits, and claim and volume grow once the limit has."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            site.request("2Gi")
            assert await site.reconcile() is ENFORCING
            assert sizes(site) == ("1Gi", "1Gi", "2Gi")
            assert site.claim.status.allocated_resource_statuses == {"storage": "ControllerResizeInProgress"}
            assert await site.reconcile() is ENFORCING
            assert await site.warnings() == []
            site.agent.look()
            assert site.limits == [2 << 30]
            assert await site.reconcile() is None
            assert sizes(site) == ("2Gi", "2Gi", "2Gi")
            assert not expansion.is_marked(site.claim)

    simulate(scene())


@pytest.mark.parametrize("wish", ["preferred", "none"])
def test_an_expansion_that_does_not_wait(wish: str) -> None:
    """Without `required` an expansion is granted immediately, and the limit follows."""

    async def scene() -> None:
        site = Site({"quota": wish})
        async with site.led():
            await site.bound()
            site.request("2Gi")
            assert await site.reconcile() is None
            assert sizes(site) == ("2Gi", "2Gi", "2Gi")
            site.agent.look()
            assert site.limits == ([2 << 30] if wish == "preferred" else [])

    simulate(scene())


def test_an_expansion_that_takes_long() -> None:
    """After some looks an event says what is missing; the claim stays marked as in progress."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            site.request("2Gi")
            for _ in range(7):
                assert await site.reconcile() is ENFORCING
            (message,) = await site.warnings()
            assert message.startswith("resizing to 2Gi waits, as the class asks for quota: required: the size of the")
            assert not expansion.is_infeasible(site.claim)

    simulate(scene())


def test_an_expansion_that_cannot_be() -> None:
    """Without an agent the claim says ControllerResizeInfeasible; it grows when the agent is there, or is lowered."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            site.agent.quotas.lacks = ("mounted without prjquota",)
            site.agent.look()
            site.request("2Gi")
            for _ in range(2):
                assert await site.reconcile() is ENFORCING
            assert expansion.is_infeasible(site.claim)
            assert ["mounted without prjquota" in each for each in await site.warnings()] == [True]
            assert site.failures("resize") == 2
            site.agent.quotas.lacks = ()
            site.agent.look()
            assert await site.reconcile() is None
            assert sizes(site) == ("2Gi", "2Gi", "2Gi")
            assert not expansion.is_marked(site.claim)

    simulate(scene())


@pytest.mark.parametrize("size", ["1Gi", "2Gi"])
def test_an_expansion_that_is_lowered(size: str) -> None:
    """A request that is lowered again lowers the record, and with it the limit, but never below the volume's size."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            site.request("9Gi")
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            site.request(size)
            outcome = await site.reconcile()
            assert outcome is (ENFORCING if size == "2Gi" else None)
            site.agent.look()
            if outcome is not None:
                assert await site.reconcile() is None
            assert (sizes(site), site.limits) == ((size, size, size), [int(size[0]) << 30])
            assert not expansion.is_marked(site.claim)

    simulate(scene())


def test_an_expansion_on_an_export_that_fails() -> None:
    """An expansion waits for its export, since the record has to be written first."""

    async def scene() -> None:
        site = Site(REQUIRED)

        async def silent(_call: str, _path: RelPath) -> None:
            raise ExportError(Cause.UNREACHABLE, "no answer")

        async with site.led():
            await site.bound()
            site.request("2Gi")
            site.tree.before = silent
            assert await site.reconcile() is FAILED
            assert ["is not responding" in each for each in await site.warnings()] == [True]
            assert sizes(site) == ("1Gi", "1Gi", "1Gi")
            site.tree.before = no_fault
            await asyncio.sleep(120.0)
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            assert await site.reconcile() is None

    simulate(scene())


@pytest.mark.parametrize("lowered", [False, True])
def test_an_expansion_without_a_record(lowered: bool) -> None:
    """Without a record nothing can be enforced: the claim says so by the annotation of its volume."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            await site.tree.remove_symlink(layout.of("volumes", site.volume_name))
            await site.export.refresh_record(site.volume_name)
            site.request("2Gi")
            assert await site.reconcile() is ENFORCING
            assert any("has no record of the volume" in each for each in await site.warnings())
            if lowered:
                site.request("1Gi")
                assert await site.reconcile() is None
                assert not expansion.is_marked(site.claim)

    simulate(scene())


def test_the_record_says_otherwise() -> None:
    """The record decides, not the annotation that a volume of a lost record has."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            await site.bound()
            record = site.export.records[site.volume_name]
            await site.export.replace_record(site.volume_name, structs.replace(record, quota="none"))
            site.start()
        async with site.led():
            site.request("2Gi")
            assert await site.reconcile() is None
            assert sizes(site) == ("2Gi", "2Gi", "2Gi")

    simulate(scene())


def test_what_is_in_force_counts() -> None:
    """`overcommit` counts the limit of a claim that still waits for its volume."""

    async def scene() -> None:
        site = Site({**REQUIRED, "overcommit": "1"})
        async with site.led():
            waiting = structs.replace(samples.record("b", claim_uid="b"), quota="required", capacity="1023Gi")
            await site.export.provision("pvc-b", waiting, Ownership())
            assert await site.reconcile() is ENFORCING
            await site.export.undo("pvc-b")
            more = structs.replace(waiting, capacity="1024Gi")
            await site.export.provision("pvc-b", more, Ownership())
            site.start()
        async with site.led():
            assert await site.reconcile() is REFUSED
            assert any("overcommit" in each for each in await site.warnings())

    simulate(scene())


def test_another_record_of_the_claim() -> None:
    """The answer for an attempt that was undone does not count for the directory of the next one."""

    async def scene() -> None:
        site = Site(REQUIRED)
        async with site.led():
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            await site.export.undo(site.volume_name)
            await asyncio.sleep(5.0)
            assert await site.reconcile() is ENFORCING
            assert await site.reconcile() is ENFORCING
            site.agent.look()
            assert await site.reconcile() is None
            assert site.limits == [1 << 30]

    simulate(scene())
