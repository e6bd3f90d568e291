"""runtime.election, in simulated time: who leads, and what is reported when the Lease cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from provisioner.core.leases import LeaseRecord, LeaseTimes
from provisioner.ports.cluster import ApiUnavailable, ClusterError, Forbidden, NotFound
from provisioner.runtime.election import Elector
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster

WHERE = ("default", "lease")


class Suspended(LoopClock):
    """A clock of a machine that is suspended at times; the timers of the loop stand still during that."""

    suspended_s = 0.0

    def monotonic(self) -> float:
        """See `Clock`."""
        return super().monotonic() + self.suspended_s


class Replica:
    """A candidate that records when it leads."""

    def __init__(self, cluster: MemoryCluster, name: str) -> None:
        self.name = name
        self.leading = False
        self.terms = 0
        self.went_back = 0
        self.stopping = asyncio.Event()
        self.clock = Suspended()
        self.elector = Elector(
            cluster,
            self.clock,
            namespace=WHERE[0],
            name=WHERE[1],
            identity=name,
            times=LeaseTimes(),
            went_back=self._note,
        )
        self.task = asyncio.create_task(self.elector.run(self._lead, self.stopping))

    def _note(self) -> None:
        self.went_back += 1

    async def _lead(self, stopping: asyncio.Event) -> None:
        self.leading, self.terms = True, self.terms + 1
        try:
            await stopping.wait()
        finally:
            self.leading = False

    async def stop(self) -> None:
        self.stopping.set()
        await self.task


class Scene:
    """A cluster whose calls on the Lease can fail, and two replicas, of which the first leads."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.error: ClusterError | None = None
        self.cluster.before = self._before

    async def _before(self, call: str, _about: str) -> None:
        if self.error is not None and "lease" in call:
            raise self.error

    async def begin(self) -> None:
        self.one = Replica(self.cluster, "one")
        await asyncio.sleep(1.0)
        self.two = Replica(self.cluster, "two")
        await asyncio.sleep(10.0)
        assert (self.one.leading, self.two.leading) == (True, False)

    async def watched(self, seconds: float) -> None:
        """Let time pass, and check that there are never two leaders."""
        for _ in range(round(seconds * 10)):
            await asyncio.sleep(0.1)
            assert not (self.one.leading and self.two.leading)


def played(script: Callable[[Scene], Awaitable[None]]) -> None:
    async def run() -> None:
        scene = Scene()
        await scene.begin()
        await script(scene)
        await asyncio.gather(scene.one.stop(), scene.two.stop())

    simulate(run())


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[structlog.types.EventDict]]:
    with capture_logs() as captured:
        yield captured


def test_a_leader_outlives_a_restore_of_etcd() -> None:
    """After a restore of etcd the leader goes on, whatever the Lease says; no other leads, and it is reported."""

    async def script(scene: Scene) -> None:
        of_one = scene.cluster.saved()
        await scene.one.stop()
        await asyncio.sleep(5.0)
        assert scene.two.leading
        of_two = scene.cluster.saved()
        for saved in (of_one, of_two):
            await scene.watched(20.0)
            scene.cluster.restore(saved)
            await scene.watched(20.0)
            assert scene.two.leading
        assert scene.two.terms == 1
        assert scene.two.went_back == 2

    played(script)


def test_a_leader_that_was_suspended() -> None:
    """After a suspension longer than the lease the leader knows immediately that it may have lost it, and says so."""

    async def script(scene: Scene) -> None:
        elector = scene.one.elector
        assert (elector.instance, elector.term, elector.holds()) == ("one", 0, True)
        assert await elector.confirm()
        assert not scene.two.elector.holds()
        assert not await scene.two.elector.confirm()
        scene.one.clock.suspended_s = 10.0
        assert not elector.holds()
        assert not await elector.confirm()
        await asyncio.sleep(3.0)
        assert scene.one.terms == 2 or not scene.one.leading

    played(script)


def test_terms_grow() -> None:
    """The term of each leader is higher than those before; before the Lease was seen there is none."""

    async def script(scene: Scene) -> None:
        await scene.one.stop()
        await asyncio.sleep(5.0)
        assert scene.two.leading
        assert scene.two.elector.term == 1
        assert not scene.one.elector.holds()
        never = Elector(scene.cluster, LoopClock(), namespace="no", name="no", identity="three", times=LeaseTimes())
        assert never.term == 0
        assert not await never.confirm()

    played(script)


def test_a_standby_does_not_take_a_restored_lease_from_a_leader() -> None:
    """A restored Lease without a holder, or one that names the standby, leaves the leader alone."""

    async def script(scene: Scene) -> None:
        await scene.one.stop()
        await asyncio.sleep(3.0)
        of_two = scene.cluster.saved()
        scene.one = Replica(scene.cluster, "one")
        third = Replica(scene.cluster, "three")
        await scene.two.stop()
        await asyncio.sleep(5.0)
        leader, standby = (scene.one, third) if scene.one.leading else (third, scene.one)
        scene.two = Replica(scene.cluster, "two")  # the old Lease names it
        await asyncio.sleep(5.0)
        for _ in range(2):
            scene.cluster.restore(of_two)
            for _ in range(200):
                await asyncio.sleep(0.1)
                assert (leader.leading, standby.leading, scene.two.leading) == (True, False, False)
            of_two["_leases"].clear()
        assert leader.terms == 1
        await third.stop()

    played(script)


def test_a_leader_that_died_before_the_restore_is_followed() -> None:
    """A Lease that went back in time holds others off for its duration, no longer."""

    async def script(scene: Scene) -> None:
        saved = scene.cluster.saved()
        await asyncio.sleep(4.0)
        scene.one.task.cancel()
        await asyncio.sleep(0.0)
        scene.cluster.restore(saved)
        await scene.watched(19.0)
        assert scene.two.leading
        scene.one = Replica(scene.cluster, "one again")

    played(script)


def test_failures_are_logged_ever_less_often(logs: list[structlog.types.EventDict]) -> None:
    """An hour without the right to the Lease takes some ten log lines that name the right; trouble names it as well."""

    async def script(scene: Scene) -> None:
        assert scene.two.elector.trouble == ""
        scene.error = Forbidden("get /leases/lease: 403 leases is forbidden")
        await asyncio.sleep(3600.0)
        assert not scene.one.leading
        for replica in (scene.one, scene.two):
            assert "403" in replica.elector.trouble
            assert "grant get, create and update on leases" in replica.elector.trouble
            assert "namespace default" in replica.elector.trouble
        warnings = [line for line in logs if line["event"] == "lease_forbidden"]
        assert 2 * 8 <= len(warnings) <= 2 * 12
        assert all("grant get, create and update" in line["hint"] for line in warnings)
        scene.error = None
        await asyncio.sleep(3.0)
        assert scene.one.leading != scene.two.leading
        assert scene.one.elector.trouble == scene.two.elector.trouble == ""

    played(script)


def test_an_outage_is_trouble_when_it_lasts(logs: list[structlog.types.EventDict]) -> None:
    """One unanswered call is no trouble, a minute of them is; a missing namespace is named."""

    async def script(scene: Scene) -> None:
        scene.error = ApiUnavailable("no answer")
        await asyncio.sleep(2.5)
        assert scene.two.elector.trouble == ""
        await asyncio.sleep(60.0)
        assert "no answer" in scene.two.elector.trouble
        scene.error = NotFound('namespaces "default" not found')
        await asyncio.sleep(3.0)
        assert "create the namespace default" in scene.two.elector.trouble
        assert {line["event"] for line in logs} >= {"lease_not_reached", "lease_lost"}
        scene.error = None

    played(script)


def test_a_renewal_that_is_under_way_when_the_leader_stops() -> None:
    """The lease is released although the server got a renewal whose answer the leader did not wait for."""

    async def script(scene: Scene) -> None:
        slow = asyncio.Event()
        replace = scene.cluster.replace_lease

        async def answers_late(namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
            written = await replace(namespace, name, lease)
            if not slow.is_set():
                slow.set()
                await asyncio.sleep(1.0)
            return written

        scene.cluster.replace_lease = answers_late  # type: ignore[method-assign]
        await slow.wait()
        await scene.one.stop()
        await scene.watched(3.0)
        assert scene.two.leading

    played(script)
