"""The claim controller: provisions volumes for claims.

It gathers a view of each claim, lets core.claims decide, and carries the decision out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog

from provisioner.controllers.clones import Clones
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.enforcement import PATIENCE, shortfall
from provisioner.controllers.expansion import expand
from provisioner.controllers.free_space import space_conflict
from provisioner.controllers.instances import is_unsettled
from provisioner.controllers.namespaces import Namespaces
from provisioner.controllers.record_upkeep import settle_record
from provisioner.controllers.rollback import Rollback
from provisioner.controllers.unlocated_volumes import refuse_unlocated
from provisioner.core import archives, claims, classes, names, tenancy
from provisioner.core.claims import ClaimView, CloneSource, Ignore, Provision, Refuse, Wait
from provisioner.core.enforcement import Shortfall
from provisioner.core.errors import InvalidSettings, ProvisionerError
from provisioner.core.locations import Location, RelPath, label
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.reasons import Reason
from provisioner.core.records import Record
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, InProgress, NoFreeGroup, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ClusterError, Conflict, Rejected
from provisioner.ports.tree import ExportError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import AWAITING_CHANGE, ENFORCING, FAILED, LOCKED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue

log = structlog.get_logger(__name__)

_MANY = 6
"""After so many looks at a claim that waits for a volume to be deleted, about a minute, an event is recorded."""


class NameTaken(ProvisionerError):
    """The name of the volume to create is taken by another volume.

    The text says whose that is.
    """


@dataclass(frozen=True, slots=True)
class _Unenforced:
    """A claim that waits for its quota."""

    claim: Claim
    """The claim with all fields that its class's pathPattern reads."""
    storage_class: StorageClass
    warned: str
    """The last warning."""


class ClaimController:
    """Reconciles claims, by uid; one worker per claim at a time."""

    def __init__(
        self, ctx: ControllerContext, queue: WorkQueue, share: FairShare, locks: VolumeLocks, clones: Clones
    ) -> None:
        self._ctx = ctx
        self._cache = ctx.cache
        self._queue = queue
        self._share = share
        self._locks = locks
        self._clones = clones
        self._rollback = Rollback(ctx, freed=self.path_freed)
        self._namespaces = Namespaces(ctx.cluster)
        self._seen_s: dict[str, float] = {}
        """When each claim that has no volume yet was first worked on."""
        self._blocked: set[str] = set()
        """Claims whose directory is in use by another volume: the end of any volume may free it."""
        self._awaited: dict[str, set[str]] = {}
        """Claims that wait for the source of their clone, by its key."""
        self._ungrouped: dict[str, Export] = {}
        """Claims that wait for a group, the first one first, with the export that has none free."""
        self._unenforced: dict[str, _Unenforced] = {}
        """Claims whose directory is there and waits for its quota."""
        self._modes_refused: set[str] = set()
        """Exports for which the log already says that they do not set modes."""

    # ------------------------------------------------------------------------------------------- what changed

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """While the context is open, queue the claims that a change can matter to."""
        cache = self._cache
        with (
            self._ctx.health.listening(self._export_ready),
            cache.claims.subscribed(
                on_added=self._claim_changed,
                on_updated=lambda _, claim: self._claim_changed(claim),
                on_deleted=self._claim_deleted,
            ),
            cache.classes.subscribed(
                on_added=self._class_changed, on_updated=lambda _, changed: self._class_changed(changed)
            ),
            cache.volumes.subscribed(on_deleted=self._volume_deleted),
            cache.snapshots.subscribed(on_updated=lambda _, snapshot: self._source_changed(snapshot.key)),
        ):
            try:
                yield
            finally:
                self._ctx.failing.clear()  # another replica reports them from now on

    def _claim_changed(self, claim: Claim) -> None:
        self._source_changed(claim.key)
        if claims.is_unfinished(claim):
            self._queue.add(claim.uid)

    def _source_changed(self, key: str) -> None:
        for uid in sorted(self._awaited.pop(key, ())):
            self._queue.add(uid)

    def _claim_deleted(self, claim: Claim) -> None:
        self._namespaces.claim_gone(claim.metadata.namespace)
        self._queue.add(claim.uid)

    def _class_changed(self, storage_class: StorageClass) -> None:
        if storage_class.provisioner != self._ctx.provisioner:
            return
        self._add_export(storage_class)
        for claim in self._cache.claims.values():
            if claim.class_name == storage_class.name and claim.status.phase == "Pending":
                self._queue.add(claim.uid)

    def _volume_deleted(self, volume: Volume) -> None:
        self.path_freed()
        uid = names.claim_uid(volume.name)
        if uid is not None and uid in self._cache.claims:
            # The claim may have been judged while the cache still had its volume: look at it again. Not immediately:
            # while the cache still has a claim that is gone, its volume would be created and reclaimed in a loop, as
            # fast as the API server answers.
            self._queue.add_after(uid, FAILED.backoff.first_s)

    def _add_export(self, storage_class: StorageClass) -> None:
        """Open the export that a class names before its first claim comes."""
        try:
            export = self._export_of(storage_class)
            if export is not None:
                self._ctx.health.add(export, named=True)
        except (InvalidSettings, ExportError) as exc:
            log.warning("class_unusable", storage_class=storage_class.name, error=str(exc))

    def path_freed(self) -> None:
        """Queue the claims that wait for a directory: a volume or its record is gone."""
        blocked, self._blocked = self._blocked, set()
        for uid in sorted(blocked):
            self._queue.add(uid)

    def groups_freed(self, export: Export, count: int) -> None:
        """Queue as many of the claims that wait for a group of an export as groups are free again.

        A look at all of them could cost more than the export's other work: each lists the groups.
        """
        waiting = [uid for uid, where in self._ungrouped.items() if where is export]
        for uid in waiting[:count]:
            del self._ungrouped[uid]
            self._queue.add(uid)

    def _export_ready(self, export: Export) -> None:
        """Queue pending claims and unfinished attempts.

        An export is ready, so they need not wait for their delay.
        """
        for uid, claim in self._cache.claims.items():
            if claim.status.phase == "Pending":
                self._queue.add(uid)
        for name in sorted(export.pending):
            pending_uid = names.claim_uid(name)
            if pending_uid is not None:
                self._queue.add(pending_uid)

    # ------------------------------------------------------------------------------------------- what to do

    async def reconcile(self, uid: str) -> Requeue | None:
        """Bring one claim, existing or deleted, to where it should be."""
        with self._locks.try_acquire(names.volume_name(uid)) as acquired:
            return await self._reconcile(uid) if acquired else LOCKED

    async def _reconcile(self, uid: str) -> Requeue | None:
        claim = self._cache.claims.get(uid)
        volume = self._cache.volumes.get(names.volume_name(uid))
        if claim is None:
            await self._end(uid)
            return await self._rollback.finish(names.volume_name(uid))
        self._require_slot(claim)
        try:
            completed = self._known(claim) or await self._completed(claim)
            source = await self._clones.source_of(claim)
        except ClusterError as exc:
            log.info("claim_not_read", claim=claim.key, error=str(exc))
            return FAILED
        if completed is None:
            return AWAITING_CHANGE  # it is gone; the watch will deliver that soon
        decision = claims.decide(self._view(completed, volume, source))
        if isinstance(decision, Wait | Refuse) and decision.directory_taken:
            self._blocked.add(uid)
        match decision:
            case Ignore():
                await self._end(uid)
                unfinished = await self._rollback.finish(names.volume_name(uid))
                expanding = (
                    await expand(claim, self._ctx, tries=self._queue.failures(uid))
                    if claim.status.phase == "Bound"
                    else None
                )
                return unfinished or expanding
            case Wait(why) as wait:
                log.debug("claim_waits", claim=claim.key, why=wait.log_message or why)
                if wait.directory_taken and self._queue.failures(uid) >= _MANY:
                    message = f"{why}; this is taking long: see the events of the volume"
                    self._ctx.recorder.claim(claim, "Warning", names.PROVISIONING_FAILED, message)
                return AWAITING_CHANGE
            case Refuse() as refusal:
                return self._refuse(claim, refusal)
            case Provision() as plan:
                return await self._attempt(plan)

    async def _end(self, uid: str) -> None:
        """Forget what is known of a claim that needs no volume, and cancel its copy."""
        self._seen_s.pop(uid, None)
        self._blocked.discard(uid)
        self._ungrouped.pop(uid, None)
        self._unenforced.pop(uid, None)
        self._ctx.failing.drop(uid)
        await self._clones.cancel(names.volume_name(uid))

    def _require_slot(self, claim: Claim) -> None:
        """Raise NoSlot if the export of the claim's class has no worker to spare, before the claim is judged.

        Most claims of a long queue would otherwise be judged twice, and perhaps read twice.
        """
        storage_class = self._cache.classes.get(claim.class_name)
        if storage_class is None or storage_class.provisioner != self._ctx.provisioner:
            return
        if claim.status.phase == "Pending" and claims.is_unfinished(claim):
            with suppress(InvalidSettings, ExportError):  # judging the claim reports these
                export = self._export_of(storage_class)
                if export is not None:
                    self._share.require_slot(export.name, claim.uid)

    def _export_of(self, storage_class: StorageClass) -> Export | None:
        """Return the export of a class; None if it names none. Raises InvalidSettings, ExportError."""
        settings = classes.settings_of(storage_class, self._ctx.exports.default)
        return None if settings.export is None else self._ctx.exports.get(settings.export, settings.mount_options)

    def _known(self, claim: Claim) -> Claim | None:
        """Return the result of `_completed` for a claim that waits for its quota, if claim and class are as before.

        Thousands of claims can wait for days. Before a volume is created, the claim is read again.
        """
        waiting = self._unenforced.get(claim.uid)
        if waiting is None or waiting.storage_class is not self._cache.classes.get(claim.class_name):
            return None
        is_same = waiting.claim.metadata.resource_version == claim.metadata.resource_version
        return waiting.claim if is_same else None

    async def _completed(self, claim: Claim) -> Claim | None:
        """The claim with the fields that its class's pathPattern reads; None if it is gone.

        Raises ClusterError.
        """
        template = claims.template_of(claim, self._cache.classes.get(claim.class_name))
        if template is None:
            return claim
        live = await self._ctx.cluster.get_claim(claim.metadata.namespace, claim.metadata.name)
        return claims.completed(claim, live, template) if live is not None and live.uid == claim.uid else None

    def _view(self, claim: Claim, volume: Volume | None, source: CloneSource | None) -> ClaimView:
        own = names.volume_name(claim.uid)
        return ClaimView(
            provisioner=self._ctx.provisioner,
            claim=claim,
            storage_class=self._cache.classes.get(claim.class_name),
            volume=volume,
            default_export=self._ctx.exports.default,
            holder=lambda export, path: self._holder(export, path, own),
            now=self._ctx.stamp(),
            cluster=self._ctx.cluster_id,
            source=source,
        )

    def _holder(self, export: Location, path: RelPath, own: str) -> Volume | None:
        """Return the volume that uses a directory. Prefer one that stays to one that is being deleted."""
        leaving: Volume | None = None
        passed: set[str] = set()
        while (found := self._cache.holder(export, path, other_than=own, passed=passed)) is not None:
            if not claims.is_leaving(found, self._ctx.provisioner):
                return found
            leaving = leaving or found
            passed.add(found.name)
        return leaving

    def _refuse(self, claim: Claim, refusal: Refuse) -> Requeue:
        self._ctx.recorder.claim(claim, refusal.type, refusal.event_reason, refusal.message)
        if refusal.type == "Warning":
            self._count_failure(claim, refusal.reason)
            if self._queue.failures(claim.uid) == 0:
                message = refusal.log_message or refusal.message
                log.warning("claim_refused", claim=claim.key, reason=refusal.reason, message=message)
        if not refusal.passing:
            return REFUSED
        if claim.data_source is not None:
            self._awaited.setdefault(f"{claim.metadata.namespace}/{claim.data_source.name}", set()).add(claim.uid)
        return AWAITING_CHANGE

    # ------------------------------------------------------------------------------------------- provisioning

    async def _attempt(self, plan: Provision) -> Requeue | None:
        """Carry out a plan; a failure becomes an event with a stable message, and a retry."""
        claim = plan.claim
        self._seen_s.setdefault(claim.uid, self._ctx.clock.monotonic())
        where = label(plan.export, plan.mount_options.port)
        self._clones.protect(plan)
        try:
            plan = claims.in_namespace(plan, await self._namespaces.of_claim(claim.metadata.namespace))
            export = self._ctx.exports.get(plan.export, plan.mount_options)
            where = export.name
            self._ctx.health.add(export, named=True)
            with self._share.slot(export.name, claim.uid):
                export = await self._ctx.health.require_ready(export)
                return await self._provision(plan, export)
        except InProgress as exc:
            log.debug("provisioning_in_progress", claim=claim.key, volume=plan.volume, after_s=exc.after_s)
            return Requeue.after(exc.after_s)
        except ExportError as exc:
            return FAILED if is_unsettled(exc) else self._failed(plan, exc.event_message(where), exc, FAILED)
        except PathTaken as exc:
            self._blocked.add(claim.uid)
            if self._queue.failures(claim.uid) == 0:
                return FAILED  # in most cases the record of a volume that is about to be removed
            return self._failed(plan, exc.event_text, exc, FAILED)
        except ArchiveUnusable as exc:
            return self._failed(plan, self._with_archive_hint(exc.event_text, plan), exc, REFUSED)
        except Rejected as exc:
            return self._failed(plan, f"the API server refuses the volume: {exc}", exc, REFUSED)
        except ClusterError as exc:
            log.warning("volume_not_saved", claim=claim.key, volume=plan.volume, error=str(exc))
            return FAILED
        except ProvisionerError as exc:  # AlreadyThere, or a rule that only the ledger can check
            return self._failed(plan, exc.event_text, exc, REFUSED)

    def _failed(self, plan: Provision, message: str, exc: ProvisionerError, requeue: Requeue) -> Requeue:
        claim = plan.claim
        if self._queue.failures(claim.uid) == 0:
            log.warning(
                "provisioning_failed",
                claim=claim.key,
                volume=plan.volume,
                reason=exc.reason,
                error=str(exc),
                message=message,
            )
        self._ctx.recorder.claim(claim, "Warning", names.PROVISIONING_FAILED, message)
        self._count_failure(claim, exc.reason)
        return requeue

    def _count_failure(self, claim: Claim, reason: str) -> None:
        self._ctx.metrics.provision_failed.labels(claim.class_name, _source(claim)).inc()
        self._ctx.metrics.failures.labels("provision", reason).inc()
        self._ctx.failing.note(claim, reason)

    def _with_archive_hint(self, message: str, plan: Provision) -> str:
        """Append a hint if another export holds an archive that this claim may restore."""
        archive, places = plan.record.archive, self._ctx.exports.places
        for export in self._ctx.exports:
            record = export.archived.get(archive)
            if (
                plan.export not in places.same(export.location)
                and record
                and archives.not_for(archive, record, plan.record, plan.tenant) is None
            ):
                return f"{message}; it is on export {export.name}: use a StorageClass of that export"
        return message

    async def _provision(self, plan: Provision, export: Export) -> Requeue | None:
        """Create record, directory and volume, then settle the record.

        The order matters, and each step can be repeated.
        """
        claim, again = plan.claim, plan.volume in export.records
        waiting = self._waiting(plan, export)
        prepared = waiting or await self._prepare(plan, export)
        if not isinstance(prepared, Record):
            return prepared
        if prepared.quota != plan.record.quota:
            # An admin has replaced the class since the record was written.
            async with self._ctx.health.fail_fast(export):
                prepared = await export.follow_class(plan.volume, prepared, plan.record.quota)
            waiting = waiting and prepared
        lacking = await self._lacks_quota(plan, export, prepared)
        may_go_on = lacking is None or not lacking.needs_admin
        changed = waiting is not None and may_go_on and await export.refresh_record(plan.volume) != waiting
        if lacking is not None and not changed:
            return self._await_quota(plan, lacking)
        # Creating the directory took time, and so did its quota: the claim may have changed, or may be gone.
        if not await self._still_wanted(plan):
            return await self._rollback.finish(plan.volume)
        if changed:
            # Another leader has finished or ended the attempt: look at all of it again.
            self._unenforced.pop(claim.uid, None)
            await export.rewrite_pending(plan.volume, prepared)
            return await self._provision(plan, export)
        self._unenforced.pop(claim.uid, None)
        created = await self._create(plan, export, prepared, again=again)
        # So did creating the volume: if the claim is gone now, remove the volume, which no pod has used.
        if self._is_gone(claim.uid):
            return await self._rollback.withdraw(plan, export)
        await export.settle(plan.volume, created.metadata.uid)
        self._succeeded(plan, export, prepared)
        return None

    async def _prepare(self, plan: Provision, export: Export) -> Record | Requeue | None:
        """Create record and directory; return the record that counts.

        Return the outcome of the attempt instead if it ends here.
        """
        claim = plan.claim
        known = export.records.get(plan.volume)
        # A settled record, or one begun with other data: the volume may exist already, and the cache does not know yet.
        doubtful = known is not None and (plan.volume not in export.pending or known.archive != plan.record.archive)
        if doubtful and await self._ctx.cluster.get_volume(plan.volume) is not None:
            return await self._rollback.finish(plan.volume)
        # Rules that need the export: roots of other exports, free space, volumes whose server is unknown.
        size = plan.record.capacity
        refusal = self._root_conflict(plan, export)
        copying = bool(plan.record.clone_of) and plan.volume in export.pending  # it has taken its space already
        if refusal is None and not copying:
            refusal = space_conflict(self._ctx, export, plan.parameters, size, volume_name=plan.volume)
        if refusal is not None:
            return self._refuse(claim, refusal)
        refuse_unlocated(self._ctx, plan, export)
        self._announce(claim)
        # The directory: a new one, that of a former volume, or an archive.
        adopt_from = await self._adoptable(plan, export)
        copy = await self._clones.copy(plan, export) if plan.record.clone_of else ""
        if adopt_from is not None or plan.record.archive or plan.record.clone_of:
            await self._ctx.guard.require(export)  # unlike a new directory, these may belong to another cluster
        try:
            async with self._ctx.health.fail_fast(export):
                record = await export.provision(
                    plan.volume,
                    plan.record,
                    plan.access,
                    adopt_from=adopt_from,
                    tenant=plan.tenant,
                    gid_range=plan.parameters.groups,
                    copy=copy,
                )
        except NoFreeGroup:
            self._ungrouped.pop(claim.uid, None)  # to the end of the line
            self._ungrouped[claim.uid] = export
            raise
        except AlreadyThere:
            # Data in the directory of the claim's own record: the volume may exist, and the cache does not know yet.
            found = await self._ctx.cluster.get_volume(plan.volume) if plan.volume in export.records else None
            if found is not None and await settle_record(self._ctx, export, found):
                return None
            if found is None:
                self._refuse_forgotten(plan, export)
            raise
        self._warn_of_mode(plan, record, export)
        return record

    def _waiting(self, plan: Provision, export: Export) -> Record | None:
        """Return the record of a claim whose directory this process has prepared, and which waits for its quota.

        It is the one in memory, and costs no call. Return None if the claim asks for other data since.
        """
        held = export.records.get(plan.volume) if plan.claim.uid in self._unenforced else None
        if held is None or plan.volume not in export.pending or held.archive != plan.record.archive:
            return None
        return held

    async def _lacks_quota(self, plan: Provision, export: Export, record: Record) -> Shortfall | None:
        """Return what is missing if a volume must not exist before its size is enforced; None if it can."""
        if record.quota != "required":
            return None
        return await shortfall(self._ctx, export, plan.volume, record)

    def _await_quota(self, plan: Provision, lacking: Shortfall) -> Requeue:
        """Wait without a worker, and say what is missing once that takes long."""
        claim = plan.claim
        waiting = self._unenforced.get(claim.uid)
        warned = waiting.warned if waiting is not None else ""
        if lacking.needs_admin or self._queue.failures(claim.uid) >= PATIENCE:
            message = f"the class asks for quota: required, and {lacking.message}"
            self._ctx.recorder.claim(claim, "Warning", names.PROVISIONING_FAILED, message)
            self._count_failure(claim, Reason.QUOTA_NOT_IN_FORCE)
            if message != warned:
                log.warning(
                    "provisioning_failed",
                    claim=claim.key,
                    volume=plan.volume,
                    reason=Reason.QUOTA_NOT_IN_FORCE,
                    message=message,
                )
            warned = message
        self._unenforced[claim.uid] = _Unenforced(claim, plan.storage_class, warned)
        return ENFORCING

    def _announce(self, claim: Claim) -> None:
        """Record the event that work on a claim begins, which its success replaces unless it says more."""
        passing = not claims.unread_annotations(claim)
        message = claims.provisioning_message(claim)
        self._ctx.recorder.claim(claim, "Normal", names.PROVISIONING, message, passing=passing)

    def _warn_of_mode(self, plan: Provision, record: Record, export: Export) -> None:
        """Warn that a directory lacks the mode of its class; log it once per export.

        Some servers do not set modes.
        """
        refusal = export.mode_refused(plan.volume)
        if not refusal or plan.access.mode is None:
            return
        message = claims.mode_message(record.directory, plan.access.mode, refusal)
        self._ctx.recorder.claim(plan.claim, "Warning", names.MODE_REFUSED, message)
        if export.name not in self._modes_refused:
            self._modes_refused.add(export.name)
            log.warning("mode_refused", export=export.name, claim=plan.claim.key, volume=plan.volume, message=message)

    def _refuse_forgotten(self, plan: Provision, export: Export) -> None:
        """Raise AlreadyThere if the claim had a volume that the cluster lost.

        That happens when etcd is restored from an older backup.
        """
        record = export.records.get(plan.volume)
        if record is None or plan.volume in export.pending:
            return
        if (record.claim_uid, record.cluster) == (plan.claim.uid, self._ctx.cluster_id):
            raise AlreadyThere(
                f"directory {record.directory!r} holds this claim's own data, as volume {plan.volume}, which the"
                f" cluster has lost: run `nfs-provisioner recover --volume {plan.volume} --apply` to recreate it"
            )

    def _root_conflict(self, plan: Provision, export: Export) -> Refuse | None:
        """Refuse a directory that holds the root of another export; None if it does not.

        The roots come from settings and classes, since an export may have no ledger yet.
        """
        ctx = self._ctx
        others = (other for other in ctx.exports if other is not export and ctx.health.is_named(other))
        root = ctx.exports.places.root_within(export.location, plan.record.path, (other.location for other in others))
        return None if root is None else claims.root_conflict(plan, root)

    async def _adoptable(self, plan: Provision, export: Export) -> str | None:
        """The name of a deleted volume whose directory the claim may adopt; None if there is none.

        The volume is read live, since the cache may not know it yet. Raises AlreadyThere if it belonged to a claim in
        an earlier namespace of this name.
        """
        is_made = not plan.record.archive and not plan.record.clone_of
        former = export.adoptable(plan.record) if plan.adopt and is_made else None
        if former is None or former == plan.volume:
            return None
        if await self._ctx.cluster.get_volume(former) is not None:
            return None
        record = await export.refresh_record(former)
        if record is not None and not plan.tenant.owns(record):
            raise AlreadyThere(tenancy.refusal(record, plan.tenant))
        return former if record is not None else None

    async def _create(self, plan: Provision, export: Export, record: Record, *, again: bool) -> Volume:
        """Create the volume; with `again`, an earlier attempt may have created it already.

        Raises NameTaken.
        """
        body = claims.volume_body(plan, provisioner=self._ctx.provisioner, record=record, export_id=export.id)
        try:
            return await self._ctx.cluster.create_volume(body)
        except AlreadyExists as exc:
            found = await self._ctx.cluster.get_volume(plan.volume)
            if found is None:
                raise Conflict(f"volume {plan.volume} existed, and is gone again") from exc
            nfs, places = found.spec.nfs, self._ctx.exports.places
            path = places.relative(export.location, nfs.server, nfs.path) if nfs is not None else None
            if path != record.path or not _is_for(found, plan):
                raise NameTaken(claims.another_volume(found, plan.claim, self._ctx.provisioner)) from exc
            if not again:
                hint = "check whether another installation, or another leader, uses the same provisioner name"
                log.warning("volume_made_by_another", claim=plan.claim.key, volume=plan.volume, hint=hint)
            return found

    async def _still_wanted(self, plan: Provision) -> bool:
        """Whether the claim, as it is now, would still be provisioned. Raises ClusterError."""
        cached = self._cache.claims.get(plan.claim.uid)
        claim = await self._completed(cached) if cached is not None else None
        return claim is not None and claims.still_holds(plan, self._view(claim, None, plan.source))

    def _is_gone(self, uid: str) -> bool:
        claim = self._cache.claims.get(uid)
        return claim is None or claim.metadata.deletion_timestamp is not None

    def _succeeded(self, plan: Provision, export: Export, record: Record) -> None:
        ctx, claim = self._ctx, plan.claim
        self._ungrouped.pop(claim.uid, None)
        labels = (claim.class_name, _source(claim))
        self._clones.succeeded(plan)
        began_s = self._seen_s.pop(claim.uid, ctx.clock.monotonic())
        took_s = ctx.clock.monotonic() - began_s
        ctx.metrics.provisioned.labels(*labels).inc()
        ctx.metrics.provision_s.labels(*labels).observe(took_s)
        ctx.failing.drop(claim.uid)
        ctx.recorder.claim(claim, "Normal", names.PROVISIONING_SUCCEEDED, claims.succeeded_message(plan, record))
        log.info(
            "volume_provisioned",
            claim=claim.key,
            volume=plan.volume,
            export=export.name,
            directory=record.directory,
            size=record.capacity,
            took_s=round(took_s, 4),
            **{"class": claim.class_name},
        )


def _is_for(volume: Volume, plan: Provision) -> bool:
    reference = volume.spec.claim_ref
    return reference is not None and reference.uid == plan.claim.uid


def _source(claim: Claim) -> str:
    """Return the kind of the claim's data source as a label of metrics.

    The set of values is fixed, because tenants can write any kind.
    """
    source = claim.data_source
    if source is None:
        return ""
    return source.kind if source.kind in ("PersistentVolumeClaim", "VolumeSnapshot") else "other"
