"""`nfs-provisioner orphans`: what belongs to no volume, and what a volume lacks, with advice."""

from __future__ import annotations

from collections.abc import Iterator

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Column, Listing, View, age, column_of_age, print_list
from provisioner.commands.orphans import archive_orphan, find_orphans
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
@click.option("--archive", "archived", metavar="NAME",
              help="Make an archive of this orphan, named by its directory or volume; see --yes.")  # fmt: skip
@click.option("--yes", is_flag=True, help="With --archive: do it; without, only show what would be archived.")
@options.with_settings
async def orphans(settings: Settings, *, view: View, archived: str | None, yes: bool) -> int:
    """List directories and records that belong to no volume.

    Prints what each one is, why it is there and what to do, and changes nothing; with `-o wide`, one line each. Also
    lists volumes in use whose directory or record is missing.

    Compares the ledger and the directories of each export with the volumes and claims of the API server. Reads the
    exports of the settings and those that the provisioner's StorageClasses name. Takes the flags and the environment of
    `run`: replace `run` with `orphans`.

    With --archive and --yes, renames the directory of one orphan to an archive, and ends its record. Only for a volume
    whose PersistentVolume and claim are gone, and for an unknown directory; it can be renamed back on the server.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there are
    orphans; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner orphans
    """
    if archived is not None:
        _print_archived(*await archive_orphan(settings, archived, apply=yes))
        return 0
    if yes:
        raise click.UsageError("--yes belongs to --archive NAME")
    found, scope = await find_orphans(settings)
    return print_list(found, scope, LISTING, view)


def _print_archived(orphan: Orphan, archive: str) -> None:
    """Print what became of one orphan; `archive` is empty if nothing was done."""
    of = f" (claim {orphan.claim})" if orphan.claim else ""
    became = f"is archive {archive}" if archive else "would become an archive"
    click.echo(f"directory {orphan.directory} on export {orphan.export}{of} {became}")
    if not archive:
        if not orphan.volume:
            click.echo("make sure that no other cluster and no other program uses it", err=True)
        click.echo("nothing was changed; to archive it, add --yes", err=True)
