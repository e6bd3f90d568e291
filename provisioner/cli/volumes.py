"""`nfs-provisioner volumes`: whose volumes there are, where, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
import msgspec

from provisioner import settings as setting
from provisioner.cli import options
from provisioner.core.listing import VolumeRow, age, listed
from provisioner.core.objects import StorageClass, Volume
from provisioner.core.scope import FOUND, NOTHING, count, no_class

_COLUMNS = ("CLAIM", "CLASS", "PHASE", "CAPACITY", "EXPORT", "DIRECTORY", "ON DELETE", "AGE")


@click.command()
@options.taking(options.output(), options.name(), options.cluster())
@click.option("--class", "class_name", metavar="NAME", help="Only volumes of this StorageClass.")
@click.option("-n", "--namespace", metavar="NAME", help="Only volumes of claims in this namespace.")
def volumes(
    *, output: str, provisioner_name: str, kubeconfig: str | None, class_name: str | None, namespace: str | None
) -> int:
    """List our volumes: each with its claim, its directory, and what becomes of that when the claim is deleted.

    Exit status 0 also when there is none, 1 when the API server does not answer, 2 when neither a volume nor a
    StorageClass has the provisioner's name, and for unusable settings.
    """
    provisioner = setting.provisioner_name(provisioner_name)
    found, total, classes = asyncio.run(_list(kubeconfig or None, provisioner))
    chosen = [
        each
        for each in sorted(found, key=lambda each: (each.namespace, each.claim, each.volume))
        if class_name in (None, each.storage_class) and namespace in (None, each.namespace)
    ]
    click.echo(f"looked at {count(total, 'PersistentVolume')}, {len(found)} of provisioner {provisioner}", err=True)
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(chosen), indent=2))
    elif chosen:
        _show(chosen)
    if found and not chosen:
        of = f" of StorageClass {class_name}" if class_name else ""
        within = f" in namespace {namespace}" if namespace else ""
        click.echo(f"no volumes{of}{within} ({len(found)} in others)", err=True)
    elif not found and classes.get(provisioner):
        named = f"{count(classes[provisioner], 'StorageClass')} with this provisioner"
        click.echo(f"no volumes of {provisioner}, though there is {named}", err=True)
    elif not found:
        click.echo(f"no volumes of {provisioner}: {no_class(provisioner, classes)}", err=True)
        return NOTHING
    return FOUND


async def _list(kubeconfig: str | None, provisioner: str) -> tuple[list[VolumeRow], int, Mapping[str, int]]:
    """All volumes that the provisioner made, and of how many; for none, how many StorageClasses each provisioner has.

    Raises ClusterError, InvalidSettings.
    """
    from provisioner.kube.cluster import open_cluster
    from provisioner.kube.pages import everything

    async with open_cluster(kubeconfig, provisioner=provisioner, identity=setting.identity()) as cluster:
        volumes = await everything(cluster, Volume)
        found = [listed(volume) for volume in volumes if volume.is_by(provisioner)]
        classes = [] if found else await everything(cluster, StorageClass)
        return found, len(volumes), Counter(each.provisioner for each in classes)


def _show(chosen: Sequence[VolumeRow]) -> None:
    from provisioner.cli import tables

    now = datetime.now(UTC)
    rows = [
        [
            f"{each.namespace}/{each.claim}" if each.claim else "-",
            each.storage_class or "-",
            each.phase,
            each.capacity,
            each.export,
            each.directory,
            each.on_delete or "-",
            age(each.created, now) or "-",
        ]
        for each in chosen
    ]
    tables.show(_COLUMNS, rows)
