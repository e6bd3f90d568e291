"""The work of `archives`: reads the archives of all exports, and deletes one that an admin names."""

from __future__ import annotations

from datetime import UTC, datetime

from provisioner.commands.session import Session, list_all, open_session, unseen
from provisioner.core import instances, records, times
from provisioner.core.archives import ArchiveRow, listed
from provisioner.core.errors import ProvisionerError
from provisioner.core.objects import Claim, Volume
from provisioner.core.removal import ArchiveFacts, why_not_delete
from provisioner.core.scope import Scope, Unseen
from provisioner.ledger.export import Export
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings


class NotDeleted(ProvisionerError):
    """The archive stays; the text says why."""


async def list_archives(settings: Settings) -> tuple[list[ArchiveRow], Scope]:
    """Return all archives, and what was looked at. Raises ClusterError, InvalidSettings."""
    found: list[ArchiveRow] = []
    missed: list[Unseen] = []
    async with open_session(settings) as session:
        for export in session.exports:
            try:
                archives = await export.archives()
            except ExportError as exc:
                missed.append(unseen(export, exc))
                continue
            found += [
                listed(name, export.archived.get(name), export=export.name, cluster=session.cluster_id)
                for name in archives
            ]
    return found, session.scope.but(missed)


async def delete_archive(settings: Settings, archive: str, *, apply: bool) -> ArchiveRow:
    """Move one archive into the trash, where the daemon removes it; without `apply`, only check that this is possible.

    Raises NotDeleted, ClusterError, ExportError, InvalidSettings.
    """
    async with open_session(settings) as session:
        export = await _holding(session, archive)
        record = export.archived.get(archive)
        refusal = why_not_delete(
            ArchiveFacts(
                archive=archive,
                record=record,
                cluster=session.cluster_id,
                stopped=await is_stopped(session, export, settings.provisioner),
                locations=session.registry.places.same(export.location),
                folds=export.folds,
                volumes=await list_all(session.cluster, Volume),
                claims=await list_all(session.cluster, Claim),
            )
        )
        if refusal:
            raise NotDeleted(f"archive {archive} on export {export.name} stays: {refusal}")
        if apply:
            await _delete(export, archive, session.cluster_id)
        return listed(archive, record, export=export.name, cluster=session.cluster_id)


async def is_stopped(session: Session, export: Export, provisioner: str) -> bool:
    """Return True if two instances with this cluster's id were at work on an export. Raises ExportError."""
    name = instances.name(session.cluster_id, provisioner)
    return instances.parse(await export.heartbeats.instance(name)).state == "twice"


async def _holding(session: Session, archive: str) -> Export:
    """Return the export that has an archive. Raises NotDeleted, ExportError."""
    found = [export for export in session.exports if archive in await export.archives()]
    if len(found) > 1:
        raise NotDeleted(f"archive {archive} exists on {' and '.join(export.name for export in found)}")
    if not found:
        skipped = "".join(f"; skipped {each}" for each in session.scope.unseen)
        raise NotDeleted(f"there is no archive {archive}: `nfs-provisioner archives` lists all archives{skipped}")
    return found[0]


async def _delete(export: Export, archive: str, cluster: str) -> None:
    now = datetime.now(UTC)
    if archive not in export.archived:
        at = times.text(now)
        await export.enter_archive(archive, records.unowned(archive, at, records.no_owner(archive, at, cluster)))
    if not await export.expire(archive, now):
        raise NotDeleted(
            f"archive {archive} on export {export.name} stays: a claim or a volume needs it, or its record has just"
            " changed: run the command again to see the new state"
        )
