"""The limits of the smoke benchmark."""

from __future__ import annotations

import pytest

from tests.benchmarks.figures import FIGURES
from tests.benchmarks.limits import LIMITS, Limit, judge, lines, proposal

MEANS = {key: limit.mean for key, limit in LIMITS.items()}


def half_as_good(key: str) -> float:
    """Half the mean of a figure, or twice the mean where lower is better."""
    return MEANS[key] / 2 if FIGURES[key].higher_is_better else MEANS[key] * 2


def test_the_means_pass() -> None:
    """A run that has the mean of each figure passes."""
    assert judge(MEANS, LIMITS) == []


@pytest.mark.parametrize("key", LIMITS)
def test_a_figure_that_falls_by_half_fails(key: str) -> None:
    """The benchmark fails, and names the figure, if a single figure is half as good as its mean."""
    (line,) = judge(MEANS | {key: half_as_good(key)}, LIMITS)
    assert line.startswith(f"{FIGURES[key].title}: {half_as_good(key):.2f}, but the limit is ")


@pytest.mark.parametrize("key", LIMITS)
def test_a_better_figure_passes(key: str) -> None:
    """A figure that is better than its mean passes, however much better."""
    better = MEANS[key] * 10 if FIGURES[key].higher_is_better else MEANS[key] / 10
    assert judge(MEANS | {key: better}, LIMITS) == []


@pytest.mark.parametrize("key", ["create_rate", "cpu_create", "requests_create"])
def test_a_proposed_limit_lies_between_the_mean_and_half_as_good(key: str) -> None:
    """A limit that calibration proposes passes the mean of the runs, and fails half of it."""
    limit = proposal(key, [0.9, 1.1, 1.0])
    assert limit.holds(1.0)
    assert not limit.holds(0.5 if FIGURES[key].higher_is_better else 2.0)


def test_lines() -> None:
    """Calibration prints each limit below a comment with runs, mean, spread and margin."""
    assert list(lines([{"create_rate": 0.8}, {"create_rate": 1.2}, {"create_rate": 1.0}])) == [
        "    # 3 runs: mean 1.00, 0.80 to 1.20, deviation 0.200; margin 2 deviations.",
        '    "create_rate": Limit(mean=1.0, worst=0.6),',
    ]


def test_lines_of_equal_runs() -> None:
    """Runs that do not differ have no deviation to divide by."""
    comment, line = lines([{"requests_create": 3.0}, {"requests_create": 3.0}])
    assert comment.endswith("deviation 0.000; margin no deviation.")
    assert line == f'    "requests_create": {Limit(mean=3.0, worst=3.6)!r},'
