"""The command line: one file a command; here they are put together, and errors become one line and an exit status."""

from __future__ import annotations

import errno
import io
import os
import sys

import click

from provisioner import __version__
from provisioner.cli.adopt import adopt
from provisioner.cli.archives import archives
from provisioner.cli.check import check
from provisioner.cli.instances import instances
from provisioner.cli.orphans import orphans
from provisioner.cli.recover import recover
from provisioner.cli.restore import restore
from provisioner.cli.run import run
from provisioner.cli.volumes import volumes
from provisioner.core.errors import InvalidSettings, ProvisionerError


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
cli.add_command(instances)
cli.add_command(adopt)


def main() -> None:
    """Run a command, and exit with its status.

    What it cannot do is one line that says what to change: status 2 for unusable settings, 1 for anything outside. A
    reader that goes away (`| head`) ends it quietly: click sees to that where all output goes through click.echo.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names on an export are any bytes, and locales differ
    try:
        status = cli.main(prog_name="nfs-provisioner", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        status = 2
    except click.ClickException as exc:
        status = _failed(exc.format_message(), 2)
    except InvalidSettings as exc:
        status = _failed(str(exc), 2)
    except ProvisionerError as exc:
        advice = getattr(exc, "advice", "")
        status = _failed(f"{exc}; {advice}" if advice else str(exc), 1)
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # What is left in the buffer has nowhere to go: without this it would end in a traceback at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _failed(f"cannot write the output: {exc.strerror}", 1)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


def _failed(why: str, status: int) -> int:
    click.echo(f"nfs-provisioner: {why}", err=True)
    return status
