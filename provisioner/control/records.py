"""The end of a record whose volume is gone: a reclaim's last step, when it could not be taken at its time."""

from __future__ import annotations

from provisioner.control.surroundings import Surroundings
from provisioner.ports import Export


async def end_record(around: Surroundings, export: Export, volume: str) -> bool:
    """Remove a settled record when its volume and its directory are both gone, read live; whether it has ended.

    A record of another cluster's, or one of which anything is still there, is left alone.
    """
    record = export.records.get(volume)
    if record is None:
        return True
    if record.cluster != around.cluster_id or volume in export.pending:
        return False
    if await around.cluster.get_volume(volume) is not None:
        return False
    if not await export.is_gone(volume):
        return False
    await export.forget(volume)
    return True
