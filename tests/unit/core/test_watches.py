"""core.watches."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.watches import WatchState, relist_after_s

Step = Callable[[WatchState], WatchState]
FAILURES: list[Step] = [WatchState.failed, WatchState.expired, lambda state: state.ended(0.1)]
STEPS: list[Step] = [
    *FAILURES,
    lambda state: state.listed("5"),
    lambda state: state.received("6"),
    lambda state: state.received(""),
    lambda state: state.ended(60.0),
]


def test_the_usual_way() -> None:
    """After a clean end, a watch continues immediately from the last event."""
    state = WatchState().listed("5").received("6").received("7").ended(300.0)
    assert state == WatchState("7", 0)
    assert state.delay_s(0.5) == 0.0


def test_expired() -> None:
    """After 410 it lists again, with a delay."""
    state = WatchState("5").expired()
    assert state.version == ""
    assert state.delay_s(0.9) > 0


def test_failure_keeps_the_version() -> None:
    """A broken connection costs a wait and no list."""
    state = WatchState("5").failed()
    assert state.version == "5"
    assert state.delay_s(0.9) > 0


def test_an_event_ends_the_row() -> None:
    """A watch that delivers an event resets the delay."""
    state = WatchState("5").failed().failed().failed().received("6").failed()
    assert state == WatchState("6", 1)


def test_a_watch_that_ends_at_once_waits() -> None:
    """A server that ends each watch immediately is not asked again immediately."""
    state = WatchState("5").ended(0.01)
    assert state.version == "5"
    assert state.delay_s(0.9) > 0
    assert state.ended(0.01, brought=True) == state


def test_an_outage_lists_again() -> None:
    """After several failures in a row etcd can have been restored: the version is not used any more."""
    state = WatchState("5").failed().failed().failed()
    assert state.version == "5"
    assert state.failed() == WatchState("", 4)
    assert state.failed().listed("6").failed() == WatchState("", 5)
    assert state.failed().listed("6").received("7").failed() == WatchState("7", 1)


def test_stale() -> None:
    """A list that is due has no delay."""
    assert WatchState("5").stale() == WatchState()


@given(st.floats(0, 1, exclude_max=True))
def test_lists_are_repeated(chance: float) -> None:
    """A list is repeated every few hours, at different times in different replicas."""
    assert 2 * 3600 <= relist_after_s(chance) <= 4 * 3600
    assert relist_after_s(0.1) != relist_after_s(0.9)


@given(st.lists(st.sampled_from(FAILURES), min_size=1, max_size=100), st.floats(0, 1, exclude_max=True))
def test_failures_in_a_row_wait_longer(steps: list[Step], chance: float) -> None:
    """Each failure in a row waits at least as long as the one before, and at most ten seconds."""
    state, waited_s = WatchState("5"), 0.0
    for step in steps:
        state = step(state)
        assert 0 < waited_s <= state.delay_s(chance) <= 10.0 or waited_s == 0.0
        waited_s = state.delay_s(chance)


@given(st.lists(st.sampled_from(STEPS), max_size=50))
def test_versions_are_the_servers(steps: list[Step]) -> None:
    """In every case a watch begins at a version from the server, or with a list."""
    state = WatchState()
    for step in steps:
        state = step(state)
        assert state.version in ("", "5", "6")
        assert state.failures >= 0
