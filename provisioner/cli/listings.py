"""What a command that lists things on exports prints, in one of two forms, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

import click
import msgspec

from provisioner.core.scope import Scope, count

Item = TypeVar("Item", bound=msgspec.Struct)


def tell(found: Sequence[Item], scope: Scope, *, output: str, show: Callable[[Sequence[Item]], None], none: str) -> int:
    """Print what was found, or `none`; before that, on the standard error, what was looked at. Returns the status."""
    looked_at(scope)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    elif found:
        show(found)
    elif scope.exports:
        click.echo(f"{none} on {count(len(scope.exports), 'export')}", err=True)
    return scope.status


def looked_at(scope: Scope) -> None:
    """Tell what was looked at, and what could not be."""
    for line in scope.lines():
        click.echo(line, err=True)
