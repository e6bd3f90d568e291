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
    # 4 runs: mean 0.49, 0.41 to 0.58, deviation 0.070; margin 3 deviations.
    "create_rate": Limit(mean=0.49, worst=0.25),
    # 4 runs: mean 0.50, 0.44 to 0.62, deviation 0.081; margin 2 deviations.
    "delete_rate": Limit(mean=0.5, worst=0.26),
    # 4 runs: mean 1.30, 1.04 to 1.53, deviation 0.217; margin 5 deviations.
    "cpu_create": Limit(mean=1.3, worst=2.4),
    # 4 runs: mean 3.43, 2.69 to 4.15, deviation 0.637; margin 3 deviations.
    "cpu_delete": Limit(mean=3.43, worst=5.49),
    # 4 runs: mean 1.44, 1.43 to 1.44, deviation 0.005; margin 172 deviations.
    "memory_idle": Limit(mean=1.44, worst=2.3),
    # 4 runs: mean 1.16, 1.14 to 1.17, deviation 0.013; margin 55 deviations.
    "memory_created": Limit(mean=1.16, worst=1.85),
    # 4 runs: mean 3.00, 3.00 to 3.00, deviation 0.000; margin no deviation.
    "requests_create": Limit(mean=3.0, worst=3.6),
    # 4 runs: mean 4.00, 4.00 to 4.01, deviation 0.005; margin 160 deviations.
    "requests_delete": Limit(mean=4.0, worst=4.8),
    # 4 runs: mean 3.83, 3.39 to 4.20, deviation 0.433; margin 5 deviations.
    "cpu_start": Limit(mean=3.83, worst=6.12),
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
