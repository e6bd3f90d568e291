"""What commands print: tables, lists in two formats, and what was looked at.

On a terminal, long cells wrap; elsewhere each row is one line, for grep and similar tools.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from provisioner.core import texts
from provisioner.core.scope import Scope, count

_UNLIMITED_WIDTH = 1 << 16
NAMES_SHOWN = 10
"""How many volume names a hint prints."""

Cell = str | tuple[str, str]
"""A text, or a text and its style."""

Item = TypeVar("Item", bound=msgspec.Struct)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table to the standard output."""
    terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not terminal)
    for row in rows:
        table.add_row(*map(_text, row))
    console = Console(file=sys.stdout, width=None if terminal else _UNLIMITED_WIDTH)
    if terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    # rich pads each cell to the width of its column, also the last one in a row.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_list(
    found: Sequence[Item],
    scope: Scope,
    *,
    output: str,
    print_rows: Callable[[Sequence[Item]], None],
    none: str,
) -> int:
    """Print what a command found as JSON or with `print_rows`, or `none` for an empty list; return the exit status.

    Before that, print what was looked at to the standard error.
    """
    print_scope(scope)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    elif found:
        print_rows(found)
    elif scope.exports:
        click.echo(f"{none} on {count(len(scope.exports), 'export')}", err=True)
    return scope.status


def print_scope(scope: Scope) -> None:
    """Print to the standard error what was looked at, and what was skipped."""
    for line in scope.lines():
        click.echo(line, err=True)


def next_steps(steps: Iterable[str], retained: str, volumes: Sequence[str]) -> str:
    """Return the remaining steps for an admin, numbered, each with its command.

    `retained` says why the last step is needed, whose command gives the volumes the reclaim policy Delete.
    """
    patch = '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'
    command = f"kubectl patch pv {volumes[0]} -p '{patch}'"
    if len(volumes) > 1:
        rest = f"    # and {len(volumes) - NAMES_SHOWN} more" if len(volumes) > NAMES_SHOWN else ""
        command = f"for pv in {' '.join(volumes[:NAMES_SHOWN])}; do kubectl patch pv $pv -p '{patch}'; done{rest}"
    numbered = enumerate([*steps, f"{retained}:\n     {command}"], 1)
    return "\n".join(["Next steps:", *(f"  {number}. {step}" for number, step in numbered)])


def _text(cell: Cell) -> Text:
    """Return the cell without markup or control characters: clients of the cluster chose the text."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    safe = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in texts.encodable(text))
    return Text(safe, style=style)
