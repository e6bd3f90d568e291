"""controllers.usage: what the leader does with the answers of quota agents."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers import gauges
from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.usage import VolumeUsage
from provisioner.core import quota, times
from provisioner.core.locations import Location
from provisioner.core.objects import ClaimRef, ClaimStatus, NfsSource
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, Heartbeat
from provisioner.core.records import Quota
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import ApiUnavailable, Forbidden
from provisioner.ports.tree import Cause, ExportError, Ownership
from provisioner.runtime.events import EventRecorder
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import Body, MemoryCluster
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")
GROWS = {"quota": "preferred", "autoGrow": "20%", "autoGrowLimit": "14Gi"}
NAME = "nas:/exports"


class Site:
    """An export with volumes of claims, and the agent's answers about them."""

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        self.tree, self.clock = MemoryTree(), LoopClock()
        self.export, self.metrics = Export(NAS, self.tree), Metrics()
        self.cluster, self.cache = MemoryCluster(), ClusterCache(samples.US)
        exports = ExportRegistry({NAS: self.export}, NAS, lambda *_: pytest.fail("no other"))
        self.recorder = EventRecorder(self.cluster, self.clock)
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=exports,
            recorder=self.recorder,
            metrics=self.metrics,
            clock=self.clock,
            cluster_id="memory",
        )
        self.usage = VolumeUsage(self.ctx)
        self.sending: list[asyncio.Task[None]] = []
        self.cluster.namespaces.add("shop")
        self.cache.classes.apply(
            samples.storage_class(parameters or {"quota": "preferred"}, expands=True), deleted=False
        )

    async def volume(self, name: str, *, size: str = "10Gi", wish: Quota = "preferred", phase: str = "Bound") -> None:
        """Create a claim and its volume, with a record."""
        record = structs.replace(samples.record(name, claim_uid=name), cluster="memory", quota=wish, capacity=size)
        await self.export.provision(name, record, Ownership())
        await self.export.settle(name)
        status = ClaimStatus(phase="Bound", capacity={"storage": size})
        claim = samples.claim(name=name, spec=samples.claim_spec(size=size, volume_name=name), status=status)
        body: Any = msgspec.to_builtins(claim)
        uid = self.cluster.create("claims", body)["metadata"]["uid"]
        made = samples.volume(name=name, phase=phase, capacity=size, nfs=NfsSource("nas", f"/exports/{name}"))
        spec = structs.replace(made.spec, claim_ref=ClaimRef("shop", name, uid))
        volume: Any = msgspec.to_builtins(structs.replace(made, spec=spec))
        self.cluster.create("volumes", volume)
        self.known()

    def restart(self) -> None:
        """Let another replica lead, which has recorded no event yet."""
        self.recorder = EventRecorder(self.cluster, self.clock)
        self.ctx = dataclasses.replace(self.ctx, recorder=self.recorder)
        self.usage = VolumeUsage(self.ctx)
        self.sending.append(asyncio.create_task(self.recorder.run()))

    def known(self) -> None:
        """Bring the cache up to date."""
        self.cache.volumes.replace(self.cluster.volumes())
        self.cache.claims.replace(self.cluster.claims())

    def expand(self, name: str, size: str) -> None:
        """Give a claim and its volume this size, as the expansion does."""

        def of_claim(body: Body) -> None:
            body["status"]["capacity"] = {"storage": size}

        def of_volume(body: Body) -> None:
            body["spec"]["capacity"] = {"storage": size}

        self.cluster.change("claims", f"shop/{name}", of_claim)
        self.cluster.change("volumes", name, of_volume)
        self.known()

    def answer(self, name: str, percent: float, *, size: str = "10Gi", **more: Any) -> None:
        """Write the agent's answer about a volume: its size is in force, and it is full to this part."""
        limit_bytes = quota.limit_for(parse_bytes(size))
        said = Answer(
            project=7, limit_bytes=limit_bytes, used_bytes=int(limit_bytes * percent / 100), whole=True, at=self.time()
        )
        self.write(quota.answer_path(name), quota.encode(structs.replace(said, **more)))

    def beat(self, **more: Any) -> None:
        """Write the agent's heartbeat."""
        said = Heartbeat(at=self.time(), filesystem="xfs", enforces=True, holds_root=True)
        self.write(quota.HEARTBEAT, quota.encode(structs.replace(said, **more)))

    def write(self, path: tuple[str, ...], text: str) -> None:
        """Write a symlink as the agent does."""
        self.tree.plant_symlink(path, text)

    def time(self) -> str:
        """The time as text."""
        return times.text(self.clock.now())

    async def look(self, seconds: float = 60) -> None:
        """Let time pass, and look."""
        await asyncio.sleep(seconds)
        await self.usage.look(self.export)

    async def filled(self, name: str, percent: float, **more: Any) -> None:
        """Let a volume be filled to a part, and look."""
        await asyncio.sleep(60)
        self.answer(name, percent, **more)
        self.beat()
        await self.usage.look(self.export)
        await self.recorder.drain()
        self.known()

    def events(self) -> list[tuple[str, str, str]]:
        """The claims with events, in the order of creation."""
        return [(each.event.about.name, each.event.reason, each.event.message) for each in self.cluster.events.values()]

    def reasons(self) -> list[str]:
        """The reasons of the events."""
        return [reason for _, reason, _ in self.events()]

    def requested(self, name: str) -> str:
        """What a claim requests."""
        claim = self.cluster.claim(f"shop/{name}")
        assert claim is not None
        return claim.requested

    def gauge(self, name: str, **labels: str) -> float | None:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(f"nfs_provisioner_{name}", labels)


def played(scenario: Any, parameters: Mapping[str, str] | None = None, *, volume_metrics: bool = True) -> list[str]:
    """Run a scenario in simulated time; return the events of its log."""

    async def run() -> None:
        site = Site(parameters)
        await site.export.open()
        await site.tree.make_directory(quota.ANSWERS, Ownership())
        site.sending.append(asyncio.create_task(site.recorder.run()))
        with gauges.sampled(site.ctx, queue_depths=dict, volume_metrics=volume_metrics):
            await scenario(site)
        for task in site.sending:
            task.cancel()

    with capture_logs() as logs:
        simulate(run())
    return [line["event"] for line in logs if line["log_level"] != "debug"]


def test_the_metrics_of_volumes() -> None:
    """Usage and limit have the claim's names, follow the answers, and end with the volume."""

    async def scenario(site: Site) -> None:
        await site.volume("data")
        await site.volume("copied")
        site.answer("copied", 50, whole=False, reason="labelling", limit_bytes=0)
        await site.filled("data", 50)
        of = {"namespace": "shop", "persistentvolumeclaim": "data"}
        assert site.gauge("volume_used_bytes", **of) == 5 << 30
        assert site.gauge("volume_limit_bytes", **of) == 10 << 30
        assert site.gauge("volume_used_bytes", namespace="shop", persistentvolumeclaim="copied") is None
        assert site.gauge("volume_limit_bytes", namespace="shop", persistentvolumeclaim="copied") is None
        await site.filled("data", 86)
        assert site.gauge("volume_used_bytes", **of) == int(86 * (10 << 30) / 100)
        assert [site.gauge("volumes_nearly_full", export=NAME, percent=each) for each in ("85", "95", "100")] == [
            1,
            0,
            0,
        ]
        volume = site.cluster.volume("data")
        assert volume is not None
        site.cache.volumes.apply(volume, deleted=True)
        site.usage.volume_deleted(volume)
        assert site.gauge("volume_used_bytes", **of) is None
        assert site.gauge("volumes_nearly_full", export=NAME, percent="85") == 0
        site.usage.forget(site.export)
        assert site.gauge("volumes_nearly_full", export=NAME, percent="85") is None

    played(scenario)


def test_single_volumes_have_metrics_only_on_request() -> None:
    """Without --volume-metrics no metric has the name of a claim; the sums are there."""

    async def scenario(site: Site) -> None:
        await site.volume("data")
        await site.filled("data", 99)
        assert site.gauge("volume_used_bytes", namespace="shop", persistentvolumeclaim="data") is None
        assert site.gauge("volumes_nearly_full", export=NAME, percent="95") == 1
        site.usage.clear()
        assert site.gauge("volumes_nearly_full", export=NAME, percent="95") is None

    played(scenario, volume_metrics=False)


def test_a_volume_that_fills_up() -> None:
    """Its claim gets one event at 85 %, at 95 % and when it is full, however often the leader looks."""

    async def scenario(site: Site) -> None:
        await site.volume("data")
        for percent in (10, 86, 87, 88, 95.5, 96, 100, 100, 98, 100):
            await site.filled("data", percent)
            await site.look()
        assert site.reasons() == ["VolumeNearlyFull", "VolumeNearlyFull", "VolumeFull"]
        assert {each.count for each in site.cluster.events.values()} == {1}
        await site.filled("data", 20)
        await site.filled("data", 90)
        assert {each.count for each in site.cluster.events.values()} == {1, 2}

    assert played(scenario) == ["volume_filling"] * 4


def test_the_next_leader_does_not_repeat_events() -> None:
    """After a start, old levels are silent, and a level of the last hour is the event that is there already."""

    async def scenario(site: Site) -> None:
        for name in ("old", "new"):
            await site.volume(name)
        await site.filled("old", 86)
        assert [name for name, _, _ in site.events()] == ["old"]
        await asyncio.sleep(7200)
        await site.filled("new", 96)
        before = dict(site.cluster.events)
        assert len(before) == 2
        site.restart()
        await site.look()
        await site.recorder.drain()
        assert site.cluster.events.keys() == before.keys()
        assert {each.count for each in site.cluster.events.values()} == {1}
        await site.filled("old", 96)
        assert len(site.events()) == 3

    played(scenario)


def test_a_silent_agent() -> None:
    """Old answers are still served, but cause no event; the log says once that the agent is silent, and back."""

    async def scenario(site: Site) -> None:
        await site.volume("data")
        await site.look()
        assert site.gauge("quota_heartbeat_age_seconds", export=NAME) == float("inf")
        site.answer("data", 99)
        site.beat(at=times.text(datetime(2025, 12, 31, tzinfo=UTC)))
        await site.look()
        assert site.gauge("volumes_nearly_full", export=NAME, percent="95") == 1
        assert site.gauge("quota_heartbeat_age_seconds", export=NAME) == pytest.approx(86400 + 120)
        assert site.events() == []
        site.beat()
        await site.look(1)
        await site.recorder.drain()
        assert site.gauge("quota_heartbeat_age_seconds", export=NAME) == pytest.approx(1, abs=0.1)
        assert site.reasons() == ["VolumeNearlyFull"]

    assert played(scenario) == ["quota_agent_silent", "quota_agent_back", "volume_filling"]


def test_a_look_is_cheap() -> None:
    """The answers are read once per heartbeat, and an export on which nothing asks is looked at every five minutes."""
    calls: list[str] = []

    async def scenario(site: Site) -> None:
        async def count(name: str, _path: object) -> None:
            calls.append(name)

        await site.volume("data", wish="none")
        site.tree.before = count
        for _ in range(21):
            await site.look(30)
        assert len(calls) == 3
        assert site.gauge("quota_heartbeat_age_seconds", export=NAME) is None
        await site.volume("asks")
        await site.filled("asks", 10)
        calls.clear()
        for _ in range(3):
            await site.look(30)
        assert len(calls) == 3

    assert played(scenario) == []


def test_a_claim_grows() -> None:
    """The request is raised once per size in force, with an event, up to the limit; then the claim is reported."""

    async def scenario(site: Site) -> None:
        await site.volume("data")
        await site.filled("data", 86)
        assert site.requested("data") == "12Gi"
        for percent in (90, 97):
            await site.filled("data", percent)
        assert site.requested("data") == "12Gi"
        assert site.reasons() == ["AutoGrow", "VolumeNearlyFull"]
        for size in ("12Gi", "14Gi"):
            site.expand("data", size)
            await site.filled("data", 50, size=size)
            await site.filled("data", 88, size=size)
        assert site.requested("data") == "14Gi"
        assert [message for _, reason, message in site.events() if reason == "AutoGrow"] == [
            "requested 12Gi instead of 10Gi: the volume uses at least 85 % of its limit",
            "requested 14Gi instead of 12Gi: the volume uses at least 85 % of its limit",
        ]
        assert site.reasons()[-1] == "VolumeNearlyFull"

    assert played(scenario, GROWS).count("claim_grown") == 2


def test_a_refused_growth() -> None:
    """A refusal, as by a ResourceQuota, is one event, and is tried again after minutes."""
    asked = []

    async def scenario(site: Site) -> None:
        async def refuse(name: str, about: str) -> None:
            if name == "request_size":
                asked.append(about)
                raise Forbidden("exceeded quota: storage")

        await site.volume("data")
        site.cluster.before = refuse
        for _ in range(4):
            await site.filled("data", 86)
        assert len(asked) == 1
        assert sorted(site.reasons()) == ["AutoGrowFailed", "VolumeNearlyFull"]
        for _ in range(6):
            await site.filled("data", 86)
        assert len(asked) == 2
        assert sorted(site.reasons()) == ["AutoGrowFailed", "VolumeNearlyFull"]
        assert site.gauge("failures_total", work="resize", reason="Forbidden") == 2

    assert played(scenario, GROWS).count("claim_not_grown") == 1


def test_a_growth_that_is_interrupted() -> None:
    """An unknown outcome or a conflict is not a failure: the next look decides again."""
    errors: list[str] = []

    async def scenario(site: Site) -> None:
        async def fail(name: str, _about: str) -> None:
            if name == "request_size" and not errors:
                errors.append(name)
                raise ApiUnavailable("no answer")

        await site.volume("data")
        site.cluster.before = fail
        await site.filled("data", 86)
        assert site.requested("data") == "10Gi"
        await site.filled("data", 86)
        assert site.requested("data") == "12Gi"

    assert "growth_interrupted" in played(scenario, GROWS)


def test_answers_about_no_volume_of_this_cluster() -> None:
    """Answers about other clusters' volumes, about claims that are gone and about what is in the trash do nothing."""

    async def scenario(site: Site) -> None:
        await site.volume("released", phase="Released")
        await site.volume("foreign")
        record = structs.replace(site.export.records["foreign"], cluster="another")
        await site.export.replace_record("foreign", record)
        await site.volume("unclaimed")
        await site.volume("claimless")
        made = site.cache.volumes["claimless"]
        await site.volume("earlier")
        site.answer("earlier", 99, record="2020-01-01T00:00:00Z")
        site.answer("gone", 99)
        for name in ("released", "foreign", "unclaimed", "claimless"):
            site.answer(name, 99)
        site.beat()
        site.cache.claims.replace([])
        site.cache.volumes.apply(structs.replace(made, spec=structs.replace(made.spec, claim_ref=None)), deleted=False)
        await site.look()
        assert site.events() == []
        assert site.gauge("volumes_nearly_full", export=NAME, percent="95") == 1

    played(scenario)


def test_an_export_that_fails() -> None:
    """A look that fails is repeated."""
    failed: list[str] = []

    async def scenario(site: Site) -> None:
        async def fail(name: str, _path: object) -> None:
            if not failed:
                failed.append(name)
                raise ExportError(Cause.UNREACHABLE)

        await site.volume("data")
        site.answer("data", 10)
        site.beat()
        site.tree.before = fail
        task = asyncio.create_task(site.usage.keep(site.export))
        await asyncio.sleep(45)
        task.cancel()
        assert site.gauge("volumes_nearly_full", export=NAME, percent="85") == 0

    played(scenario)
    assert failed
