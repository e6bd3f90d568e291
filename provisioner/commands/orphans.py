"""The work of `orphans`: compares all exports with the cluster."""

from __future__ import annotations

from datetime import UTC, datetime

from provisioner.commands.session import Session, list_all, open_session, unseen
from provisioner.controllers.missing_data import find as find_lacking
from provisioner.controllers.orphan_facts import Known, find_unknown_directories, gather
from provisioner.core import lacking
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import Orphan, find
from provisioner.core.orphans import known as paths_of_volumes
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_UNKNOWN_DIRECTORIES_LIMIT = 10_000


async def find_orphans(settings: Settings) -> tuple[list[Orphan], Scope]:
    """Return all orphans, and what was looked at. Raises ClusterError, InvalidSettings."""
    found: list[Orphan] = []
    missed: list[Unseen] = []
    async with open_session(settings) as session:
        known = await _known(session)
        for export in session.exports:
            try:
                unknown_directories = await find_unknown_directories(
                    export, known, session.registry, limit=_UNKNOWN_DIRECTORIES_LIMIT
                )
                found += find(
                    await gather(export, known, now=datetime.now(UTC), unknown_directories=unknown_directories)
                )
                lacks = await find_lacking(
                    export,
                    known.volumes.values(),
                    session.registry,
                    settings.provisioner,
                    live=session.cluster.get_volume,
                )
                found += lacking.listed(export.name, lacks)
            except ExportError as exc:
                missed.append(unseen(export, exc))
    return found, session.scope.but(missed)


async def _known(session: Session) -> Known:
    """Read the cluster, after the ledgers.

    In this order, a volume that is created or deleted during the command is in neither of them, or in both.
    """
    volumes, claims = await list_all(session.cluster, Volume), await list_all(session.cluster, Claim)
    same = session.registry.places.same
    paths = {
        export.location: paths_of_volumes(same(export.location), (), volumes, (), folds=export.folds)
        for export in session.exports
    }
    return Known(
        cluster=session.cluster_id,
        volumes={volume.name: volume for volume in volumes},
        waiting={claim.uid for claim in claims if claim.status.phase == "Pending"},
        holder=lambda location, path: paths[location].touching(path),
    )
