"""controllers.orphans, in simulated time: what is reported, how often, and what is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.instances import Instances
from provisioner.controllers.sweep import Sweep
from provisioner.core import names
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import NfsSource
from provisioner.core.records import OnDelete, encode
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.runtime.leadership import Alone
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")
US, THEM = "memory", "another"
MINUTE_S = 60.0


def _no_other(location: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
    raise ExportError(Cause.UNREACHABLE, str(location))


class Site:
    """A cluster, an export, and the sweep of the leader; the test fills its cache."""

    def __init__(self) -> None:
        self.cluster, self.tree, self.clock, self.metrics = (
            MemoryCluster(identity=US),
            MemoryTree(),
            LoopClock(),
            Metrics(),
        )
        self.export = Export(NAS, self.tree)
        self.cache = ClusterCache(samples.US)
        self.revisited: list[str] = []

    async def start(self) -> None:
        """Open the export, and start the sweep."""
        await self.export.open()
        exports = ExportRegistry({NAS: self.export}, NAS, _no_other)
        ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=exports,
            metrics=self.metrics,
            clock=self.clock,
            cluster_id=US,
        )
        instances = Instances(Alone("pod"), self.clock, self.metrics, cluster=US, provisioner=samples.US)
        ctx = replace(ctx, guard=instances)
        self._sweep = Sweep(
            ctx, instances, revisit=self.revisited.append, freed=lambda: None, groups_freed=lambda *_: None
        )
        self._task = asyncio.create_task(self._sweep.run())
        self._sweep.export_ready(self.export)
        await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """Stop the sweep."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def record(
        self, number: int, *, cluster: str = US, pending: bool = False, rule: OnDelete = "delete", data: bool = True
    ) -> str:
        """Write a record with its directory, without a volume."""
        volume = f"pvc-{number}"
        held = samples.record(f"shop/{number}", claim_uid=str(number), on_delete=rule)
        await self.export.provision(volume, structs.replace(held, cluster=cluster), Ownership())
        if not pending:
            await self.export.settle(volume)
        if data:
            self.tree.write_file(("shop", str(number), "file"))
        return volume

    def sign(self, cluster: str) -> None:
        """Write the heartbeat of another cluster."""
        self.tree.plant_symlink((".provisioner", "clusters", cluster), f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}")

    @property
    def gauge(self) -> float | None:
        """The number of orphans by the metric."""
        return self.metrics.registry.get_sample_value("nfs_provisioner_orphans", {"export": "nas:/exports"})


def logged(scenario: Callable[[Site], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run a scenario; return the log lines about orphans."""
    site = Site()

    async def play() -> None:
        await scenario(site)

    with capture_logs() as logs:
        simulate(play())
    return [dict(line) for line in logs if line["event"].startswith("orphans")]


def test_one_line_for_each_change() -> None:
    """Orphans are logged immediately and once, again only after a change; the metric follows each time."""

    async def scenario(site: Site) -> None:
        await site.start()
        await site.record(1)
        await site.record(2, pending=True)
        await asyncio.sleep(60 * MINUTE_S)
        assert site.gauge == 2.0
        site.tree.root.entries["foreign"] = site.tree.root.entries["shop"]
        await asyncio.sleep(30 * MINUTE_S)
        assert site.gauge == 3.0
        for path, left in (("foreign", 2.0), ("shop", 0.0)):
            await site.tree.remove_tree((path,))
            await asyncio.sleep(30 * MINUTE_S)
            assert site.gauge == left
        await site.stop()
        assert site.gauge is None

    lines = logged(scenario)
    assert [(line["event"], line.get("kinds")) for line in lines] == [
        ("orphans", {"attempt-left": 1, "volume-gone": 1}),
        ("orphans", {"attempt-left": 1, "unknown": 1, "volume-gone": 1}),
        ("orphans", {"attempt-left": 1, "volume-gone": 1}),
        ("orphans_gone", None),
    ]
    assert (lines[1]["volumes"], lines[1]["unknown"]) == (["pvc-2", "pvc-1"], ["foreign"])


def test_a_record_without_data_is_removed() -> None:
    """A record without volume and directory is removed, and an empty attempt goes to the claim controller."""

    async def scenario(site: Site) -> None:
        await site.start()
        await site.record(1)
        await site.record(2, pending=True, data=False)
        await site.tree.remove_tree(("shop", "1"))
        await asyncio.sleep(2 * MINUTE_S)
        assert set(site.export.records) == {"pvc-2"}
        assert set(site.revisited) == {"2"}
        await site.stop()

    assert logged(scenario) == []


def test_a_cache_that_lags_makes_no_orphan() -> None:
    """A volume that exists, and that the cache does not know yet, is no orphan."""

    async def scenario(site: Site) -> None:
        await site.start()
        volume = await site.record(1)
        await site.cluster.create_volume(
            {"metadata": {"name": volume}, "spec": {"nfs": {"server": "nas", "path": "/x"}}}
        )
        await asyncio.sleep(5 * MINUTE_S)
        await site.stop()

    assert logged(scenario) == []


def test_a_directory_in_use_is_no_orphan() -> None:
    """A directory that a manually created volume uses is no orphan."""

    async def scenario(site: Site) -> None:
        by_hand = samples.volume(name="by-hand", nfs=NfsSource("nas", "/exports/shop/1"), provisioner="")
        site.cache.volumes.apply(by_hand, deleted=False)
        await site.start()
        await site.record(1)
        await asyncio.sleep(5 * MINUTE_S)
        await site.stop()

    assert logged(scenario) == []


def test_clusters_come_and_go() -> None:
    """Another cluster's records are reported while its provisioner is silent; this one's heartbeat never stops."""

    async def scenario(site: Site) -> None:
        await site.start()
        site.sign(THEM)
        await site.record(1, cluster=THEM)
        await asyncio.sleep(9 * MINUTE_S)
        assert site.gauge == 0.0
        await asyncio.sleep(3 * MINUTE_S)
        assert site.gauge == 1.0
        site.sign(THEM)
        await asyncio.sleep(2 * MINUTE_S)
        assert site.gauge == 0.0
        assert set(await site.export.heartbeats.last_seen()) == {US, THEM}
        await site.stop()

    assert [line["event"] for line in logged(scenario)] == ["orphans", "orphans_gone"]


def test_an_export_that_cannot_be_signed_is_looked_at() -> None:
    """A full export is still looked at, and one odd path does not hide the rest."""

    async def scenario(site: Site) -> None:
        await site.start()
        await site.record(1)
        await site.record(2)
        await site.tree.remove_tree(("shop", "2"))
        site.tree.plant_symlink(("shop", "2"), "/etc")
        site.tree.plant_symlink((".provisioner", "volumes", "pvc-3"), encode(samples.record("shop/3")))

        async def full(call: str, _path: tuple[str, ...]) -> None:
            if call == "make_symlink":
                raise ExportError(Cause.NO_SPACE)

        site.tree.before = full
        await asyncio.sleep(2 * MINUTE_S)
        assert site.gauge == 2.0
        await site.stop()

    assert [line["volumes"] for line in logged(scenario)] == [["pvc-1", "pvc-2"]]


def test_a_claim_that_waits_is_no_orphan() -> None:
    """An attempt for a pending claim is under way, and no orphan, whatever its directory holds."""

    async def scenario(site: Site) -> None:
        claim = samples.claim(uid="1", annotations={names.PROVISIONER_ANNOTATIONS[0]: samples.US})
        site.cache.claims.apply(claim, deleted=False)
        await site.start()
        await site.record(1, pending=True)
        await asyncio.sleep(5 * MINUTE_S)
        await site.stop()

    assert logged(scenario) == []


def test_a_record_that_is_garbled_while_it_is_used() -> None:
    """A damaged record is reported within minutes, until it is written again or removed."""

    async def scenario(site: Site) -> None:
        await site.start()
        volume = await site.record(1)
        path = (".provisioner", "volumes", volume)
        whole = await site.tree.read_symlink(path)
        await asyncio.sleep(700.0)
        site.tree.plant_symlink(path, "garbage")
        await asyncio.sleep(700.0)
        assert site.gauge == 1.0
        assert set(site.export.unreadable) == {volume}
        site.tree.plant_symlink(path, whole)
        await asyncio.sleep(100.0)
        assert not site.export.unreadable
        await site.stop()

    found = [(line.get("unreadable"), line.get("volumes")) for line in logged(scenario) if line["event"] == "orphans"]
    assert found == [([], ["pvc-1"]), (["pvc-1"], []), ([], ["pvc-1"])]
