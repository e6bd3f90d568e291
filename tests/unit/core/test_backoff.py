"""core.backoff."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.backoff import Backoff, is_logged

CHANCE = st.floats(0, 1, exclude_max=True)


def test_doubling() -> None:
    """Without jitter, delays double from the first to the limit, and stay there."""
    backoff = Backoff(first_s=0.5, limit_s=5.0, jitter=0.0)
    assert [backoff.delay_s(n, 0.9) for n in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@given(st.integers(1, 10**9), CHANCE)
def test_bounds(failures: int, chance: float) -> None:
    """For any number of failures, a delay is above zero, at most the limit, and reduced by at most the jitter."""
    backoff = Backoff(first_s=0.5, limit_s=300.0, jitter=0.25)
    whole_s = backoff.delay_s(failures, 0.0)
    assert 0 < whole_s * 0.75 <= backoff.delay_s(failures, chance) <= whole_s <= 300.0


@given(st.integers(1, 1000), st.integers(1, 1000), CHANCE)
def test_patience_grows(failures: int, more: int, chance: float) -> None:
    """One more failure never shortens the delay."""
    backoff = Backoff()
    assert backoff.delay_s(failures, chance) <= backoff.delay_s(failures + more, chance)


def test_logged() -> None:
    """In an hour with a failure every two seconds, eleven are logged, the first one among them."""
    assert [n for n in range(1, 1801) if is_logged(n)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
