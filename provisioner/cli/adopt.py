"""`nfs-provisioner adopt`: gives a directory that exists on an export to a claim."""

from __future__ import annotations

import json

import click
import yaml
from click.core import ParameterSource

from provisioner.cli import options
from provisioner.cli.output import Cell, next_steps, print_table
from provisioner.commands.adopt import Prospect, open_adoption
from provisioner.core import adoption as rules
from provisioner.core.adoption import Wish
from provisioner.core.recovery import Make
from provisioner.settings import Settings

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "CAPACITY", "CLASS", "WHAT")


@click.command()
@click.argument("directory")
@click.option("--claim", required=True, metavar="NAMESPACE/NAME",
              help="The claim that gets the directory; it need not exist yet.")  # fmt: skip
@click.option("--dry-run/--apply", "dry_run", default=True, show_default=True,
              help="Only show the volume, or create it.")  # fmt: skip
@click.option("--class", "class_name", metavar="NAME", help="The StorageClass of a claim that does not exist yet.")
@click.option("--capacity", metavar="SIZE", help="The size of the volume for a claim that does not exist yet.")
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True,
              help="Output format: a table for people, or the volume as kubectl apply takes it.")  # fmt: skip
@options.with_settings
async def adopt(
    settings: Settings,
    *,
    directory: str,
    claim: str,
    dry_run: bool,
    class_name: str | None,
    capacity: str | None,
    output: str,
) -> int:
    """Give DIRECTORY on an export, with its data, to a claim.

    DIRECTORY is relative to the export: created manually, left by another provisioner, or retained when an earlier
    claim was deleted. Its content is not changed. The claim must not have a volume yet, or must not exist: then it
    binds to the volume when it is created with that name, that class and at most that size. The volume has the reclaim
    policy Retain until an admin changes it.

    The command refuses: a directory that any provisioner's volume uses, and directories above or below it; an archive;
    a directory of another cluster; the root of another export; a path with a symbolic link. Before you adopt the
    directory of an old PersistentVolume, delete that volume, with the reclaim policy Retain.

    Without --apply nothing is changed. With --export on the command line, only that export is searched for DIRECTORY.
    Takes the flags and the environment of `run`: replace `run` with `adopt`.

    The standard error lists the exports that were read. Exit status 0 if the adoption is possible or done, 1 if not, 2
    if there is no export to read, or for unusable settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner adopt photos --claim shop/photos
    """
    namespace, name = options.claim_names(claim)
    wish = Wish(
        path=rules.directory(directory),
        namespace=namespace,
        claim=name,
        class_name=class_name,
        capacity=None if capacity is None else rules.capacity(capacity),
    )
    # Exports from the environment are those that the daemon serves; only a flag chooses among them.
    context = click.get_current_context()
    chosen = context.get_parameter_source("exports") is ParameterSource.COMMANDLINE
    async with open_adoption(
        settings, wish, named={each.location for each in settings.exports} if chosen else set()
    ) as adoption:
        for line in adoption.lines:
            click.echo(line, err=True)
        prospect = await adoption.look(settings.provisioner)
        _warn(prospect)
        if not dry_run:
            await adoption.apply(prospect)
    if output == "table":
        _print_row(prospect, dry_run=dry_run)
    else:
        _print_volume(prospect, output)
    _print_next(prospect, rules.command(wish, context.params["exports"] if chosen else ()), dry_run=dry_run)
    return 0


def _warn(prospect: Prospect) -> None:
    for volume in prospect.doubts:
        source = volume.source
        place = f"{source.server}:{source.path}" if source is not None else ""
        text = f"volume {volume.name} lies on {place}: make sure that this is not another name of the same server"
        click.secho(f"WARNING: {text}", fg="red", bold=True, err=True)


def _print_row(prospect: Prospect, *, dry_run: bool) -> None:
    remains, record = prospect.plan.step.remains, prospect.plan.record
    what = ("would be created", "") if dry_run else ("created", "green")
    row: list[Cell] = [
        f"{record.namespace}/{record.claim}",
        remains.volume,
        prospect.export,
        record.directory,
        record.capacity,
        record.class_name,
        what,
    ]
    print_table(_COLUMNS, [row])


def _print_volume(prospect: Prospect, output: str) -> None:
    action = prospect.plan.step.action
    body = dict(action.body) if isinstance(action, Make) else {}
    if output == "json":
        click.echo(json.dumps(body, indent=2))
    else:
        click.echo(yaml.safe_dump(body, sort_keys=False), nl=False)


def _print_next(prospect: Prospect, command: str, *, dry_run: bool) -> None:
    """Print the next steps, each with its command."""
    if dry_run:
        click.echo(f"nothing was changed; to apply this, run:\n  {command}", err=True)
        return
    record, volume = prospect.plan.record, prospect.plan.step.remains.volume
    key = f"{record.namespace}/{record.claim}"
    create = f"create claim {key} with class {record.class_name} and at most {record.capacity}: it binds to its data"
    steps = [
        *(() if prospect.claim_is_there else (create,)),
        "check that the claim is Bound, with `nfs-provisioner volumes`, and that pods can read and write the data:"
        " owner and mode are unchanged",
    ]
    rule = record.on_delete
    retained = f"the volume is retained when its claim is deleted; to follow the class's rule ({rule}) instead"
    click.echo(next_steps(steps, retained, [volume]), err=True)
