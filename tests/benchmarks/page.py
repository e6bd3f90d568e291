"""`make bench-docs`: writes the figures of `results/` into docs/performance.md, and draws its plots.

The page has a pair of comments around each block of figures: `<!-- figures: NAME -->` and `<!-- end -->`. No figure of
the page is typed by hand. With `--take`, the JSON files of build/bench become the results first.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import paper, plots
from tests.benchmarks.figures import FIGURES, text
from tests.benchmarks.report import DIRECTORY

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"
RESULTS = Path(__file__).parent / "results"
Results = Mapping[str, Any]
"""The JSON of each file of results, by its name without the ending; an empty one if there is no such file."""

_BLOCK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FILES = ("local", "direct", "growth", "sizes", "nfs-client")
SPEED = ("single_p50", "single_p99", "create_rate", "delete_rate", "start_to_first", "start_to_first_delete")
USAGE = tuple(
    key
    for key in FIGURES
    if key.startswith(("cpu", "memory", "requests", "relist", "start_held")) and key != "cpu_others"
)
BOUND = tuple(key for key in FIGURES if key.startswith(("bound", "cleanup")))
_ASKED_FIRST = (
    *("single_p50", "create_rate", "delete_rate", "start_to_first"),
    *("memory_idle", "memory_held", "requests_idle", "bound_rate", "cleanup_rate"),
)
_GROWING = (
    *("create_rate", "delete_rate", "start_to_first", "start_held", "cpu_create", "cpu_delete", "cpu_held"),
    *("memory_created", "memory_held", "memory_held_peak", "relist_spike"),
)


def main() -> int:
    """Render the page and the plots."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.page", description=__doc__)
    parser.add_argument("--take", action="store_true", help=f"copy the JSON files of {DIRECTORY} first")
    if parser.parse_args().take:
        for name in _FILES:
            if (taken := DIRECTORY / f"{name}.json").exists():
                shutil.copy(taken, RESULTS)
    results = load(RESULTS)
    PAGE.write_text(render(PAGE.read_text(), results))
    plots.draw(results, PICTURES)
    return 0


def load(directory: Path) -> Results:
    """Read the results."""
    paths = {name: directory / f"{name}.json" for name in _FILES}
    return {name: json.loads(path.read_text()) if path.exists() else {} for name, path in paths.items()}


def render(page: str, results: Results) -> str:
    """Return a page with the figures of the results between its markers. Raises KeyError for an unknown block."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](results)}\n{match[3]}", page)


# ------------------------------------------------------------------------------------------- comparisons


def compared(results: Results, name: str, keys: Iterable[str]) -> str:
    """Return a table of the figures of a comparison, with its sections; each cell is `median (minimum to maximum)`."""
    comparison = results[name]
    if not comparison:
        return _missing(name)
    first, second = comparison["contestants"]
    rows = []
    for section, figures in comparison["sections"].items():
        shown = [key for key in keys if key in figures]
        rows += [f"| **{section}** | | | |"] if shown else []
        rows += [_row(figures[key], first, second) for key in shown]
    return "\n".join([f"| | {first} | {second} | ratio |", "|---|---:|---:|---:|", *rows])


def _row(figure: Mapping[str, Any], first: str, second: str) -> str:
    title = f"{figure['title']}{', ' + figure['unit'] if figure['unit'] else ''}"
    better = " ↑" if figure["higher_is_better"] else ""
    shown = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
    return f"| {title}{better} | {_cell(figure, first)} | {_cell(figure, second)} | {shown} |"


def _cell(figure: Mapping[str, Any], name: str) -> str:
    values, median = figure["values"][name], text(figure["median"][name])
    low, high = text(min(values)), text(max(values))
    return median if low == high else f"{median} ({low} to {high})"


def method(results: Results) -> str:
    """Return what the comparison was measured on, and how often."""
    lines = [_on(name, results[name]) for name in ("local", "direct", "growth", "sizes") if results[name]]
    return "\n".join(lines) or _missing("local")


def _on(name: str, found: Mapping[str, Any]) -> str:
    title = {"local": "Pairs with the peer", "direct": "Pairs over NFS", "growth": "Growth", "sizes": "Bytes"}[name]
    at = found["machine"]
    parts = [
        f"{at['processors']} processors ({at['processor']}), {at['memory_gb']} GB",
        f"Linux {at['kernel']}, Python {at['python']}, Kubernetes {at['kubernetes']}",
        f"exports and etcd in {at['exports']}",
    ]
    if "sizes" in found:
        parts.append(", ".join(f"{count} {what}" for what, count in found["sizes"].items()))
    if "load_average" in found:
        before, after = (found["load_average"][when][0] for when in ("before", "after"))
        parts.append(f"load average {before:.1f} before, {after:.1f} after")
    return f"- **{title}** ({at['taken']}, commit {at['commit']}): {'; '.join(parts)}."


def summary(results: Results) -> str:
    """Return the figures that people ask for first."""
    if not results["local"]:
        return _missing("local")
    second = results["local"]["contestants"][1]
    lines = []
    for section, figures in results["local"]["sections"].items():
        shown = [
            f"{FIGURES[key].title} {text(figures[key]['median'][second])} {FIGURES[key].unit}".rstrip()
            for key in (
                "single_p50",
                "create_rate",
                "delete_rate",
                "memory_idle",
                "memory_held",
                "requests_idle",
                "bound_rate",
            )
            if key in figures
        ]
        lines += [f"- {section}: {', '.join(shown)}"] if shown else []
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------- growth


def growth(results: Results) -> str:
    """Return a row per figure and contestant, a column per size, and how the figure changes from end to end."""
    if not results["growth"]:
        return _missing("growth")
    found = results["growth"]["figures"]
    sizes = sorted({size for by_size in found.values() for size in by_size}, key=int)
    head = ["", *(f"{int(size):,}" for size in sizes), "last / first"]
    rows = []
    for key in _GROWING:
        for name, by_size in found.items():
            values = [by_size.get(size, {}).get(key) for size in sizes]
            known = [value for value in values if value is not None]
            if known:
                cells = ["–" if value is None else text(value) for value in values]
                change = f"{known[-1] / known[0]:.1f}" if known[0] > 0 else ""
                rows.append([f"{FIGURES[key].title}, {FIGURES[key].unit}: {name}", *cells, change])
    return _table(head, rows)


def sizing(results: Results) -> str:
    """Return requests and limits by number of volumes."""
    if not results["growth"]:
        return _missing("growth")
    found = results["growth"]["figures"]["nfs-provisioner"]
    rows = []
    for size in sorted(found, key=int):
        needed_mib = paper.needed_mb(found[size]) * 1e6 / 2**20
        request, limit = _up(needed_mib, 16), _up(needed_mib * 1.5, 32)
        rows.append([f"{int(size):,}", f"{needed_mib:.0f} MiB", f"{request}Mi", f"{limit}Mi"])
    return _table(["volumes and claims", "measured at most", "`requests.memory`", "`limits.memory`"], rows)


def _up(value: float, step: int) -> int:
    return math.ceil(value / step) * step


# ------------------------------------------------------------------------------------------- others


def million(results: Results) -> str:
    """Return the cluster of 1,000,000 claims on paper."""
    if not results["growth"] or not results["sizes"]:
        return _missing("growth")
    rows = paper.million(results["sizes"]["figures"], results["growth"]["figures"]["nfs-provisioner"])
    return _table(["", "one claim and its volume", "1,000,000"], rows)


def nfs_client(results: Results) -> str:
    """Return the figures of purges and of the start over NFS."""
    if not results["nfs-client"]:
        return _missing("nfs-client")
    found = results["nfs-client"]["figures"]
    rows = [[f"{what}, {key}", f"{value:,}"] for what, figures in found.items() for key, value in figures.items()]
    return _table(["", ""], rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _missing(name: str) -> str:
    return f"*Not measured: {name}.json is not in the results.*"


BLOCKS: Mapping[str, Callable[[Results], str]] = {
    "method": method,
    "summary": summary,
    "speed": lambda results: compared(results, "local", SPEED),
    "usage": lambda results: compared(results, "local", USAGE),
    "bound": lambda results: compared(results, "local", BOUND),
    "nfs": lambda results: compared(results, "direct", (*SPEED, *USAGE)),
    "nfs-client": nfs_client,
    "growth": growth,
    "sizing": sizing,
    "million": million,
}


if __name__ == "__main__":
    sys.exit(main())
