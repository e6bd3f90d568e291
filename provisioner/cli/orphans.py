"""`nfs-provisioner orphans`: what belongs to no volume, and what a volume lacks, with advice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from provisioner.cli import options
from provisioner.cli.output import print_list, print_table
from provisioner.commands.orphans import find_orphans
from provisioner.core.listing import age
from provisioner.core.orphans import Orphan
from provisioner.settings import Settings

_COLUMNS = ("KIND", "EXPORT", "DIRECTORY", "VOLUME", "CLAIM", "AGE", "WHY", "WHAT TO DO")


@click.command()
@options.taking(options.output())
@options.with_settings
async def orphans(settings: Settings, *, output: str) -> int:
    """List directories and records that belong to no volume.

    Prints advice for each, and changes nothing. Also lists volumes in use whose directory or record is missing.

    Compares the ledger and the directories of each export with the volumes and claims of the API server. Reads the
    exports of the settings and those that the provisioner's StorageClasses name. Takes the flags and the environment of
    `run`: replace `run` with `orphans`.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there are
    orphans; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner orphans
    """
    found, scope = await find_orphans(settings)
    return print_list(found, scope, output=output, print_rows=_print_rows, none="no orphans")


def _print_rows(found: Sequence[Orphan]) -> None:
    now = datetime.now(UTC)
    rows = [
        [
            each.kind,
            each.export,
            each.directory or "-",
            each.volume or "-",
            each.claim or "-",
            age(each.since, now) or "-",
            each.why,
            each.advice,
        ]
        for each in found
    ]
    print_table(_COLUMNS, rows)
