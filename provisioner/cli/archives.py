"""`nfs-provisioner archives`: which archives there are, whose they were, and how long each is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from provisioner.cli import listings, options
from provisioner.core.archives import Listed, in_order, listed
from provisioner.core.listing import age
from provisioner.ports import ClusterError, ExportError
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

    Exit status 0 also when there is none, 1 when an export or the API server does not tell, 2 for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner archives --namespace shop
    """
    settings = options.settings(**given)
    try:
        found, unseen = asyncio.run(_look(settings))
    except ClusterError as exc:
        click.echo(f"nfs-provisioner: {exc}", err=True)
        return 1
    chosen = in_order(each for each in found if namespace in (None, each.namespace))
    none = f"no archives{f' of namespace {namespace}' if namespace else ''}"
    return listings.tell(chosen, unseen, output=output, show=_show, none=none)


async def _look(settings: Settings) -> tuple[list[Listed], Mapping[str, ExportError]]:
    """All archives, and the exports that do not tell. Raises ClusterError, InvalidSettings."""
    from provisioner.survey import surveyed

    found: list[Listed] = []
    async with surveyed(settings) as survey:
        unseen = dict(survey.unseen)
        for export in survey.exports:
            try:
                names = await export.archives()
            except ExportError as exc:
                unseen[export.name] = exc
                continue
            found += [
                listed(name, export.archived.get(name), export=export.name, cluster=survey.cluster_id)
                for name in names
            ]  # fmt: skip
        return found, unseen


def _show(chosen: Sequence[Listed]) -> None:
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


def _claim(each: Listed) -> tuple[str, str]:
    claim = f"{each.namespace}/{each.claim}" if each.volume else "-"
    return (f"{claim} ({each.why_not})", "yellow") if each.why_not else (claim, "")
