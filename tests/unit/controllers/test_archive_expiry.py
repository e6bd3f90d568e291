"""controllers.archive_expiry, in simulated time, with clocks that change while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from msgspec import structs

from provisioner.controllers.archive_expiry import ArchiveExpiry
from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.returned import Returned
from provisioner.core.locations import Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ports.cluster import ApiUnavailable
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes import cluster as fake
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.guard import Gate
from tests.support.fakes.tree import Directory, File, MemoryTree, no_fault

NAS = Location("nas", "/exports")
HOUR_S, DAY_S = 3600.0, 86400.0
CLUSTER = "memory"


class NodeClock(LoopClock):
    """A node's clock with an error of some seconds; `steady` keeps the error from the start of the process."""

    def __init__(self, off_s: float = 0.0) -> None:
        super().__init__()
        self.off_s = self._at_start_s = off_s

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.off_s)

    def steady(self) -> datetime:
        return super().steady() + timedelta(seconds=self._at_start_s)


class DatedCluster(MemoryCluster):
    """A cluster whose API server's clock has an error of some seconds, or whose time is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.name = CLUSTER
        self.off_s: float | None = 0.0

    async def cluster_uid(self) -> str:
        return self.name

    def server_time(self) -> datetime | None:
        return None if self.off_s is None else LoopClock().now() + timedelta(seconds=self.off_s)


class Site:
    """A cluster, an export, and the running process."""

    def __init__(self) -> None:
        self.cluster, self.tree = DatedCluster(), MemoryTree()
        self.node_off_s = 0.0
        self.gate = Gate()
        self.discarded: list[Export] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start a new process, which takes over the node's clock as it is."""
        if self._task is not None:
            self._task.cancel()
        self.export = Export(NAS, self.tree)
        await self.export.open()
        self.clock = NodeClock(self.node_off_s)
        exports = ExportRegistry({NAS: self.export}, NAS, _no_other)
        metrics = Metrics()
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=ClusterCache(samples.US),
            exports=exports,
            metrics=metrics,
            clock=self.clock,
            cluster_id=CLUSTER,
            guard=self.gate,
        )
        self.expiry = ArchiveExpiry(self.ctx, Returned(self.ctx), discarded=self.discarded.append)
        self._task = asyncio.create_task(self.expiry.keep(self.export))

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()

    def set_node_clock(self, off_s: float) -> None:
        self.node_off_s = self.clock.off_s = off_s

    async def archive(self, number: int, retention: str, *, cluster: str = CLUSTER) -> str:
        """Create a volume and archive it now."""
        volume = f"pvc-{number}"
        record = samples.record(f"a{number}", claim_uid=str(number))
        record = structs.replace(record, retention=retention, cluster=cluster)
        await self.export.provision(volume, record, Ownership())
        await self.export.settle(volume)
        self.tree.write_file((f"a{number}", "data"), b"data")
        name = await self.export.archive(volume, self.ctx.moment().latest)
        await self.export.forget(volume)
        assert name is not None
        self.expiry.volume_deleted(samples.volume(name=volume, nfs=samples.SOURCE))
        return name

    def has(self, name: str) -> bool:
        return self.tree.look((name, "data")) == File(b"data")


def _no_other(where: Location, options: MountOptions) -> tuple[Export, SetRoutes]:
    raise AssertionError(f"nothing names {where}, {options}")


def on_a_site(scenario: Callable[[Site], Awaitable[None]]) -> None:
    """Run a scenario on a fresh site, in simulated time."""

    async def run() -> None:
        site = Site()
        await site.start()
        await scenario(site)
        await site.stop()

    simulate(run())


def test_two_clusters_with_one_id() -> None:
    """While two clusters are at work no archive expires; all that are due expire once that is over."""

    async def scenario(site: Site) -> None:
        archives = [await site.archive(number, "3s") for number in range(3)]
        site.gate.shut = Cause.TWICE
        await asyncio.sleep(HOUR_S)
        assert all(site.has(each) for each in archives)
        site.gate.shut = None
        await asyncio.sleep(70)
        assert not any(site.has(each) for each in archives)

    on_a_site(scenario)


def test_an_archive_expires_in_time() -> None:
    """An archive is moved into the trash within seconds of its time, and the purge is notified."""

    async def scenario(site: Site) -> None:
        for number, retention in enumerate(("3s", "2h", "")):
            await site.archive(number, retention)
        short, hours, forever = site.export.archived
        await asyncio.sleep(3)
        assert site.has(short)
        await asyncio.sleep(10)
        assert [site.has(each) for each in (short, hours, forever)] == [False, True, True]
        assert site.discarded == [site.export]
        trash = site.tree.look((".provisioner", "trash"))
        assert isinstance(trash, Directory)
        assert len(trash.entries) == 1
        await asyncio.sleep(2 * HOUR_S - 13)
        assert site.has(hours)
        await asyncio.sleep(70)
        assert [site.has(hours), site.has(forever)] == [False, True]
        await asyncio.sleep(2 * DAY_S)
        assert site.has(forever)

    on_a_site(scenario)


@pytest.mark.parametrize(("phase", "event_after_s"), [("Bound", 60.0), ("Released", 300.0)])
def test_an_archive_whose_volume_exists_again(phase: str, event_after_s: float) -> None:
    """An archive stays while its volume exists; the event comes immediately if a claim has it, else after minutes."""

    async def scenario(site: Site) -> None:
        archive = await site.archive(1, "1h")
        site.cluster.create("volumes", {"metadata": {"name": "pvc-1"}, "status": {"phase": phase}})
        async with asyncio.TaskGroup() as group:
            events = group.create_task(site.ctx.recorder.run())
            await asyncio.sleep(HOUR_S + 30.0)
            assert bool(site.cluster.events) is (phase == "Bound")
            await asyncio.sleep(event_after_s)
            assert {each.event.reason for each in site.cluster.events.values()} == {"VolumeDataKept"}
            await asyncio.sleep(DAY_S)
            assert site.has(archive)
            events.cancel()
        site.cluster.change("volumes", "pvc-1", lambda body: body["metadata"].update(finalizers=[]))
        site.cluster.delete("volumes", "pvc-1")
        await asyncio.sleep(120.0)
        assert not site.has(archive)

    on_a_site(scenario)


def test_an_archive_while_the_api_server_is_silent() -> None:
    """While the API server does not answer, the volume of an archive counts as existing."""

    async def scenario(site: Site) -> None:
        archive = await site.archive(1, "1h")

        async def silent(call: str, _about: str) -> None:
            if call == "get_volume":
                raise ApiUnavailable("silent")

        site.cluster.before = silent
        await asyncio.sleep(2 * HOUR_S)
        assert site.has(archive)
        site.cluster.before = fake.no_fault
        await asyncio.sleep(120.0)
        assert not site.has(archive)

    on_a_site(scenario)


def test_archives_of_other_clusters() -> None:
    """Archives of another cluster stay, and all stay while the API server belongs to an unknown cluster."""

    async def scenario(site: Site) -> None:
        theirs = await site.archive(1, "1h", cluster="another")
        ours = await site.archive(2, "1h")
        site.cluster.name = "restored from elsewhere"
        await asyncio.sleep(3 * HOUR_S)
        assert site.has(theirs)
        assert site.has(ours)

    on_a_site(scenario)


def test_no_time_from_the_api_server() -> None:
    """While the API server's time is unknown, archives stay, however long that takes."""

    async def scenario(site: Site) -> None:
        name = await site.archive(1, "1h")
        site.cluster.off_s = None
        await asyncio.sleep(2 * DAY_S)
        assert site.has(name)
        site.cluster.off_s = 0.0
        await asyncio.sleep(120)
        assert not site.has(name)

    on_a_site(scenario)


@pytest.mark.parametrize("which", ["node", "server"])
@pytest.mark.parametrize("seed", range(3))
def test_clocks_that_are_set_at_random(seed: int, which: str) -> None:
    """With one clock changed at random, also across restarts, no archive expires early; with the right time all do."""
    chance = random.Random(seed)

    async def scenario(site: Site) -> None:
        ends_s: dict[str, float] = {}
        for number in range(12):
            off_s = chance.choice([0.0, chance.uniform(-1, 1) * DAY_S])
            if which == "node":
                site.set_node_clock(off_s)
            else:
                site.cluster.off_s = off_s
            if chance.random() < 0.4:
                await site.start()
            hours = chance.randint(1, 5)
            name = await site.archive(number, f"{hours}h")
            ends_s[name] = site.clock.monotonic() + hours * HOUR_S
            await asyncio.sleep(chance.uniform(0, 2) * HOUR_S)
            now_s = site.clock.monotonic()
            assert [name for name, end_s in ends_s.items() if not site.has(name) and now_s < end_s] == []
        site.set_node_clock(0.0)
        site.cluster.off_s = 0.0
        await site.start()
        await asyncio.sleep(30 * HOUR_S)  # archives that were stamped late are kept longer
        assert not [name for name in ends_s if site.has(name)]

    on_a_site(scenario)


def test_a_refused_move_does_not_hold_back_others() -> None:
    """If the server refuses to move one archive, the next one is still moved."""

    async def scenario(site: Site) -> None:
        first, second = await site.archive(1, "1h"), await site.archive(2, "1h")

        async def deny(call: str, path: tuple[str, ...]) -> None:
            if call == "rename" and path == (first,):
                raise ExportError(Cause.DENIED, first)

        site.tree.before = deny
        await asyncio.sleep(2 * HOUR_S)
        assert (site.has(first), site.has(second)) == (True, False)

    on_a_site(scenario)


def test_an_archive_that_was_removed() -> None:
    """The record of an archive that an admin removed is deleted within minutes; all other records stay."""

    async def scenario(site: Site) -> None:
        first, second = await site.archive(1, ""), await site.archive(2, "")
        theirs = await site.archive(3, "", cluster="another")
        del site.tree.root.entries[first], site.tree.root.entries[theirs]
        await asyncio.sleep(180)
        assert set(site.export.archived) == {second, theirs}

    on_a_site(scenario)


def test_an_unexpected_error_is_that_archives_own() -> None:
    """An archive that raises an unexpected error does not hold back others, and expires when the error has passed."""

    async def scenario(site: Site) -> None:
        odd, *others = [await site.archive(number, "1m") for number in range(4)]

        async def before(call: str, path: RelPath) -> None:
            if call == "rename" and path == (odd,):
                raise RuntimeError("odd")

        site.tree.before = before
        await asyncio.sleep(HOUR_S)
        assert [site.has(each) for each in (odd, *others)] == [True, False, False, False]
        site.tree.before = no_fault
        await asyncio.sleep(120)
        assert not site.has(odd)

    on_a_site(scenario)


def test_an_archive_that_a_volume_uses() -> None:
    """An archive whose directory a PersistentVolume uses stays until that volume is gone, read live."""

    async def scenario(site: Site) -> None:
        name = await site.archive(1, "1h")
        spec = {"nfs": {"server": "nas", "path": f"/exports/{name}"}, "capacity": {"storage": "1Gi"}}
        await site.cluster.create_volume({"metadata": {"name": "by-hand"}, "spec": spec})
        volume = site.cluster.volume("by-hand")
        assert volume is not None
        site.ctx.cache.volumes.apply(volume, deleted=False)
        await asyncio.sleep(3 * HOUR_S)
        assert site.has(name)
        await site.cluster.delete_volume(volume)  # the cache does not know this yet
        await asyncio.sleep(120)
        assert not site.has(name)

    on_a_site(scenario)
