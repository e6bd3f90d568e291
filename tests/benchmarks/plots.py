"""Draws the plots of docs/performance.md from the results, as SVG that is the same for the same results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.benchmarks.figures import FIGURES

PAIRS = "performance-pairs.svg"
_OF_PAIRS = (
    "single_p50",
    "single_p99",
    "create_rate",
    "delete_rate",
    "cpu_create",
    "cpu_delete",
    "memory_idle",
    "memory_created",
)
GROWTH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "performance-rate.svg": ("volumes per second", ("create_rate", "delete_rate")),
    "performance-memory.svg": ("resident, MB", ("memory_held", "memory_held_peak")),
    "performance-start.svg": ("seconds", ("start_to_first", "start_held")),
    "performance-cpu.svg": ("CPU per volume, ms", ("cpu_create", "cpu_delete")),
}
"""A plot per file: the title of the axis, and the figures."""
NAMES = (PAIRS, *GROWTH)
_COLOURS = {"nfs-provisioner": "#0969da", "peer": "#8c959f"}
_STYLES = ("-", "--")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "nfs-provisioner",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: Mapping[str, Any], directory: Path) -> None:
    """Write the plots whose results exist."""
    with mpl.rc_context(_STYLE):
        if results["local"]:
            _save(pairs(results["local"]), directory / PAIRS)
        if results["growth"]:
            for name, (title, keys) in GROWTH.items():
                _save(growth(results["growth"]["figures"], title, keys), directory / name)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})


def pairs(comparison: Mapping[str, Any]) -> Figure:
    """Draw a dot per pair and figure: the ratio of the second contestant to the first, with a line at 1."""
    first, second = comparison["contestants"]
    rows = [
        (f"{FIGURES[key].title} ({section})", FIGURES[key].higher_is_better, figures[key]["values"])
        for section, figures in comparison["sections"].items()
        for key in _OF_PAIRS
        if key in figures
    ]
    figure = Figure(figsize=(7.5, 0.6 + 0.24 * len(rows)), facecolor="white")
    axes = figure.subplots()
    for number, (_, higher_is_better, values) in enumerate(reversed(rows)):
        ratios = [b / a for a, b in zip(values[first], values[second], strict=True) if a]
        better = [(ratio >= 1) == higher_is_better for ratio in ratios]
        colours = ["#1a7f37" if one else "#cf222e" for one in better]
        axes.scatter(ratios, [number] * len(ratios), s=16, c=colours, zorder=3)
    axes.axvline(1, color="#8c959f", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(rows)), [title + (" ↑" if higher else "") for title, higher, _ in reversed(rows)])
    axes.set_xlabel(f"{second} / {first}, a dot per pair; ↑ higher is better; green: better than the {first}")
    axes.grid(axis="x", color="#eaeef2")
    return figure


def growth(figures: Mapping[str, Mapping[str, Mapping[str, float]]], title: str, keys: tuple[str, ...]) -> Figure:
    """Draw figures by size, a line per figure and contestant."""
    figure = Figure(figsize=(5.2, 3.2), facecolor="white")
    axes: Axes = figure.subplots()
    for name, by_size in figures.items():
        for key, style in zip(keys, _STYLES, strict=False):
            points = sorted((int(size), found[key]) for size, found in by_size.items() if key in found)
            sizes, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(
                sizes,
                values,
                style,
                marker="o",
                markersize=3,
                color=_COLOURS[name],
                label=f"{name}: {FIGURES[key].title}",
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("claims and volumes")
    axes.set_ylabel(title)
    axes.grid(color="#eaeef2")
    axes.legend(fontsize=7, frameon=False)
    return figure
