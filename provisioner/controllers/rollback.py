"""The end of attempts at provisioning: settled when the volume exists, undone when the claim needs none any more."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.instances import is_unsettled
from provisioner.controllers.stale_records import settle_record
from provisioner.core import names
from provisioner.core.claims import Provision, is_unfinished
from provisioner.core.errors import ProvisionerError
from provisioner.ledger.export import Export
from provisioner.ports.cluster import Conflict, NotFound
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, Requeue

log = structlog.get_logger(__name__)


class Rollback:
    """Ends what was begun for a claim. `freed` is told when a directory is nobody's any more."""

    def __init__(self, ctx: ControllerContext, *, freed: Callable[[], None]) -> None:
        self._ctx = ctx
        self._freed = freed

    async def finish(self, volume: str) -> Requeue | None:
        """End an earlier attempt for a claim that needs none any more: its volume exists, or it is gone."""
        again = None
        for export in self._ctx.exports:
            if volume in export.pending and export.records[volume].cluster == self._ctx.cluster_id:
                try:
                    again = await self._finish_on(volume, export)
                except ProvisionerError as exc:
                    if not is_unsettled(exc):
                        log.warning("attempt_not_finished", volume=volume, error=str(exc))
                    return FAILED
                if again is None:
                    return None
        return again

    async def _finish_on(self, volume: str, export: Export) -> Requeue | None:
        export = await self._ctx.health.require_ready(export)
        record = export.records.get(volume)
        if record is None:
            return None  # it has ended meanwhile
        cluster = self._ctx.cluster
        # Both are read live: the cache may lag behind what another replica, or we ourselves, have just made.
        made = await cluster.get_volume(volume)
        if made is not None:
            if await settle_record(self._ctx, export, made):
                return None
            # While there is a volume of this name, nothing is undone: it may lie here by another name of the server.
            await export.refresh_record(volume)
            return AWAITING_CHANGE if volume in export.pending else None
        claim = await cluster.get_claim(record.namespace, record.claim)
        if claim is not None and claim.uid == record.claim_uid and is_unfinished(claim):
            return AWAITING_CHANGE  # still to be provisioned: the claim's own way will meet the record
        await self._ctx.guard.require(export)
        if await export.undo(volume):
            log.info("attempt_undone", volume=volume, directory=record.directory)
            self._freed()
            return None
        log.warning("attempt_left", volume=volume, directory=record.directory, why="the directory is not empty")
        if claim is not None:
            message = f"directory {record.directory!r} of a given-up attempt is not empty and stays on {export.name}"
            self._ctx.recorder.claim(claim, "Warning", names.PROVISIONING_CLEANUP_FAILED, message)
        return None

    async def withdraw(self, plan: Provision, export: Export) -> Requeue | None:
        """The claim went while its volume was made: nobody has used it, so nothing of it stays.

        Volume first: when the binder was faster, its resourceVersion has changed, and all is left to the volume's own
        reclaim. The record is still pending, so that a crash in here leaves it for the next start.
        """
        cluster, meta = self._ctx.cluster, plan.claim.metadata
        now = await cluster.get_claim(meta.namespace, meta.name)
        volume = await cluster.get_volume(plan.volume)
        going = now is None or now.uid != meta.uid or now.metadata.deletion_timestamp is not None
        if volume is None:
            return await self.finish(plan.volume)
        if not going or volume.status.phase == "Bound":
            await settle_record(self._ctx, export, volume)
            return None
        await self._ctx.guard.require(export)
        try:
            await cluster.delete_volume(volume)
            if not await export.undo(plan.volume):
                await settle_record(self._ctx, export, volume)
                return None
            await cluster.set_finalizer(volume, names.FINALIZER, present=False)
        except Conflict:
            return await self.withdraw(plan, export)
        except NotFound:
            pass
        log.info("volume_withdrawn", claim=plan.claim.key, volume=plan.volume)
        return None
