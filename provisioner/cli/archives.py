"""`nfs-provisioner archives`: the archives on all exports, with their former claims and retention."""

from __future__ import annotations

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Column, Listing, View, age, column_of_age, print_list
from provisioner.commands.archives import delete_archive, list_archives
from provisioner.core.archives import ArchiveRow, in_order
from provisioner.settings import Settings

NEVER_EXPIRES = "for ever"
"""KEPT UNTIL of an archive without a retention time. Scripts read it."""


def _claim(each: ArchiveRow) -> Cell:
    claim = f"{each.namespace}/{each.claim}" if each.volume else "-"
    return (f"{claim} ({each.why_not})", "yellow") if each.why_not else claim


LISTING = Listing(
    row=ArchiveRow,
    columns=(
        Column("ARCHIVE", "archive"),
        Column("CLAIM", "claim", _claim),
        Column("CLASS", "storage_class"),
        Column("CAPACITY", "capacity"),
        column_of_age("ARCHIVED", "archived"),
        Column("KEPT UNTIL", "kept_until", lambda each: each.kept_until or NEVER_EXPIRES),
        Column("EXPORT", "export", wide=True),
        Column("VOLUME", "volume", wide=True),
        Column("DIRECTORY", "directory", wide=True),
    ),
    name=lambda each: each.archive,
    none="no archives",
)


@click.command()
@lists.listing
@options.with_settings
@options.taking(lists.in_namespace("archives of claims"))
@click.option("--delete", "deleted", metavar="NAME", help="Delete this archive, if nothing needs it; see --yes.")
@click.option("--yes", is_flag=True, help="With --delete: do it; without, only show what would be deleted.")
async def archives(
    settings: Settings, *, view: View, namespace: str | None, all_namespaces: bool, deleted: str | None, yes: bool
) -> int:
    """List the archives on all exports.

    Shows the former claim of each archive, its age, and how long it is kept. CAPACITY is the size that the claim
    requested, not the size of the files. An archive without a record, such as another provisioner leaves, is kept
    indefinitely, and no claim can get it automatically. `restore` gives an archive to a claim. Takes the flags and the
    environment of `run`: replace `run` with `archives`.

    With --delete and --yes, moves one archive into the trash, where the daemon removes it. Refused while a claim, a
    volume or another cluster needs it. An archive without a record gets one first.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there is no
    archive; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner archives --namespace shop
    """
    if deleted is not None:
        _print_deleted(await delete_archive(settings, deleted, apply=yes), done=yes)
        return 0
    if yes:
        raise click.UsageError("--yes belongs to --delete NAME")
    found, scope = await list_archives(settings)
    wanted = None if all_namespaces else namespace
    rows = in_order(each for each in found if wanted in (None, each.namespace))
    return print_list(rows, scope, LISTING.within(wanted, len(found)), view)


def _print_deleted(each: ArchiveRow, *, done: bool) -> None:
    of = f"claim {each.namespace}/{each.claim}, {each.capacity}" if each.volume else each.why_not
    since = f", archived {age(each.archived)} ago" if each.archived else ""
    click.echo(
        f"archive {each.archive} on export {each.export} ({of}{since}) {'deleted' if done else 'would be deleted'}"
    )
    if done:
        click.echo("it is in the trash, and the daemon removes it", err=True)
    else:
        click.echo("nothing was changed; to delete it for good, add --yes", err=True)
