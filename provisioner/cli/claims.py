"""`nfs-provisioner claims`: the claims that wait for a volume, and why."""

from __future__ import annotations

from dataclasses import replace

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Column, Listing, Printer, View, column_of_age
from provisioner.commands.claims import ClaimList, open_claims
from provisioner.core.scope import FOUND, NOTHING, count
from provisioner.core.sorting import by_field
from provisioner.core.waiting import ClaimRow
from provisioner.settings import Settings

LISTING = Listing(
    row=ClaimRow,
    columns=(
        Column("NAMESPACE", "namespace"),
        Column("CLAIM", "claim"),
        Column("CLASS", "storage_class"),
        Column("REQUESTED", "requested"),
        Column("PHASE", "phase", wide=True),
        column_of_age("AGE", "created"),
        Column("WHY", "why"),
    ),
    name=lambda each: f"persistentvolumeclaim/{each.claim}",
    none="no Pending claims",
)


@click.command()
@lists.listing
@options.taking(lists.choice("claims"), lists.watching())
@options.with_settings
async def claims(
    settings: Settings,
    *,
    view: View,
    namespace: str | None,
    all_namespaces: bool,
    selector: str | None,
    watch: bool,
) -> int:
    """List the claims that are Pending, and why.

    Lists the claims of the provisioner's StorageClasses that have no volume. WHY is the last warning about the claim,
    for which the user needs the right to list events; otherwise what the provisioner's own rules say. With --watch,
    also shows claims that are Bound or deleted later. Takes the flags and the environment of `run`: replace `run` with
    `claims`.

    Exit status 0, even if no claim is Pending; 1 if the API server does not respond; 2 if no StorageClass has the
    provisioner's name, or for unusable settings.

    \b
    Example:
      nfs-provisioner claims --namespace shop
    """
    choice = lists.chosen(namespace=namespace, all_namespaces=all_namespaces, selector=selector)
    sort_field = LISTING.sort_field(view)
    async with open_claims(settings, choice) as lister:
        found = await lister.read()
        click.echo(
            f"provisioner {settings.provisioner}: {count(len(found.classes), 'StorageClass')},"
            f" {count(found.served, 'claim')}",
            err=True,
        )
        columns = [replace(each, wide=each.wide and not watch) for each in LISTING.columns]
        printer = Printer(replace(LISTING, columns=columns), view)
        rows = by_field(found.claims, sort_field) if sort_field else found.claims
        none = _none(found, settings.provisioner, choice.namespace)
        await printer.watch(rows, none, lister.changes() if watch else None)
    return FOUND if found.classes or found.served else NOTHING


def _none(found: ClaimList, provisioner: str, namespace: str | None) -> str:
    """Return what to say if no claim is listed."""
    if not found.classes and not found.served:
        return f"{LISTING.none}: no StorageClass has the provisioner {provisioner}"
    return f"{LISTING.none} in namespace {namespace}" if namespace else LISTING.none
