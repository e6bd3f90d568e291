"""The work of `orphans`: compares all exports with the cluster, and archives an orphan that an admin names."""

from __future__ import annotations

from datetime import UTC, datetime

from provisioner.commands.archives import is_stopped
from provisioner.commands.session import Session, list_all, open_session, unseen
from provisioner.controllers.missing_data import find as find_lacking
from provisioner.controllers.orphan_facts import Known, find_unknown_directories, gather
from provisioner.core import lacking, records, removal, times
from provisioner.core.errors import ProvisionerError
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import Orphan, find
from provisioner.core.orphans import known as paths_of_volumes
from provisioner.core.scope import Scope, Unseen
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import ExportError, PathMissing
from provisioner.settings import Settings

_UNKNOWN_DIRECTORIES_LIMIT = 10_000


class NotArchived(ProvisionerError):
    """The orphan stays; the text says why."""


async def find_orphans(settings: Settings) -> tuple[list[Orphan], Scope]:
    """Return all orphans, and what was looked at. Raises ClusterError, InvalidSettings."""
    found: list[Orphan] = []
    missed: list[Unseen] = []
    async with open_session(settings) as session:
        known = await _known(session)
        for export in session.exports:
            try:
                found += await _orphans(export, known, session)
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


async def archive_orphan(settings: Settings, name: str, *, apply: bool) -> tuple[Orphan, str]:
    """Rename the directory of one orphan to an archive; without `apply`, only check that this is possible.

    `name` is its directory or its volume. Returns the orphan and the archive. Raises NotArchived, ClusterError,
    ExportError, InvalidSettings.
    """
    async with open_session(settings) as session:
        known = await _known(session)
        found = [
            (export, orphan)
            for export in session.exports
            for orphan in await _orphans(export, known, session)
            if name in (orphan.directory, orphan.volume)
        ]
        if len(found) != 1:
            raise NotArchived(_which(name, found, session))
        ((export, orphan),) = found
        namespace, _, claim = orphan.claim.partition("/")
        refusal = removal.why_not_archive(
            orphan,
            stopped=await is_stopped(session, export, settings.provisioner),
            claim=await session.cluster.get_claim(namespace, claim) if claim else None,
            claim_uid=export.records[orphan.volume].claim_uid if orphan.volume in export.records else "",
        )
        if refusal:
            raise NotArchived(f"{name} on export {export.name} stays: {refusal}")
        return orphan, await _archive(session, export, orphan) if apply else ""


def _which(name: str, found: list[tuple[Export, Orphan]], session: Session) -> str:
    """Return why a name does not lead to one orphan."""
    if found:
        return f"{name} is an orphan on {' and '.join(export.name for export, _ in found)}: move one on the server"
    skipped = "".join(f"; skipped {each}" for each in session.scope.unseen)
    return f"there is no orphan {name}: `nfs-provisioner orphans` lists all, with directory and volume{skipped}"


async def _archive(session: Session, export: Export, orphan: Orphan) -> str:
    """Rename the directory of an orphan to an archive, and end its record; return the archive's name."""
    now = datetime.now(UTC)
    try:
        if not orphan.volume:
            was = records.no_owner(orphan.directory, times.text(now), session.cluster_id)
            return await export.set_aside(was, now)
        if await session.cluster.get_volume(orphan.volume) is not None:
            raise NotArchived(f"volume {orphan.volume} exists again: run the command again to see the new state")
        archive = await export.archive(orphan.volume, now)
    except (PathTaken, PathMissing) as exc:
        raise NotArchived(f"directory {orphan.directory} stays: {exc}") from exc
    if archive is None:
        raise NotArchived(f"directory {orphan.directory} does not exist any more")
    await export.forget(orphan.volume)
    return archive


async def _orphans(export: Export, known: Known, session: Session) -> list[Orphan]:
    """Return the orphans of one export. Raises ExportError."""
    unknown = await find_unknown_directories(export, known, session.registry, limit=_UNKNOWN_DIRECTORIES_LIMIT)
    return find(await gather(export, known, now=datetime.now(UTC), unknown_directories=unknown))


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
