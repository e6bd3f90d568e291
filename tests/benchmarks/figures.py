"""The figures of the measurements, and the statistics of their values."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

Figures = dict[str, float]
"""Values by the keys of FIGURES."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    title: str
    unit: str = ""
    higher_is_better: bool = False


FIGURES: dict[str, Figure] = {
    "single_p50": Figure("claim sent → PV, p50", "ms"),
    "single_p99": Figure("claim sent → PV, p99", "ms"),
    "create_rate": Figure("volumes created", "/s", higher_is_better=True),
    "delete_rate": Figure("volumes deleted", "/s", higher_is_better=True),
    "start_to_first": Figure("start → first PV", "s"),
    "start_to_first_delete": Figure("start → first PV deleted", "s"),
    "cpu_create": Figure("CPU per volume created", "ms"),
    "cpu_delete": Figure("CPU per volume deleted", "ms"),
    "cpu_server_create": Figure("CPU of API server and etcd per volume created", "ms"),
    "cpu_server_delete": Figure("CPU of API server and etcd per volume deleted", "ms"),
    "requests_create": Figure("API requests per volume created"),
    "requests_delete": Figure("API requests per volume deleted"),
    "memory_created": Figure("resident after the creations", "MB"),
    "memory_deleted": Figure("resident after the deletions", "MB"),
    "start_held": Figure("start → PV of a new claim", "s"),
    "cpu_held": Figure("CPU of the start", "ms"),
    "memory_held": Figure("resident, idle after the start", "MB"),
    "memory_held_peak": Figure("resident, peak during the start", "MB"),
    "relist_spike": Figure("resident, rise during a list of everything", "MB"),
    "memory_idle": Figure("resident, idle", "MB"),
    "cpu_start": Figure("CPU of a start without work", "ms"),
    "cpu_idle": Figure("CPU per minute", "ms"),
    "requests_idle": Figure("API requests per minute, Lease included"),
    "bound_rate": Figure("claims Bound, first sent → last Bound", "/s", higher_is_better=True),
    "bound_p50": Figure("claim created → Bound, p50", "s"),
    "bound_p99": Figure("claim created → Bound, p99", "s"),
    "cleanup_rate": Figure("volumes gone, first claim deleted → last volume gone", "/s", higher_is_better=True),
    "cpu_others": Figure("CPU of the machine that other processes used", "%"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The minimum, median and maximum of a figure's values."""

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of one or more values."""
        return cls(minimum=min(values), median=statistics.median(values), maximum=max(values))


def ratio(first: float, second: float) -> float | None:
    """Return `second` divided by `first`, or None if `first` is 0."""
    return second / first if first else None


def rate(times_s: Sequence[float]) -> float:
    """Return the rate per second, from the first time to the last."""
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that is not below `percent` of all values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]


def text(value: float) -> str:
    """Format a value with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
