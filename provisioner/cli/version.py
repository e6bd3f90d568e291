"""`nfs-provisioner version`: the versions of this command and of the running daemon."""

from __future__ import annotations

import click
import msgspec

from provisioner import __version__
from provisioner.cli import options
from provisioner.cli.output import print_document
from provisioner.commands.version import Versions, read_versions
from provisioner.settings import Settings


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only the version of this command; asks no API server.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
              help="Output format: for people, or for programs.")  # fmt: skip
@options.with_settings
async def version(settings: Settings, *, client_only: bool, output: str) -> int:
    """Print the versions of this command and of the daemon.

    The daemon's version is an annotation of its Lease: name its namespace with --lease-namespace outside its pod.
    `contract` is the version of the JSON output. Takes the flags and the environment of `run`: replace `run` with
    `version`.

    Exit status 0, also without a kubeconfig; 1 if the API server does not respond.

    \b
    Example:
      nfs-provisioner version --lease-namespace nfs-provisioner
    """
    found, asked = (Versions(client=__version__), True) if client_only else await read_versions(settings)
    if output == "table":
        click.echo(f"Client: {found.client}")
        if not client_only:
            click.echo(
                f"Daemon: {found.daemon or 'unknown'}" + (f" ({found.why_unknown})" if found.why_unknown else "")
            )
    else:
        print_document(msgspec.to_builtins(found), output)
    return 0 if asked else 1
