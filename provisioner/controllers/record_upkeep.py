"""Settles records whose volume exists, and ends those whose volume and directory are gone."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import identity
from provisioner.core.objects import Volume
from provisioner.ledger.export import Export


async def settle_record(ctx: ControllerContext, export: Export, volume: Volume) -> bool:
    """Settle the pending record of a volume that was read live.

    Returns False if the record is not for it.
    """
    record, nfs = export.records.get(volume.name), volume.spec.nfs
    if record is None or nfs is None or record.cluster != ctx.cluster_id:
        return False
    if ctx.exports.places.relative(export.location, nfs.server, nfs.path) != record.path:
        return False
    if volume.name in export.pending:
        await export.settle(volume.name, identity.settled_uid(record, volume))
    return True


async def end_record(ctx: ControllerContext, export: Export, volume_name: str) -> bool:
    """Remove a settled record if its volume and its directory, both read live, are gone.

    Returns whether it is gone. Records of other clusters are left alone.
    """
    record = export.records.get(volume_name)
    if record is None:
        return True
    if record.cluster != ctx.cluster_id or volume_name in export.pending:
        return False
    if await ctx.cluster.get_volume(volume_name) is not None:
        return False
    if not await export.directory_missing(volume_name) or not ctx.guard.allows(export):
        return False
    await export.forget(volume_name)
    return True
