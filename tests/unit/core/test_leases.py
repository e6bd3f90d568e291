"""core.leases: replicas with their own clocks, a server, and calls that arrive late, twice or never."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.core import leases
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseRecord, LeaseTimes, Observation

STAMP = "2026-01-01T00:00:00.000000Z"


class Server:
    """One Lease with optimistic locking."""

    def __init__(self) -> None:
        self.lease: LeaseRecord | None = None
        self._version = 0

    def write(self, lease: LeaseRecord) -> LeaseRecord | None:
        """Return the lease after the write, or None for a conflict."""
        if lease.version != (self.lease.version if self.lease else ""):
            return None
        self._version += 1
        self.lease = replace(lease, version=str(self._version))
        return self.lease


@dataclass
class Replica:
    """One candidate, driven as in runtime.election; `skew_s` is the error of its clock."""

    identity: str
    times: LeaseTimes
    skew_s: float
    seen: Observation | None = None
    sent: tuple[LeaseRecord, float] | None = None
    """A write in progress, and when it was sent, by the candidate's clock."""
    leads_until_s: float | None = None

    def look(self, server: Server, now_s: float) -> None:
        self.seen = leases.observe(self.seen, server.lease, now_s + self.skew_s)

    def ask(self, now_s: float) -> None:
        if self.sent is None and leases.claimable(self.seen, self.identity, now_s + self.skew_s):
            self.sent = leases.taken(self.seen, self.identity, self.times, STAMP), now_s + self.skew_s

    def land(self, server: Server, now_s: float, *, answered: bool) -> None:
        """The write reaches the server now; its answer can be lost."""
        if self.sent is None:
            return
        (lease, asked_s), self.sent = self.sent, None
        written = server.write(lease)
        if written is not None and answered:
            self.seen = leases.observe(self.seen, written, now_s + self.skew_s)
            self.leads_until_s = asked_s + self.times.renew_deadline_s

    def release(self, server: Server) -> None:
        if self.leads_until_s is not None and self.seen is not None and self.sent is None:
            self.leads_until_s = None
            server.write(leases.released(self.seen.lease, STAMP))

    def leads(self, now_s: float) -> bool:
        return self.leads_until_s is not None and now_s + self.skew_s < self.leads_until_s


TIMES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)).map(
    lambda steps: LeaseTimes(
        retry_period_s=steps[0], renew_deadline_s=steps[0] + steps[1], duration_s=steps[0] + steps[1] + steps[2]
    )
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "ask", "land", "land", "lose", "release", "wait", "wait"]),
        st.integers(0, 1),
        st.integers(1, 16),
    ),
    max_size=120,
)


@settings(max_examples=500)
@given(TIMES, TIMES, st.floats(-1e6, 1e6, width=32), STEPS)
def test_never_two_leaders(
    times: LeaseTimes, other_times: LeaseTimes, skew_s: float, steps: list[tuple[str, int, int]]
) -> None:
    """Two replicas never lead at the same time, for any order of calls, lost answers and clock errors."""
    server, now_s = Server(), 0.0
    replicas = [Replica("a", times, 0.0), Replica("b", other_times, float(round(skew_s)))]
    for step, who, quarters in steps:
        replica = replicas[who]
        match step:
            case "look":
                replica.look(server, now_s)
            case "ask":
                replica.ask(now_s)
            case "land" | "lose":
                replica.land(server, now_s, answered=step == "land")
            case "release":
                replica.release(server)
            case "wait":
                now_s += quarters / 4
        assert sum(each.leads(now_s) for each in replicas) <= 1


@given(TIMES, st.integers(-1000, 1000))
def test_a_dead_leader_is_followed(times: LeaseTimes, skew_s: int) -> None:
    """If a leader goes silent, another replica can take over after the lease duration, and not before."""
    server = Server()
    dead, next_ = Replica("a", times, 0.0), Replica("b", times, float(skew_s))
    dead.ask(0.0)
    dead.land(server, 0.0, answered=True)
    next_.look(server, 1.0)
    next_.ask(1.0 + times.duration_s - 0.25)
    assert next_.sent is None
    next_.ask(1.0 + times.duration_s)
    next_.land(server, 1.0 + times.duration_s, answered=True)
    assert next_.leads(1.0 + times.duration_s)
    assert server.lease is not None
    assert (server.lease.holder, server.lease.transitions) == ("b", 1)


def test_renewals_hold_others_off() -> None:
    """While a replica sees the lease change, it waits, however old the times in the lease are."""
    seen = None
    for second in range(100):
        seen = leases.observe(seen, LeaseRecord(holder="a", version=str(second // 10)), float(second))
        assert not leases.claimable(seen, "b", float(second))
    assert seen is not None
    assert leases.claimable(seen, "b", seen.since_s + 15.0)


def test_a_released_lease_is_free() -> None:
    """A leader that stops releases the lease immediately, and the next leader counts as a transition."""
    left = leases.released(LeaseRecord(holder="a", version="3"), STAMP)
    seen = leases.observe(None, left, 0.0)
    assert leases.claimable(seen, "b", 0.0)
    assert leases.taken(seen, "b", LeaseTimes(), STAMP).transitions == 1


def test_a_renewal_is_no_transition() -> None:
    """A renewal keeps the time of acquisition and the transitions, and writes changed durations."""
    held = LeaseRecord(holder="a", acquired="then", renewed="then", transitions=4, version="3")
    renewed = leases.taken(leases.observe(None, held, 0.0), "a", LeaseTimes(duration_s=30), STAMP)
    assert renewed == replace(held, renewed=STAMP, duration_s=30)


def test_the_first_lease() -> None:
    """If there is no lease, one is created, without a version."""
    assert leases.claimable(None, "a", 0.0)
    assert leases.taken(None, "a", LeaseTimes(), STAMP) == LeaseRecord(
        holder="a", duration_s=15.0, acquired=STAMP, renewed=STAMP
    )


# ------------------------------------------------------------------------------------------------ etcd put back

LED_BY_A = LeaseRecord(holder="a", renewed="today", version="1000", transitions=7)
WENT_BACK = [
    None,
    LeaseRecord(renewed="last week", version="400", duration_s=1.0),
    LeaseRecord(holder="a", renewed="last week", version="400"),
    LeaseRecord(holder="b", renewed="last week", version="400", transitions=2),
    LeaseRecord(holder="x", renewed="last week", version="400", transitions=2),
]


@pytest.mark.parametrize("lease", WENT_BACK)
def test_a_lease_that_went_back_leaves_its_leader_alone(lease: LeaseRecord | None) -> None:
    """If the lease went back or vanished, the leader renews it, and the others wait for its duration."""
    seen = leases.observe(None, LED_BY_A, 0.0)
    assert leases.went_back(seen, lease)
    after = leases.observe(seen, lease, 5.0)
    assert leases.claimable(after, "a", 5.0)
    assert not leases.claimable(after, "b", 5.0 + 15.0 - 0.1)
    assert leases.observe(after, lease, 9.0) == after
    assert leases.claimable(after, "b", 5.0 + 15.0)


@pytest.mark.parametrize("lease", WENT_BACK)
def test_the_count_of_transitions_does_not_go_back(lease: LeaseRecord | None) -> None:
    """After an older lease, the next leader has a higher count of transitions than any leader before."""
    after = leases.observe(leases.observe(None, LED_BY_A, 0.0), lease, 5.0)
    assert leases.taken(after, "b", LeaseTimes(), STAMP).transitions == 8
    assert leases.taken(after, "b", LeaseTimes(), STAMP).version == ("400" if lease else "")


def test_a_leader_that_wrote_itself_into_an_older_lease_is_followed_as_ever() -> None:
    """The first renewal after a restore ends the exception."""
    after = leases.observe(leases.observe(None, LED_BY_A, 0.0), WENT_BACK[3], 5.0)
    renewed = leases.observe(after, LeaseRecord(holder="a", renewed="now", version="402", duration_s=4.0), 6.0)
    assert not leases.claimable(renewed, "b", 9.9)
    assert leases.claimable(renewed, "b", 10.0)
    assert not leases.went_back(after, renewed.lease)


def test_a_free_lease_that_went_back_is_its_holders() -> None:
    """If no replica held the lease, the holder in the older lease counts."""
    free = leases.observe(None, LeaseRecord(renewed="today", version="1000"), 0.0)
    after = leases.observe(free, WENT_BACK[3], 5.0)
    assert (leases.claimable(after, "b", 5.0), leases.claimable(after, "a", 5.0)) == (True, False)
    assert not leases.went_back(None, None)
    assert not leases.went_back(leases.observe(None, None, 0.0), None)


@pytest.mark.parametrize(
    ("duration_s", "renew_deadline_s", "retry_period_s"),
    [(10, 10, 2), (15, 2, 2), (15, 10, 0), (15, 10, -1), (9, 10, 2), (0.9, 0.5, 0.2), (float("nan"), 10, 2)],
)
def test_unusable_times(duration_s: float, renew_deadline_s: float, retry_period_s: float) -> None:
    """Times with which two leaders could overlap, or no leader could stay, are refused with the flags to change."""
    with pytest.raises(InvalidSettings, match="--lease-duration"):
        LeaseTimes(duration_s=duration_s, renew_deadline_s=renew_deadline_s, retry_period_s=retry_period_s)
