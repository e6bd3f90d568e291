"""`nfs-provisioner volumes`: whose volumes there are, where, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click
import msgspec

from provisioner import settings as setting
from provisioner.cli import options
from provisioner.core.listing import Listed, age, listed
from provisioner.core.objects import Volume
from provisioner.ports import ClusterError

_COLUMNS = ("CLAIM", "CLASS", "PHASE", "CAPACITY", "EXPORT", "DIRECTORY", "ON DELETE", "AGE")


@click.command()
@options.taking(options.output(), options.name(), options.cluster())
@click.option("--class", "class_name", metavar="NAME", help="Only volumes of this StorageClass.")
@click.option("-n", "--namespace", metavar="NAME", help="Only volumes of claims in this namespace.")
def volumes(
    *, output: str, provisioner_name: str, kubeconfig: str | None, class_name: str | None, namespace: str | None
) -> int:
    """List our volumes: each with its claim, its directory, and what becomes of that when the claim is deleted.

    Exit status 0 also when there is none, 1 when the API server does not tell, 2 for unusable settings.
    """
    provisioner = setting.provisioner_name(provisioner_name)
    try:
        found = asyncio.run(_list(kubeconfig or None, provisioner))
    except ClusterError as exc:
        click.echo(f"nfs-provisioner: {exc}", err=True)
        return 1
    chosen = [
        each
        for each in sorted(found, key=lambda each: (each.namespace, each.claim, each.volume))
        if class_name in (None, each.storage_class) and namespace in (None, each.namespace)
    ]
    if output == "json":
        click.echo(json.dumps(msgspec.to_builtins(chosen), indent=2))
    elif chosen:
        _show(chosen)
    else:
        click.echo(f"no volumes of {provisioner}", err=True)
    return 0


async def _list(kubeconfig: str | None, provisioner: str) -> list[Listed]:
    """All volumes that the provisioner made. Raises ClusterError, InvalidSettings."""
    from provisioner.kube.cluster import open_cluster
    from provisioner.kube.pages import everything

    async with open_cluster(kubeconfig, provisioner=provisioner, identity=setting.identity()) as cluster:
        return [listed(volume) for volume in await everything(cluster, Volume) if volume.is_by(provisioner)]


def _show(chosen: Sequence[Listed]) -> None:
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
