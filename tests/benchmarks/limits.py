"""The limits of the smoke benchmark: ratios and counts, which other machines have too, and never times.

`python -m tests.benchmarks.smoke --calibrate 10` prints the lines of LIMITS, with its means and spreads.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import FIGURES, Figures

_COUNTED = frozenset({"requests_create", "requests_delete"})
"""Counts hardly differ between runs: a small margin is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The worst value that passes, and the mean of the runs that it was set by."""

    mean: float
    worst: float

    def holds(self, value: float) -> bool:
        """Return True if a value is within the limit; a mean above the limit says that higher is better."""
        return value >= self.worst if self.worst < self.mean else value <= self.worst


LIMITS: Mapping[str, Limit] = {
    # CPU of a start: divided by that of a Python process that imports asyncio and ssl. Requests: counts. All other
    # figures: the daemon's divided by the peer's.
    # 2 runs: mean 0.43, 0.29 to 0.56, deviation 0.190; margin 1 deviations.
    "create_rate": Limit(mean=0.46, worst=0.24),
    # 2 runs: mean 0.83, 0.79 to 0.87, deviation 0.051; margin 7 deviations.
    "delete_rate": Limit(mean=0.46, worst=0.24),
    # 2 runs: mean 3.56, 2.89 to 4.23, deviation 0.941; margin 2 deviations.
    "cpu_create": Limit(mean=3.56, worst=5.7),
    # 2 runs: mean 4.83, 4.80 to 4.86, deviation 0.040; margin 72 deviations.
    "cpu_delete": Limit(mean=4.83, worst=7.73),
    # 2 runs: mean 2.26, 2.25 to 2.26, deviation 0.008; margin 171 deviations.
    "memory_idle": Limit(mean=2.26, worst=3.61),
    # 2 runs: mean 2.06, 2.05 to 2.07, deviation 0.019; margin 65 deviations.
    "memory_created": Limit(mean=2.06, worst=3.3),
    # 2 runs: mean 3.00, 3.00 to 3.00, deviation 0.000; margin no deviation.
    "requests_create": Limit(mean=3.0, worst=3.6),
    # 2 runs: mean 5.00, 5.00 to 5.00, deviation 0.000; margin no deviation.
    "requests_delete": Limit(mean=5.0, worst=6.0),
    # 2 runs: mean 7.99, 6.90 to 9.07, deviation 1.531; margin 3 deviations.
    "cpu_start": Limit(mean=7.99, worst=12.78),
}


def judge(figures: Figures, limits: Mapping[str, Limit]) -> list[str]:
    """Return a line for each figure beyond its limit."""
    return [
        f"{FIGURES[key].title}: {figures[key]:.2f}, but the limit is {limit.worst:.2f} (mean {limit.mean:.2f})"
        for key, limit in limits.items()
        if not limit.holds(figures[key])
    ]


def proposal(key: str, values: Sequence[float]) -> Limit:
    """Return a limit for the values of repeated runs: it lies between their mean and half as good a value."""
    mean = statistics.fmean(values)
    if FIGURES[key].higher_is_better:
        return Limit(mean=round(mean, 2), worst=round(mean * 0.6, 2))
    return Limit(mean=round(mean, 2), worst=round(mean * (1.2 if key in _COUNTED else 1.6), 2))


def lines(runs: Iterable[Figures]) -> Iterator[str]:
    """Yield the lines of LIMITS for repeated runs, with mean, spread and margin in a comment beside each limit."""
    every = list(runs)
    for key in every[0]:
        values = [figures[key] for figures in every]
        limit = proposal(key, values)
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        margin = f"{abs(limit.worst - limit.mean) / deviation:.0f} deviations" if deviation else "no deviation"
        spread = f"{min(values):.2f} to {max(values):.2f}, deviation {deviation:.3f}"
        yield f"    # {len(values)} runs: mean {limit.mean:.2f}, {spread}; margin {margin}."
        yield f'    "{key}": Limit(mean={limit.mean}, worst={limit.worst}),'
