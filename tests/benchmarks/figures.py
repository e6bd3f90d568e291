"""The figures of a comparison, and the statistics of their values."""

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
    "create_rate": Figure("volumes created, claims waiting", "/s", higher_is_better=True),
    "delete_rate": Figure("volumes deleted, released volumes waiting", "/s", higher_is_better=True),
    "single_p50": Figure("one claim sent → PV, p50", "ms"),
    "single_p99": Figure("one claim sent → PV, p99", "ms"),
    "start_to_first": Figure("start → first PV, claims waiting", "s"),
    "start_to_first_delete": Figure("start → first PV deleted, released volumes waiting", "s"),
    "cpu_create": Figure("CPU per volume created", "ms"),
    "cpu_delete": Figure("CPU per volume deleted", "ms"),
    "cpu_start": Figure("CPU of a start without work", "ms"),
    "cpu_server_create": Figure("CPU of API server and etcd per volume created", "ms"),
    "cpu_server_delete": Figure("CPU of API server and etcd per volume deleted", "ms"),
    "requests_create": Figure("API requests per volume created"),
    "requests_delete": Figure("API requests per volume deleted"),
    "memory_idle": Figure("resident, idle", "MB"),
    "memory_created": Figure("resident after the creations", "MB"),
    "memory_deleted": Figure("resident after the deletions", "MB"),
    "memory_held": Figure("resident after a start with many bound volumes", "MB"),
    "memory_held_peak": Figure("resident after a start with many bound volumes, peak", "MB"),
    "cpu_held": Figure("CPU of a start with many bound volumes", "ms"),
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
