"""`nfs-provisioner recover`: recreates the volumes of a lost cluster from the ledgers on the exports."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Mapping, Sequence

import click
import yaml

from provisioner.cli import options, recover_ledger
from provisioner.cli.output import NAMES_SHOWN, Cell, next_steps, print_scope, print_table
from provisioner.commands.recover import Prospect, open_recovery
from provisioner.core.recovery import GONE_FLAG, Bring, Enter, Make, Step
from provisioner.core.scope import count
from provisioner.core.snapshot_recovery import SnapshotStep
from provisioner.settings import Settings

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "CAPACITY", "CLASS", "WHAT")
_OF_SNAPSHOTS = ("SNAPSHOT", "CLAIM", "EXPORT", "CAPACITY", "HANDLE", "WHAT")
_PROGRESS_EVERY_S = 2.0


@click.command()
@click.option("--dry-run/--apply", "dry_run", default=True, show_default=True,
              help="Only show the volumes, or create them.")  # fmt: skip
@click.option("--cluster", metavar="ID", help="The lost cluster, if the exports have records of several.")
@click.option(GONE_FLAG, "is_gone", is_flag=True,
              help="Let --apply proceed even though a provisioner of the lost cluster was at work on these exports in"
              " the last ten minutes.")  # fmt: skip
@click.option("--volume", "volumes", multiple=True, metavar="NAME",
              help="Only this volume; also a volume of this cluster that was deleted manually, or one that exists while"
              " its data is in an archive or the trash. Repeatable.")  # fmt: skip
@click.option("--ledger", is_flag=True,
              help="Rewrite records that a ledger has lost, from the volumes that are Bound.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json"]), default="table", show_default=True,
              help="Output format: a table for people, or the volumes as kubectl apply takes them.")  # fmt: skip
@options.with_settings
async def recover(
    settings: Settings,
    *,
    dry_run: bool,
    cluster: str | None,
    is_gone: bool,
    volumes: tuple[str, ...],
    ledger: bool,
    output: str,
) -> int:
    """Recreate the volumes of a lost cluster.

    Reads the ledgers and directories on the exports; no backup of the cluster is needed. Each volume gets its old name,
    is reserved for its former claim, and has the reclaim policy Retain: a claim that is recreated under its old name
    binds to its old data. Archives are included, so that they can be restored. Each snapshot gets a
    VolumeSnapshotContent with the policy Retain, and a VolumeSnapshot if its namespace exists. Nothing is deleted, and
    no directory is changed. The command can be repeated at any time, even after an interruption.

    After a restore of etcd from an older backup, a volume can exist whose data is in an archive or the trash. With
    --volume, that data is renamed to the volume's directory, if the directory is missing or empty.

    The lost cluster must be gone for good: two clusters must never use the same directories. While its provisioner
    seems to be at work, --apply is refused, unless --old-cluster-is-gone confirms that it is not.

    With --ledger, the ledger is lost and not the cluster: for each volume of this cluster that is Bound and whose
    directory exists, a missing or unreadable record is rewritten, and the export gets back the id that its volumes
    carry. Volumes that disagree with their records are listed, with advice for each.

    Without --apply nothing is changed; this also works without a cluster, with --export alone. Takes the flags and the
    environment of `run`: replace `run` with `recover`.

    The standard error lists the exports that were read, and what their ledgers have. Exit status 0 if all is well, 1 if
    something failed, or an export or the API server does not respond, 2 if there is no export to read, or for unusable
    settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner recover --apply
    """
    if ledger:
        other = {
            "--cluster": cluster,
            GONE_FLAG: is_gone,
            "--volume": volumes,
            f"--output {output}": output != "table",
        }
        recover_ledger.refuse_others(other)
        return await recover_ledger.recover(settings, dry_run=dry_run)
    async with open_recovery(settings, offline=dry_run) as recovery:
        prospect = await recovery.look(cluster, volumes)
        _print_findings(prospect)
        if dry_run and prospect.lost is not None and prospect.alive:
            click.secho(f"WARNING: {prospect.lost.is_at_work()}", fg="red", bold=True, err=True)
        failed = {} if dry_run else await recovery.apply(prospect, _progress(), cluster_gone=is_gone)
    if output == "table":
        _print_rows(prospect, failed, dry_run=dry_run)
    else:
        _print_volumes(prospect, failed, output)
    _print_summary(prospect, failed, dry_run=dry_run)
    return 1 if failed or prospect.unknown else prospect.scope.status


def _progress() -> Callable[[int, int], None]:
    """Return a callback that prints the progress every few seconds."""
    printed_s = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal printed_s
        now_s = time.monotonic()
        if now_s - printed_s >= _PROGRESS_EVERY_S:
            printed_s = now_s
            click.echo(f"{done} of {total} done", err=True)

    return report


def _print_findings(prospect: Prospect) -> None:
    """Print what an admin must know before anything is created."""
    print_scope(prospect.scope)
    for export, names in sorted(prospect.unreadable.items()):
        click.echo(f"records that this version cannot read, on export {export}: {', '.join(names)}", err=True)
    if prospect.unknown:
        click.echo(f"no export has a record of: {', '.join(prospect.unknown)}", err=True)
    if prospect.offline:
        known = any(each.why == prospect.offline for each in prospect.scope.unseen)
        why = "" if known else f": {prospect.offline}"
        click.echo(f"not compared with a cluster, which may have some of these already{why}", err=True)
    lost = prospect.lost
    if lost is not None:
        click.echo(f"lost cluster {lost}", err=True)


def _print_rows(prospect: Prospect, failed: Mapping[str, str], *, dry_run: bool) -> None:
    rows: list[list[Cell]] = [
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
        print_table(_COLUMNS, rows)
    of_snapshots: list[list[Cell]] = [
        [
            step.remains.record.key,
            step.remains.record.claim,
            step.remains.place.name,
            step.remains.record.capacity,
            step.remains.handle,
            _what_of_snapshot(step, failed, dry_run=dry_run),
        ]
        for step in prospect.snapshots
    ]
    if of_snapshots:
        print_table(_OF_SNAPSHOTS, of_snapshots)


def _what(step: Step, failed: Mapping[str, str], *, dry_run: bool) -> tuple[str, str]:
    """Return the outcome of a step in words, and their colour."""
    if step.remains.volume in failed:
        return f"failed: {failed[step.remains.volume]}", "bold red"
    if isinstance(step.action, Make):
        return ("would be created", "") if dry_run else ("created", "green")
    if isinstance(step.action, Bring):
        source = f"archive {step.action.archive}" if step.action.archive else f"the trash ({step.action.trash})"
        return (f"would be brought back from {source}", "") if dry_run else (f"brought back from {source}", "green")
    if isinstance(step.action, Enter):
        return f"{'would be ' if dry_run else ''}recorded for this cluster: {step.action.why}", "yellow"
    return f"skipped: {step.action.why}", "yellow"


def _what_of_snapshot(step: SnapshotStep, failed: Mapping[str, str], *, dry_run: bool) -> tuple[str, str]:
    """Return the outcome for a snapshot in words, and their colour."""
    if step.remains.handle in failed:
        return f"failed: {failed[step.remains.handle]}", "bold red"
    if step.is_skipped:
        return f"skipped: {step.why}", "yellow"
    would = "would be " if dry_run else ""
    if step.snapshot is not None:
        return f"{would}created", "" if dry_run else "green"
    return (
        f"{would}{'created without' if step.content is not None else 'recorded without'} a VolumeSnapshot: {step.why}",
        "yellow",
    )


def _print_volumes(prospect: Prospect, failed: Mapping[str, str], output: str) -> None:
    """Print the volumes as one Kubernetes List."""
    bodies = [step.action.body for step in _created(prospect, failed) if isinstance(step.action, Make)]
    for step in _created_snapshots(prospect, failed):
        bodies += [body for body in (step.content, step.snapshot) if body is not None]
    manifests = {"apiVersion": "v1", "kind": "List", "items": bodies}
    if output == "json":
        click.echo(json.dumps(manifests, indent=2))
    else:
        click.echo(yaml.safe_dump(manifests, sort_keys=False), nl=False)


def _created(prospect: Prospect, failed: Mapping[str, str]) -> list[Step]:
    return [step for step in prospect.steps if isinstance(step.action, Make) and step.remains.volume not in failed]


def _created_snapshots(prospect: Prospect, failed: Mapping[str, str]) -> list[SnapshotStep]:
    return [step for step in prospect.snapshots if step.content is not None and step.remains.handle not in failed]


def _print_summary(prospect: Prospect, failed: Mapping[str, str], *, dry_run: bool) -> None:
    """Print the outcome and the next steps."""
    archived = {each.archive for each in prospect.archives}
    for name in sorted(failed.keys() & archived):
        click.echo(f"archive {name} failed: {failed[name]}", err=True)
    created = _created(prospect, failed)
    archives = len(archived) - len(failed.keys() & archived)
    by_name = (
        (prospect.gone, "of this cluster without a PersistentVolume"),
        (prospect.away, "whose data is in an archive or the trash"),
    )
    for found, what in by_name:
        if found:
            click.echo(_by_name(found, what), err=True)
    if not prospect.steps and not prospect.archives and not prospect.snapshots:
        if prospect.scope.exports:
            of = " of other clusters" if prospect.gone or prospect.away else ""
            click.echo(f"nothing to recover{of} on {count(len(prospect.scope.exports), 'export')}", err=True)
        return
    would = "would be " if dry_run else ""
    done = [f"{count(len(created), 'volume')} {would}created", f"{count(archives, 'archive')} {would}included"]
    brought = sum(isinstance(step.action, Bring) and step.remains.volume not in failed for step in prospect.steps)
    done += [f"the data of {count(brought, 'volume')} {would}brought back"] if brought else []
    snapshots = len(_created_snapshots(prospect, failed))
    done += [f"{count(snapshots, 'snapshot')} {would}created"] if snapshots else []
    click.echo(", ".join(done), err=True)
    if failed:
        click.echo("run the command again to retry what failed: completed steps are not repeated", err=True)
    if dry_run:
        click.echo("nothing was changed; use --apply to apply this", err=True)
    elif created:
        click.echo(_next_steps(created, prospect.there), err=True)


def _by_name(names: Sequence[str], what: str) -> str:
    """Return a hint with the command that recovers these volumes: volumes of this cluster must be named for that."""
    shown = " ".join(f"--volume {name}" for name in names[:NAMES_SHOWN])
    rest = f"\nand {len(names) - NAMES_SHOWN} more: see `nfs-provisioner orphans`" if len(names) > NAMES_SHOWN else ""
    lost = f"{count(len(names), 'volume')} {what}; to get the data back:"
    return f"{lost}\n  nfs-provisioner recover {shown} --apply{rest}"


def _next_steps(created: Sequence[Step], there: Container[str]) -> str:
    """Return the remaining steps, each as a command to copy. `there` has the claims that need no manifest."""
    names = [step.remains.volume for step in created]
    absent = [step for step in created if step.remains.key not in there]
    again = ["apply the manifests of the claims, under their old names: each claim binds to its old data"]
    steps = [
        *(again if absent else ()),
        "check that all claims are Bound, with `nfs-provisioner volumes`, and that the data is complete",
    ]
    retained = "each volume is retained when its claim is deleted; to follow the class's rule again instead"
    return next_steps(steps, retained, names)
