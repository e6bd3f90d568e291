"""`nfs-provisioner describe`: one page about a claim, a volume or a directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
import msgspec
from msgspec import Struct, structs

from provisioner.cli import options
from provisioner.cli.archives import NEVER_EXPIRES
from provisioner.cli.output import Cell, age, print_document, print_scope, print_stanza, print_table
from provisioner.commands.describe import describe as find
from provisioner.core.description import Description
from provisioner.core.quantities import readable
from provisioner.settings import Settings


@click.command()
@click.argument("what")
@click.option("-n", "--namespace", metavar="NAME", help="The namespace of a claim that is named without one.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
              help="Output format: for people, or for programs.")  # fmt: skip
@options.with_settings
async def describe(settings: Settings, *, what: str, namespace: str | None, output: str) -> int:
    """Show all about a claim, a volume or a directory.

    WHAT is a claim (NAMESPACE/NAME, or NAME with --namespace), a PersistentVolume, or a directory: its path below the
    export, or SERVER:/PATH. Shows the claim, the volume, the record in the ledger, the directory, what the quota agent
    says, archives of the claim, the pods that use it, and events. Pods and events need the right to list them. Takes
    the flags and the environment of `run`: replace `run` with `describe`.

    The standard error lists the exports that were read. Exit status 0, or 1 if there is no such thing, or if something
    could not be read; 2 for unusable settings.

    \b
    Examples:
      nfs-provisioner describe shop/data
      nfs-provisioner describe nas.example:/exports/k8s/shop-data
    """
    found, scope = await find(settings, what, namespace)
    print_scope(scope)
    if output == "table":
        _print(found)
    else:
        print_document(msgspec.to_builtins(found), output)
    return 1 if found.unread or scope.unseen else 0


def _print(found: Description) -> None:
    parts: Sequence[tuple[str, Struct | None]] = (
        ("Claim", found.claim),
        ("Volume", found.volume),
        ("Record", found.record),
        ("Directory", found.directory),
        ("Usage", found.usage),
    )
    for title, part in parts:
        print_stanza([(f"{title}:", "bold"), *(_lines(part) if part is not None else ["none"])])
    _print_rows("Archives", ("ARCHIVE", "ARCHIVED", "KEPT UNTIL"), (
        (each.archive, age(each.archived), each.kept_until or NEVER_EXPIRES) for each in found.archives
    ))  # fmt: skip
    _print_rows("Pods", ("POD", "PHASE", "NODE"), ((each.key, each.phase, each.node or "-") for each in found.pods))
    _print_rows("Events", ("TYPE", "REASON", "AGE", "ABOUT", "MESSAGE"), (
        (each.type, each.reason, age(each.at), each.about, each.message) for each in found.events
    ))  # fmt: skip
    if found.unread:
        print_stanza([("Not read:", "bold yellow"), *found.unread])


def _lines(part: Struct) -> Iterable[Cell]:
    """Return the fields that have a value, one per line, with the values in one column."""
    values = {each.name.replace("_", " "): getattr(part, each.name) for each in structs.fields(part)}
    shown = {
        name: _text(name, value) for name, value in values.items() if value is not None and value != "" and value != ()
    }
    width = max(map(len, shown), default=0) + 2
    return [f"{name + ':':<{width}}{text}" for name, text in shown.items()]


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return readable(value) if isinstance(value, int) and name.endswith("bytes") else str(value)


def _print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table below a title, with the indentation of the other parts."""
    found = [[f"    {first}", *rest] for first, *rest in rows]
    print_stanza([(f"{title}:", "bold"), *([] if found else ["none"])])
    if found:
        print_table([f"    {columns[0]}", *columns[1:]], found)
