"""What the pictures of the documentation are made with, as far as it needs nothing that runs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pictures import dashboard, drawing, terminal, values
from pictures.dashboard import Line, Panel, Span

MOST_BYTES = 350_000


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (0.0431, "s", "43.1 ms"),
        (100.0, "s", "100 s"),
        (150.0, "s", "2.5 min"),
        (588 * 2**30, "bytes", "588 GiB"),
        (0.0, "bytes", "0 B"),
        (0.875, "percentunit", "87.5 %"),
        (1234.0, "short", "1.23 K"),
        (20.0, "suffix:/min", "20/min"),
    ],
)
def test_values_are_written_by_their_unit(value: float, unit: str, text: str) -> None:
    """A value has three digits that matter, no zeros that do not, and its unit."""
    assert values.written(value, unit) == text


def test_variables_are_filled_in() -> None:
    """The interval of a rate holds four scrapes at least, as Grafana has it; other names stay out of it."""
    expression = 'rate(x{job=~"$job",namespace=~"$namespace"}[$__rate_interval])'
    assert dashboard.filled(expression, scrape_interval_s=5, step_s=4) == 'rate(x{job=~".*",namespace=~".*"}[20s])'
    assert dashboard.filled(expression, scrape_interval_s=5, step_s=60).endswith("[65s])")


def test_what_was_written_over_is_not_shown() -> None:
    """A line that was erased, and rewritten further up, leaves its last state, with its colours."""
    output = "one\ntwo: old\n\x1b[1A\r\x1b[2K\x1b[32mtwo: new\x1b[0m\nthree\x1b[?25h\n"
    assert terminal.settled(output) == ["one", "\x1b[32mtwo: new\x1b[0m", "three", ""]


def test_parts_begin_with_their_titles() -> None:
    """What comes before the first title, and empty lines at a part's end, are left out."""
    rule = "─" * 20
    assert terminal.parts(["", f"a {rule}", "x", "", f"b {rule}", "y"]) == [[f"a {rule}", "x"], [f"b {rule}", "y"]]


def test_the_terminal_is_drawn(tmp_path: Path) -> None:
    """The picture is an SVG with the words in it, which asks no server for anything."""
    terminal.draw(["\x1b[32m✓\x1b[0m all & <well>"], "a title", tmp_path / "t.svg")
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    assert {"✓", "all\xa0&\xa0<well>", "a\xa0title"} <= set(root.itertext())
    assert "url(http" not in (tmp_path / "t.svg").read_text()


def test_the_dashboard_is_drawn(tmp_path: Path) -> None:
    """Every panel of the chart's dashboard can be drawn, with data and without, and the picture is not too large."""
    span = Span(0.0, 600.0, 5.0)
    samples = [(5.0 * number, float(number % 2)) for number in range(121)]

    def ask(panel: Panel) -> list[Line]:
        gap = [sample for sample in samples if not 100 < sample[0] < 200]
        return [] if "failed" in panel.title.lower() else [Line("a", samples), Line("b", gap)]

    folded = next(panel for panel in dashboard.panels() if panel.folded)
    for name, panels in {"all": dashboard.panels(), "folded": dashboard.unfolded(folded)}.items():
        drawing.draw("nfs-provisioner", panels, ask, span, tmp_path / f"{name}.svg")
        words = set(ElementTree.parse(tmp_path / f"{name}.svg").getroot().itertext())
        assert {panel.title for panel in panels if panel.type != "row"} <= words
        assert "no data" in words
        assert (tmp_path / f"{name}.svg").stat().st_size < MOST_BYTES
