"""`nfs-provisioner archives`: the archives on all exports, with their former claims and retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from provisioner.cli import options
from provisioner.cli.output import Cell, print_list, print_table
from provisioner.commands.archives import list_archives
from provisioner.core.archives import ArchiveRow, in_order
from provisioner.core.listing import age
from provisioner.settings import Settings

_COLUMNS = ("ARCHIVE", "CLAIM", "CLASS", "CAPACITY", "ARCHIVED", "KEPT UNTIL", "EXPORT")
_NEVER_EXPIRES = "for ever"
"""KEPT UNTIL of an archive without a retention time. Scripts read it."""


@click.command()
@options.taking(options.output())
@options.with_settings
@click.option("-n", "--namespace", metavar="NAME", help="Only archives of claims in this namespace.")
async def archives(settings: Settings, *, output: str, namespace: str | None) -> int:
    """List the archives on all exports.

    Shows the former claim of each archive, its age, and how long it is kept. CAPACITY is the size that the claim
    requested, not the size of the files. An archive without a record, such as another provisioner leaves, is kept
    indefinitely, and no claim can get it automatically. `restore` gives an archive to a claim. Takes the flags and the
    environment of `run`: replace `run` with `archives`.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there is no
    archive; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner archives --namespace shop
    """
    found, scope = await list_archives(settings)
    chosen = in_order(each for each in found if namespace in (None, each.namespace))
    none = "no archives" if not namespace else f"no archives of namespace {namespace} ({len(found)} of others)"
    return print_list(chosen, scope, output=output, print_rows=_print_rows, none=none)


def _print_rows(chosen: Sequence[ArchiveRow]) -> None:
    now = datetime.now(UTC)
    rows: list[list[Cell]] = [
        [
            each.archive,
            _claim(each),
            each.storage_class or "-",
            each.capacity or "-",
            age(each.archived, now) or "-",
            each.kept_until or _NEVER_EXPIRES,
            each.export,
        ]
        for each in chosen
    ]
    print_table(_COLUMNS, rows)


def _claim(each: ArchiveRow) -> tuple[str, str]:
    claim = f"{each.namespace}/{each.claim}" if each.volume else "-"
    return (f"{claim} ({each.why_not})", "yellow") if each.why_not else (claim, "")
