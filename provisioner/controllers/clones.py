"""Clones: copies for claims that name another claim as the source of their data.

A copy runs in the background, and no worker waits for it. The claim controller looks at it from time to time, reports
its progress, and creates the volume once the copy is complete. A copy ends with its claim, and with the leadership of
this replica: the next leader begins it again.

The source is protected from the moment that a clone of it has passed all checks: its reclaim waits. Until the copy can
begin, only this leader knows that. Then a pending record names the source, for every later leader too. The record is
written under the lock of the source's volume, and the reclaim looks for such records under the same lock.

`attempts` says when a copy that has failed begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from provisioner.controllers.attempts import Attempts
from provisioner.controllers.context import ControllerContext
from provisioner.core import claims, identity, names, snapshots
from provisioner.core.claims import CloneSource, Provision
from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.core.reasons import Reason
from provisioner.core.records import SnapshotRecord
from provisioner.ledger.copying import Progress, Regroup
from provisioner.ledger.errors import CopyFailed, InProgress
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.locks import VolumeLocks

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 30.0
"""Time between two events with the progress of a copy."""
_LOCKED_S = 0.5


class SourceUnusable(ProvisionerError):
    """The ledger does not confirm the source of a clone."""

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return Reason.CLONE_SOURCE_UNUSABLE


@dataclass(slots=True, eq=False)
class _Job:
    """A copy for one volume."""

    plan: Provision
    export: Export
    task: asyncio.Task[str | ProvisionerError] | None = None
    progress: Progress = field(default_factory=Progress)
    began_s: float = 0.0
    free_bytes: int = 0
    """The free space of the export when the copy began."""
    counted_bytes: int = 0
    reported_s: float | None = None
    """When an event reported its progress last."""


class Clones:
    """The copies of one term of leadership."""

    def __init__(
        self,
        ctx: ControllerContext,
        locks: VolumeLocks,
        *,
        revisit: Callable[[str], None],
        released: Callable[[str], None],
    ) -> None:
        """`revisit` is called with the uid of a claim whose copy has ended.

        `released` is called with the name of a volume that is no longer being copied.
        """
        self._ctx = ctx
        self._locks = locks
        self._revisit = revisit
        self._released = released
        self._jobs: dict[str, _Job] = {}
        self._wanted: dict[str, Provision] = {}
        """Plans for clones that have passed all checks, by volume, until they have their volume or are gone."""
        self._attempts = Attempts(ctx)
        self._group: asyncio.TaskGroup | None = None
        self.on_discarded: Callable[[Export], None] = lambda export: None
        """Called when a copy was moved into the trash of an export."""

    async def run(self) -> None:
        """Run copies until cancelled, which ends them."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._jobs.clear()

    # ------------------------------------------------------------------------------------------- the source

    async def source_of(self, claim: Claim) -> CloneSource | None:
        """Gather what a claim asks to be copied, live; None if it does not ask for a clone. Raises ClusterError."""
        ctx = self._ctx
        name = claims.clone_source_of(claim, ctx.cache.classes.get(claim.class_name), ctx.provisioner)
        if name is None:
            return None
        asked = claim.data_source
        if asked is not None and asked.is_snapshot and not ctx.cache.with_snapshots:
            return None
        own = names.volume_name(claim.uid)
        for export in ctx.exports:
            if own in export.pending and export.records[own].clone_of:
                return CloneSource(begun=export.records[own].clone_of)
        plan = self._wanted.get(own)
        if plan is not None and plan.source is not None:
            return replace(plan.source, begun=plan.record.clone_of)
        if asked is None:
            return CloneSource(handle=name, stored=self._stored(name))
        if asked.is_snapshot:
            return await self._snapshot_named(claim.metadata.namespace, name)
        source = await ctx.cluster.get_claim(claim.metadata.namespace, name)
        volume_name = source.spec.volume_name if source is not None else ""
        volume = await ctx.cluster.get_volume(volume_name) if volume_name else None
        return CloneSource(claim=source, volume=volume)

    async def _snapshot_named(self, namespace: str, name: str) -> CloneSource:
        """Gather what is known of a snapshot: it, its content, and the ledger's record. Raises ClusterError."""
        cluster = self._ctx.cluster
        snapshot = await cluster.get_snapshot(namespace, name)
        content_name = snapshot.status.bound_volume_snapshot_content_name if snapshot is not None else ""
        content = await cluster.get_snapshot_content(content_name) if content_name else None
        handle = snapshots.handle_of(content) if content is not None else ""
        return CloneSource(snapshot=snapshot, content=content, stored=self._stored(handle))

    def _stored(self, handle: str) -> SnapshotRecord | None:
        """Return the record of a complete snapshot."""
        stored = (each.snapshots.complete[handle] for each in self._ctx.exports if handle in each.snapshots.complete)
        return next(stored, None)

    def snapshot_of(self, volume: Volume) -> str | None:
        """Return a snapshot that is being taken of a volume: then the volume's data must stay."""
        if not self._ctx.cache.with_snapshots:
            return None  # nothing would end what has begun
        for export in self._ctx.exports:
            for record in export.snapshots.begun.values():
                if (record.volume, record.cluster) == (volume.name, self._ctx.cluster_id):
                    return record.key
        return None

    def reads_snapshot(self, handle: str) -> bool:
        """Return True if a claim is being restored from a snapshot: then the snapshot's data must stay."""
        wanted = names.snapshot_source(handle)
        begun = (export.records[name].clone_of for export in self._ctx.exports for name in export.pending)
        planned = (plan.record.clone_of for plan in self._wanted.values())
        return wanted in begun or wanted in planned

    def protect(self, plan: Provision) -> None:
        """Keep the source of a clone that has passed all checks, until the claim has its volume or is gone.

        The export can be away for long before the pending record is written: the source's claim can go until then.
        """
        if plan.record.clone_of:
            self._wanted.setdefault(plan.volume, plan)

    def reader_of(self, volume: Volume) -> str | None:
        """Return a claim that is being cloned from a volume, or can be: then the volume's data must stay."""
        ctx = self._ctx
        for plan in self._wanted.values():
            if plan.record.clone_of == volume.name:
                return plan.claim.key
        for export in ctx.exports:
            for name in export.pending:
                record = export.records[name]
                if record.clone_of == volume.name and record.cluster == ctx.cluster_id:
                    return f"{record.namespace}/{record.claim}"
        reference = volume.spec.claim_ref
        if reference is None or all(map(ctx.health.is_read, ctx.exports)):
            return None
        # The records of an export that has not answered yet are unknown: the claims tell who can have begun.
        for claim in ctx.cache.claims.values():
            source = claim.data_source
            wanted = source is not None and source.is_claim and source.name == reference.name
            if wanted and claim.metadata.namespace == reference.namespace and claims.is_unfinished(claim):
                return claim.key
        return None

    async def _locate(self, plan: Provision) -> tuple[Export, RelPath, int]:
        """Return the export, the directory and the group of a copy's source, by the ledger.

        Raises SourceUnusable, ExportError.
        """
        ctx, name = self._ctx, plan.record.clone_of
        handle = names.snapshot_handle(name)
        if handle:
            return await self._locate_snapshot(handle, plan)
        volume = plan.source.volume if plan.source is not None else None
        found = await located(ctx, name, volume)
        if found is not None:
            return *found, found[0].records[name].gid
        raise SourceUnusable(
            f"no ledger has a record of volume {name}, of which this claim is to be a clone: `nfs-provisioner recover"
            f" --volume {name}` shows what is known of it"
        )

    async def _locate_snapshot(self, handle: str, plan: Provision) -> tuple[Export, RelPath, int]:
        """Return where a snapshot is. A VolumeSnapshot is of its namespace; by the handle alone, the record must be."""
        for export in self._ctx.exports:
            if handle not in export.snapshots.complete:
                continue
            export = await self._ctx.health.require_ready(export)
            record = await export.snapshots.refresh(handle)
            if record is not None and await export.snapshots.is_there(handle):
                why = snapshots.not_of(handle, record, plan.tenant) if plan.claim.data_source is None else ""
                if why:
                    raise SourceUnusable(why)
                return export, export.snapshots.path(handle), record.gid
        raise SourceUnusable(f"no ledger has the data of snapshot {handle}: `nfs-provisioner snapshots` lists all")

    # ------------------------------------------------------------------------------------------- copies

    async def copy(self, plan: Provision, export: Export) -> str:
        """Return the name of the complete copy for a plan; empty if the export has it by its record.

        Begins the copy if there is none. Raises InProgress while it runs, and CopyFailed and SourceUnusable.
        """
        job = self._jobs.get(plan.volume)
        if job is None:
            self._attempts.require_turn(plan.volume, export, claims.source_text(plan.claim))
            job = await self._begin(plan, export)
            if job is None:
                return ""
        assert job.task is not None
        self._count(job)
        if not job.task.done():
            self._report(job)
            raise InProgress(LOOK_EVERY_S)
        del self._jobs[plan.volume]
        self._measure(export)
        outcome = job.task.result()
        if isinstance(outcome, CopyFailed):
            self._attempts.failed(plan.volume, outcome, job.progress, job.free_bytes)
        if isinstance(outcome, ProvisionerError):
            raise outcome
        return outcome

    async def _begin(self, plan: Provision, export: Export) -> _Job | None:
        """Write the record and start the copy; return None if the copy is complete."""
        ctx, group = self._ctx, self._group
        with self._locks.try_acquire(plan.record.clone_of) as acquired:
            if not acquired or group is None:
                raise InProgress(_LOCKED_S)
            await ctx.guard.require(export)  # what an earlier leader has left is discarded
            try:
                source, path, own = await self._locate(plan)
            except SourceUnusable:
                self._wanted.pop(plan.volume, None)  # there is nothing to protect: the claims are looked at again
                begun = export.records.get(plan.volume)
                if begun is not None and not begun.copied:
                    await self._discard(plan.volume, export)  # what an earlier leader has copied takes space
                raise
            async with ctx.health.fail_fast(export):
                # Data without a group of its own keeps its groups, as data that is adopted.
                held = await export.begin_copy(plan.volume, plan.record, plan.parameters.groups if own else None)
        if held.copied:
            return None
        regroup = Regroup(own, held.gid) if held.gid else None
        free_bytes = self._attempts.free_bytes(export)
        job = self._jobs[plan.volume] = _Job(plan, export, began_s=ctx.clock.monotonic(), free_bytes=free_bytes)
        job.task = group.create_task(self._run(job, source, path, regroup))
        self._measure(export)
        log.info(
            "copy_begun", claim=plan.claim.key, volume=plan.volume, source=plan.record.clone_of, export=export.name
        )
        return job

    async def _run(self, job: _Job, source: Export, path: RelPath, regroup: Regroup | None) -> str | ProvisionerError:
        """Copy, once it is this copy's turn; return the name of the copy, or why it has failed.

        A failed copy goes to the trash.
        """
        ctx, plan, export = self._ctx, job.plan, job.export
        with ctx.supervisor.shield("copies", volume=plan.volume):
            try:
                allows = partial(ctx.guard.allows, export)
                copy = await export.copy_from(source, path, plan.volume, job.progress, allows=allows, regroup=regroup)
                self._succeeded(job)
                return copy
            except CopyFailed as exc:
                await self._discard(plan.volume, export)
                if exc.refusal.cause is Cause.UNSETTLED:
                    return exc.refusal
                return CopyFailed(exc.refusal, export.name if source is export else f"{source.name} or {export.name}")
            except ExportError as exc:  # nothing has been copied yet
                return exc
            finally:
                self._revisit(plan.claim.uid)
        return ExportError(Cause.UNEXPECTED)

    async def _discard(self, volume_name: str, export: Export) -> None:
        """Move an unfinished copy into the trash, which frees its space soon."""
        if not self._ctx.guard.allows(export):
            return
        try:
            await export.discard_copies(volume_name)
        except ExportError as exc:
            log.debug("copy_not_discarded", volume=volume_name, error=str(exc))
        self.on_discarded(export)

    async def cancel(self, volume_name: str) -> None:
        """End the copy for a volume whose claim needs none any more; what it has made is left to `Export.undo`."""
        job, wanted = self._jobs.pop(volume_name, None), self._wanted.pop(volume_name, None)
        self._attempts.forget(volume_name)
        if job is None or job.task is None:
            self.ended(wanted.record.clone_of if wanted is not None else "")
            return
        job.task.cancel()
        await asyncio.wait({job.task})
        self._measure(job.export)
        self.ended(job.plan.record.clone_of)
        log.info("copy_cancelled", claim=job.plan.claim.key, volume=volume_name)

    def succeeded(self, plan: Provision) -> None:
        """Note that a claim has its volume: its source is no longer needed."""
        self._wanted.pop(plan.volume, None)
        self._attempts.forget(plan.volume)
        self.ended(plan.record.clone_of)

    def ended(self, source: str) -> None:
        """Look at a source again, which may wait to be reclaimed."""
        if source:
            self._released(source)

    # ------------------------------------------------------------------------------------------- reports

    def _report(self, job: _Job) -> None:
        progress, claim, now_s = job.progress, job.plan.claim, self._ctx.clock.monotonic()
        if job.reported_s is not None and now_s - job.reported_s < LOOK_EVERY_S - 1.0:
            return
        job.reported_s = now_s
        message = claims.copying_message(
            claim, entries=progress.entries, size_bytes=progress.size_bytes, trouble=progress.trouble
        )
        self._ctx.recorder.claim(claim, "Normal", names.PROVISIONING, message)

    def _succeeded(self, job: _Job) -> None:
        progress, plan = job.progress, job.plan
        self._count(job)
        if progress.left_out:
            message = claims.left_out_message(progress.left_out, progress.names)
            self._ctx.recorder.claim(plan.claim, "Warning", names.COPY_INCOMPLETE, message)
        log.info(
            "copy_complete",
            claim=plan.claim.key,
            volume=plan.volume,
            source=plan.record.clone_of,
            export=job.export.name,
            entries=progress.entries,
            size_bytes=progress.size_bytes,
            left_out=progress.left_out,
            vanished=progress.vanished,
            took_s=round(self._ctx.clock.monotonic() - job.began_s, 4),
        )

    def _count(self, job: _Job) -> None:
        copied_bytes, job.counted_bytes = job.progress.size_bytes - job.counted_bytes, job.progress.size_bytes
        self._ctx.metrics.copied.labels(job.export.name).inc(copied_bytes)

    def _measure(self, export: Export) -> None:
        running = sum(job.export is export for job in self._jobs.values())
        self._ctx.metrics.copies.labels(export.name).set(running)


async def located(ctx: ControllerContext, name: str, volume: Volume | None) -> tuple[Export, RelPath] | None:
    """Return the export and the directory of a volume that is to be copied, by the ledger; None if that has none.

    `volume` is the live object, None if a copy has begun before. Raises ExportError.
    """
    place = ctx.exports.locate(volume) if volume is not None else None
    if place is not None and volume is not None:
        ctx.health.add(place[0], named=False)
        export = await ctx.health.require_ready(place[0])
        record, reference = await export.refresh_record(name), volume.spec.claim_ref
        if (
            record is not None
            and reference is not None
            and identity.is_for(record, reference)
            and (record.cluster, record.path) == (ctx.cluster_id, place[1])
            and name not in export.pending
        ):
            return export, record.path
    elif volume is None:
        for export in ctx.exports:
            if name not in export.records:
                continue
            export = await ctx.health.require_ready(export)
            record = await export.refresh_record(name)
            if record is not None and record.cluster == ctx.cluster_id and name not in export.pending:
                return export, record.path
        for export in ctx.exports:
            if not ctx.health.is_read(export):
                await ctx.health.require_ready(export)  # its ledger can have the record
    return None
