"""The entry point: finds the command, runs it, and turns every error into one line and an exit status."""

from __future__ import annotations

import errno
import io
import os
import sys
from importlib import import_module

import click

from provisioner import __version__
from provisioner.absent import absent
from provisioner.core.errors import InvalidSettings, ProvisionerError

# structlog imports them for coloured tracebacks and for Windows: 6 MB per replica.
with absent("rich", "colorama"):
    import structlog  # noqa: F401

GROUPS = {
    "Daemon": ("run", "quota-agent"),
    "Look": (
        "check",
        "volumes",
        "claims",
        "describe",
        "usage",
        "archives",
        "snapshots",
        "orphans",
        "instances",
        "version",
    ),
    "Repair": ("restore", "adopt", "recover", "move"),
    "Shell": ("completion",),
}
"""The commands by what they are for, in the order of the help text."""
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
"""Each is a click command in the module `provisioner.cli.NAME`, of that name with `_` for `-`."""
PLUGIN = "kubectl-nfs_provisioner"
"""The name under which the same program is a plugin of kubectl."""


class _LazyGroup(click.Group):
    """Imports a command's module on first use, so that the daemon's memory holds nothing of the other commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            name = cmd_name.replace("-", "_")
            self.add_command(getattr(import_module(f"provisioner.cli.{name}"), name))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in their groups, each with its whole short help."""
        for group, names in GROUPS.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            with formatter.section(group):
                formatter.write_dl([(name, command.get_short_help_str(_SHORT_HELP)) for name, command in commands])


_SHORT_HELP = 200
"""Characters: no short help is longer."""


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nfs-provisioner")
def cli() -> None:
    """Dynamic NFS volumes for Kubernetes.

    Creates a directory on an NFS server and a PersistentVolume for each PersistentVolumeClaim whose StorageClass names
    this provisioner. When the claim is deleted, the directory is deleted, archived or retained, as the class specifies.
    """


def all_commands() -> dict[str, click.Command]:
    """Import and return every command, by name."""
    ctx = click.Context(cli)
    found = {name: cli.get_command(ctx, name) for name in cli.list_commands(ctx)}
    return {name: command for name, command in found.items() if command is not None}


def main() -> None:
    """Run a command and exit with its status.

    An error is one line that says what to change: status 2 for unusable settings, 1 for anything outside the process.
    A reader that closes the pipe (`| head`) ends the command quietly: click handles this for output through click.echo.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names on an export are arbitrary bytes, and not every locale can show them.
            stream.reconfigure(errors="backslashreplace")
    try:
        plugin = os.path.basename(sys.argv[0]) == PLUGIN
        status = cli.main(prog_name="kubectl nfs-provisioner" if plugin else "nfs-provisioner", standalone_mode=False)
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
        # The rest of the buffer cannot be written anywhere. Without this, Python prints a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _failed(f"cannot write the output: {exc.strerror}", 1)
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


def _failed(why: str, status: int) -> int:
    click.echo(f"nfs-provisioner: {why}", err=True)
    return status
