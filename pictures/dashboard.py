"""The chart's Grafana dashboard: its panels, and the answers to their queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.prometheus import Prometheus, Series

FILE = Path(__file__).parents[1] / "charts" / "nfs-provisioner" / "dashboards" / "nfs-provisioner.json"


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a panel, in units of Grafana's grid, which is 24 wide."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL with Grafana's variables, and the name of its series: text with {{label}}."""

    expression: str
    legend: str

    def name(self, series: Series) -> str:
        """Return the name of a series of this query."""
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: series.labels.get(found[1], ""), self.legend)


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. `defaults` and `overrides` are those of Grafana's `fieldConfig`."""

    type: str
    title: str
    place: Place
    queries: Sequence[Query]
    defaults: Mapping[str, Any]
    overrides: Sequence[Mapping[str, Any]]
    folded: Sequence[Panel] = ()
    """The panels of a collapsed row."""

    @property
    def unit(self) -> str:
        """The name of the unit, see values.written."""
        return str(self.defaults.get("unit", "short"))

    @property
    def custom(self) -> Mapping[str, Any]:
        """The options of the panel's type."""
        custom: Mapping[str, Any] = self.defaults.get("custom", {})
        return custom

    def colour_of(self, name: str) -> str | None:
        """Return the colour of a series by the overrides, as Grafana names it, or None."""
        for override in self.overrides:
            if override["matcher"]["id"] == "byRegexp" and re.search(override["matcher"]["options"], name):
                values = {each["id"]: each["value"] for each in override["properties"]}
                return str(values["color"]["fixedColor"])
        return None

    def threshold_colour(self, value: float) -> str | None:
        """Return the colour of a value by the thresholds of the panel, or None."""
        steps = self.defaults.get("thresholds", {"steps": []})["steps"]
        reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return reached[-1] if reached else None


@dataclass(frozen=True, slots=True)
class Line:
    """A series with its name in the legend."""

    name: str
    samples: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Span:
    """A time range in seconds since 1970, and the distance of the samples."""

    start_s: float
    end_s: float
    step_s: float


def panels(file: Path = FILE) -> list[Panel]:
    """Return the panels and rows in file order; a collapsed row contains its panels."""
    return [_panel(body) for body in json.loads(file.read_text())["panels"]]


def all_panels(file: Path = FILE) -> Iterator[Panel]:
    """Yield the panels with queries, including those of collapsed rows."""
    for panel in panels(file):
        yield from (each for each in (panel, *panel.folded) if each.queries)


def unfolded(row: Panel) -> list[Panel]:
    """Return a collapsed row and its panels alone, moved to the top of the grid."""
    panels = [replace(row, folded=()), *row.folded]
    return [replace(panel, place=replace(panel.place, y=panel.place.y - row.place.y)) for panel in panels]


def lines(panel: Panel, prometheus: Prometheus, span: Span) -> list[Line]:
    """Return the lines of the panel, without samples that are NaN (0/0). Raises QueryRefused."""
    found = []
    for query in panel.queries:
        expression = filled(query.expression, scrape_interval_s=prometheus.scrape_interval_s, step_s=span.step_s)
        answer = prometheus.query_range(expression, start_s=span.start_s, end_s=span.end_s, step_s=span.step_s)
        for series in answer:
            samples = [(at, value) for at, value in series.samples if value == value]
            if samples:
                found.append(Line(query.name(series), samples))
    return found


def filled(expression: str, *, scrape_interval_s: float, step_s: float) -> str:
    """Return PromQL with the variables filled in.

    They select all clusters, namespaces, jobs and exports, and the rate interval of Grafana's rule:
    https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
    """
    interval_s = max(4 * scrape_interval_s, scrape_interval_s + step_s)
    values = dict.fromkeys(("cluster", "namespace", "job", "export"), ".*") | {"__rate_interval": f"{interval_s:.0f}s"}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def _panel(body: Mapping[str, Any]) -> Panel:
    config = body.get("fieldConfig", {"defaults": {}, "overrides": []})
    return Panel(
        type=body["type"],
        title=body["title"],
        place=Place(**body["gridPos"]),
        queries=[Query(target["expr"], target["legendFormat"]) for target in body.get("targets", [])],
        defaults=config["defaults"],
        overrides=config["overrides"],
        folded=[_panel(each) for each in body.get("panels", [])],
    )
