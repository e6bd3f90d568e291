"""The work of `archives`: reads the archives of all exports."""

from __future__ import annotations

from provisioner.commands.session import open_session, unseen
from provisioner.core.archives import ArchiveRow, listed
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings


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
