"""The report of the measurements, as a table for people and as JSON for programs, with marks."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH_IN_FILES = 120


@dataclass(frozen=True, slots=True)
class Mark:
    """The goal of a figure: a minimum or a maximum."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '<'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    title: str
    unit: str
    mark: Mark | None = None


FIGURES: dict[str, Figure] = {
    "ceiling_create": Figure("ceiling: raw creation of volumes", "/s"),
    "backlog_create": Figure("backlog: claims waited, first to last volume", "/s"),
    "ratio_backlog_create": Figure("backlog of claims, of the ceiling", "", Mark(0.4, at_least=True)),
    "burst_create": Figure("burst: first claim to last volume", "/s"),
    "ratio_burst_create": Figure("burst of claims, of the ceiling", ""),
    "burst_claims": Figure("the claims of the burst themselves", "/s"),
    "ceiling_delete": Figure("ceiling: raw deletion of volumes", "/s"),
    "backlog_delete": Figure("backlog: released volumes waited, first to last gone", "/s"),
    "ratio_backlog_delete": Figure("backlog of releases, of the ceiling", ""),
    "burst_delete": Figure("burst: first release to last volume gone", "/s"),
    "ratio_burst_delete": Figure("burst of releases, of the ceiling", ""),
    "single_p50": Figure("single claim sent → volume seen, p50", "ms", Mark(20.0, at_least=False)),
    "single_p99": Figure("single claim sent → volume seen, p99", "ms"),
    "single_answered_p50": Figure("single claim answered → volume seen, p50", "ms"),
    "single_answered_p99": Figure("single claim answered → volume seen, p99", "ms"),
    "start_to_first": Figure("start of the process → first volume", "s"),
    "start_to_first_delete": Figure("start of the process → first volume gone", "s"),
    "backlog_events": Figure("backlog: last volume → all events written", "s"),
    "cpu_create": Figure("CPU of the daemon for a volume made, with its events", "ms"),
    "cpu_delete": Figure("CPU of the daemon for a volume reclaimed", "ms"),
    "cpu_server_create": Figure("CPU of API server and etcd for a volume made, its claim included", "ms"),
    "cpu_server_delete": Figure("CPU of API server and etcd for a volume reclaimed, its release included", "ms"),
    "requests_create": Figure("API requests for a volume made", ""),
    "requests_delete": Figure("API requests for a volume reclaimed", ""),
    "memory_idle": Figure("resident memory, idle", "MB", Mark(70.0, at_least=False)),
    "memory_idle_peak": Figure("resident memory, idle: its peak", "MB"),
    "memory_held": Figure("resident memory, many volumes held", "MB"),
    "memory_held_peak": Figure("resident memory, many volumes held: its peak", "MB"),
    "start_to_ready_held": Figure("start → ready, many volumes held", "s"),
    "cpu_others": Figure("CPU of the machine that other processes used", "%"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures of a run: the value of each round; the median counts."""

    values: Mapping[str, list[float]]
    requests: Mapping[str, Mapping[str, float]]
    """Requests per volume, by phase and kind."""
    sizes: Mapping[str, int]
    load_average: Mapping[str, tuple[float, float, float]]

    def median(self, key: str) -> float:
        """Return the median of a figure's rounds."""
        return statistics.median(self.values[key])

    def missed(self) -> list[str]:
        """Return the titles of the figures that miss their mark."""
        return [FIGURES[key].title for key in self.values if self._met(key) is False]

    def _met(self, key: str) -> bool | None:
        mark = FIGURES[key].mark
        return None if mark is None else mark.met(self.median(key))

    def print_table(self) -> None:
        """Print the report as a table."""
        console = Console()
        if not console.is_terminal:
            console.width = _WIDTH_IN_FILES
        table = Table("figure", title="nfs-provisioner bench")
        table.add_column("median", justify="right")
        table.add_column("rounds", justify="right")
        table.add_column("mark")
        for key in (key for key in FIGURES if key in self.values):
            table.add_row(*self._row(key))
        console.print(table)
        for phase, kinds in self.requests.items():
            line = ", ".join(f"{kind} {count:.2f}" for kind, count in kinds.items())
            console.print(f"API requests for a volume {phase}: {line}", soft_wrap=True)
        load = ", ".join(f"{when} {' '.join(f'{x:.1f}' for x in loads)}" for when, loads in self.load_average.items())
        sizes = ", ".join(f"{name} {count}" for name, count in self.sizes.items())
        machine = _machine()
        console.print(
            f"{machine['processors']} processors, Python {machine['python']}; load average {load}; {sizes}",
            soft_wrap=True,
        )

    def _row(self, key: str) -> tuple[str, str, str, str]:
        rounds = self.values[key]
        each = " ".join(_text(value) for value in rounds) if len(rounds) > 1 else ""
        return FIGURES[key].title, f"{_text(self.median(key))} {FIGURES[key].unit}".strip(), each, self._marked(key)

    def _marked(self, key: str) -> str:
        met = self._met(key)
        if met is None:
            return ""
        return f"{FIGURES[key].mark} {'[green]met[/]' if met else '[bold red]missed[/]'}"

    def json(self) -> str:
        """Return the report as JSON."""
        figures: dict[str, dict[str, Any]] = {}
        for key, rounds in self.values.items():
            figure = FIGURES[key]
            figures[key] = {
                "title": figure.title,
                "unit": figure.unit,
                "median": self.median(key),
                "rounds": rounds,
            }
            if figure.mark is not None:
                figures[key] |= {"mark": str(figure.mark), "met": self._met(key)}
        return json.dumps(
            {
                "machine": _machine(),
                "load_average": self.load_average,
                "sizes": self.sizes,
                "requests": self.requests,
                "figures": figures,
            },
            indent=2,
        )


def _machine() -> dict[str, Any]:
    return {"processors": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}


def _text(value: float) -> str:
    """Format a value with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
