"""cli.output: tables as kubectl prints them; cells show their text and never act on a terminal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from msgspec import Struct

from provisioner.cli import archives
from provisioner.cli.output import Column, Listing, Printer, Table, View, print_list, print_table
from provisioner.core.archives import ArchiveRow
from provisioner.core.errors import InvalidSettings
from provisioner.core.scope import Scope, Seen


class Row(Struct, frozen=True):
    """A row of a list."""

    name: str
    size: int = 0


LISTING = Listing(
    row=Row,
    columns=(Column("NAME", "name"), Column("SIZE", "size", lambda row: str(row.size), wide=True)),
    name=lambda row: f"row/{row.name}",
    none="no rows",
)
SCOPE = Scope(provisioner="p", classes={"p": 1}, exports=[Seen(export="nas:/x")])
ROWS = [Row("b", 1), Row("a", 2)]


def printed(capsys: pytest.CaptureFixture[str], view: View, rows: list[Row] = ROWS) -> str:
    """Return the standard output of a list."""
    assert print_list(rows, SCOPE, LISTING, view) == 0
    return capsys.readouterr().out


def test_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row is one line of any length without trailing padding; control characters are replaced."""
    print_table(["A", "B"], [["[bold]x[/]", ("y" * 300, "red")], ["\x1b[2J\r\n", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "A            B",
        f"[bold]x[/]   {'y' * 300}",
        "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}",
    ]


def test_a_table_that_grows(capsys: pytest.CaptureFixture[str]) -> None:
    """Later rows stay below the columns of the first ones, and the heading is printed once."""
    table = Table(["A", "B"])
    table.print([["xxxx", "1"]])
    table.print([["y", "2"]])
    assert capsys.readouterr().out.splitlines() == ["A      B", "xxxx   1", "y      2"]


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    """A list has few columns, all with `-o wide`, and is JSON, YAML or names for programs."""
    assert printed(capsys, View()) == "NAME\nb\na\n"
    assert printed(capsys, View(output="wide")) == "NAME   SIZE\nb      1\na      2\n"
    assert printed(capsys, View(headers=False)) == "b\na\n"
    assert printed(capsys, View(output="name")) == "row/b\nrow/a\n"
    expected = [{"name": "b", "size": 1}, {"name": "a", "size": 2}]
    assert json.loads(printed(capsys, View(output="json"))) == expected
    assert yaml.safe_load(printed(capsys, View(output="yaml"))) == expected


def test_sorting(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are sorted by a field or a column; an unknown one is refused."""
    assert printed(capsys, View(output="name", sort_by="NAME")) == "row/a\nrow/b\n"
    with pytest.raises(InvalidSettings, match="no such field"):
        print_list(ROWS, SCOPE, LISTING, View(sort_by="colour"))


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty list is empty on the standard output; the standard error says on which exports there is nothing."""
    assert print_list([], SCOPE, LISTING, View()) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("no rows on 1 export\n")
    assert printed(capsys, View(output="json"), []) == "[]\n"


def test_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    """With `--watch`, programs get one document per row."""
    Printer(LISTING, View(output="yaml")).print_next(ROWS)
    assert [each["name"] for each in yaml.safe_load_all(capsys.readouterr().out)] == ["b", "a"]
    Printer(LISTING, View(output="json")).print_next(ROWS[:1])
    assert json.loads(capsys.readouterr().out) == {"name": "b", "size": 1}


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours do not change widths, and NO_COLOR turns them off."""
    code = "from provisioner.cli.output import _styled; print(repr(_styled('x', 'bold red')))"
    for value, expected in (("", "'\\x1b[31m\\x1b[1mx\\x1b[0m'"), ("1", "'x'")):
        monkeypatch.setenv("NO_COLOR", value)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == expected


def test_an_archive_without_a_retention_time(capsys: pytest.CaptureFixture[str]) -> None:
    """KEPT UNTIL says `for ever`, in the words that scripts read."""
    row = ArchiveRow("archived-photos-20260101T000000Z", "nas:/exports", why_not="no record")
    Printer(archives.LISTING, View()).print([row])
    assert capsys.readouterr().out.splitlines()[1].endswith("   for ever")


def test_the_daemon_loads_no_other_command() -> None:
    """The daemon imports no module of another command: each replica would pay for it with memory."""
    code = (
        "import sys; from provisioner.cli.entry import cli; import click; cli.get_command(click.Context(cli), 'run')\n"
        "rooms, own = ('provisioner.commands.', 'provisioner.cli.'), ('entry', 'run', 'options', 'wiring')\n"
        "print([name for name in sys.modules if name.startswith(rooms) and name.rpartition('.')[2] not in own])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"
