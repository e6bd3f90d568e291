"""`nfs-provisioner move`: moves the volumes of one address of an export to another."""

from __future__ import annotations

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Column, Listing, Printer, View
from provisioner.commands.journal import read_journal
from provisioner.commands.move import Order, open_mover
from provisioner.core import locations
from provisioner.core.locations import Location
from provisioner.core.moving import PODS_FLAG, MoveRow
from provisioner.core.scope import count
from provisioner.core.sorting import by_field
from provisioner.settings import Settings

_WHAT = {
    "": ("would be moved", ""),
    "moved": ("moved", "green"),
    "stays": ("stays", "yellow"),
    "failed": ("failed", "red"),
}


class _Address(click.ParamType[Location]):
    """`SERVER:/PATH`."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Parse. Raises InvalidSettings."""
        return locations.parse(str(value))


def _what(row: MoveRow) -> Cell:
    text, style = _WHAT[row.result]
    return f"{text}: {row.why}" if row.why else text, style


LISTING = Listing(
    row=MoveRow,
    columns=(
        Column("NAMESPACE", "namespace"),
        Column("CLAIM", "claim"),
        Column("VOLUME", "volume"),
        Column("DIRECTORY", "directory", wide=True),
        Column("WHAT", "result", _what),
    ),
    name=lambda row: f"persistentvolume/{row.volume}",
    none="no volumes",
)


@click.command()
@lists.listing
@click.option(
    "--from", "old", type=_Address(), required=True, metavar="SERVER:/PATH", help="The address that volumes have now."
)
@click.option("--to", "new", type=_Address(), required=True, metavar="SERVER:/PATH", help="The address that they get.")
@click.option("--dry-run/--apply", "dry_run", default=True, show_default=True,
              help="Only show what would be moved, or move it.")  # fmt: skip
@click.option("--volume", "volumes", multiple=True, metavar="NAME", help="Only this volume. Repeatable.")
@click.option(PODS_FLAG, "with_pods", is_flag=True,
              help="Also move volumes that pods use: a pod keeps the old address until it is restarted.")  # fmt: skip
@click.option("--journal", default="nfs-provisioner-move.json", show_default=True, metavar="FILE",
              help="The file that has each volume as it was, from which an interrupted move continues.")  # fmt: skip
@options.with_settings
async def move(
    settings: Settings,
    *,
    view: View,
    old: Location,
    new: Location,
    dry_run: bool,
    volumes: tuple[str, ...],
    with_pods: bool,
    journal: str,
) -> int:
    """Move the volumes of one address to another.

    For a server with another name, or an export that was copied to another server with its .provisioner. A
    PersistentVolume cannot change its server: the command creates each one again with the new address. Its claim keeps
    its uid and is bound to it again, and the volume keeps its name, labels, annotations and reclaim policy. No data is
    touched or copied. Also moves volumes of other provisioners, and volumes that were created manually.

    The id in the ledger must prove that both addresses lead to the same export, or to a copy with its ledger. If the
    old address does not answer, the id on the volumes proves it. A volume stays if its directory does not exist at the
    new address, if its record does not agree, if it is not bound, or if pods use it.

    Without --apply nothing is changed. An interrupted move continues with the same command and the same --journal. This
    needs the rights to delete volumes and to list pods: use an admin's kubeconfig, and the other flags and the
    environment of `run`.

    Exit status 0 if all volumes are moved or can be, 1 if one stays or failed, or if nothing proves that both
    addresses lead to the same export, 2 for unusable settings.

    \b
    Example:
      nfs-provisioner move --from old.example:/exports/k8s --to new.example:/exports/k8s
    """
    order = Order(old=old, new=new, volumes=frozenset(volumes), with_pods=with_pods)
    sort_field = LISTING.sort_field(view)
    written = read_journal(journal, str(old), str(new))
    async with open_mover(settings, order) as mover:
        click.echo(mover.proof, err=True)
        if mover.warning:
            click.secho(f"WARNING: {mover.warning}", fg="red", bold=True, err=True)
        rows = mover.look() if dry_run else await mover.apply(written, lambda text: click.echo(text, err=True))
    rows = by_field(rows, sort_field) if sort_field else rows
    Printer(LISTING, view).print(rows)
    _print_summary(rows, dry_run=dry_run, unfinished=len(written.unfinished()), journal=journal)
    unknown = set(volumes) - {row.volume for row in rows}
    if unknown:
        click.echo(f"not on {old}: {', '.join(sorted(unknown))}", err=True)
    return 1 if unknown or any(row.result in ("stays", "failed") for row in rows) else 0


def _print_summary(rows: list[MoveRow], *, dry_run: bool, unfinished: int, journal: str) -> None:
    done = sum(row.result == ("" if dry_run else "moved") for row in rows)
    stays = sum(row.result == "stays" for row in rows)
    failed = sum(row.result == "failed" for row in rows)
    said = [f"{count(done, 'volume')} {'would be moved' if dry_run else 'moved'}", f"{stays} stay"]
    click.echo(", ".join([*said, *([f"{failed} failed"] if failed else [])]), err=True)
    if dry_run:
        if unfinished:
            click.echo(f"{count(unfinished, 'volume')} of an interrupted move would be continued first", err=True)
        click.echo("nothing was changed; use --apply to apply this", err=True)
    elif done:
        click.echo(f"{journal} has the volumes as they were; start the pods again, and check their data", err=True)
