"""`nfs-provisioner restore`: gives the data of an archive to a claim."""

from __future__ import annotations

import click

from provisioner.cli import options
from provisioner.cli.output import print_document
from provisioner.commands.restore import Order, manifest
from provisioner.commands.restore import restore as carry_out
from provisioner.settings import Settings


@click.command()
@click.argument("archive")
@click.option("--claim", required=True, metavar="NAMESPACE/NAME",
              help="The claim that gets the data; created if it does not exist.")  # fmt: skip
@click.option("--class", "class_name", metavar="NAME",
              help="The StorageClass of a claim to create; by default that of the archived claim.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=options.Duration(), default="60s", show_default=True,
              help="How long to wait until the claim has the data.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]),
              help="Print the claim that gets the data instead of creating it.")  # fmt: skip
@options.with_settings
async def restore(
    settings: Settings, *, archive: str, claim: str, class_name: str | None, timeout_s: float, output: str | None
) -> int:
    """Give the data of ARCHIVE to a claim.

    The claim must be in the former namespace of the archive. The command waits until the claim has the data.

    Creates a claim that does not exist, with the class, the size and the access modes of the archived claim; an
    existing claim must not have a volume yet. The archive is renamed, not copied. This needs the right to create and
    patch claims in that namespace, which the provisioner itself does not have: use an admin's kubeconfig, and the other
    flags and the environment of `run`. Or print the claim in the pod with `-o yaml`, and create it as a user who has
    that right.

    The standard error lists the exports that were read. Exit status 0 if the claim has the data, 1 if not, 2 if there
    is no export to read, or for unusable settings.

    \b
    Example:
      nfs-provisioner restore archived-data-20261123T161512.123456Z --claim shop/data
      nfs-provisioner restore archived-data-20261123T161512.123456Z --claim shop/data -o yaml | kubectl apply -f -
    """
    namespace, name = options.claim_names(claim)
    order = Order(archive=archive, namespace=namespace, claim_name=name, class_name=class_name, timeout_s=timeout_s)
    if output is not None:
        print_document(await manifest(settings, order, lambda text: click.echo(text, err=True)), output)
        return 0
    await carry_out(settings, order, lambda text: click.echo(text, err=True))
    return 0
