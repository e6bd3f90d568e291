"""Rebinding: the record of a volume follows the claim that the volume is bound to.

Populators, data movers, tools that rename claims, and admins who reuse a retained volume bind a volume to another
claim. The volume's reclaim rule, archive and recovery belong to that claim from then on, as core.identity decides. The
change is one step on the export.
"""

from __future__ import annotations

import asyncio

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import identity, ledgers, names
from provisioner.core.errors import InvalidRecord
from provisioner.core.identity import Binding, Wait
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.records import Record
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ledger_of
from provisioner.ports.cluster import Forbidden
from provisioner.ports.tree import ExportError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.requeue import AWAITING_CHANGE, REFUSED, Requeue

log = structlog.get_logger(__name__)


class Rebinding:
    """Keeps records in step with bindings.

    Remembers the bindings that a record still has to follow.
    """

    def __init__(self, ctx: ControllerContext, share: FairShare) -> None:
        self._ctx = ctx
        self._share = share
        self._seen: dict[str, tuple[str, ClaimRef]] = {}
        """By volume name, the uid of the volume and the claim that it was bound to, both by the cache."""

    def is_behind(self, volume: Volume) -> bool:
        """Whether a Bound volume and its record disagree, both as they are in memory."""
        if volume.status.phase != "Bound" or not volume.is_by(self._ctx.provisioner):
            return False
        located = self._ctx.exports.locate(volume)
        if located is None:
            return False
        export, path = located
        record = export.records.get(volume.name)
        if record is None:
            return bool(export.id) and volume.is_marked  # a command may have written one since the ledger was read
        edited = (volume.is_marked or not record.peer) and ledgers.is_edited(volume, path, export.id, gid=record.gid)
        return edited or not identity.agrees(record, volume)

    def note(self, volume: Volume) -> None:
        """Remember that a volume and its claim name each other.

        The claim may be deleted before the record follows.
        """
        reference = volume.spec.claim_ref
        if not self.is_behind(volume) or reference is None:
            return
        claim = self._ctx.cache.claims.get(reference.uid)
        if claim is not None and claim.spec.volume_name == volume.name:
            self._seen[volume.name] = volume.metadata.uid, reference

    def forget(self, volume_name: str) -> None:
        """Forget a volume that is gone."""
        self._seen.pop(volume_name, None)

    async def follow(self, cached: Volume) -> Requeue | None:
        """Let the record of a Bound volume follow its claim. Raises ClusterError."""
        located = self._ctx.exports.locate(cached)
        if located is None or not self.is_behind(cached):
            return None
        export, path = located
        if cached.name in export.pending:
            return AWAITING_CHANGE  # the claim controller settles it first
        try:
            with self._share.slot(export.name, cached.name):
                export = await self._ctx.health.require_ready(export)
                # Read the namespace before the claim: if the claim exists afterwards, this is the namespace it lies in.
                namespace_uid = await self._namespace_uid(cached)
                volume, claim = await self.live(cached)
                if volume is None or volume.spec.claim_ref != cached.spec.claim_ref:
                    return None  # the watch will deliver the change
                return await self._follow(volume, claim, export, path, namespace_uid=namespace_uid)
        except ExportError as exc:
            log.debug("record_not_followed", volume=cached.name, error=str(exc))
            return None  # the volume is queued again when the export is ready
        except InvalidRecord as exc:  # the names of its present claim are too long for a record
            log.warning("record_not_followed", volume=cached.name, error=str(exc))
            return REFUSED

    async def catch_up(self, volume: Volume, claim: Claim | None, export: Export, path: RelPath) -> Requeue | None:
        """Let the record of a released volume follow the claim that it was seen bound to.

        The volume must have been read live. Returns a Requeue if the claim in the record still exists. Raises
        ClusterError, ExportError.
        """
        if self._seen.get(volume.name) != (volume.metadata.uid, volume.spec.claim_ref):
            return None
        return await self._follow(volume, claim, export, path, was_bound=True)

    async def _namespace_uid(self, volume: Volume) -> str:
        """The uid of the namespace in a volume's claimRef; empty if it cannot be read.

        Raises ClusterError.
        """
        reference = volume.spec.claim_ref
        try:
            found = await self._ctx.cluster.get_namespace(reference.namespace) if reference is not None else None
        except Forbidden:
            return ""
        return found.metadata.uid if found is not None else ""

    async def live(self, cached: Volume) -> tuple[Volume | None, Claim | None]:
        """Read a volume, and the claim with the name in its claimRef, live. Raises ClusterError."""
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
            self._report(volume, export, record, follows)
        self._warn_of_disagreement(volume, export, path)
        return None

    def _warn_of_disagreement(self, volume: Volume, export: Export, path: RelPath) -> None:
        """Record an event if a volume and its record disagree because one of them was edited."""
        ctx = self._ctx
        own = ledgers.Installation(provisioner=ctx.provisioner, cluster=ctx.cluster_id)
        wrong = ledgers.disagreement(volume, path, ledger_of(export, ctx.exports.places), own)
        if wrong:
            ctx.recorder.volume(volume, "Warning", names.VOLUME_DISAGREES, wrong)

    def _report(self, volume: Volume, export: Export, record: Record, follows: Record) -> None:
        former, now = f"{record.namespace}/{record.claim}", f"{follows.namespace}/{follows.claim}"
        if record.claim_uid in ("", follows.claim_uid):
            log.debug("record_follows", volume=volume.name, export=export.name, claim=now)
            return
        log.info("record_follows", volume=volume.name, export=export.name, claim=now, former=former)
        message = f"directory {record.directory!r}, created for claim {former}, now belongs to claim {now}"
        self._ctx.recorder.volume(volume, "Normal", names.VOLUME_REBOUND, message)
