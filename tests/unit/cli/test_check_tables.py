"""cli.tables: cells are shown as they are, nothing in them acts on a terminal, and only who shows them loads it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from provisioner.cli import tables


def test_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal a row is a line without padding at its end, markup is text, and controls are shown."""
    tables.show(["A", "B"], [["[bold]x[/]", ("y" * 300, "red")], ["\x1b[2J\r\n", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "A           B",
        f"[bold]x[/]  {'y' * 300}",
        "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}",
    ]


def test_the_daemon_is_not_made_to_pay() -> None:
    """The command line itself does not load what only tables need."""
    code = "import sys, provisioner.cli; print([name for name in sys.modules if name[:4] == 'rich'])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"
