"""`nfs-provisioner snapshots`: the snapshots on all exports, and objects by which a cluster gets them back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from provisioner.cli import options
from provisioner.cli.output import Cell, print_list, print_table
from provisioner.commands.snapshots import list_snapshots
from provisioner.core.listing import age
from provisioner.core.snapshots import SnapshotRow, in_order, manifests
from provisioner.settings import Settings

_COLUMNS = ("SNAPSHOT", "CLAIM", "CLASS", "CAPACITY", "TAKEN", "HANDLE", "EXPORT")


@click.command()
@options.taking(options.output())
@options.with_settings
@click.option("-n", "--namespace", metavar="NAME", help="Only snapshots in this namespace.")
@click.option("--manifests", "as_manifests", is_flag=True,
              help="Print objects for `kubectl apply -f -` that bring the snapshots back into a cluster.")  # fmt: skip
async def snapshots(settings: Settings, *, output: str, namespace: str | None, as_manifests: bool) -> int:
    """List the snapshots on all exports.

    CAPACITY is the size of the volume that a snapshot was taken of, and a claim that restores it must request at least
    as much. A snapshot that is still being taken is not listed. With --manifests, prints a VolumeSnapshotContent and a
    VolumeSnapshot for each snapshot, with the deletion policy Retain. Takes the flags and the environment of `run`:
    replace `run` with `snapshots`.

    The standard error lists the exports that were read. Exit status 0 if all exports were read, even if there is no
    snapshot; 1 if an export or the API server does not respond; 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner snapshots --namespace shop
    """
    found, scope = await list_snapshots(settings)
    chosen = in_order(each for each in found if namespace in (None, each.namespace))
    if as_manifests:
        click.echo(msgspec.json.format(msgspec.json.encode(manifests(chosen, settings.provisioner)).decode()))
        return 0
    none = "no snapshots" if not namespace else f"no snapshots of namespace {namespace} ({len(found)} of others)"
    return print_list(chosen, scope, output=output, print_rows=_print_rows, none=none)


def _print_rows(chosen: Sequence[SnapshotRow]) -> None:
    now = datetime.now(UTC)
    rows: list[list[Cell]] = [
        [
            _name(each),
            each.claim,
            each.snapshot_class or "-",
            each.capacity,
            age(each.taken, now) or "-",
            each.handle,
            each.export,
        ]
        for each in chosen
    ]
    print_table(_COLUMNS, rows)


def _name(each: SnapshotRow) -> tuple[str, str]:
    name = f"{each.namespace}/{each.snapshot}"
    return (name, "") if each.own else (f"{name} (another cluster's)", "yellow")
