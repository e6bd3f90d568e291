"""`nfs-provisioner usage`: the bytes and files of each volume, and who uses most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Column, Listing, Printer, View, print_scope
from provisioner.commands.usage import Pace, open_meter
from provisioner.core.measured import UsageRow, largest_first
from provisioner.core.quantities import readable
from provisioner.core.scope import count
from provisioner.core.sorting import by_field
from provisioner.settings import Settings

_PROGRESS_EVERY_S = 2.0
_INTERRUPTED = 130


def _used(row: UsageRow) -> str:
    if row.used_bytes is None:
        return "-"
    return readable(row.used_bytes) if row.complete else f">{readable(row.used_bytes)}"


def _number(value: int | None, unit: str = "") -> str:
    return "-" if value is None else f"{value}{unit}"


LISTING = Listing(
    row=UsageRow,
    columns=(
        Column("NAMESPACE", "namespace"),
        Column("CLAIM", "claim"),
        Column("USED", "used_bytes", _used),
        Column("FILES", "files", lambda row: _number(row.files)),
        Column("CAPACITY", "capacity"),
        Column("USE%", "percent", lambda row: _number(row.percent, "%")),
        Column("VOLUME", "volume", wide=True),
        Column("CLASS", "storage_class", wide=True),
        Column("SOURCE", "source", wide=True),
        Column("EXPORT", "export", wide=True),
        Column("DIRECTORY", "directory", wide=True),
        Column("NOTE", "why", wide=True),
    ),
    name=lambda row: f"persistentvolume/{row.volume}",
    none="no volumes",
)
_NUMBERS = ("used_bytes", "files", "percent")


@click.command()
@lists.listing
@options.taking(lists.choice("volumes of claims"))
@click.option("--class", "class_name", metavar="NAME", help="Only volumes of this StorageClass.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the first N volumes of the list.")
@click.option("--walk/--no-walk", default=True, show_default=True,
              help="Count volumes for which no quota agent answers, by walking their directories.")  # fmt: skip
@click.option("--rate", type=click.IntRange(1), default=5000, show_default=True,
              help="Entries per second that a walk reads at most.")  # fmt: skip
@click.option("--budget", "budget_s", type=options.Duration(), metavar="TIME",
              help="Stop walking after this time, and print what was counted.")  # fmt: skip
@click.option("--resume", metavar="FILE",
              help="Keep here what was counted, and go on from there the next time.")  # fmt: skip
@options.with_settings
async def usage(
    settings: Settings,
    *,
    view: View,
    namespace: str | None,
    all_namespaces: bool,
    selector: str | None,
    class_name: str | None,
    top: int | None,
    walk: bool,
    rate: int,
    budget_s: float | None,
    resume: str | None,
) -> int:
    """Show what each volume uses, the largest first.

    Takes the answers of the quota agent on the server, where one is at work. Otherwise walks the volume's directory
    and adds up the space of all files: at most --rate entries per second, and never more than half of the server's
    time. Ctrl-C stops the walk and prints what was counted; `>` marks a volume that was not counted to its end. With
    --resume, the next run goes on where this one has stopped. Needs access to the exports. Takes the flags and the
    environment of `run`: replace `run` with `usage`.

    The standard error lists the exports that were read, and the progress. Exit status 0 if the usage of all volumes is
    known, 1 if not, 2 for unusable settings, 130 after Ctrl-C.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner usage --top 10
    """
    choice = lists.chosen(namespace=namespace, all_namespaces=all_namespaces, selector=selector)
    field = "used_bytes" if view.sort_by in (None, "size") else LISTING.sort_field(view) or ""
    status = 0
    async with open_meter(settings, choice, class_name) as meter:
        print_scope(meter.scope)
        if resume:
            meter.resume(resume)
        await meter.ask_agents()
        try:
            if walk and not await meter.walk(Pace(entries_per_s=rate, budget_s=budget_s or None), _progress()):
                click.echo("the time for the walk is over: the list is not complete", err=True)
        except asyncio.CancelledError:
            click.echo("interrupted: the list is not complete", err=True)
            status = _INTERRUPTED
        if resume:
            meter.keep(resume)
        rows = list(meter.rows.values())
    rows = largest_first(rows, field) if field in _NUMBERS else by_field(rows, field)
    Printer(LISTING, view).print(rows[:top])
    if not rows:
        click.echo(f"{LISTING.none} of {settings.provisioner}", err=True)
    unknown = sum(not row.complete for row in rows)
    if unknown:
        click.echo(f"{count(unknown, 'volume')} not counted, or not to the end: -o wide says why", err=True)
    return status or (1 if unknown or meter.scope.unseen else 0)


def _progress() -> Callable[[str], None]:
    """Return a callback that prints the progress every few seconds."""
    printed_s = time.monotonic()

    def report(text: str) -> None:
        nonlocal printed_s
        if time.monotonic() - printed_s >= _PROGRESS_EVERY_S:
            printed_s = time.monotonic()
            click.echo(text, err=True)

    return report
