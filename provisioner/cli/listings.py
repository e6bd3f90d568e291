"""What a command that lists things on exports prints, in one of two forms, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import click
import msgspec

from provisioner.ports import ExportError

Item = TypeVar("Item", bound=msgspec.Struct)


def tell(
    found: Sequence[Item],
    unseen: Mapping[str, ExportError],
    *,
    output: str,
    show: Callable[[Sequence[Item]], None],
    none: str,
) -> int:
    """Print what was found, or `none`, and the exports that did not tell: status 1 where there are any."""
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    elif found:
        show(found)
    else:
        click.echo(none, err=True)
    for export, error in sorted(unseen.items()):
        click.echo(f"not looked at: export {export}: {error}; {error.advice}", err=True)
    return 1 if unseen else 0
