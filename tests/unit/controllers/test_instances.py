"""controllers.instances: leaders of one cluster, and of two with one id, on one export; in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from provisioner.controllers.instances import Instances, is_unsettled
from provisioner.core import instances
from provisioner.core.errors import ProvisionerError
from provisioner.core.instances import DOUBT_S, LOOK_AGAIN_S, LOOK_EVERY_S, SETTLE_S, SIGN_EVERY_S
from provisioner.core.locations import Location, RelPath
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ApiUnavailable
from provisioner.ports.tree import Cause, ExportError, Proof
from provisioner.runtime.leadership import Alone
from provisioner.telemetry.metrics import Metrics
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")
ONE, OTHER = "example.com/nfs", "example.com/other"
CLUSTER = "uid"
SIGN: RelPath = (".provisioner", "clusters", instances.name(CLUSTER, ONE))


class Elected:
    """A `Leadership` whose Lease the test gives and takes."""

    def __init__(self, instance: str, term: int) -> None:
        self.instance, self.term = instance, term
        self.held = True
        self.confirmed = True
        self.failure: Exception | None = None

    def holds(self) -> bool:
        """See `Leadership`."""
        return self.held

    async def confirm(self) -> bool | None:
        """See `Leadership`."""
        if self.failure is not None:
            raise self.failure
        return self.confirmed


class Counting(MemoryTree):
    """A tree that counts looks at signs, each of which takes a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    async def read_symlink(self, path: RelPath) -> str:
        """See `Tree`."""
        if path == SIGN:
            self.looks += 1
            await asyncio.sleep(0.01)
        return await super().read_symlink(path)


class Leader:
    """One term of leadership of one process."""

    def __init__(self, tree: MemoryTree, leadership: Elected | Alone, *, provisioner: str = ONE) -> None:
        self.leadership = leadership
        self.export = Export(NAS, tree)
        self.metrics = Metrics()
        self.resumed: list[str] = []
        self.guard = Instances(leadership, LoopClock(), self.metrics, cluster=CLUSTER, provisioner=provisioner)
        self.guard.on_resumed.append(lambda export: self.resumed.append(export.name))
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Leader:
        """Start to lead."""
        await self.export.open()
        self._task = asyncio.create_task(self.guard.keep(self.export))
        await asyncio.sleep(0.1)
        return self

    def die(self) -> None:
        """Stop without signing off."""
        assert self._task is not None
        self._task.cancel()

    async def refusal(self) -> Cause | None:
        """The cause for which nothing may be destroyed now; None if it may."""
        try:
            await self.guard.require(self.export)
        except ExportError as exc:
            return exc.cause
        return None

    @property
    def gauge(self) -> float | None:
        """The metric behind the alert."""
        return self.metrics.registry.get_sample_value("nfs_provisioner_second_cluster", {"export": "nas:/exports"})


async def leads(tree: MemoryTree, instance: str, term: int) -> Leader:
    """Start a process that has just acquired the lease."""
    return await Leader(tree, Elected(instance, term)).start()


def play(scenario: Callable[[MemoryTree], Awaitable[None]]) -> list[dict[str, Any]]:
    """Run a scenario; return the log."""

    async def played() -> None:
        await scenario(Counting())

    with capture_logs() as logs:
        simulate(played())
    return [dict(line) for line in logs if line["log_level"] != "debug"]


# ------------------------------------------------------------------------------------------- one cluster


def test_the_ordinary_days_of_one_cluster() -> None:
    """A first start, a roll-out, a crash, a lost lease and long work raise no alarm, and reclaims go on."""

    async def scenario(tree: MemoryTree) -> None:
        first = await leads(tree, "a", 0)
        assert await first.refusal() is None
        await asyncio.sleep(3600.0)
        assert await first.refusal() is None
        first.die()
        await first.guard.leave()
        second = await leads(tree, "b", 1)  # after a roll-out
        assert await second.refusal() is None
        second.die()  # its node is lost
        third = await leads(tree, "c", 2)
        assert await third.refusal() is Cause.UNSETTLED
        await asyncio.sleep(SETTLE_S + LOOK_EVERY_S)
        assert await third.refusal() is None
        assert third.resumed == [NAS.__str__()]
        third.die()
        again = await leads(tree, "c", 4)  # the same process, after another one had the lease
        await asyncio.sleep(SETTLE_S + LOOK_EVERY_S)
        assert await again.refusal() is None
        again.die()
        restored = await leads(tree, "d", 1)  # etcd went back, and with it the number of the term
        await asyncio.sleep(SETTLE_S + LOOK_EVERY_S)
        assert await restored.refusal() is None
        assert restored.gauge == 0.0

    assert play(scenario) == []


def test_the_sign_shows_who_is_at_work() -> None:
    """The sign shows since when, in which term, and which process is at work."""

    async def scenario(tree: MemoryTree) -> None:
        await leads(tree, "a", 3)
        assert await tree.read_symlink(SIGN) == "2026-01-01T00:00:00Z 3 a"
        await asyncio.sleep(SIGN_EVERY_S + LOOK_EVERY_S)
        assert (await tree.read_symlink(SIGN)).startswith("2026-01-01T00:01:")

    play(scenario)


def test_two_provisioners_in_one_cluster() -> None:
    """Two provisioners have a sign each on an export that they share."""

    async def scenario(tree: MemoryTree) -> None:
        one = await leads(tree, "a", 0)
        other = await Leader(tree, Elected("b", 0), provisioner=OTHER).start()
        await asyncio.sleep(600.0)
        assert (await one.refusal(), await other.refusal()) == (None, None)
        assert await one.export.heartbeats.last_seen() == {}

    assert play(scenario) == []


def test_two_leaders_that_overlap() -> None:
    """A leader that does not know that it lost its lease sees the sign of the next one, and stops."""

    async def scenario(tree: MemoryTree) -> None:
        late = await leads(tree, "a", 0)
        next_one = await leads(tree, "b", 1)
        assert isinstance(late.leadership, Elected)
        late.leadership.confirmed = False
        assert await late.refusal() is Cause.UNSETTLED
        await asyncio.sleep(SETTLE_S + LOOK_EVERY_S)
        assert await next_one.refusal() is None
        assert await late.refusal() is Cause.UNSETTLED

    assert play(scenario) == []


def test_a_lease_that_ran_out() -> None:
    """A leader whose lease has run out destroys and signs nothing."""

    async def scenario(tree: MemoryTree) -> None:
        leader = await leads(tree, "a", 0)
        assert isinstance(leader.leadership, Elected)
        leader.leadership.held = False
        assert await leader.refusal() is Cause.UNSETTLED
        assert not leader.guard.allows(leader.export)
        await asyncio.sleep(SIGN_EVERY_S)
        assert await tree.read_symlink(SIGN) == "2026-01-01T00:00:00Z 0 a"
        await leader.guard.leave()
        assert await tree.read_symlink(SIGN) == "2026-01-01T00:00:00Z 0 a"

    play(scenario)


def test_a_late_write_of_a_former_leader() -> None:
    """It makes the leader wait once more, and is logged."""

    async def scenario(tree: MemoryTree) -> None:
        leader = await leads(tree, "b", 1)
        await leader.export.heartbeats.sign_instance(SIGN[-1], "2026-01-01T00:00:00Z 0 a", over=True)
        assert await leader.refusal() is Cause.UNSETTLED
        await asyncio.sleep(DOUBT_S + LOOK_EVERY_S)
        assert await leader.refusal() is None

    assert [line["event"] for line in play(scenario)] == ["foreign_sign"]


def test_many_reclaims_share_a_look() -> None:
    """A look that begins after a question answers it for all that wait."""

    async def scenario(tree: MemoryTree) -> None:
        assert isinstance(tree, Counting)
        leader = await leads(tree, "a", 0)
        before = tree.looks
        await asyncio.gather(*(leader.refusal() for _ in range(100)))
        assert tree.looks - before <= 2

    play(scenario)


def test_a_rename_can_rely_on_the_sign() -> None:
    """While this instance may destroy data, a rename can rely on its sign; otherwise there is no proof."""

    async def scenario(tree: MemoryTree) -> None:
        leader = Leader(tree, Elected("a", 0))
        assert leader.guard.proof(leader.export) is None
        await leader.start()
        for _ in range(3):
            assert leader.guard.proof(leader.export) == Proof(SIGN, await tree.read_symlink(SIGN))
            await asyncio.sleep(SIGN_EVERY_S + LOOK_EVERY_S)
        assert isinstance(leader.leadership, Elected)
        leader.leadership.held = False
        assert leader.guard.proof(leader.export) is None

    play(scenario)


def test_no_rename_relies_on_a_sign_in_doubt() -> None:
    """A foreign sign ends the proof: before the look that finds it, the rename fails; after it, there is none."""

    async def scenario(tree: MemoryTree) -> None:
        original = await leads(tree, "a", 3)
        proof = original.guard.proof(original.export)
        copy = await leads(tree, "b", 4)
        assert copy.guard.proof(copy.export) is None
        assert proof is not None
        assert await tree.read_symlink(SIGN) != proof.text
        for _ in range(600):
            await asyncio.sleep(0.1)
            held = original.guard.proof(original.export), copy.guard.proof(copy.export)
            texts = {each.text for each in held if each is not None}
            assert await tree.read_symlink(SIGN) not in texts
        assert await original.refusal() is Cause.TWICE

    play(scenario)


# ------------------------------------------------------------------------------------------- two clusters with one id


@pytest.mark.parametrize("terms", [(3, 4), (3, 3), (9, 4)])
def test_a_copy_of_the_cluster(terms: tuple[int, int]) -> None:
    """Both stop before either destroys anything, also across restarts, until an admin stops one and decides."""

    async def scenario(tree: MemoryTree) -> None:
        original = await leads(tree, "a", terms[0])
        copy = await leads(tree, "b", terms[1])
        assert await copy.refusal() is Cause.UNSETTLED
        await asyncio.sleep(SETTLE_S + LOOK_EVERY_S)
        assert (await original.refusal(), await copy.refusal()) == (Cause.TWICE, Cause.TWICE)
        assert (original.gauge, copy.gauge) == (1.0, 1.0)
        original.die()
        copy.die()
        await copy.guard.leave()
        restarted = await leads(tree, "c", 20)
        await asyncio.sleep(3600.0)
        assert await restarted.refusal() is Cause.TWICE
        decided = str(instances.decided("2026-01-01T00:00:00Z", "admin"))
        await restarted.export.heartbeats.sign_instance(SIGN[-1], decided, over=True)
        await asyncio.sleep(SETTLE_S + 2 * LOOK_EVERY_S)
        assert await restarted.refusal() is None
        assert restarted.gauge == 0.0

    events = [line["event"] for line in play(scenario)]
    assert events.count("second_cluster") == 3
    assert events.count("second_cluster_over") == 1


def test_a_decision_while_both_are_at_work() -> None:
    """It holds for seconds, in which nothing is destroyed."""

    async def scenario(tree: MemoryTree) -> None:
        original, copy = await leads(tree, "a", 3), await leads(tree, "b", 4)
        await asyncio.sleep(SETTLE_S)
        await original.export.heartbeats.sign_instance(SIGN[-1], str(instances.decided("", "admin")), over=True)
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert None not in (await original.refusal(), await copy.refusal())
        assert (await original.refusal(), await copy.refusal()) == (Cause.TWICE, Cause.TWICE)

    play(scenario)


def test_a_copy_without_leader_election() -> None:
    """Without an election two processes that overwrite each other's sign count as two."""

    async def scenario(tree: MemoryTree) -> None:
        original = await Leader(tree, Alone("a")).start()
        copy = await Leader(tree, Alone("b")).start()
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert await copy.refusal() is not None
        assert await original.refusal() is Cause.TWICE

    play(scenario)


def test_the_api_server_is_away() -> None:
    """While a foreign sign cannot be judged, nothing is destroyed."""

    async def scenario(tree: MemoryTree) -> None:
        original = await leads(tree, "a", 3)
        assert isinstance(original.leadership, Elected)
        original.leadership.failure = ApiUnavailable("no answer")
        copy = await leads(tree, "b", 4)
        assert await original.refusal() is Cause.UNSETTLED
        original.leadership.failure = None
        assert await original.refusal() is Cause.TWICE
        assert await copy.refusal() is Cause.TWICE

    play(scenario)


def test_both_begin_at_once() -> None:
    """Of two that find no sign one creates it, and the other one waits."""

    async def scenario(tree: MemoryTree) -> None:
        one, other = Leader(tree, Elected("a", 1)), Leader(tree, Elected("b", 1))
        for leader in (one, other):
            await leader.export.open()
        assert list(await asyncio.gather(one.refusal(), other.refusal())) == [None, Cause.UNSETTLED]
        assert await one.refusal() is Cause.TWICE

    play(scenario)


# ------------------------------------------------------------------------------------------- exports that refuse


def test_a_full_export() -> None:
    """It takes no sign; reclaims go on once no other instance has shown up."""

    async def scenario(tree: MemoryTree) -> None:
        (await leads(tree, "a", 0)).die()

        async def full(call: str, _path: RelPath) -> None:
            if call == "make_symlink":
                raise ExportError(Cause.NO_SPACE)

        tree.before = full
        leader = Leader(tree, Elected("b", 1))
        await leader.export.open(create=False)
        assert await leader.refusal() is Cause.UNSETTLED
        await asyncio.sleep(DOUBT_S)
        assert await leader.refusal() is None

    play(scenario)


def test_an_export_that_fails() -> None:
    """The failure itself is the answer, and the look is repeated a second after it."""

    async def scenario(tree: MemoryTree) -> None:
        assert isinstance(tree, Counting)
        leader = await leads(tree, "a", 0)

        async def fails(_call: str, _path: RelPath) -> None:
            raise ExportError(Cause.UNREACHABLE)

        works, tree.before = tree.before, fails
        assert await leader.refusal() is Cause.UNREACHABLE
        await asyncio.sleep(60.0)
        tree.before, looks = works, tree.looks
        await asyncio.sleep(LOOK_AGAIN_S)
        assert tree.looks > looks
        assert await leader.refusal() is None
        leader.guard.forget(leader.export)

    play(scenario)


def test_waiting_is_not_reported() -> None:
    """Waiting for a former leader is not reported as a failure."""
    assert is_unsettled(ExportError(Cause.UNSETTLED))
    assert not is_unsettled(ExportError(Cause.TWICE))
    assert not is_unsettled(ProvisionerError("other"))
