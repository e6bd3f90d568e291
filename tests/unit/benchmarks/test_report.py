"""The report of a benchmark's comparison."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.figures import text
from tests.benchmarks.report import Report


@pytest.fixture
def report() -> Report:
    report = Report(first="peer", second="ours", sizes={"pairs": 3, "claims": 10})
    for peer, ours in ((380.0, 192.0), (420.0, 200.0), (400.0, 150.0)):
        report.add("single", "peer", {"single_p50": 10.0})
        report.add("waiting", "peer", {"create_rate": peer})
        report.add("single", "ours", {"single_p50": 12.5})
        report.add("waiting", "ours", {"create_rate": ours})
    report.add("waiting", "peer", {"memory_held": 50.0})
    report.requests["ours"] = {"created": {"POST events": 2.0, "POST persistentvolumes": 1.0}}
    report.raw.extend([(500.0, 900.0), (480.0, 800.0), (520.0, 850.0)])
    report.load_average["before"] = (0.5, 0.25, 0.0)
    return report


def test_table(report: Report) -> None:
    """A row has minimum, median and maximum of both sides and the ratio of the medians, below the section's title."""
    output = io.StringIO()
    console = Console(file=output, width=200)
    console.print(report.table())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.getvalue().splitlines() if "│" in line]
    assert [list(filter(None, row)) for row in rows] == [
        ["single"],
        ["claim sent → PV, p50", "ms", "10.0", "10.0", "10.0", "12.5", "12.5", "12.5", "1.25"],
        ["waiting"],
        ["volumes created ↑", "/s", "380", "400", "420", "150", "192", "200", "0.48"],
    ]


def test_notes(report: Report) -> None:
    """The lines below the table have the kinds of requests, the rates of the API server alone, and the sizes."""
    requests, raw, sizes = report.notes()
    assert requests == "ours: API requests per volume created: POST events 2.00, POST persistentvolumes 1.00"
    assert raw == "the API server alone: 500 volumes/s created, 850 deleted"
    assert sizes.startswith("pairs 3, claims 10; ")
    assert sizes.endswith("load average before 0.5 0.2 0.0")


def test_json(report: Report, tmp_path: Path) -> None:
    """The file has every value of both sides, so that a program can compute other statistics."""
    report.save(tmp_path / "bench" / "run.json")
    saved = json.loads((tmp_path / "bench" / "run.json").read_text())
    assert saved["contestants"] == ["peer", "ours"]
    assert saved["sections"]["waiting"]["create_rate"] == {
        "title": "volumes created",
        "unit": "/s",
        "higher_is_better": True,
        "median": {"peer": 400.0, "ours": 192.0},
        "values": {"peer": [380.0, 420.0, 400.0], "ours": [192.0, 200.0, 150.0]},
        "ratio": 0.48,
    }
    assert saved["raw_api"][0] == {"create_rate": 500.0, "delete_rate": 900.0}


def test_figure_of_one_side_has_no_row(report: Report) -> None:
    """A figure that only one side has cannot be compared: it has no row."""
    assert "memory_held" not in [row.key for row in report.rows()]


@pytest.mark.parametrize(("value", "shown"), [(1234.5, "1,234"), (99.94, "99.9"), (1.005, "1.00"), (0.0, "0.00")])
def test_values_have_three_digits(value: float, shown: str) -> None:
    """A value has three significant digits, and all its digits before the point."""
    assert text(value) == shown
