"""`nfs-provisioner restore`: an archive's data for a claim."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from provisioner.cli import options


@click.command()
@click.argument("archive")
@click.option("--claim", required=True, metavar="NAMESPACE/NAME", help="Who gets it; made where there is none.")
@click.option(
    "--class", "class_name", metavar="NAME", help="The StorageClass of a claim that is made; else the old one."
)
@click.option("--timeout", "timeout_s", type=options.Duration(), default="60s", show_default=True,
              help="How long to wait until the claim has it.")  # fmt: skip
@options.taking(options.as_run())
def restore(
    *,
    archive: str,
    claim: str,
    class_name: str | None,
    timeout_s: float,
    log_format: str | None,
    log_level: str,
    **given: Any,
) -> int:
    """Give the data of ARCHIVE to a claim of the namespace that it came from, and wait until the claim has it.

    A claim that does not exist is made, with the class, the size and the access modes of the archived one; a claim that
    is there must still be without a volume. It takes the right to create and patch claims in that namespace, which the
    provisioner itself does not have: run it with an admin's kubeconfig, and the other flags and the environment of
    `run`. The archive is renamed, not copied.

    The standard error says which exports were looked at. Exit status 0 when the claim has it, 1 when not, 2 when there
    is no export to look at, and for unusable settings.

    Example: nfs-provisioner restore archived-data-20261123T161512.123456Z --claim shop/data
    """
    settings = options.settings(**given)
    namespace, name = options.claim_names(claim)
    from provisioner.commands.restore import Order
    from provisioner.commands.restore import restore as carry_out

    order = Order(archive=archive, namespace=namespace, claim=name, class_name=class_name, timeout_s=timeout_s)
    asyncio.run(carry_out(settings, order, lambda text: click.echo(text, err=True)))
    return 0
