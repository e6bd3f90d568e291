"""The snapshot controller: serves VolumeSnapshots as creator and sidecar of their contents.

The stock snapshot-controller creates no content for a volume that is not a CSI volume, and binds one that exists. So
this controller creates it, copies the volume in the background, and completes the content's status. `core.snapshots`
decides; docs/development/copies.md has the rules of the snapshot-controller that the steps follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from msgspec import structs

from provisioner.controllers.attempts import Attempts, NoRoomForCopy
from provisioner.controllers.clones import Clones, located
from provisioner.controllers.context import ControllerContext
from provisioner.core import claims, names, snapshot_classes, snapshots, times
from provisioner.core.errors import InvalidSettings, ProvisionerError
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Snapshot, SnapshotClass, SnapshotContent
from provisioner.core.records import SnapshotRecord
from provisioner.core.snapshots import Fail, Ignore, Release, Serve, SnapshotView, Take, Wait, Withdraw
from provisioner.ledger.copying import Progress
from provisioner.ledger.errors import CopyFailed, InProgress
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ClusterError, NotFound
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, LOCKED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue

log = structlog.get_logger(__name__)

WORKERS = 8
_LOOK_AGAIN = Requeue.after(30.0)
_IMMEDIATELY = Requeue.after(0.0)
_EXPIRE_EVERY_S = 10.0


@dataclass(slots=True, eq=False)
class _Job:
    """The copy for one snapshot."""

    record: SnapshotRecord
    source: Export
    export: Export
    """The export that keeps it."""
    task: asyncio.Task[ProvisionerError | None] | None = None
    progress: Progress = field(default_factory=Progress)
    free_bytes: int = 0
    """The free space of that export when the copy began."""


class SnapshotController:
    """Reconciles contents and the snapshots that need one, by the content's name; one worker per name at a time."""

    def __init__(
        self,
        ctx: ControllerContext,
        queue: WorkQueue,
        locks: VolumeLocks,
        clones: Clones,
        *,
        discarded: Callable[[Export], None],
        released: Callable[[str], None],
    ) -> None:
        """`discarded` is called when something was moved into the trash of an export.

        `released` is called with the name of a volume of which no snapshot is being taken any longer.
        """
        self._ctx = ctx
        self._cache = ctx.cache
        self._queue = queue
        self._locks = locks
        self._clones = clones
        self._discarded = discarded
        self._released = released
        self._jobs: dict[str, _Job] = {}
        self._attempts = Attempts(ctx)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run copies, and remove the data of snapshots whose retention is over, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                while True:
                    for export in self._ctx.exports:
                        with self._ctx.supervisor.shield("snapshots", (ExportError, ClusterError), export=export.name):
                            await self._expire(export)
                    await self._ctx.clock.sleep(_EXPIRE_EVERY_S)
        finally:
            self._group = None
            self._jobs.clear()

    # ------------------------------------------------------------------------------------------- what changed

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """While the context is open, queue the contents that a change can matter to."""
        cache = self._cache
        with (
            self._ctx.health.listening(self._export_ready),
            cache.snapshots.subscribed(
                on_added=self._snapshot_changed,
                on_updated=lambda _, snapshot: self._snapshot_changed(snapshot),
                on_deleted=self._snapshot_changed,
            ),
            cache.snapshot_contents.subscribed(
                on_added=self._content_changed,
                on_updated=lambda _, content: self._content_changed(content),
                on_deleted=self._content_changed,
            ),
            cache.snapshot_classes.subscribed(
                on_added=self._class_changed, on_updated=lambda _, changed: self._class_changed(changed)
            ),
        ):
            yield

    def _snapshot_changed(self, snapshot: Snapshot) -> None:
        self._queue.add(names.content_name(snapshot.uid))

    def _content_changed(self, content: SnapshotContent) -> None:
        self._queue.add(content.name)

    def _class_changed(self, snapshot_class: SnapshotClass) -> None:
        if snapshot_class.driver == self._ctx.provisioner:
            self._add_export(snapshot_class)
        for snapshot in self._cache.snapshots.values():
            named = snapshot.spec.volume_snapshot_class_name
            if not snapshot.status.ready_to_use and (named == snapshot_class.name or snapshot.lacks_class):
                self._snapshot_changed(snapshot)

    def _add_export(self, snapshot_class: SnapshotClass) -> None:
        """Open the export that a class names: snapshots can be on it."""
        try:
            where = snapshot_classes.parse(snapshot_class.parameters).export
            if where is not None:
                self._ctx.health.add(self._ctx.exports.at(where), named=True)
        except (InvalidSettings, ExportError) as exc:
            log.warning("class_unusable", snapshot_class=snapshot_class.name, error=str(exc))

    def _export_ready(self, export: Export) -> None:
        """Queue what has begun on an export, and what waits for it."""
        for handle, record in export.snapshots.begun.items():
            if record.cluster == self._ctx.cluster_id:
                self._queue.add(names.content_name(handle))
        for name in self._cache.snapshot_contents:
            self._queue.add(name)

    # ------------------------------------------------------------------------------------------- what to do

    async def reconcile(self, name: str) -> Requeue | None:
        """Bring one content, existing or not, to where it should be."""
        cached = self._cached(name)
        if isinstance(snapshots.decide(cached), Ignore):
            return None
        if cached.content is None and cached.snapshot is None and self._begun(names.snapshot_uid(name)) is None:
            return None
        try:
            view = await self._gather(cached, name)
            return await self._act(view, name)
        except NotFound:
            return FAILED  # it disappeared in between
        except ClusterError as exc:
            log.warning("snapshot_not_saved", content=name, error=str(exc))
            return FAILED
        except ExportError as exc:
            log.debug("snapshot_waits", content=name, error=str(exc))
            return FAILED

    def _cached(self, name: str) -> SnapshotView:
        """Return the facts that the cache and the ledgers in memory have: without claim, volume and `shared`."""
        ctx, cache = self._ctx, self._cache
        content = cache.snapshot_contents.get(name)
        handle = snapshots.handle_of(content) if content is not None else names.snapshot_uid(name)
        uid = content.spec.volume_snapshot_ref.uid if content is not None else handle
        snapshot = cache.snapshots.get(uid)
        export = self._export_of(handle)
        return SnapshotView(
            provisioner=ctx.provisioner,
            cluster=ctx.cluster_id,
            now=ctx.stamp(),
            content=content,
            snapshot=snapshot,
            snapshot_class=(
                snapshots.class_of(snapshot, cache.snapshot_classes, ctx.provisioner) if snapshot is not None else None
            ),
            claim=None,
            volume=None,
            stored=export.snapshots.complete[handle] if export is not None else None,
            begun=self._begun(handle) is not None,
            shared=False,
            all_read=all(map(ctx.health.is_read, ctx.exports)),
        )

    def _is_shared(self, handle: str, name: str) -> bool:
        """Return True if another content than this one has the data of a snapshot, and is not being deleted."""
        return any(
            each.name != name and not each.metadata.deletion_timestamp and snapshots.handle_of(each) == handle
            for each in self._cache.snapshot_contents.values()
        )

    async def _gather(self, cached: SnapshotView, name: str) -> SnapshotView:
        """Return the view with the objects as they are now. Raises ClusterError."""
        cluster = self._ctx.cluster
        content = await cluster.get_snapshot_content(name)
        reference = content.spec.volume_snapshot_ref if content is not None else None
        begun = self._begun(names.snapshot_uid(name))
        where, uid = None, names.snapshot_uid(name)
        if reference is not None:
            where, uid = (reference.namespace, reference.name), reference.uid
        elif cached.snapshot is not None:
            where = cached.snapshot.metadata.namespace, cached.snapshot.metadata.name
        elif begun is not None:
            where = begun[1].namespace, begun[1].snapshot
        snapshot = await cluster.get_snapshot(*where) if where is not None and all(where) else None
        if snapshot is not None and snapshot.uid != uid:
            snapshot = None
        claim_name = snapshot.spec.source.persistent_volume_claim_name if snapshot is not None else ""
        claim = volume = None
        if snapshot is not None and claim_name and cached.stored is None:
            claim = await cluster.get_claim(snapshot.metadata.namespace, claim_name)
            volume_name = claim.spec.volume_name if claim is not None else ""
            if content is not None and begun is not None and volume_name != begun[1].volume:
                claim = None  # since the copy has begun, another claim got the name: what has begun goes on
            if claim is None and content is not None:
                volume_name = content.spec.source.volume_handle
            volume = await cluster.get_volume(volume_name) if volume_name else None
        shared = content is not None and self._is_shared(snapshots.handle_of(content), name)
        return replace(cached, content=content, snapshot=snapshot, claim=claim, volume=volume, shared=shared)

    async def _act(self, view: SnapshotView, name: str) -> Requeue | None:
        match snapshots.decide(view):
            case Ignore():
                return None
            case Wait(why):
                log.debug("snapshot_waits", content=name, why=why)
                return AWAITING_CHANGE
            case Fail(message):
                requeue = await self._fail(view, message)
                if names.snapshot_uid(name) not in self._jobs:
                    await self._end(names.snapshot_uid(name))  # what an earlier leader has copied takes space
                return requeue
            case Take() as take:
                return await self._take(view, names.snapshot_uid(name), take)
            case Serve(handle, record):
                return await self._serve(view, handle, record)
            case Withdraw():
                await self._end(names.snapshot_uid(name))
                if view.content is not None:
                    await self._ctx.cluster.delete_snapshot_content(view.content)
                return None
            case Release() as release:
                return await self._release(view, release)

    async def _fail(self, view: SnapshotView, message: str) -> Requeue:
        snapshot, content = view.snapshot, view.content
        if snapshot is not None:
            self._ctx.recorder.snapshot(snapshot, "Warning", names.SNAPSHOT_FAILED, message)
        known = content.status.error if content is not None and content.status is not None else None
        if content is not None and (known is None or known.message != message):
            log.warning("snapshot_failed", content=content.name, message=message)
            patch = snapshots.failed_status(message, view.now)
            await self._ctx.cluster.patch_snapshot_status(content.name, patch)
        return REFUSED

    # ------------------------------------------------------------------------------------------- copies

    async def _take(self, view: SnapshotView, handle: str, take: Take) -> Requeue | None:
        """Begin the copy, or look at the one that runs."""
        job = self._jobs.get(handle)
        if job is None:
            try:
                return await self._begin(view, handle, take)
            except NoRoomForCopy as exc:
                return await self._fail(view, exc.event_text)
            except InProgress as exc:
                return Requeue.after(exc.after_s)
        if job.task is not None and not job.task.done():
            return _LOOK_AGAIN
        del self._jobs[handle]
        outcome = job.task.result() if job.task is not None else None
        if isinstance(outcome, CopyFailed) and outcome.refusal.cause is not Cause.UNSETTLED:
            self._attempts.failed(handle, outcome, job.progress, job.free_bytes)
            return await self._fail(view, outcome.event_text)
        return FAILED if outcome is not None else _IMMEDIATELY

    async def _begin(self, view: SnapshotView, handle: str, take: Take) -> Requeue | None:
        """Create the content, write the record, and start the copy.

        Raises InProgress and NoRoomForCopy: see `Attempts`.
        """
        ctx, group, record = self._ctx, self._group, take.record
        with self._locks.try_acquire(record.volume) as acquired:
            if not acquired or group is None or view.volume is None or view.snapshot is None:
                return LOCKED
            found = await located(ctx, record.volume, view.volume)
            if found is None:
                message = f"no ledger has a record of volume {record.volume}: see `nfs-provisioner recover`"
                return await self._fail(view, message)
            source, path = found
            try:
                export = await self._target(handle, source, take.export)
            except ExportError as exc:
                await self._fail(view, exc.event_message(str(take.export or source.name)))
                return FAILED
            self._attempts.require_turn(handle, export, f"claim {record.namespace}/{record.claim}")
            content = view.content or await self._create(view, view.snapshot, record.volume)
            if content is None:
                return _IMMEDIATELY
            if content.status is None:
                await ctx.cluster.patch_snapshot_status(content.name, snapshots.BEGUN)
            await self._name_class(view, content)
            # A snapshot that was deleted before it got a finalizer leaves a content that nothing else deletes.
            live = await ctx.cluster.get_snapshot(record.namespace, record.snapshot)
            if live is None or live.uid != handle or (live.metadata.deletion_timestamp and not view.begun):
                return FAILED
            await ctx.guard.require(export)
            async with ctx.health.fail_fast(export):
                if await export.snapshots.refresh(handle) is not None:
                    return _IMMEDIATELY
                namespace = await ctx.cluster.get_namespace(record.namespace)
                uid = namespace.metadata.uid if namespace is not None else ""
                record = structs.replace(record, gid=source.records[record.volume].gid, namespace_uid=uid)
                record = await export.snapshots.begin(handle, record)
        job = self._jobs[handle] = _Job(record, source, export, free_bytes=self._attempts.free_bytes(export))
        job.task = group.create_task(self._run(job, handle, path, view.snapshot))
        log.info("snapshot_begun", snapshot=record.key, volume=record.volume, export=export.name)
        return _LOOK_AGAIN

    async def _target(self, handle: str, source: Export, wanted: Location | None) -> Export:
        """Return the export that keeps a snapshot: that where its copy began before, else that of its class, or source.

        Raises ExportError.
        """
        begun = self._begun(handle)
        if begun is not None:
            return await self._ctx.health.require_ready(begun[0])
        if wanted is None:
            return source
        export = self._ctx.exports.at(wanted)
        self._ctx.health.add(export, named=True)
        return await self._ctx.health.require_ready(export)

    async def _create(self, view: SnapshotView, snapshot: Snapshot, volume_name: str) -> SnapshotContent | None:
        """Create the content of a snapshot; None if there is one already, which the next look judges."""
        if view.snapshot_class is None:
            return None
        body = snapshots.content_body(snapshot, view.snapshot_class, volume_name)
        try:
            return await self._ctx.cluster.create_snapshot_content(body)
        except AlreadyExists:
            return None

    async def _name_class(self, view: SnapshotView, content: SnapshotContent) -> None:
        """Let a snapshot without a class name that of its content, which the snapshot-controller needs.

        The content comes first: the snapshot-controller binds the snapshot as soon as that names a class.
        """
        class_name = content.spec.volume_snapshot_class_name
        if view.snapshot is not None and view.snapshot.lacks_class and class_name:
            await self._ctx.cluster.name_snapshot_class(view.snapshot, class_name)

    async def _run(self, job: _Job, handle: str, path: RelPath, snapshot: Snapshot) -> ProvisionerError | None:
        """Copy, once it is this copy's turn, and make the copy the snapshot; return why that has failed."""
        ctx, source, export = self._ctx, job.source, job.export
        with ctx.supervisor.shield("copies", snapshot=job.record.key):
            try:
                began_s = ctx.clock.monotonic()
                allows = partial(ctx.guard.allows, export)
                copy = await export.snapshot_of(source, path, handle, job.progress, allows=allows)
                await export.snapshots.place(handle, copy, ctx.stamp())
            except CopyFailed as exc:
                if ctx.guard.allows(export):
                    await self._discard(export, handle)
                return CopyFailed(exc.refusal, export.name if source is export else f"{source.name} or {export.name}")
            except ExportError as exc:
                return exc
            else:
                self._succeeded(job, snapshot, began_s)
                return None
            finally:
                self._released(job.record.volume)
                self._queue.add(names.content_name(handle))
        return ExportError(Cause.UNEXPECTED)

    async def _discard(self, export: Export, handle: str) -> None:
        """Move a failed copy into the trash, which frees its space soon."""
        try:
            await export.snapshots.end(handle)
        except ExportError as exc:
            log.debug("copy_not_discarded", content=names.content_name(handle), error=str(exc))
        self._discarded(export)

    def _succeeded(self, job: _Job, snapshot: Snapshot, began_s: float) -> None:
        progress, ctx = job.progress, self._ctx
        ctx.metrics.copied.labels(job.export.name).inc(progress.size_bytes)
        if progress.left_out:
            message = claims.left_out_message(progress.left_out, progress.names)
            ctx.recorder.snapshot(snapshot, "Warning", names.COPY_INCOMPLETE, message)
        log.info(
            "snapshot_complete",
            snapshot=job.record.key,
            volume=job.record.volume,
            export=job.export.name,
            entries=progress.entries,
            size_bytes=progress.size_bytes,
            left_out=progress.left_out,
            took_s=round(ctx.clock.monotonic() - began_s, 4),
        )

    async def _end(self, handle: str) -> None:
        """End the copy for a snapshot that is complete or not needed, and discard what it has copied."""
        self._attempts.forget(handle)
        job = self._jobs.pop(handle, None)
        if job is not None and job.task is not None:
            job.task.cancel()
            await asyncio.wait({job.task})
        begun = self._begun(handle)
        if begun is None:
            return
        export, record = begun
        await self._ctx.guard.require(export)
        await export.snapshots.end(handle)
        self._discarded(export)
        self._released(record.volume)
        log.info("snapshot_cancelled", snapshot=record.key, export=export.name)

    # ------------------------------------------------------------------------------------------- complete snapshots

    async def _serve(self, view: SnapshotView, handle: str, record: SnapshotRecord) -> Requeue | None:
        """Complete the content's status: first the content, then `readyToUse`."""
        content = view.content
        if content is None and view.snapshot is not None:
            content = await self._create(view, view.snapshot, record.volume)
        if content is None:
            return _IMMEDIATELY
        await self._end(handle)
        await self._bring_back(handle)
        await self._name_class(view, content)
        await self._ctx.cluster.patch_snapshot_status(content.name, snapshots.complete_status(handle, record))
        return None

    async def _bring_back(self, handle: str) -> None:
        """Keep the data of a deleted snapshot that is served again."""
        export = self._export_of(handle)
        if export is not None and handle in export.snapshots.deleted:
            await self._ctx.guard.require(export)
            await export.snapshots.unmark(handle)
            log.info("snapshot_restored", snapshot=export.snapshots.complete[handle].key, export=export.name)

    async def _release(self, view: SnapshotView, release: Release) -> Requeue | None:
        """Discard the copy, remove the data, and remove the finalizer, or the content, last.

        The status says so first: after a crash the ledger has nothing that would tell.
        """
        content = view.content
        assert content is not None
        handle = snapshots.handle_of(content)
        await self._end(handle)
        export = self._export_of(handle)
        if release.data and export is not None:
            if self._clones.reads_snapshot(handle):
                log.debug("snapshot_waits", content=content.name, why="a claim is being restored from it")
                return AWAITING_CHANGE
            export = await self._ctx.health.require_ready(export)
            await self._ctx.guard.require(export)
            content = await self._ctx.cluster.patch_snapshot_status(content.name, snapshots.GIVEN_UP)
            if release.retained:
                await export.snapshots.mark_deleted(handle, times.text(self._ctx.moment().latest))
            else:
                await export.snapshots.remove(handle)
                self._discarded(export)
            log.info("snapshot_deleted", content=content.name, export=export.name, retained=release.retained)
        if content.metadata.deletion_timestamp:
            await self._ctx.cluster.release_snapshot_content(content, names.CONTENT_FINALIZER)
        else:
            await self._ctx.cluster.delete_snapshot_content(content)
        return None

    async def _expire(self, export: Export) -> None:
        """Remove the data of deleted snapshots of this cluster whose retention is over, by all clocks.

        The API server proves that this is still the same cluster. A mark without data is of an interrupted removal.
        """
        ctx, moment = self._ctx, self._ctx.moment()
        if not ctx.health.is_read(export):
            return
        for handle, at in list(export.snapshots.deleted.items()):
            record = export.snapshots.complete.get(handle)
            if record is not None and (record.cluster != ctx.cluster_id or not snapshots.is_over(record, at, moment)):
                continue
            if self._clones.reads_snapshot(handle) or self._is_shared(handle, ""):
                continue
            if await ctx.cluster.cluster_uid() != ctx.cluster_id:
                return
            await ctx.guard.require(export)
            if record is None:
                await export.snapshots.unmark(handle)
                continue
            await export.snapshots.expire(handle)
            self._discarded(export)
            log.info(
                "snapshot_expired", snapshot=record.key, export=export.name, deleted=at, retention=record.retention
            )

    # ------------------------------------------------------------------------------------------- ledgers

    def _export_of(self, handle: str) -> Export | None:
        """Return the export that has a complete snapshot."""
        return next((export for export in self._ctx.exports if handle in export.snapshots.complete), None)

    def _begun(self, handle: str) -> tuple[Export, SnapshotRecord] | None:
        """Return the export on which a snapshot of this cluster has begun, and its record."""
        for export in self._ctx.exports:
            record = export.snapshots.begun.get(handle)
            if record is not None and record.cluster == self._ctx.cluster_id:
                return export, record
        return None
