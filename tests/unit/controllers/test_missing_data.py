"""controllers.missing_data: volumes without a directory or a record are counted and reported once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.missing_data import MissingData
from provisioner.core import names
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.runtime.events import EventRecorder
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import Directory, MemoryTree

NAS = Location("nas", "/exports")
MINUTE_S = 60.0


def _no_other(location: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
    raise ExportError(Cause.UNREACHABLE, str(location))


class Site:
    """A cluster, an export, and a process that looks each minute."""

    def __init__(self) -> None:
        self.cluster, self.tree, self.metrics, clock = MemoryCluster(), MemoryTree(), Metrics(), LoopClock()
        self.export = Export(NAS, self.tree)
        self.cache = ClusterCache(samples.US)
        exports = ExportRegistry({NAS: self.export}, NAS, _no_other)
        self.recorder = EventRecorder(self.cluster, clock)
        ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=exports,
            recorder=self.recorder,
            metrics=self.metrics,
            clock=clock,
        )
        self.lacking = MissingData(ctx)

    async def minutes(self, count: int) -> None:
        """Let time pass."""
        for _ in range(count):
            await self.lacking.look(self.export)
            await asyncio.sleep(MINUTE_S)

    async def volume(self, name: str, *, record: bool = True, directory: bool = True, phase: str = "Bound") -> None:
        """Create a volume, complete or not."""
        if record:
            await self.export.provision(name, samples.record(name, claim_uid=name), Ownership())
            await self.export.settle(name)
        elif directory:
            await self.tree.make_directory((name,), Ownership(mode=0o755))
        if record and not directory:
            self.tree.root.entries.pop(name)
        body = {
            "metadata": {"name": name, "annotations": {names.PROVISIONED_BY: samples.US}},
            "spec": {"nfs": {"server": "nas", "path": f"/exports/{name}"}},
            "status": {"phase": phase},
        }
        self.cluster.create("volumes", body)
        self.known()

    def known(self) -> None:
        """Bring the cache up to date."""
        self.cache.volumes.replace(self.cluster.volumes())

    def gauge(self, lacks: str) -> float | None:
        """How many volumes lack this, by the metric."""
        labels = {"export": "nas:/exports", "lacks": lacks}
        return self.metrics.registry.get_sample_value("nfs_provisioner_volumes_lacking", labels)

    def events(self) -> set[tuple[str, str]]:
        """The volumes with an event, and its reason."""
        return {(each.event.about.name, each.event.reason) for each in self.cluster.events.values()}


def played(scenario: Callable[[Site], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run a scenario in simulated time; return its log lines."""

    async def run() -> None:
        site = Site()
        await site.export.open()
        recorder = asyncio.create_task(site.recorder.run())
        await scenario(site)
        recorder.cancel()

    with capture_logs() as logs:
        simulate(run())
    return [dict(line) for line in logs if line["event"].startswith("volumes_")]


def test_what_lacks_something() -> None:
    """It is counted and gets an event from the second look on, and is logged once, and again when it is complete."""

    async def scenario(site: Site) -> None:
        await site.volume("whole")
        await site.volume("no-directory", directory=False)
        await site.volume("no-record", record=False)
        await site.volume("released", record=False, phase="Released")
        await site.minutes(1)
        assert site.gauge("directory-missing") == 0
        await site.minutes(3)
        assert (site.gauge("directory-missing"), site.gauge("record-missing")) == (1, 1)
        assert site.events() == {
            ("no-directory", "VolumeDirectoryMissing"),
            ("no-record", "VolumeRecordMissing"),
        }
        site.tree.root.entries["no-directory"] = Directory()
        site.tree.plant_symlink((".provisioner", "volumes", "no-record"), _target(site))
        await site.minutes(2)
        assert (site.gauge("directory-missing"), site.gauge("record-missing")) == (0, 0)

    first, last = played(scenario)
    assert (first["event"], first["count"], first["volumes"]) == ("volumes_lacking", 2, ["no-directory", "no-record"])
    assert last["event"] == "volumes_whole"


def _target(site: Site) -> str:
    node = site.tree.look((".provisioner", "volumes", "whole"))
    return str(getattr(node, "target", ""))


def test_a_moment_is_not_reported() -> None:
    """A volume that lacks something in one look only, or that is deleted since, is not reported."""

    async def scenario(site: Site) -> None:
        await site.volume("reclaimed", directory=False)
        await site.minutes(1)
        site.cluster.change("volumes", "reclaimed", lambda body: body["status"].update(phase="Released"))
        await site.minutes(12)
        assert site.gauge("directory-missing") == 0
        assert site.events() == set()

    assert played(scenario) == []


def test_what_it_costs() -> None:
    """A complete export is listed every ten minutes; missing data is looked at every minute."""

    async def scenario(site: Site) -> None:
        for number in range(20):
            await site.volume(f"v{number}")
        calls: list[str] = []

        async def note(call: str, _path: tuple[str, ...]) -> None:
            calls.append(call)

        site.tree.before = note
        await site.minutes(10)
        assert calls == ["list"]
        site.tree.root.entries.pop("v7")
        await site.minutes(10)
        assert calls == ["list", "list", *["is_empty"] * 10]

    assert [line["event"] for line in played(scenario)] == ["volumes_lacking"]


def test_many_volumes() -> None:
    """An export that lost all directories is counted completely, and a hundred of its volumes get an event."""

    async def scenario(site: Site) -> None:
        for number in range(150):
            await site.volume(f"v{number}", record=False, directory=False)
        await site.minutes(3)
        assert site.gauge("directory-missing") == 150
        assert len(site.events()) == 100

    (line,) = played(scenario)
    assert (line["count"], len(line["volumes"])) == (150, 20)
