"""The work of `snapshots`: reads the complete snapshots of all exports."""

from __future__ import annotations

from provisioner.commands.session import open_session
from provisioner.core.scope import Scope
from provisioner.core.snapshots import SnapshotRow, listed
from provisioner.settings import Settings


async def list_snapshots(settings: Settings) -> tuple[list[SnapshotRow], Scope]:
    """Return all snapshots, and what was looked at. Raises ClusterError, InvalidSettings."""
    async with open_session(settings) as session:
        found = [
            listed(
                handle,
                record,
                export=export.name,
                cluster=session.cluster_id,
                deleted=export.snapshots.deleted.get(handle, ""),
            )
            for export in session.exports
            for handle, record in export.snapshots.complete.items()
        ]
        return found, session.scope
