"""The command line: one file a command; here they are put together, and errors become one line and an exit status."""

from __future__ import annotations

import sys

import click

from provisioner import __version__
from provisioner.cli.archives import archives
from provisioner.cli.check import check
from provisioner.cli.demo import demo
from provisioner.cli.orphans import orphans
from provisioner.cli.recover import recover
from provisioner.cli.restore import restore
from provisioner.cli.run import run
from provisioner.cli.volumes import volumes
from provisioner.core.errors import InvalidSettings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nfs-provisioner")
def cli() -> None:
    """Dynamic NFS volumes for Kubernetes.

    A PersistentVolumeClaim whose StorageClass names this provisioner gets a directory on an NFS server and a
    PersistentVolume, at once; when the claim goes, its directory is deleted, archived or kept, as the class says.
    """


cli.add_command(run)
cli.add_command(check)
cli.add_command(volumes)
cli.add_command(orphans)
cli.add_command(archives)
cli.add_command(restore)
cli.add_command(recover)
cli.add_command(demo)


def main() -> None:
    """Run a command; exit with 2 and one line that says what to change where settings are unusable."""
    try:
        status = cli.main(prog_name="nfs-provisioner", standalone_mode=False)
    except InvalidSettings as exc:
        click.echo(f"nfs-provisioner: {exc}", err=True)
        status = 2
    except click.ClickException as exc:
        click.echo(f"nfs-provisioner: {exc.format_message()}", err=True)
        status = 2
    except click.Abort:
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
