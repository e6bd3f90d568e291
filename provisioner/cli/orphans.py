"""`nfs-provisioner orphans`: what belongs to no volume, and what a volume lacks, with advice."""

from __future__ import annotations

from collections.abc import Iterator

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Column, Listing, View, age, column_of_age, print_list
from provisioner.commands.orphans import find_orphans
from provisioner.core.orphans import Orphan
from provisioner.settings import Settings


def _stanza(each: Orphan) -> Iterator[Cell]:
    """Return what it is, why it is here, and what to do."""
    since = age(each.since)
    facts = {"volume": each.volume, "claim": each.claim, "age": "" if since == "-" else since}
    yield f"{each.kind}: {each.directory or each.volume} on {each.export}", "bold"
    said = ", ".join(f"{name} {text}" for name, text in facts.items() if text)
    if said:
        yield f"what: {said}"
    yield f"why:  {each.why}"
    yield f"fix:  {each.advice}", "yellow"


LISTING = Listing(
    row=Orphan,
    columns=(
        Column("KIND", "kind"),
        Column("EXPORT", "export"),
        Column("DIRECTORY", "directory"),
        Column("VOLUME", "volume"),
        Column("CLAIM", "claim"),
        column_of_age("AGE", "since"),
        Column("WHY", "why"),
        Column("WHAT TO DO", "advice"),
    ),
    name=lambda each: each.directory or each.volume,
    stanza=_stanza,
    none="no orphans",
)


@click.command()
@lists.listing
@options.with_settings
async def orphans(settings: Settings, *, view: View) -> int:
    """List directories and records that belong to no volume.

    Prints what each one is, why it is there and what to do, and changes nothing; with `-o wide`, one line each. Also
    lists volumes in use whose directory or record is missing.

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
    return print_list(found, scope, LISTING, view)
