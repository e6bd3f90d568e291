"""Tables for people. On a terminal long cells wrap; elsewhere a row is a line, for grep and its like."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click

# Not in the modules of commands: `run` loads those, and its memory is not for this.
from rich.console import Console
from rich.table import Table
from rich.text import Text

from provisioner.core import texts

_ENDLESS = 1 << 16

Cell = str | tuple[str, str]
"""A text, or a text and its style."""


def show(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table to the output."""
    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not terminal)
    for row in rows:
        table.add_row(*map(_text, row))
    console = Console(file=sys.stdout, width=None if terminal else _ENDLESS)
    if terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    # Each cell is padded to its column's width, the last one too.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _text(cell: Cell) -> Text:
    """The cell without markup, and without anything that a terminal would act on: others chose the text."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    safe = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in texts.encodable(text))
    return Text(safe, style=style)
