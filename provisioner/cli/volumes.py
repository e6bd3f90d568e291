"""`nfs-provisioner volumes`: the provisioner's volumes, with their claims and directories."""

from __future__ import annotations

from collections.abc import Sequence

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Column, Listing, Printer, View, column_of_age
from provisioner.commands.volumes import Query, VolumeList, open_volumes
from provisioner.core.listing import VolumeRow
from provisioner.core.quantities import readable
from provisioner.core.scope import FOUND, NOTHING, count, no_class
from provisioner.core.sorting import by_field
from provisioner.settings import Settings


@click.command()
@lists.listing
@options.taking(lists.choice("volumes of claims"), lists.watching())
@click.option("--class", "class_name", metavar="NAME", help="Only volumes of this StorageClass.")
@click.option("--pod", metavar="NAME", help="Only volumes that this pod uses; NAME or NAMESPACE/NAME.")
@options.with_settings
async def volumes(
    settings: Settings,
    *,
    view: View,
    namespace: str | None,
    all_namespaces: bool,
    selector: str | None,
    watch: bool,
    class_name: str | None,
    pod: str | None,
) -> int:
    """List the provisioner's volumes.

    Shows the claim, the PersistentVolume and its phase; with `-o wide` also the directory, and what happens to it when
    the claim is deleted. Labels are those of the claim and of the PersistentVolume. Where a quota agent runs on the
    server, also the usage and the limit in force, or in parentheses why there is none. An export that does not respond
    is reported, and its volumes are listed without these two. Takes the flags and the environment of `run`: replace
    `run` with `volumes`.

    Exit status 0, even if there is no volume; 1 if the API server does not respond; 2 if neither a volume nor a
    StorageClass has the provisioner's name, or for unusable settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner volumes --namespace shop
    """
    choice = lists.chosen(namespace=namespace, all_namespaces=all_namespaces, selector=selector)
    async with open_volumes(settings, Query(choice=choice, class_name=class_name, pod=pod)) as lister:
        found = await lister.read()
        listing = _listing(found.volumes, _none(found, settings.provisioner, class_name, choice.namespace))
        sort_field = listing.sort_field(view)
        click.echo(f"looked at {count(found.total, 'PersistentVolume')}, {found.own} of provisioner"
                   f" {settings.provisioner}", err=True)  # fmt: skip
        for each in found.unread:
            click.echo(f"no usage from {each.what}: {each.why}", err=True)
        printer = Printer(listing, view)
        rows = by_field(found.volumes, sort_field) if sort_field else found.volumes
        await printer.watch(rows, listing.none, lister.changes() if watch else None)
    return FOUND if found.own or found.classes.get(settings.provisioner) else NOTHING


def _none(found: VolumeList, provisioner: str, class_name: str | None, namespace: str | None) -> str:
    """Return what to say if no volume is listed."""
    if found.own:
        of = f" of StorageClass {class_name}" if class_name else ""
        within = f" in namespace {namespace}" if namespace else ""
        return f"no volumes{of}{within} ({found.own} in others)"
    if found.classes.get(provisioner):
        named = f"{count(found.classes[provisioner], 'StorageClass')} with this provisioner"
        return f"no volumes of {provisioner}, though there is {named}"
    return f"no volumes of {provisioner}: {no_class(provisioner, found.classes)}"


def _listing(volumes: Sequence[VolumeRow], none: str) -> Listing[VolumeRow]:
    """Return the columns; usage and limit are among the few of the default where an agent has answered."""
    no_usage = not any(each.used_bytes is not None or each.limit_reason or each.limit_bytes for each in volumes)
    return Listing(
        row=VolumeRow,
        columns=(
            Column("NAMESPACE", "namespace"),
            Column("CLAIM", "claim"),
            Column("VOLUME", "volume"),
            Column("CLASS", "storage_class"),
            Column("CAPACITY", "capacity"),
            Column("USED", "used_bytes", _used, wide=no_usage),
            Column("LIMIT", "limit_bytes", _limit, wide=no_usage),
            Column("PHASE", "phase"),
            column_of_age("AGE", "created"),
            Column("EXPORT", "export", wide=True),
            Column("DIRECTORY", "directory", wide=True),
            Column("ON DELETE", "on_delete", wide=True),
            Column("RECLAIM POLICY", "reclaim_policy", wide=True),
            Column("ACCESS MODES", "access_modes", lambda each: ",".join(each.access_modes), wide=True),
        ),
        name=lambda each: f"persistentvolume/{each.volume}",
        none=none,
    )


def _used(row: VolumeRow) -> str:
    return "-" if row.used_bytes is None else readable(row.used_bytes)


def _limit(row: VolumeRow) -> str:
    limit = "-" if row.limit_bytes is None else readable(row.limit_bytes)
    return f"{limit} ({row.limit_reason})" if row.limit_reason else limit
