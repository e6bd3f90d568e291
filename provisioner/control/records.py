"""The end of a record whose volume is gone: a reclaim's last step, when it could not be taken at its time."""

from __future__ import annotations

from provisioner.control.surroundings import Surroundings
from provisioner.core.records import Record
from provisioner.ports import Export


async def end_record(around: Surroundings, export: Export, volume: str) -> bool:
    """Remove a settled record when its volume and its directory are both gone, read live; whether it has ended.

    Where its rule keeps the directory and the claim is gone too, the record notes that. A record of another cluster's,
    or one of which anything is still there that no rule keeps, is left alone.
    """
    record = export.records.get(volume)
    if record is None:
        return True
    if record.cluster != around.cluster_id or volume in export.pending:
        return False
    if await around.cluster.get_volume(volume) is not None:
        return False
    if await export.is_gone(volume):
        await export.forget(volume)
        return True
    if record.on_delete == "retain" and not record.retained and await _is_claim_gone(around, record):
        await export.retain(volume, around.clock.now())
    return False


async def _is_claim_gone(around: Surroundings, record: Record) -> bool:
    """Whether the claim that the volume was made for is gone; else its volume may be made anew for it.

    A record without a claim's uid may be a recovery that was cut off: the volume is still to come.
    """
    claim = await around.cluster.get_claim(record.namespace, record.claim)
    return bool(record.claim_uid) and (claim is None or claim.uid != record.claim_uid)
