"""Records that fell behind: settled when the volume exists, ended when volume and directory are gone."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import identity
from provisioner.core.ledgers import Ledger
from provisioner.core.objects import Volume
from provisioner.core.places import Places
from provisioner.core.recovery import Place
from provisioner.ledger.export import Export


def ledger_of(export: Export, places: Places) -> Ledger:
    """What an export's ledger has, as far as it has been read."""
    return Ledger(
        place=Place(
            name=export.name,
            location=export.location,
            id=export.id,
            locations=places.same(export.location),
            folds=export.folds,
        ),
        records=export.records,
        pending=export.pending,
        unreadable=export.unreadable,
        foreign=export.foreign,
    )


async def settle_record(ctx: ControllerContext, export: Export, volume: Volume) -> bool:
    """Settle the pending record of a volume that was read live; False where the volume is not the record's."""
    record, nfs = export.records.get(volume.name), volume.spec.nfs
    if record is None or nfs is None or record.cluster != ctx.cluster_id:
        return False
    if ctx.exports.places.relative(export.location, nfs.server, nfs.path) != record.path:
        return False
    if volume.name in export.pending:
        await export.settle(volume.name, identity.settled_uid(record, volume))
    return True


async def end_record(ctx: ControllerContext, export: Export, volume: str) -> bool:
    """Remove a settled record when its volume and its directory are both gone, read live; whether it has ended.

    A record of another cluster's, or one of which anything is still there, is left alone.
    """
    record = export.records.get(volume)
    if record is None:
        return True
    if record.cluster != ctx.cluster_id or volume in export.pending:
        return False
    if await ctx.cluster.get_volume(volume) is not None:
        return False
    if not await export.directory_missing(volume) or not ctx.guard.allows(export):
        return False
    await export.forget(volume)
    return True
