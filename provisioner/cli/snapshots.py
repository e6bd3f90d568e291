"""`nfs-provisioner snapshots`: the snapshots on all exports, and objects by which a cluster gets them back."""

from __future__ import annotations

import click
import msgspec

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Column, Listing, View, column_of_age, print_list
from provisioner.commands.snapshots import list_snapshots
from provisioner.core.snapshots import SnapshotRow, in_order, manifests
from provisioner.settings import Settings


def _name(each: SnapshotRow) -> Cell:
    name = f"{each.namespace}/{each.snapshot}"
    if not each.own:
        return f"{name} (another cluster's)", "yellow"
    return (f"{name} (deleted, until {each.kept_until})", "yellow") if each.deleted else name


LISTING = Listing(
    row=SnapshotRow,
    columns=(
        Column("SNAPSHOT", "snapshot", _name),
        Column("CLAIM", "claim"),
        Column("CLASS", "snapshot_class"),
        Column("CAPACITY", "capacity"),
        column_of_age("TAKEN", "taken"),
        Column("HANDLE", "handle"),
        Column("EXPORT", "export", wide=True),
        Column("VOLUME", "volume", wide=True),
    ),
    name=lambda each: f"volumesnapshot/{each.snapshot}",
    none="no snapshots",
)


@click.command()
@lists.listing
@options.taking(lists.in_namespace("snapshots"))
@click.option("--manifests", "as_manifests", is_flag=True,
              help="Print objects for `kubectl apply -f -` that bring the snapshots back into a cluster.")  # fmt: skip
@options.with_settings
async def snapshots(
    settings: Settings, *, view: View, namespace: str | None, all_namespaces: bool, as_manifests: bool
) -> int:
    """List the snapshots on all exports.

    CAPACITY is the size of the volume that a snapshot was taken of, and a claim that restores it must request at least
    as much. A snapshot that is still being taken is not listed. A deleted one is listed as long as its class keeps the
    data. With --manifests, prints a VolumeSnapshotContent and a VolumeSnapshot for each snapshot, with the deletion
    policy Retain. Takes the flags and the environment of `run`: replace `run` with `snapshots`.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there is no
    snapshot; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner snapshots --namespace shop
    """
    found, scope = await list_snapshots(settings)
    wanted = None if all_namespaces else namespace
    chosen = in_order(each for each in found if wanted in (None, each.namespace))
    if as_manifests:
        click.echo(msgspec.json.format(msgspec.json.encode(manifests(chosen, settings.provisioner)).decode()))
        return 0
    return print_list(chosen, scope, LISTING.within(wanted, len(found)), view)
