"""`nfs-provisioner recover`: the volumes of a cluster that is lost, made anew from what the exports' ledgers say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli import listings, options, recover_ledger
from provisioner.core.recovery import GONE_FLAG, Bring, Enter, Make, Step
from provisioner.core.scope import count
from provisioner.settings import Settings

if TYPE_CHECKING:
    from provisioner.commands.recover import Prospect

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "CAPACITY", "CLASS", "WHAT")
_PROGRESS_EVERY_S = 2.0
_NAMES = 10
"""Volumes whose names a hint prints."""


@click.command()
@click.option("--dry-run/--apply", "dry_run", default=True, show_default=True,
              help="Only show what would be made, or make it.")  # fmt: skip
@click.option("--cluster", metavar="ID", help="The lost cluster, where the exports have records of several.")
@click.option(GONE_FLAG, "is_gone", is_flag=True,
              help="Let --apply go on although a provisioner of the lost cluster was at work on these exports in the"
              " last ten minutes.")  # fmt: skip
@click.option("--volume", "volumes", multiple=True, metavar="NAME",
              help="Only this volume; also one of this cluster that was deleted by hand, or that exists while its data"
              " are in an archive or the trash. Repeatable.")  # fmt: skip
@click.option("--ledger", is_flag=True,
              help="Write records that a ledger has lost again, by the volumes that are Bound.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True,
              help="A table for people, or the volumes as kubectl apply takes them.")  # fmt: skip
@options.taking(options.as_run())
def recover(
    *,
    dry_run: bool,
    cluster: str | None,
    is_gone: bool,
    volumes: tuple[str, ...],
    ledger: bool,
    output: str,
    log_format: str | None,
    log_level: str,
    **given: Any,
) -> int:
    """Make the volumes of a lost cluster anew, from the ledgers and directories on the exports alone.

    Each volume gets its old name, is reserved for the claim that it had, and is kept (Retain) whatever becomes of that
    claim: claims that are made again under their old names bind to their old data. Archives come along, to be restored.
    Nothing is ever deleted, and no directory is touched. It may be repeated at any time, also after it was cut off.

    After a restore of etcd from an older backup, a volume may exist whose data are in an archive or the trash. With
    --volume they are renamed to its directory, if that is missing or empty.

    The lost cluster must be gone for good: two clusters must never have the same directories. While its provisioner
    seems to be at work, --apply is refused, unless --old-cluster-is-gone says that it is not.

    With --ledger it is the ledger that is lost, and not the cluster: a record that is missing or cannot be read is
    written again for each volume of this cluster that is Bound and whose directory is there, and the export gets the id
    again that its volumes carry. Volumes that do not agree with their records are listed, each with what to do.

    Without --apply nothing is changed; that works without a cluster too, by --export alone. Takes the flags and the
    environment of `run`: put `recover` in its place.

    The standard error says which exports were looked at, and what their ledgers have. Exit status 0 when all is well, 1
    when something failed, or an export or the API server does not answer, 2 when there is no export to look at, and for
    unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner recover --apply
    """
    settings = options.settings(**given)
    if ledger:
        other = {
            "--cluster": cluster,
            GONE_FLAG: is_gone,
            "--volume": volumes,
            f"--output {output}": output != "table",
        }
        recover_ledger.refuse_others(other)
        return asyncio.run(recover_ledger.recover(settings, dry_run=dry_run))
    prospect, failed = asyncio.run(_recover(settings, cluster, volumes, dry_run=dry_run, is_gone=is_gone))
    if output == "table":
        _show(prospect, failed, dry_run=dry_run)
    else:
        _print(prospect, failed, output)
    _tell(prospect, failed, dry_run=dry_run)
    return 1 if failed or prospect.unknown else prospect.scope.status


async def _recover(
    settings: Settings, cluster: str | None, volumes: tuple[str, ...], *, dry_run: bool, is_gone: bool
) -> tuple[Prospect, Mapping[str, str]]:
    """What was found, and what failed of it. Raises ClusterError, ExportError, InvalidSettings, StillAtWork."""
    from provisioner.commands.recover import recovering

    async with recovering(settings, offline=dry_run) as recovery:
        prospect = await recovery.look(cluster, volumes)
        _warn(prospect)
        if not dry_run:
            return prospect, await recovery.apply(prospect, _progress(), cluster_gone=is_gone)
        if prospect.lost is not None and prospect.alive:
            click.secho(f"WARNING: {prospect.lost.is_at_work()}", fg="red", bold=True, err=True)
        return prospect, {}


def _progress() -> Callable[[int, int], None]:
    """Tells every few seconds how far it is."""
    told_s = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= _PROGRESS_EVERY_S:
            told_s = now_s
            click.echo(f"{done} of {total} done", err=True)

    return tell


def _warn(prospect: Prospect) -> None:
    """What must be known before anything is made."""
    listings.looked_at(prospect.scope)
    for export, names in sorted(prospect.unreadable.items()):
        click.echo(f"no records that this version knows, on export {export}: {', '.join(names)}", err=True)
    if prospect.unknown:
        click.echo(f"no export has a record of: {', '.join(prospect.unknown)}", err=True)
    if prospect.offline:
        known = any(each.why == prospect.offline for each in prospect.scope.unseen)
        why = "" if known else f": {prospect.offline}"
        click.echo(f"not compared with a cluster, which may have some of these already{why}", err=True)
    lost = prospect.lost
    if lost is not None:
        click.echo(f"of cluster {lost}", err=True)


def _show(prospect: Prospect, failed: Mapping[str, str], *, dry_run: bool) -> None:
    from provisioner.cli import tables

    rows: list[list[tables.Cell]] = [
        [
            step.remains.key,
            step.remains.volume,
            step.remains.place.name,
            step.remains.record.directory,
            step.remains.record.capacity,
            step.remains.record.class_name or "-",
            _what(step, failed, dry_run=dry_run),
        ]
        for step in prospect.steps
    ]
    if rows:
        tables.show(_COLUMNS, rows)


def _what(step: Step, failed: Mapping[str, str], *, dry_run: bool) -> tuple[str, str]:
    """In words, and their colour."""
    if step.remains.volume in failed:
        return f"failed: {failed[step.remains.volume]}", "bold red"
    if isinstance(step.action, Make):
        return ("would be made", "") if dry_run else ("made", "green")
    if isinstance(step.action, Bring):
        source = f"archive {step.action.archive}" if step.action.archive else f"the trash ({step.action.trash})"
        return (f"would be brought back from {source}", "") if dry_run else (f"brought back from {source}", "green")
    if isinstance(step.action, Enter):
        return f"{'would be ' if dry_run else ''}entered as this cluster's: {step.action.why}", "yellow"
    return f"skipped: {step.action.why}", "yellow"


def _print(prospect: Prospect, failed: Mapping[str, str], output: str) -> None:
    """The volumes as one List."""
    bodies = [step.action.body for step in _made(prospect, failed) if isinstance(step.action, Make)]
    manifests = {"apiVersion": "v1", "kind": "List", "items": bodies}
    if output == "json":
        click.echo(json.dumps(manifests, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(manifests, sort_keys=False), nl=False)


def _made(prospect: Prospect, failed: Mapping[str, str]) -> list[Step]:
    return [step for step in prospect.steps if isinstance(step.action, Make) and step.remains.volume not in failed]


def _tell(prospect: Prospect, failed: Mapping[str, str], *, dry_run: bool) -> None:
    """How it ended, and what to do next."""
    volumes = {step.remains.volume for step in prospect.steps}
    for name in sorted(failed.keys() - volumes):
        click.echo(f"archive {name} failed: {failed[name]}", err=True)
    made = _made(prospect, failed)
    archives = len(prospect.archives) - len(failed.keys() - volumes)
    by_name = (
        (prospect.gone, "of this cluster without a PersistentVolume"),
        (prospect.away, "whose data are in an archive or the trash"),
    )
    for found, what in by_name:
        if found:
            click.echo(_name(found, what), err=True)
    if not prospect.steps and not prospect.archives:
        if prospect.scope.exports:
            of = " of other clusters" if prospect.gone or prospect.away else ""
            click.echo(f"nothing to recover{of} on {count(len(prospect.scope.exports), 'export')}", err=True)
        return
    would = "would be " if dry_run else ""
    come = "would come" if dry_run else "came"
    done = [f"{count(len(made), 'volume')} {would}made", f"{count(archives, 'archive')} {come} along"]
    brought = sum(isinstance(step.action, Bring) and step.remains.volume not in failed for step in prospect.steps)
    done += [f"the data of {count(brought, 'volume')} {would}brought back"] if brought else []
    click.echo(", ".join(done), err=True)
    if failed:
        click.echo("run it again for what failed: what is done is not done twice", err=True)
    if dry_run:
        click.echo("nothing was changed; --apply does it", err=True)
    elif made:
        click.echo(_next(made, prospect.there), err=True)


def _name(gone: Sequence[str], what: str) -> str:
    """Volumes of this cluster are recovered only by name: the command that does so."""
    shown = " ".join(f"--volume {name}" for name in gone[:_NAMES])
    rest = f"\nand {len(gone) - _NAMES} more: see `nfs-provisioner orphans`" if len(gone) > _NAMES else ""
    lost = f"{count(len(gone), 'volume')} {what}; to have the data again:"
    return f"{lost}\n  nfs-provisioner recover {shown} --apply{rest}"


def _next(made: Sequence[Step], there: Container[str]) -> str:
    """The steps that remain, each as a command to copy; a claim that is there already needs no manifest."""
    names = [step.remains.volume for step in made]
    absent = [step for step in made if step.remains.key not in there]
    again = ["apply the manifests of the claims again, under their old names: each binds to its old data"]
    patch = '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'
    command = f"kubectl patch pv {names[0]} -p '{patch}'"
    if len(names) > 1:
        rest = f"    # and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        command = f"for pv in {' '.join(names[:_NAMES])}; do kubectl patch pv $pv -p '{patch}'; done{rest}"
    steps = [
        *(again if absent else ()),
        "see that all are Bound, with `nfs-provisioner volumes`, and that the data is what it was",
        f"until now each volume is kept when its claim goes; where its class's rule is to hold again:\n     {command}",
    ]
    return "\n".join(["What is next:", *(f"  {number}. {step}" for number, step in enumerate(steps, 1))])
