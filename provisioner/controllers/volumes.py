"""The volume controller: finalizers, and the reclaim of released volumes (core.volumes)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog

from provisioner.controllers.claims import ClaimController
from provisioner.controllers.clones import Clones
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.instances import is_unsettled
from provisioner.controllers.neighbours import neighbour
from provisioner.controllers.rebinding import Rebinding
from provisioner.controllers.record_upkeep import end_record, settle_record
from provisioner.controllers.sweep import Sweep
from provisioner.controllers.takeover import Takeover
from provisioner.core import names, volumes
from provisioner.core.errors import InvalidRecord, ProvisionerError
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, ClaimRef, NfsSource, Volume
from provisioner.core.records import OnDelete
from provisioner.core.volumes import Deny, Finalizer, Leave, Reclaim, ReclaimFacts
from provisioner.ledger.export import Export
from provisioner.ports.cluster import Conflict, NotFound
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, LOCKED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue

log = structlog.get_logger(__name__)


class VolumeController:
    """Reconciles volumes, by name; one worker per volume at a time."""

    def __init__(
        self,
        ctx: ControllerContext,
        queue: WorkQueue,
        share: FairShare,
        locks: VolumeLocks,
        *,
        claims: ClaimController,
        sweep: Sweep,
        takeover: Takeover,
        clones: Clones,
    ) -> None:
        self._ctx = ctx
        self._queue = queue
        self._share = share
        self._locks = locks
        self._claims = claims
        self._sweep = sweep
        self._takeover = takeover
        self._clones = clones
        self._rebinding = Rebinding(ctx, share)
        self._held_up: set[str] = set()
        """Volumes whose directories other volumes use: the end of any volume may free them."""

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """While the context is open, queue the volumes that a change can matter to."""
        cache = self._ctx.cache
        with (
            self._ctx.health.listening(self.export_ready),
            cache.claims.subscribed(
                on_added=self._claim_changed,
                on_updated=lambda _, claim: self._claim_changed(claim),
                on_deleted=self._claim_deleted,
            ),
            cache.volumes.subscribed(
                on_added=self._volume_added, on_updated=self._volume_changed, on_deleted=self._volume_deleted
            ),
        ):
            yield

    def _volume_added(self, volume: Volume) -> None:
        located = self._ctx.exports.locate(volume) if volume.is_by(self._ctx.provisioner) else None
        if located is not None:
            self._ctx.health.add(located[0], named=False)
        self._volume_changed(None, volume)

    def _volume_changed(self, before: Volume | None, volume: Volume) -> None:
        if volume.metadata.deletion_timestamp:
            self._queue_held_up()
        if not volume.is_by(self._ctx.provisioner):
            return
        self._rebinding.note(volume)
        wanted = volumes.decide(volume, self._ctx.provisioner)
        # The echo of the daemon's own writes changes nothing, and the queue retries by itself.
        # After a list another object may have the name, of which nothing is known.
        known = (
            before is not None
            and before.metadata.uid == volume.metadata.uid
            and volumes.decide(before, self._ctx.provisioner) == wanted
        )
        if (not isinstance(wanted, Leave) and not known) or self._rebinding.is_behind(volume):
            self._queue.add(volume.name)

    def _volume_deleted(self, volume: Volume) -> None:
        self._queue_held_up()
        self._rebinding.forget(volume.name)

    def _claim_changed(self, claim: Claim) -> None:
        volume = self._ctx.cache.volumes.get(claim.spec.volume_name)
        if volume is not None:
            self._rebinding.note(volume)
            if self._rebinding.is_behind(volume):
                self._queue.add(volume.name)

    def _claim_deleted(self, claim: Claim) -> None:
        # The volume may have been released while its claim still existed: bound elsewhere.
        self._queue.add(names.volume_name(claim.uid))
        volume = self._ctx.cache.volumes.get(claim.spec.volume_name)
        if volume is not None:
            self._rebinding.note(volume)
            self._queue.add(volume.name)

    def _queue_held_up(self) -> None:
        held_up, self._held_up = self._held_up, set()
        for name in sorted(held_up):
            self._queue.add(name)

    def export_ready(self, export: Export) -> None:
        """Queue the volumes of an export that is ready: their reclaim need not wait for its delay."""
        for name in export.records:
            volume = self._ctx.cache.volumes.get(name)
            if volume is None or self._wants(volume):
                self._queue.add(name)

    def _wants(self, volume: Volume) -> bool:
        if self._rebinding.is_behind(volume):
            return True
        return not isinstance(volumes.decide(volume, self._ctx.provisioner), Leave)

    async def reconcile(self, name: str) -> Requeue | None:
        """Bring one volume to where it should be."""
        with self._locks.try_acquire(name) as acquired:
            return await self._reconcile(name) if acquired else LOCKED

    async def _reconcile(self, name: str) -> Requeue | None:
        volume = self._ctx.cache.volumes.get(name)
        try:
            if volume is None:
                await self._remove_record(name)
                return None
            match volumes.decide(volume, self._ctx.provisioner):
                case Leave():
                    return await self._rebinding.follow(volume)
                case Finalizer(present):
                    await self._set_finalizer(volume, present=present)
                    return await self._rebinding.follow(volume)
                case Deny() as denial:
                    return self._deny(volume, denial)
                case Reclaim():
                    return await self._reclaim(volume)
        except (Conflict, NotFound):
            return FAILED  # it changed since it was read; the watch will deliver the change
        except ProvisionerError as exc:
            log.warning("volume_not_reconciled", volume=name, error=str(exc))
            return FAILED

    async def _remove_record(self, name: str) -> None:
        """Remove the records of a volume that is gone, which an outage may have left behind."""
        for export in self._ctx.exports:
            if name in export.records and await end_record(self._ctx, export, name):
                self._claims.path_freed()

    async def _set_finalizer(self, volume: Volume, *, present: bool) -> None:
        located = self._ctx.exports.locate(volume)
        if present and (located is None or volume.name not in located[0].records):
            return  # the volume claims to be of this provisioner, but no ledger has a record of it
        await self._ctx.cluster.set_finalizer(volume, names.FINALIZER, present=present)

    # ------------------------------------------------------------------------------------------- reclaiming

    async def _reclaim(self, volume: Volume) -> Requeue | None:
        located = self._ctx.exports.locate(volume)
        if located is None:
            return self._deny(volume, volumes.nowhere(self._ctx.exports.obstacle(volume)))
        export, path = located
        self._ctx.health.add(export, named=False)
        began_s = self._ctx.clock.monotonic()
        try:
            with self._share.slot(export.name, volume.name):
                export = await self._ctx.health.require_ready(export)
                return await self._reclaim_on(volume, export, path, began_s)
        except ExportError as exc:
            if is_unsettled(exc):
                return FAILED  # in most cases this replica has just begun to lead
            denial = self._moved(volume, export) or Deny(exc.reason, exc.event_message(export.name))
            self._deny(volume, denial, exc)
            return REFUSED if exc.cause is Cause.TWICE else FAILED
        except InvalidRecord as exc:
            return self._deny(volume, Deny(exc.reason, f"{exc}; nothing was changed"), exc)

    def _moved(self, volume: Volume, export: Export) -> Deny | None:
        """Return a refusal if the record is on another export, else None.

        Applies only to a volume whose export nothing else names.
        """
        reference = volume.spec.claim_ref
        if reference is None or self._ctx.health.is_named(export):
            return None
        for other in self._ctx.exports:
            record = other.records.get(volume.name)
            if other is not export and record is not None and record.claim_uid == reference.uid:
                return volumes.moved(volume.name, export.name, other.name)
        return None

    async def _reclaim_on(self, cached: Volume, export: Export, path: RelPath, began_s: float) -> Requeue | None:
        """Read everything that decides live, right before the first step that cannot be undone."""
        volume, claim = await self._rebinding.live(cached)
        if volume is None:
            return None
        if _place(volume) != _place(cached):
            return FAILED  # its claim or directory changed: the watch will deliver which
        # Bring the record up to date: a predecessor's volume may have none yet, that of an interrupted attempt is
        # pending, and that of a volume that was bound to another claim still names the former one.
        refusal = await self._takeover.enter(volume, export, path)
        if refusal is not None:
            return self._deny(volume, Deny(refusal.reason, refusal.message))
        await settle_record(self._ctx, export, volume)
        behind = await self._rebinding.catch_up(volume, claim, export, path)
        if behind is not None:
            return behind
        # Gather the facts, and let core.volumes judge them.
        holder = await neighbour(self._ctx, export, path, other_than=volume.name)
        record = export.records.get(volume.name)
        facts = ReclaimFacts(
            volume=volume,
            claim=claim,
            export=export.name,
            export_id=export.id,
            path=path,
            record=record,
            cluster=self._ctx.cluster_id,
            neighbour=holder,
        )
        verdict = volumes.authorize(facts, self._ctx.provisioner)
        if isinstance(verdict, Deny) and await export.refresh_record(volume.name) != record:
            return FAILED  # `recover` has changed the record since: judge the volume again
        match verdict:
            case Leave(why):
                log.debug("volume_left", volume=volume.name, why=why)
                return REFUSED
            case Deny() as denial:
                if holder:
                    self._held_up.add(volume.name)
                return self._deny(volume, denial)
            case Reclaim(rule):
                return await self._carry_out(rule, volume, export, began_s)

    async def _carry_out(self, rule: OnDelete, volume: Volume, export: Export, began_s: float) -> Requeue | None:
        """Reclaim storage, volume, finalizer and record, in this order, so that a crash at any point can be resumed.

        A volume that is being copied waits for the end of the copy.
        """
        snapshot = self._clones.snapshot_of(volume)
        if snapshot is not None:
            self._ctx.recorder.volume(volume, "Normal", names.VOLUME_CLONED, volumes.snapshot_message(snapshot))
            log.debug("volume_left", volume=volume.name, why="a snapshot of it is being taken")
            return AWAITING_CHANGE
        reader = self._clones.reader_of(volume)
        if reader is not None:
            self._ctx.recorder.volume(volume, "Normal", names.VOLUME_CLONED, volumes.cloned_message(reader))
            log.debug("volume_left", volume=volume.name, why="its data is being copied")
            return AWAITING_CHANGE
        ctx, archive, record = self._ctx, None, export.records[volume.name]
        used = ctx.usage.used_by(export.name, volume.name)
        # The guard comes right before the first step: within its call if nothing stands out, else in a call of its own.
        proof = ctx.guard.proof(export) if rule == "delete" else None
        moved = proof is not None and await export.move_as_known(volume.name, proof)
        if not moved:
            await ctx.guard.require(export)
        if rule == "delete":
            found = moved or await export.move_to_trash(volume.name)
        elif rule == "archive":
            archive = await export.archive(volume.name, ctx.moment().latest)
            found = archive is not None
        else:
            # Before the volume is deleted: from then on the directory can be adopted, and this record removed, at any
            # moment.
            found = await export.retain(volume.name, ctx.clock.now())
        if not found:
            message = volumes.missing_message(rule, record.directory, export.name)
            ctx.recorder.volume(volume, "Normal", names.DIRECTORY_MISSING, message)
        try:
            await ctx.cluster.delete_volume(volume)
            self._sweep.deleted(volume)
            # Finalizer last: a crash before this leaves the volume visible.
            await ctx.cluster.set_finalizer(volume, names.FINALIZER, present=False)
        except NotFound:
            pass
        if rule == "delete":
            self._sweep.trash_added(export)  # not earlier: the purge would only find that the volume still exists
        if rule != "retain":
            await export.forget(volume.name)
            self._claims.path_freed()
        fields = {
            "claim": f"{record.namespace}/{record.claim}",
            "class": volume.spec.storage_class_name,
            "export": export.name,
            "directory": record.directory,
            "size": volume.capacity,
            "bytes": used,
            "archive": archive,
            "missing": None if found else True,
        }
        self._succeeded(rule, volume, fields, began_s)
        return None

    def _succeeded(self, rule: OnDelete, volume: Volume, fields: Mapping[str, object], began_s: float) -> None:
        took_s = self._ctx.clock.monotonic() - began_s
        storage_class = volume.spec.storage_class_name
        self._ctx.metrics.deleted.labels(storage_class).inc()
        self._ctx.metrics.delete_s.labels(storage_class).observe(took_s)
        log.info("volume_reclaimed", volume=volume.name, on_delete=rule, took_s=round(took_s, 4), **fields)

    def _class_of(self, volume: Volume) -> str:
        """Return the volume's class as a label of metrics.

        Only existing classes count: a volume can carry any name.
        """
        name = volume.spec.storage_class_name
        return name if name in self._ctx.cache.classes else ""

    def _deny(self, volume: Volume, denial: Deny, error: ProvisionerError | None = None) -> Requeue:
        self._ctx.recorder.volume(volume, "Warning", names.VOLUME_FAILED_DELETE, denial.message)
        self._ctx.metrics.delete_failed.labels(self._class_of(volume)).inc()
        self._ctx.metrics.failures.labels("delete", denial.reason).inc()
        if self._queue.failures(volume.name) == 0:
            reference = volume.spec.claim_ref
            log.warning(
                "volume_not_reclaimed",
                volume=volume.name,
                claim=reference and f"{reference.namespace}/{reference.name}",
                reason=denial.reason,
                why=denial.message,
                error=str(error) if error else None,
                **{"class": volume.spec.storage_class_name},
            )
        return REFUSED


def _place(volume: Volume) -> tuple[ClaimRef | None, NfsSource | None]:
    """The claim and directory of a volume, by which a reclaim or a binding is judged."""
    return volume.spec.claim_ref, volume.spec.nfs
