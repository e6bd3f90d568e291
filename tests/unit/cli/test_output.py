"""cli.output: cells show their text, never act on a terminal, and the daemon loads none of this."""

from __future__ import annotations

import subprocess
import sys

import pytest

from provisioner.cli.archives import _print_rows
from provisioner.cli.output import print_table
from provisioner.core.archives import ArchiveRow


def test_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, each row is one line without trailing padding; markup and control characters are text."""
    print_table(["A", "B"], [["[bold]x[/]", ("y" * 300, "red")], ["\x1b[2J\r\n", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "A           B",
        f"[bold]x[/]  {'y' * 300}",
        "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}",
    ]


def test_an_archive_without_a_retention_time(capsys: pytest.CaptureFixture[str]) -> None:
    """KEPT UNTIL says `for ever`, in the words that scripts read."""
    _print_rows([ArchiveRow("archived-photos-20260101T000000Z", "nas:/exports", why_not="no record")])
    assert "  for ever    nas:/exports" in capsys.readouterr().out


def test_the_daemon_loads_no_other_command() -> None:
    """The daemon imports no module of another command: each replica would pay for it with memory."""
    code = (
        "import sys; from provisioner.cli.entry import cli; import click; cli.get_command(click.Context(cli), 'run')\n"
        "rooms, own = ('provisioner.commands.', 'provisioner.cli.'), ('entry', 'run', 'options', 'wiring')\n"
        "print([name for name in sys.modules if name.startswith(rooms) and name.rpartition('.')[2] not in own])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"
