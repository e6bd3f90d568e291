"""The figures of docs/performance.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import page, plots
from tests.benchmarks.figures import Figures
from tests.benchmarks.report import Report

SIZES = {
    "claim_bytes": 2000.0,
    "volume_bytes": 2000.0,
    "created_events": 7.0,
    "created_bytes": 11000.0,
    "deleted_events": 6.0,
    "deleted_bytes": 12000.0,
    "record_bytes": 400.0,
    "read_record_us": 10.0,
}


def grown(size: int) -> Figures:
    """The figures of a size: 50 MB and 3 kB per volume."""
    held = 50 + size * 3e-3
    return {
        "create_rate": 400.0,
        "delete_rate": 200.0,
        "start_to_first": 1.0,
        "start_held": 1.0 + size * 1e-4,
        "cpu_create": 1.0,
        "cpu_delete": 2.0,
        "cpu_held": 500.0 + size * 0.1,
        "memory_created": held + 10,
        "memory_deleted": held,
        "memory_held": held,
        "memory_held_peak": held + 5,
        "relist_spike": 4.0,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    report = Report(first="peer", second="nfs-provisioner", sizes={"pairs": 2})
    for value in (1.0, 3.0):
        report.add("1,000 claims waiting", "peer", {"create_rate": 400.0, "cpu_create": 1.0})
        report.add("1,000 claims waiting", "nfs-provisioner", {"create_rate": 400.0 * value, "cpu_create": value})
    report.load_average.update({"before": (0.0, 0.0, 0.0), "after": (1.0, 1.0, 1.0)})
    local = json.loads(report.json())
    growth = {"nfs-provisioner": {"100000": grown(100_000), "1000": grown(1000)}, "peer": {"1000": grown(1000)}}
    return {
        "local": local,
        "direct": {},
        "growth": {"machine": local["machine"], "figures": growth},
        "sizes": {"machine": local["machine"], "figures": SIZES},
        "nfs-client": {},
    }


def test_the_page_has_the_figures_of_the_results() -> None:
    """Each figure of the page comes from the JSON in results/: `make bench-docs` writes it."""
    text = page.PAGE.read_text()
    assert page.render(text, page.load(page.RESULTS)) == text


def test_the_page_has_every_block() -> None:
    """No figure that is measured is missing from the page."""
    assert sorted(re.findall(r"<!-- figures: ([a-z-]+) -->", page.PAGE.read_text())) == sorted(page.BLOCKS)


def test_render_replaces_only_what_is_between_markers(results: dict[str, Any]) -> None:
    """The text around a block stays, and what was in the block goes."""
    before = "# Title\n<!-- figures: speed -->\nold\n<!-- end -->\nText.\n"
    after = page.render(before, results)
    assert after.startswith("# Title\n<!-- figures: speed -->\n| |")
    assert after.endswith("\n<!-- end -->\nText.\n")
    assert "old" not in after
    assert page.render(after, results) == after


def test_a_comparison_is_a_table(results: dict[str, Any]) -> None:
    """A row has the medians with minimum and maximum, and the ratio of the medians."""
    assert page.compared(results, "local", ("create_rate",)).splitlines() == [
        "| | peer | nfs-provisioner | ratio |",
        "|---|---:|---:|---:|",
        "| **1,000 claims waiting** | | | |",
        "| volumes created, /s ↑ | 400 | 800 (400 to 1,200) | 2.00 |",
    ]


def test_missing_results_are_named(results: dict[str, Any]) -> None:
    """A block without results says which file is missing."""
    assert page.compared(results, "direct", page.SPEED) == "*Not measured: direct.json is not in the results.*"


def test_growth_has_a_column_per_size(results: dict[str, Any]) -> None:
    """Sizes are ordered as numbers, and a size that a contestant lacks is a dash."""
    lines = page.growth(results).splitlines()
    assert lines[0] == "|  | 1,000 | 100,000 | last / first |"
    assert "| volumes created, /s: peer | 400 | – | 1.0 |" in lines
    assert "| resident, idle after the start, MB: nfs-provisioner | 53.0 | 350 | 6.6 |" in lines


def test_sizing_covers_every_phase(results: dict[str, Any]) -> None:
    """The request covers the most that any phase needed, and the limit half as much again."""
    assert page.sizing(results).splitlines()[2:] == [
        "| 1,000 | 60 MiB | 64Mi | 96Mi |",
        "| 100,000 | 343 MiB | 352Mi | 544Mi |",
    ]


def test_a_million_claims(results: dict[str, Any]) -> None:
    """Bytes, memory and time per claim are multiplied; the ledger's limits give the number of exports."""
    rows = {line.split(" | ")[0]: line.split(" | ")[2] for line in page.million(results).splitlines()[2:]}
    assert rows["| list, in bytes"] == "4.0 GB in 4,000 pages |"
    assert rows["| memory of the daemon"] == "3.0 GB |"
    assert rows["| CPU of a start"] == "100 s |"
    assert rows["| exports needed"] == "6 |"


def test_plots(results: dict[str, Any], tmp_path: Path) -> None:
    """The plots are the same for the same results, so that a commit has them only if they changed."""
    plots.draw(results, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    plots.draw(results, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert set(first) == set(plots.NAMES)
