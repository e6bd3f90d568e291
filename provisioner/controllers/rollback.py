"""Finish or undo unfinished attempts at provisioning.

An attempt is settled if its volume exists, and undone if its claim no longer needs one.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.instances import is_unsettled
from provisioner.controllers.record_upkeep import settle_record
from provisioner.core import names
from provisioner.core.claims import Provision, is_unfinished
from provisioner.core.errors import ProvisionerError
from provisioner.ledger.export import Export
from provisioner.ports.cluster import Conflict, NotFound
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, Requeue

log = structlog.get_logger(__name__)


class Rollback:
    """Finishes or undoes attempts at provisioning."""

    def __init__(self, ctx: ControllerContext, *, freed: Callable[[], None]) -> None:
        """`freed` is called when a directory is no longer in use."""
        self._ctx = ctx
        self._freed = freed

    async def finish(self, volume_name: str) -> Requeue | None:
        """Finish an earlier attempt of a claim that needs no volume: it has one, or it is gone."""
        requeue = None
        for export in self._ctx.exports:
            if volume_name in export.pending and export.records[volume_name].cluster == self._ctx.cluster_id:
                try:
                    requeue = await self._finish_on(volume_name, export)
                except ProvisionerError as exc:
                    if not is_unsettled(exc):
                        log.warning("attempt_not_finished", volume=volume_name, error=str(exc))
                    return FAILED
                if requeue is None:
                    return None
        return requeue

    async def _finish_on(self, volume_name: str, export: Export) -> Requeue | None:
        export = await self._ctx.health.require_ready(export)
        record = export.records.get(volume_name)
        if record is None:
            return None  # the attempt has ended since
        cluster = self._ctx.cluster
        # Volume and claim are read live: the cache may lag behind what this or another replica has just created.
        volume = await cluster.get_volume(volume_name)
        if volume is not None:
            if await settle_record(self._ctx, export, volume):
                return None
            # The volume is not the record's, but may use the directory by another name of the server. So nothing is
            # undone while there is a volume of this name.
            await export.refresh_record(volume_name)
            return AWAITING_CHANGE if volume_name in export.pending else None
        claim = await cluster.get_claim(record.namespace, record.claim)
        if claim is not None and claim.uid == record.claim_uid and is_unfinished(claim):
            return AWAITING_CHANGE  # still to be provisioned: the next attempt will continue with the record
        await self._ctx.guard.require(export)
        if await export.undo(volume_name):
            log.info("attempt_undone", volume=volume_name, directory=record.directory)
            self._freed()
            return None
        log.warning("attempt_left", volume=volume_name, directory=record.directory, why="the directory is not empty")
        if claim is not None:
            message = (
                f"directory {record.directory!r} of an abandoned attempt is not empty and was kept on {export.name}"
            )
            self._ctx.recorder.claim(claim, "Warning", names.PROVISIONING_CLEANUP_FAILED, message)
        return None

    async def withdraw(self, plan: Provision, export: Export) -> Requeue | None:
        """Remove a volume whose claim was deleted while the volume was created.

        No pod has used it. The record is still pending, so that a crash in here leaves the rest to the next start.
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
            # Volume first. If the binder was faster, the volume's resourceVersion has changed: the deletion is refused,
            # and the volume goes by its own reclaim later.
            await cluster.delete_volume(volume)
            if not await export.undo(plan.volume):
                await settle_record(self._ctx, export, volume)
                return None
            await cluster.set_finalizer(volume, names.FINALIZER, present=False)
        except Conflict:
            return await self.withdraw(plan, export)
        except NotFound:
            pass
        log.info(
            "volume_withdrawn",
            claim=plan.claim.key,
            volume=plan.volume,
            export=export.name,
            directory=plan.record.directory,
            **{"class": plan.claim.class_name},
        )
        return None
