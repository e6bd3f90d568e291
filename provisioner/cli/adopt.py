"""`nfs-provisioner adopt`: data that lies on an export already, for a claim."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from provisioner.cli import options
from provisioner.core import adoption
from provisioner.core.adoption import Wish
from provisioner.core.recovery import Make
from provisioner.settings import Settings

if TYPE_CHECKING:
    from provisioner.commands.adopt import Prospect

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "CAPACITY", "CLASS", "WHAT")


@click.command()
@click.argument("directory")
@click.option("--claim", required=True, metavar="NAMESPACE/NAME", help="Who gets it; it may exist already, or not yet.")
@click.option("--dry-run/--apply", "dry_run", default=True, show_default=True,
              help="Only show what would be made, or make it.")  # fmt: skip
@click.option("--class", "class_name", metavar="NAME", help="The StorageClass of a claim that does not exist yet.")
@click.option("--capacity", metavar="SIZE", help="The size of the volume, for a claim that does not exist yet.")
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True,
              help="A table for people, or the volume as kubectl apply takes it.")  # fmt: skip
@options.taking(options.as_run())
@click.pass_context
def adopt(
    context: click.Context,
    /,
    *,
    directory: str,
    claim: str,
    dry_run: bool,
    class_name: str | None,
    capacity: str | None,
    output: str,
    log_format: str | None,
    log_level: str,
    **given: Any,
) -> int:
    """Hand DIRECTORY, which lies on an export with its data already, to a claim.

    DIRECTORY is relative to the export: made by hand, left by another provisioner, or kept when an earlier claim was
    deleted. Nothing in it is touched. The claim must still be without a volume, or must not exist yet: then it binds
    to the volume when it is created with that name, class and no more than that size. The volume is kept (Retain)
    whatever becomes of the claim, until you say otherwise.

    Refused: a directory that a volume of any maker has, or one above or below it; an archive; what another cluster has;
    another export's root; anything that is reached through a symbolic link. Delete an old PersistentVolume of the
    directory first, with the reclaim policy Retain.

    Without --apply nothing is changed. With --export on the command line the directory is looked for on that export
    only. Takes the flags and the environment of `run`: put `adopt` in its place.

    The standard error says which exports were looked at. Exit status 0 when it can be done, or is done, 1 when not, 2
    when there is no export to look at, and for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner adopt photos --claim shop/photos
    """
    settings = options.settings(**given)
    namespace, name = options.claim_names(claim)
    wish = Wish(
        path=adoption.directory(directory),
        namespace=namespace,
        claim=name,
        class_name=class_name,
        capacity=None if capacity is None else adoption.capacity(capacity),
    )
    meant = context.get_parameter_source("exports") is ParameterSource.COMMANDLINE
    prospect = asyncio.run(_adopt(settings, wish, meant=meant, dry_run=dry_run))
    if output == "table":
        _show(prospect, dry_run=dry_run)
    else:
        _print(prospect, output)
    _tell(prospect, adoption.command(wish, given["exports"] if meant else ()), dry_run=dry_run)
    return 0


async def _adopt(settings: Settings, wish: Wish, *, meant: bool, dry_run: bool) -> Prospect:
    """What was found. Raises as Adoption.look() and apply() do."""
    from provisioner.commands.adopt import adopting

    named = {each.location for each in settings.exports} if meant else set()
    async with adopting(settings, wish, named=named) as adoption_of:
        for line in adoption_of.lines:
            click.echo(line, err=True)
        prospect = await adoption_of.look(settings.provisioner)
        for volume in prospect.doubts:
            source = volume.source
            place = f"{source.server}:{source.path}" if source is not None else ""
            text = f"volume {volume.name} lies on {place}: make sure that this is no other name of the same server"
            click.secho(f"WARNING: {text}", fg="red", bold=True, err=True)
        if not dry_run:
            await adoption_of.apply(prospect)
        return prospect


def _show(prospect: Prospect, *, dry_run: bool) -> None:
    from provisioner.cli import tables

    remains, record = prospect.plan.step.remains, prospect.plan.record
    what = ("would be made", "") if dry_run else ("made", "green")
    row: list[tables.Cell] = [
        f"{record.namespace}/{record.claim}",
        remains.volume,
        prospect.export,
        record.directory,
        record.capacity,
        record.class_name,
        what,
    ]
    tables.show(_COLUMNS, [row])


def _print(prospect: Prospect, output: str) -> None:
    action = prospect.plan.step.action
    body = dict(action.body) if isinstance(action, Make) else {}
    if output == "json":
        click.echo(json.dumps(body, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(body, sort_keys=False), nl=False)


def _tell(prospect: Prospect, command: str, *, dry_run: bool) -> None:
    """What to do next."""
    if dry_run:
        click.echo(f"nothing was changed; to do it:\n  {command}", err=True)
        return
    record, volume = prospect.plan.record, prospect.plan.step.remains.volume
    patch = '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'
    key = f"{record.namespace}/{record.claim}"
    create = f"create claim {key} of class {record.class_name}, for no more than {record.capacity}"
    steps = [
        *(() if prospect.claim_is_there else (f"{create}: it binds to its data",)),
        "see that it is Bound, with `nfs-provisioner volumes`, and that pods can read and write the data: its owner and"
        " mode are as they were",
        f"the volume is kept when its claim goes; where the class's rule ({record.on_delete}) is to hold:\n"
        f"     kubectl patch pv {volume} -p '{patch}'",
    ]
    text = "\n".join(["What is next:", *(f"  {number}. {step}" for number, step in enumerate(steps, 1))])
    click.echo(text, err=True)
