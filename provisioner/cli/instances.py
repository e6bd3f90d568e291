"""`nfs-provisioner instances`: which instance works on each export for this cluster, and the decision between two."""

from __future__ import annotations

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Column, Listing, View, print_list
from provisioner.commands.instances import list_instances
from provisioner.core.instances import InstanceRow
from provisioner.settings import Settings

LISTING = Listing(
    row=InstanceRow,
    columns=(
        Column("EXPORT", "export"),
        Column("INSTANCE", "instance"),
        Column("TERM", "term", lambda each: str(each.term)),
        Column("SIGNED", "signed"),
        Column("STATE", "meaning", lambda each: (each.meaning, "red" if each.other else "")),
    ),
    name=lambda each: each.instance,
    none="no instance has worked yet",
)


@click.command()
@click.option("--this-cluster-goes-on", "this_cluster_goes_on", is_flag=True,
              help="Let this cluster delete and archive again, after two clusters with the same id worked on an export"
              " and the provisioner of the other cluster was stopped.")  # fmt: skip
@lists.listing
@options.with_settings
async def instances(settings: Settings, *, view: View, this_cluster_goes_on: bool) -> int:
    """Show which instance works on each export.

    An instance is the process that leads for this cluster's provisioner.

    A cluster that is restored from an etcd backup next to its original has the id of the original. When both work on an
    export, both stop deleting and archiving on it, until an admin stops the provisioner of one cluster and runs this
    command with --this-cluster-goes-on in the other. If both provisioners still run, the stop returns within seconds,
    before anything is deleted.

    Takes the flags and the environment of `run`: replace `run` with `instances`.

    The standard error lists the exports that were read. Exit status 0 if all exports were read; 1 if an export or the
    API server does not respond; 2 if there is no export to read, or for unusable settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner instances
    """
    found, scope = await list_instances(settings, this_cluster_goes_on=this_cluster_goes_on)
    status = print_list(found, scope, LISTING, view)
    if this_cluster_goes_on:
        decided = ", ".join(each.export for each in found if each.state == "decided")
        message = (
            f"this cluster resumes on {decided} within a minute"
            if decided
            else "no export is stopped: nothing to decide"
        )
        click.echo(message, err=True)
    return status
