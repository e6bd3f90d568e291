"""`nfs-provisioner orphans`: what lies on the exports and belongs to no volume, and what to do about each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from provisioner.cli import listings, options
from provisioner.core.listing import age
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import Evidence, Orphan, doubtful, find, known
from provisioner.ports import ClusterError, Export, ExportError, Exports
from provisioner.settings import Settings

_COLUMNS = ("KIND", "EXPORT", "DIRECTORY", "VOLUME", "CLAIM", "AGE", "WHY", "WHAT TO DO")
_STRAYS_LIMIT = 10_000


@click.command()
@options.taking(options.output(), options.as_run())
def orphans(*, output: str, log_format: str | None, log_level: str, **given: Any) -> int:
    """List what lies on the exports and belongs to no volume, and what to do about it. Nothing is touched.

    Compares the ledger and the directories of each export, those that our StorageClasses name too, with the volumes and
    claims that the API server has. Takes the flags and the environment of `run`: put `orphans` in its place.

    Exit status 0 when it could look everywhere, also when there are orphans, 1 when an export or the API server does
    not tell, 2 for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner orphans
    """
    settings = options.settings(**given)
    try:
        found, unseen = asyncio.run(_look(settings))
    except ClusterError as exc:
        click.echo(f"nfs-provisioner: {exc}", err=True)
        return 1
    return listings.tell(found, unseen, output=output, show=_show, none="no orphans")


async def _look(settings: Settings) -> tuple[list[Orphan], Mapping[str, ExportError]]:
    """All orphans, and the exports that do not tell. Raises ClusterError, InvalidSettings."""
    from provisioner.kube.pages import everything
    from provisioner.survey import surveyed

    found: list[Orphan] = []
    async with surveyed(settings) as survey:
        # After the ledgers were read: a volume that is made or goes meanwhile is in neither, or in both.
        volumes, claims = await everything(survey.cluster, Volume), await everything(survey.cluster, Claim)
        unseen = dict(survey.unseen)
        for export in survey.exports:
            try:
                found += await _look_at(export, survey.cluster_id, volumes, claims, survey.served)
            except ExportError as exc:
                unseen[export.name] = exc
    return found, unseen


async def _look_at(
    export: Export, cluster: str, volumes: Sequence[Volume], claims: Sequence[Claim], exports: Exports
) -> list[Orphan]:
    names = {volume.name for volume in volumes}
    waiting = {claim.uid for claim in claims if claim.status.phase == "Pending"}
    doubts = doubtful(export.records, export.pending, cluster=cluster, volumes=names, waiting=waiting)
    paths = known(export.location, (), volumes, ())
    everybodys = known(export.location, export.records.values(), volumes, (other.location for other in exports))
    return find(
        Evidence(
            export=export.name,
            cluster=cluster,
            records=export.records,
            pending=export.pending,
            unreadable=export.unreadable,
            signs=await export.clusters(),
            now=datetime.now(UTC),
            volumes=names,
            holder=paths.touching,
            left={volume for volume in doubts if await _is_left(export, volume)},
            strays=await export.strays(everybodys, limit=_STRAYS_LIMIT),
        )
    )


async def _is_left(export: Export, volume: str) -> bool:
    return await export.is_left(volume) if volume in export.pending else not await export.is_gone(volume)


def _show(found: Sequence[Orphan]) -> None:
    from provisioner.cli import tables

    now = datetime.now(UTC)
    rows = [
        [
            each.kind,
            each.export,
            each.directory or "-",
            each.volume or "-",
            each.claim or "-",
            age(each.since, now) or "-",
            each.why,
            each.advice,
        ]
        for each in found
    ]
    tables.show(_COLUMNS, rows)
