"""The statistics of the benchmarks' figures."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import Spread, percentile, rate, ratio


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([3.0], Spread(minimum=3.0, median=3.0, maximum=3.0)),
        ([9.0, 1.0, 4.0], Spread(minimum=1.0, median=4.0, maximum=9.0)),
        ([4.0, 1.0, 2.0, 9.0], Spread(minimum=1.0, median=3.0, maximum=9.0)),
    ],
)
def test_spread(values: list[float], spread: Spread) -> None:
    """A spread has the minimum, the median and the maximum; an even number of values has the mean of the middle two."""
    assert Spread.of(values) == spread


def test_ratio() -> None:
    """A ratio is the second value divided by the first, and None if the first is 0."""
    assert ratio(200.0, 100.0) == 0.5
    assert ratio(0.0, 1.0) is None


def test_rate() -> None:
    """The rate counts the intervals between the times: the time before the first one does not count."""
    assert rate([10.0, 10.5, 11.0, 12.0]) == 1.5


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentile(percent: float, value: float) -> None:
    """A percentile is the smallest value that is not below that share of all values."""
    assert percentile(range(100, 0, -1), percent) == value


def test_percentile_of_few() -> None:
    """With few values the p99 is the largest."""
    assert percentile([1.0, 3.0, 2.0], 99) == 3.0
    assert percentile([1.0, 3.0, 2.0], 50) == 2.0
