"""The report of a comparison: a table for people, and JSON for programs."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import FIGURES, Figures, Spread, percentile, ratio, text
from tests.benchmarks.machine import machine

DIRECTORY = Path("build/bench")
_WIDTH_IN_FILES = 140


class Row(NamedTuple):
    """A figure of a section that both contestants have, with the ratio second / first of the medians."""

    section: str
    key: str
    first: Spread
    second: Spread
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All values of two contestants that were measured in turn, in sections such as `1,000 claims waiting`."""

    first: str
    second: str
    sizes: Mapping[str, int]
    values: Mapping[str, Mapping[str, dict[str, list[float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    """By section, contestant and key of FIGURES, one per measurement."""
    requests: dict[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """API requests per volume of the last backlog, by contestant, phase and kind."""
    raw: list[tuple[float, float]] = field(default_factory=list)
    """Volumes per second that the API server alone creates and deletes, once per pair."""
    load_average: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def add(self, section: str, contestant: str, figures: Figures) -> None:
        """Add the values of a contestant."""
        for key, value in figures.items():
            self.values[section][contestant].setdefault(key, []).append(value)

    def rows(self) -> Iterator[Row]:
        """Yield the figures that both contestants have."""
        for section, values in self.values.items():
            for key in FIGURES:
                if key in values[self.first] and key in values[self.second]:
                    first, second = (Spread.of(values[name][key]) for name in (self.first, self.second))
                    yield Row(section, key, first, second, ratio(first.median, second.median))

    def table(self) -> Table:
        """Return a row per figure: unit, minimum, median and maximum of both contestants, and the ratio."""
        table = Table(title=f"{self.second} / {self.first}")
        table.add_column("figure (↑ higher is better)")
        table.add_column("unit")
        for name in (self.first, self.second):
            for column in (f"{name}\nmin", "\nmedian", "\nmax"):
                table.add_column(column, justify="right")
        table.add_column("ratio", justify="right")
        section = ""
        for row in self.rows():
            if row.section != section:
                section = row.section
                table.add_section()
                table.add_row(f"[bold]{section}[/bold]")
            figure = FIGURES[row.key]
            values = [
                text(value) for one in (row.first, row.second) for value in (one.minimum, one.median, one.maximum)
            ]
            title = f"{figure.title}{' ↑' if figure.higher_is_better else ''}"
            table.add_row(title, figure.unit, *values, "" if row.ratio is None else f"{row.ratio:.2f}")
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
        here = machine()
        yield f"{sizes}; {here['processors']} processors, Python {here['python']}; load average {load}"

    def json(self) -> str:
        """Return the report as JSON."""
        sections: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in self.rows():
            sections[row.section][row.key] = {
                "title": FIGURES[row.key].title,
                "unit": FIGURES[row.key].unit,
                "higher_is_better": FIGURES[row.key].higher_is_better,
                "median": {self.first: row.first.median, self.second: row.second.median},
                "values": {name: self.values[row.section][name][row.key] for name in (self.first, self.second)},
                "ratio": row.ratio,
            }
        whole = {
            "contestants": [self.first, self.second],
            "machine": machine(),
            "load_average": self.load_average,
            "sizes": self.sizes,
            "raw_api": [{"create_rate": created, "delete_rate": deleted} for created, deleted in self.raw],
            "requests": self.requests,
            "sections": sections,
        }
        return json.dumps(whole, indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON to a file, with the load of the machine until now."""
        self.load_average.setdefault("before", os.getloadavg())
        self.load_average["after"] = os.getloadavg()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.json())
