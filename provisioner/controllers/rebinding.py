"""Bindings: the record of a volume follows what Kubernetes binds the volume to, as core.identity decides.

Populators, data movers, tools that rename claims, and admins who use a retained volume again bind a volume to another
claim. The volume's rule, its archive and its recovery belong to that claim then. The change is one step on the export.
"""

from __future__ import annotations

import asyncio

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.stale_records import ledger_of
from provisioner.core import identity, ledgers, names
from provisioner.core.errors import InvalidRecord
from provisioner.core.identity import Binding, Wait
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.records import Record
from provisioner.ledger.export import Export
from provisioner.ports.cluster import Forbidden
from provisioner.ports.tree import ExportError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.requeue import AWAITING_CHANGE, REFUSED, Requeue

log = structlog.get_logger(__name__)


class Rebinding:
    """Keeps records in step with bindings, and in mind which binding each volume was seen in that is still behind."""

    def __init__(self, ctx: ControllerContext, share: FairShare) -> None:
        self._ctx = ctx
        self._share = share
        self._seen: dict[str, tuple[str, ClaimRef]] = {}
        """By name, the uid of a volume and the claim that had it, both by the cache."""

    def is_behind(self, volume: Volume) -> bool:
        """Whether a Bound volume and its record, by what is in memory, do not agree."""
        if volume.status.phase != "Bound" or not volume.is_by(self._ctx.provisioner):
            return False
        located = self._ctx.exports.locate(volume)
        if located is None:
            return False
        export, path = located
        record = export.records.get(volume.name)
        if record is None:
            return bool(export.id) and volume.is_marked  # a command may have written one since the ledger was read
        edited = (volume.is_marked or not record.peer) and ledgers.is_edited(volume, path, export.id)
        return edited or not identity.agrees(record, volume)

    def note(self, volume: Volume) -> None:
        """Keep in mind that a volume and its claim name each other: the claim may go before the record has followed."""
        reference = volume.spec.claim_ref
        if not self.is_behind(volume) or reference is None:
            return
        claim = self._ctx.cache.claims.get(reference.uid)
        if claim is not None and claim.spec.volume_name == volume.name:
            self._seen[volume.name] = volume.metadata.uid, reference

    def forget(self, volume: str) -> None:
        """The volume is gone."""
        self._seen.pop(volume, None)

    async def follow(self, cached: Volume) -> Requeue | None:
        """Let the record of a Bound volume follow. Raises ClusterError."""
        located = self._ctx.exports.locate(cached)
        if located is None or not self.is_behind(cached):
            return None
        export, path = located
        if cached.name in export.pending:
            return AWAITING_CHANGE  # it is settled first
        try:
            with self._share.slot(export.name, cached.name):
                export = await self._ctx.health.require_ready(export)
                # Before the claim: as long as that is there, the namespace is the one that it lies in.
                namespace_uid = await self._namespace_uid(cached)
                volume, claim = await self.live(cached)
                if volume is None or volume.spec.claim_ref != cached.spec.claim_ref:
                    return None  # the watch brings what it is now
                return await self._follow(volume, claim, export, path, namespace_uid=namespace_uid)
        except ExportError as exc:
            log.debug("record_not_followed", volume=cached.name, error=str(exc))
            return None  # the export will be said to be ready
        except InvalidRecord as exc:  # the names of the claim that has it now are too long
            log.warning("record_not_followed", volume=cached.name, error=str(exc))
            return REFUSED

    async def catch_up(self, volume: Volume, claim: Claim | None, export: Export, path: RelPath) -> Requeue | None:
        """Let the record of a released volume, read live, follow the claim that it was seen bound to.

        Returns how to try again where the claim in the record is still there. Raises ClusterError, ExportError.
        """
        if self._seen.get(volume.name) != (volume.metadata.uid, volume.spec.claim_ref):
            return None
        return await self._follow(volume, claim, export, path, was_bound=True)

    async def _namespace_uid(self, volume: Volume) -> str:
        """The uid of the namespace in a volume's claimRef; empty where we may not read it. Raises ClusterError."""
        reference = volume.spec.claim_ref
        try:
            found = await self._ctx.cluster.get_namespace(reference.namespace) if reference is not None else None
        except Forbidden:
            return ""
        return found.metadata.uid if found is not None else ""

    async def live(self, cached: Volume) -> tuple[Volume | None, Claim | None]:
        """A volume, and the claim that has the name in its claimRef, as they are now. Raises ClusterError."""
        cluster, reference = self._ctx.cluster, cached.spec.claim_ref
        if reference is None:
            return await cluster.get_volume(cached.name), None
        return await asyncio.gather(
            cluster.get_volume(cached.name), cluster.get_claim(reference.namespace, reference.name)
        )

    async def _follow(
        self,
        volume: Volume,
        claim: Claim | None,
        export: Export,
        path: RelPath,
        *,
        was_bound: bool = False,
        namespace_uid: str = "",
    ) -> Requeue | None:
        record = await export.refresh_record(volume.name)
        if record is None:
            return None
        recorded = await self._ctx.cluster.get_claim(record.namespace, record.claim)
        binding = Binding(
            volume=volume,
            claim=claim,
            was_bound=was_bound,
            recorded=recorded,
            export_id=export.id,
            path=path,
            record=record,
            cluster=self._ctx.cluster_id,
            namespace_uid=namespace_uid,
        )
        follows = identity.followed(binding)
        if isinstance(follows, Wait):
            return AWAITING_CHANGE
        if follows is not None and follows != record:
            await export.replace_record(volume.name, follows)
            self._tell(volume, export, record, follows)
        self._warn(volume, export, path)
        return None

    def _warn(self, volume: Volume, export: Export, path: RelPath) -> None:
        """Say what somebody has changed on a volume, or on its record, so that the two do not agree."""
        ctx = self._ctx
        us = ledgers.Us(provisioner=ctx.provisioner, cluster=ctx.cluster_id)
        wrong = ledgers.disagreement(volume, path, ledger_of(export, ctx.exports.places), us)
        if wrong:
            ctx.recorder.volume(volume, "Warning", names.VOLUME_DISAGREES, wrong)

    def _tell(self, volume: Volume, export: Export, record: Record, follows: Record) -> None:
        former, now = f"{record.namespace}/{record.claim}", f"{follows.namespace}/{follows.claim}"
        if record.claim_uid in ("", follows.claim_uid):
            log.debug("record_follows", volume=volume.name, export=export.name, claim=now)
            return
        log.info("record_follows", volume=volume.name, export=export.name, claim=now, former=former)
        message = f"its directory {record.directory!r}, which was made for claim {former}, now belongs to claim {now}"
        self._ctx.recorder.volume(volume, "Normal", names.VOLUME_REBOUND, message)
