"""`nfs-provisioner orphans`: what belongs to no volume, and what a volume lacks; and what to do about each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli import listings, options
from provisioner.core import lacking
from provisioner.core.listing import age
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import Orphan, find
from provisioner.core.orphans import known as paths_of_volumes
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

if TYPE_CHECKING:
    from provisioner.commands.session import Survey
    from provisioner.controllers.orphan_facts import Known

_COLUMNS = ("KIND", "EXPORT", "DIRECTORY", "VOLUME", "CLAIM", "AGE", "WHY", "WHAT TO DO")
_STRAYS_LIMIT = 10_000


@click.command()
@options.taking(options.output(), options.as_run())
def orphans(*, output: str, log_format: str | None, log_level: str, **given: Any) -> int:
    """List what lies on the exports and belongs to no volume, and what to do about it. Nothing is touched.

    Lists besides the volumes that a claim has, and whose directory or record in the ledger is missing.

    Compares the ledger and the directories of each export, those that our StorageClasses name too, with the volumes and
    claims that the API server has. Takes the flags and the environment of `run`: put `orphans` in its place.

    The standard error says which exports were looked at. Exit status 0 when all were, also when there are orphans; 1
    when an export or the API server does not answer; 2 when there is no export to look at, and for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner orphans
    """
    found, scope = asyncio.run(_look(options.settings(**given)))
    return listings.tell(found, scope, output=output, show=_show, none="no orphans")


async def _look(settings: Settings) -> tuple[list[Orphan], Scope]:
    """All orphans, and what was looked at. Raises ClusterError, InvalidSettings."""
    from provisioner.commands.session import surveyed, unseen
    from provisioner.controllers.missing_data import find as find_lacking
    from provisioner.controllers.orphan_facts import find_unknown_directories, gather

    found: list[Orphan] = []
    missed: list[Unseen] = []
    async with surveyed(settings) as survey:
        known = await _known(survey)
        for export in survey.exports:
            try:
                unknown_directories = await find_unknown_directories(export, known, survey.served, limit=_STRAYS_LIMIT)
                found += find(
                    await gather(export, known, now=datetime.now(UTC), unknown_directories=unknown_directories)
                )
                lacks = await find_lacking(
                    export,
                    known.volumes.values(),
                    survey.served,
                    settings.provisioner,
                    live=survey.cluster.get_volume,
                )
                found += lacking.listed(export.name, lacks)
            except ExportError as exc:
                missed.append(unseen(export, exc))
    return found, survey.scope.but(missed)


async def _known(survey: Survey) -> Known:
    """The cluster, read after the ledgers: a volume that is made or goes meanwhile is in neither, or in both."""
    from provisioner.controllers.orphan_facts import Known
    from provisioner.kube.pages import everything

    volumes, claims = await everything(survey.cluster, Volume), await everything(survey.cluster, Claim)
    same = survey.served.places.same
    paths = {
        export.location: paths_of_volumes(same(export.location), (), volumes, (), folds=export.folds)
        for export in survey.exports
    }
    return Known(
        cluster=survey.cluster_id,
        volumes={volume.name: volume for volume in volumes},
        waiting={claim.uid for claim in claims if claim.status.phase == "Pending"},
        holder=lambda location, path: paths[location].touching(path),
    )


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
