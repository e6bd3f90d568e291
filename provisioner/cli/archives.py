"""`nfs-provisioner archives`: which archives there are, whose they were, and how long each is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from provisioner.cli import listings, options
from provisioner.core.archives import ArchiveRow, in_order, listed
from provisioner.core.listing import age
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_COLUMNS = ("ARCHIVE", "CLAIM", "CLASS", "CAPACITY", "ARCHIVED", "KEPT UNTIL", "EXPORT")


@click.command()
@options.taking(options.output(), options.as_run())
@click.option("-n", "--namespace", metavar="NAME", help="Only archives of claims in this namespace.")
def archives(
    *, output: str, namespace: str | None, log_format: str | None, log_level: str, **given: Any
) -> int:  # fmt: skip
    """List the archives on all exports: whose each was, since when it is one, and until when it is kept.

    CAPACITY is what the claim had asked for, not what the files take. An archive without a record, as another
    provisioner leaves them, is kept for ever, and no claim can have it back by itself. `restore` gives one to a claim.
    Takes the flags and the environment of `run`: put `archives` in its place.

    The standard error says which exports were looked at. Exit status 0 when all were, also when there is no archive; 1
    when an export or the API server does not answer; 2 when there is no export to look at, and for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner archives --namespace shop
    """
    found, scope = asyncio.run(_look(options.settings(**given)))
    chosen = in_order(each for each in found if namespace in (None, each.namespace))
    none = "no archives" if not namespace else f"no archives of namespace {namespace} ({len(found)} of others)"
    return listings.tell(chosen, scope, output=output, show=_show, none=none)


async def _look(settings: Settings) -> tuple[list[ArchiveRow], Scope]:
    """All archives, and what was looked at. Raises ClusterError, InvalidSettings."""
    from provisioner.commands.session import surveyed, unseen

    found: list[ArchiveRow] = []
    missed: list[Unseen] = []
    async with surveyed(settings) as survey:
        for export in survey.exports:
            try:
                names = await export.archives()
            except ExportError as exc:
                missed.append(unseen(export, exc))
                continue
            found += [
                listed(name, export.archived.get(name), export=export.name, cluster=survey.cluster_id)
                for name in names
            ]  # fmt: skip
        return found, survey.scope.but(missed)


def _show(chosen: Sequence[ArchiveRow]) -> None:
    from provisioner.cli import tables

    now = datetime.now(UTC)
    rows: list[list[tables.Cell]] = [
        [
            each.archive,
            _claim(each),
            each.storage_class or "-",
            each.capacity or "-",
            age(each.archived, now) or "-",
            each.kept_until or "for ever",
            each.export,
        ]
        for each in chosen
    ]
    tables.show(_COLUMNS, rows)


def _claim(each: ArchiveRow) -> tuple[str, str]:
    claim = f"{each.namespace}/{each.claim}" if each.volume else "-"
    return (f"{claim} ({each.why_not})", "yellow") if each.why_not else (claim, "")
