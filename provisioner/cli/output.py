"""What commands print: tables as kubectl prints them, stanzas, JSON and YAML, and what was looked at.

A table never folds a cell: each row is one line, which a terminal wraps and grep finds.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Self, TypeVar

import click
import msgspec
import yaml
from msgspec import Struct

from provisioner.core import listing, sorting, texts
from provisioner.core.scope import Scope, count

NAMES_SHOWN = 10
"""How many volume names a hint prints."""
_GAP = "   "

Format = Literal["table", "wide", "json", "yaml", "name"]
FORMATS: Sequence[Format] = ("table", "wide", "json", "yaml", "name")

Cell = str | tuple[str, str]
"""A text, or a text and its style: a colour, with `bold` before it."""

Item = TypeVar("Item", bound=Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a user wants to see a list."""

    output: Format = "table"
    headers: bool = True
    sort_by: str | None = None

    @property
    def is_for_programs(self) -> bool:
        """Whether the output is JSON or YAML."""
        return self.output in ("json", "yaml")


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    """A column of a table: its name, the field that it shows, and how."""

    name: str
    field: str
    cell: Callable[[Item], Cell] | None = None
    wide: bool = False
    """Whether only `-o wide` shows it."""

    def of(self, item: Item) -> Cell:
        """Return the cell of an item."""
        if self.cell is not None:
            return self.cell(item)
        return str(getattr(item, self.field) or "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[Item]):
    """How items of one type are printed."""

    row: type[Item]
    columns: Sequence[Column[Item]]
    name: Callable[[Item], str]
    """What `-o name` prints."""
    stanza: Callable[[Item], Iterable[Cell]] | None = None
    """The lines of an item where a table would have sentences in its cells; `-o wide` prints the table."""
    none: str
    """What to say if there is nothing, before the words on what was looked at."""

    def within(self, namespace: str | None, found: int) -> Self:
        """Return the listing for one namespace, or for all; `found` is the number of items of all namespaces."""
        none = f"{self.none} of namespace {namespace} ({found} of others)" if namespace else self.none
        return replace(self, none=none)

    def sort_field(self, view: View) -> str | None:
        """Return the field to sort by. Raises InvalidSettings if there is no such field."""
        if view.sort_by is None:
            return None
        return sorting.field_of(view.sort_by, self.row, {column.name: column.field for column in self.columns})


# ---------------------------------------------------------------------------------------------------- tables


@dataclass(slots=True)
class Table:
    """A table that can grow: columns stay where they are, and become wider for a longer cell."""

    columns: Sequence[str]
    headers: bool = True
    widths: list[int] = field(default_factory=list)

    def print(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Print rows, and the heading before the first ones."""
        first = not self.widths
        lines = [[_safe(cell) for cell in row] for row in rows]
        if first:
            self.widths = [len(name) if self.headers else 0 for name in self.columns]
        for line in lines:
            self.widths = [max(width, len(text)) for width, (text, _) in zip(self.widths, line, strict=True)]
        if first and self.headers:
            self._print_line([(name, "bold") for name in self.columns])
        for line in lines:
            self._print_line(line)

    def _print_line(self, cells: Sequence[tuple[str, str]]) -> None:
        last = max((number for number, (text, _) in enumerate(cells) if text), default=0)
        padded = [
            _styled(text, style) + " " * (0 if number == last else width - len(text))
            for number, ((text, style), width) in enumerate(zip(cells, self.widths, strict=True))
        ]
        click.echo(_GAP.join(padded[: last + 1]))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, headers: bool = True) -> None:
    """Print a table to the standard output."""
    Table(columns, headers).print(rows)


def print_stanza(lines: Iterable[Cell]) -> None:
    """Print the first line, and the others below it with an indentation."""
    for number, line in enumerate(lines):
        text, style = _safe(line)
        click.echo(("    " if number else "") + _styled(text, style))


def print_document(value: object, output: str) -> None:
    """Print plain data as JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(value, indent=2))
    else:
        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


# ---------------------------------------------------------------------------------------------------- lists


class Printer(Generic[Item]):
    """Prints items of one listing, all together or one after another."""

    def __init__(self, listing: Listing[Item], view: View) -> None:
        self._listing = listing
        self._view = view
        self._columns = [each for each in listing.columns if view.output == "wide" or not each.wide]
        self._table = Table([each.name for each in self._columns], view.headers)

    def print(self, items: Sequence[Item]) -> None:
        """Print all items; in JSON and YAML as one array."""
        if self._view.is_for_programs:
            print_document(msgspec.to_builtins(items), self._view.output)
        else:
            self._print_text(items)

    def print_next(self, items: Sequence[Item]) -> None:
        """Print more items; in JSON and YAML as one document each."""
        if self._view.is_for_programs:
            for item in items:
                click.echo("---\n" if self._view.output == "yaml" else "", nl=False)
                print_document(msgspec.to_builtins(item), self._view.output)
        else:
            self._print_text(items)

    async def watch(self, items: Sequence[Item], none: str, changes: AsyncIterator[Item] | None) -> None:
        """Print all items, or `none` to the standard error, and then each change; None for a list that ends."""
        (self.print if changes is None else self.print_next)(items)
        if not items:
            click.echo(none, err=True)
        if changes is not None:
            async for item in changes:
                self.print_next([item])

    def _print_text(self, items: Sequence[Item]) -> None:
        listing = self._listing
        if self._view.output == "name":
            for item in items:
                click.echo(_safe(listing.name(item))[0])
        elif listing.stanza is not None and self._view.output == "table":
            for item in items:
                print_stanza(listing.stanza(item))
        elif items:
            self._table.print([[column.of(item) for column in self._columns] for item in items])


def print_list(found: Sequence[Item], scope: Scope, listing: Listing[Item], view: View) -> int:
    """Print what a command found; return the exit status.

    Before that, print what was looked at to the standard error. Raises InvalidSettings for a field to sort by that
    does not exist.
    """
    sort_field = listing.sort_field(view)
    print_scope(scope)
    Printer(listing, view).print(sorting.by_field(found, sort_field) if sort_field else found)
    if not found and not view.is_for_programs and scope.exports:
        click.echo(f"{listing.none} on {count(len(scope.exports), 'export')}", err=True)
    return scope.status


def print_scope(scope: Scope) -> None:
    """Print to the standard error what was looked at, and what was skipped."""
    for line in scope.lines():
        click.echo(line, err=True)


def age(since: str) -> str:
    """Return how long ago a time was, as kubectl writes it; `-` if it is unknown."""
    return listing.age(since, datetime.now(UTC)) or "-"


def column_of_age(name: str, field: str) -> Column[Any]:
    """Return a column that shows how long ago the time in a field was."""
    return Column(name, field, lambda item: age(getattr(item, field)))


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


def _safe(cell: Cell) -> tuple[str, str]:
    """Return text and style of a cell, without control characters: clients of the cluster chose the text."""
    text, style = (cell, "") if isinstance(cell, str) else cell
    safe = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in texts.encodable(text))
    return safe, style


def _styled(text: str, style: str) -> str:
    """Return the text with its style; `click.echo` removes it where the output is no terminal."""
    if not style or not text or os.environ.get("NO_COLOR"):
        return text
    words: Mapping[str, Any] = {"bold": "bold" in style.split()}
    colour = style.replace("bold", "").strip()
    return click.style(text, fg=colour or None, **words)
