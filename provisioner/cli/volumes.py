"""`nfs-provisioner volumes`: the provisioner's volumes, with their claims and directories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from provisioner.cli import options
from provisioner.cli.output import print_table
from provisioner.commands.volumes import list_volumes
from provisioner.core.listing import VolumeRow, age
from provisioner.core.quantities import readable
from provisioner.core.scope import FOUND, NOTHING, count, no_class
from provisioner.settings import Settings

_COLUMNS = ("CLAIM", "CLASS", "PHASE", "CAPACITY", "USED", "LIMIT", "EXPORT", "DIRECTORY", "ON DELETE", "AGE")


@click.command()
@options.taking(options.output())
@click.option("--class", "class_name", metavar="NAME", help="Only volumes of this StorageClass.")
@click.option("-n", "--namespace", metavar="NAME", help="Only volumes of claims in this namespace.")
@options.with_settings
async def volumes(settings: Settings, *, output: str, class_name: str | None, namespace: str | None) -> int:
    """List the provisioner's volumes.

    Shows the claim and the directory of each, and what happens to the directory when the claim is deleted. Where a
    quota agent runs on the server, also the usage and the limit in force, or in parentheses why there is none. An
    export that does not respond is reported, and its volumes are listed without these two. Takes the flags and the
    environment of `run`: replace `run` with `volumes`.

    Exit status 0, even if there is no volume; 1 if the API server does not respond; 2 if neither a volume nor a
    StorageClass has the provisioner's name, or for unusable settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner volumes --namespace shop
    """
    provisioner = settings.provisioner
    found = await list_volumes(settings)
    own = found.volumes
    chosen = [
        each
        for each in sorted(own, key=lambda each: (each.namespace, each.claim, each.volume))
        if class_name in (None, each.storage_class) and namespace in (None, each.namespace)
    ]
    click.echo(f"looked at {count(found.total, 'PersistentVolume')}, {len(own)} of provisioner {provisioner}", err=True)
    for each in found.unread:
        click.echo(f"no usage from {each.what}: {each.why}", err=True)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(chosen), indent=2))
    elif chosen:
        _print_rows(chosen)
    if own and not chosen:
        of = f" of StorageClass {class_name}" if class_name else ""
        within = f" in namespace {namespace}" if namespace else ""
        click.echo(f"no volumes{of}{within} ({len(own)} in others)", err=True)
    elif not own and found.classes.get(provisioner):
        named = f"{count(found.classes[provisioner], 'StorageClass')} with this provisioner"
        click.echo(f"no volumes of {provisioner}, though there is {named}", err=True)
    elif not own:
        click.echo(f"no volumes of {provisioner}: {no_class(provisioner, found.classes)}", err=True)
        return NOTHING
    return FOUND


def _print_rows(chosen: Sequence[VolumeRow]) -> None:
    now = datetime.now(UTC)
    rows = [
        [
            f"{each.namespace}/{each.claim}" if each.claim else "-",
            each.storage_class or "-",
            each.phase,
            each.capacity,
            "-" if each.used_bytes is None else readable(each.used_bytes),
            _limit(each),
            each.export,
            each.directory,
            each.on_delete or "-",
            age(each.created, now) or "-",
        ]
        for each in chosen
    ]
    print_table(_COLUMNS, rows)


def _limit(row: VolumeRow) -> str:
    limit = "-" if row.limit_bytes is None else readable(row.limit_bytes)
    return f"{limit} ({row.limit_reason})" if row.limit_reason else limit
