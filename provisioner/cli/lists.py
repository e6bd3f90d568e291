"""The flags of commands that list something: the form of the output, and which objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from provisioner.cli import options
from provisioner.cli.output import FORMATS, Format, View
from provisioner.core import selectors
from provisioner.core.selectors import Choice


def listing(command: Callable[..., int]) -> Callable[..., int]:
    """Add the flags for the form of a list to a command, which gets them as its argument `view`."""

    @wraps(command)
    def run(*, output: Format, no_headers: bool, sort_by: str | None, **given: Any) -> int:
        return command(view=View(output=output, headers=not no_headers, sort_by=sort_by), **given)

    sort = click.option("--sort-by", metavar="FIELD", help="Sort by a field of the JSON output, or by a column.")
    return options.taking([*form(), sort])(run)


def form() -> list[options.Option[Any]]:
    """Return the flags for the form of the output."""
    return [
        click.option("-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True,
                     help="Output format: for people, with all columns, for programs, or only names."),
        click.option("--no-headers", is_flag=True, help="Print a table without its heading."),
    ]  # fmt: skip


def in_namespace(what: str) -> list[options.Option[Any]]:
    """Return the flags that choose among objects by namespace."""
    return [
        click.option("-n", "--namespace", metavar="NAME", help=f"Only {what} in this namespace."),
        click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces: the default."),
    ]


def choice(what: str) -> list[options.Option[Any]]:
    """Return the flags that choose among objects by namespace and labels; `chosen` returns their values."""
    return [
        *in_namespace(what),
        click.option("-l", "--selector", metavar="LABELS", help="Only those whose labels match: app=db,tier!=cache."),
    ]  # fmt: skip


def chosen(*, namespace: str | None, all_namespaces: bool, selector: str | None) -> Choice:
    """Return the values of `choice` as one value. Raises InvalidSettings."""
    return Choice(None if all_namespaces else namespace or None, selectors.parse(selector or ""))


def watching() -> list[options.Option[Any]]:
    """Return the flag that keeps a command running."""
    return [
        click.option("-w", "--watch", is_flag=True, help="After the list, print each row that changes, until Ctrl-C."),
    ]  # fmt: skip
