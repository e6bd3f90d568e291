"""The report of a comparison: a table for people, and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import FIGURES, Figures, Spread, percentile, ratio

DIRECTORY = Path("build/bench")
_WIDTH_IN_FILES = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All values of two contestants that were measured in pairs, first and second in turn."""

    first: str
    second: str
    sizes: Mapping[str, int]
    values: Mapping[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    """By contestant and key of FIGURES, one per pair."""
    requests: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """API requests per volume of the last pair, by contestant, phase and kind."""
    raw: list[tuple[float, float]] = field(default_factory=list)
    """Volumes per second that the API server alone creates and deletes, once per pair."""
    load_average: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def add(self, contestant: str, figures: Figures) -> None:
        """Add the values of a contestant."""
        for key, value in figures.items():
            self.values[contestant].setdefault(key, []).append(value)

    def spreads(self) -> Iterator[tuple[str, Spread, Spread, float | None]]:
        """Yield each figure's key, the spreads of both contestants, and the ratio second / first of the medians."""
        for key in FIGURES:
            if key in self.values[self.first] and key in self.values[self.second]:
                first, second = (Spread.of(self.values[name][key]) for name in (self.first, self.second))
                yield key, first, second, ratio(first.median, second.median)

    def table(self) -> Table:
        """Return a row per figure: unit, minimum, median and maximum of both contestants, and the ratio."""
        table = Table(title=f"{self.second} / {self.first}")
        table.add_column("figure (↑ higher is better)")
        table.add_column("unit")
        for name in (self.first, self.second):
            for column in (f"{name}\nmin", "\nmedian", "\nmax"):
                table.add_column(column, justify="right")
        table.add_column("ratio", justify="right")
        for key, first, second, of_medians in self.spreads():
            figure = FIGURES[key]
            values = [text(value) for one in (first, second) for value in (one.minimum, one.median, one.maximum)]
            title = f"{figure.title}{' ↑' if figure.higher_is_better else ''}"
            table.add_row(title, figure.unit, *values, "" if of_medians is None else f"{of_medians:.2f}")
        return table

    def print(self) -> None:
        """Print the table, the kinds of requests and the circumstances."""
        console = Console()
        if not console.is_terminal:
            console.width = _WIDTH_IN_FILES
        console.print(self.table())
        for line in self.notes():
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    def notes(self) -> Iterator[str]:
        """Yield the lines below the table."""
        for contestant, phases in self.requests.items():
            for phase, kinds in phases.items():
                each = ", ".join(f"{kind} {count:.2f}" for kind, count in kinds.items())
                yield f"{contestant}: API requests per volume {phase}: {each}"
        if self.raw:
            created, deleted = (percentile((one[i] for one in self.raw), 50) for i in (0, 1))
            yield f"the API server alone: {text(created)} volumes/s created, {text(deleted)} deleted"
        sizes = ", ".join(f"{name} {count}" for name, count in self.sizes.items())
        load = ", ".join(f"{when} {' '.join(f'{x:.1f}' for x in loads)}" for when, loads in self.load_average.items())
        machine = _machine()
        yield f"{sizes}; {machine['processors']} processors, Python {machine['python']}; load average {load}"

    def json(self) -> str:
        """Return the report as JSON."""
        figures: dict[str, dict[str, Any]] = {
            key: {
                "title": FIGURES[key].title,
                "unit": FIGURES[key].unit,
                "higher_is_better": FIGURES[key].higher_is_better,
                "median": {self.first: first.median, self.second: second.median},
                "values": {name: self.values[name][key] for name in (self.first, self.second)},
                "ratio": of_medians,
            }
            for key, first, second, of_medians in self.spreads()
        }
        whole = {
            "contestants": [self.first, self.second],
            "machine": _machine(),
            "load_average": self.load_average,
            "sizes": self.sizes,
            "raw_api": [{"create_rate": created, "delete_rate": deleted} for created, deleted in self.raw],
            "requests": self.requests,
            "figures": figures,
        }
        return json.dumps(whole, indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.json())


def _machine() -> dict[str, Any]:
    return {"processors": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}


def text(value: float) -> str:
    """Format a value with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
