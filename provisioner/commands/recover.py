"""The work of `recover`: finds volumes of other clusters in the ledgers, and recreates them in this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from provisioner.commands.session import Ledgers, list_all, map_concurrently, open_ledgers, open_session
from provisioner.controllers.orphan_facts import has_leftovers
from provisioner.core import names, recovery, returned, snapshot_recovery, times
from provisioner.core.errors import InvalidRecord, InvalidSettings, ProvisionerError
from provisioner.core.objects import Claim, Snapshot, Volume
from provisioner.core.orphans import doubtful
from provisioner.core.places import Places
from provisioner.core.recovery import ArchiveRemains, Bring, Enter, Lost, Make, Place, Present, Remains, Skip, Step
from provisioner.core.returned import Stored
from provisioner.core.scope import Scope, Unseen
from provisioner.core.snapshot_recovery import SnapshotRemains, SnapshotStep
from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ApiUnavailable, Cluster, ClusterError, Forbidden, KindMissing
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

Progress = Callable[[int, int], None]
"""Called with the number of jobs that are done, and the number of all jobs."""


class StillAtWork(ProvisionerError):
    """The provisioner of the lost cluster was at work a few minutes ago; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What can be recovered, and what prevents it; nothing has been changed yet."""

    lost: Lost | None
    alive: bool
    """Whether the provisioner of the lost cluster was at work a few minutes ago."""
    steps: Sequence[Step]
    archives: Sequence[ArchiveRemains]
    snapshots: Sequence[SnapshotStep]
    scope: Scope
    """Which exports were read, and which could not be."""
    gone: Sequence[str]
    """Volumes of this cluster whose PersistentVolume is gone and whose directory exists."""
    away: Sequence[str]
    """Volumes of this cluster that exist and whose data is in an archive or the trash."""
    there: Container[str]
    """The claims of this cluster, by `namespace/name`."""
    unreadable: Mapping[str, Collection[str]]
    """Entries of ledgers that this version cannot read, by export."""
    unknown: Collection[str]
    """Volumes that were named and have no record."""
    offline: str
    """Why the records were not compared with the cluster; empty if they were."""


def place_of(export: Export, places: Places) -> Place:
    """Return an export as the rules of core.recovery see it."""
    return Place(
        name=export.name,
        location=export.location,
        id=export.id,
        locations=places.same(export.location),
        folds=export.folds,
    )


class Recovery:
    """Compares the ledgers with the cluster once, and recreates volumes. `open_recovery` creates it."""

    def __init__(
        self,
        exports: Iterable[Export],
        cluster: Cluster | None,
        present: Present,
        *,
        scope: Scope,
        offline: str,
        places: Places | None = None,
    ) -> None:
        # An export with two names has one ledger: the first name counts.
        known = {export.id: export for export in reversed(list(exports))}
        self._exports = {place_of(export, places or Places()): export for export in known.values()}
        self._cluster = cluster
        self._present = present
        self._scope = scope
        self._offline = offline

    async def look(self, wanted: str | None, named: Collection[str]) -> Prospect:
        """Return what can be recovered. Raises InvalidSettings if the lost cluster is ambiguous, ExportError."""
        records, archives, snapshots = self._records(), self._archives(), [] if named else self._snapshots()
        stored = await self._stored()
        back = [returned.plan(each, self._present, self._now()) for name, each in stored.items() if name in named]
        if named:
            wanted_records = set(named) - stored.keys()
            records, archives = [each for each in records if each.volume in wanted_records], []
        signs = await asyncio.gather(*(export.heartbeats.last_seen() for export in self._exports.values()))
        present = self._present = await self._with_namespaces(records, archives, snapshots)
        others = recovery.lost_clusters(
            records, archives, signs, this=present.cluster, snapshots=[each.record for each in snapshots]
        )
        lost = recovery.choose(others, wanted, this=present.cluster)
        cluster = None if lost is None else lost.cluster
        meant = recovery.selected(records, present, lost=cluster, named=named)
        return Prospect(
            lost=lost,
            alive=lost is not None and lost.is_alive(datetime.now(UTC)),
            steps=[*back, *recovery.plan(await map_concurrently(self._examine, meant), present, by_name=bool(named))],
            archives=recovery.plan_archives(archives, present, lost=cluster),
            snapshots=await self._plan_snapshots(snapshot_recovery.of_cluster(snapshots, present, cluster)),
            scope=self._scope,
            gone=[] if named else await self._gone(),
            away=[] if named else self._away(stored),
            there=present.claims,
            unreadable={
                place.name: sorted(each.unreadable) for place, each in self._exports.items() if each.unreadable
            },
            unknown=sorted(set(named) - {each.volume for each in records} - stored.keys()),
            offline=self._offline,
        )

    async def _plan_snapshots(self, found: Sequence[SnapshotRemains]) -> list[SnapshotStep]:
        """Compare snapshots with the cluster, and decide about them. Raises ClusterError."""
        cluster, trouble = self._cluster, ""
        existing: dict[str, Snapshot] = {}
        if cluster is not None and found:
            keys = sorted({(each.record.namespace, each.record.snapshot) for each in found})
            try:
                there = await map_concurrently(lambda key: cluster.get_snapshot(*key), keys)
                existing = {each.key: each for each in there if each is not None}
            except KindMissing:
                trouble = "the cluster lacks the CRDs of VolumeSnapshots: install them, and run the command again"
            except Forbidden as exc:
                trouble = f"{exc}: enable snapshots (chart value snapshots.enabled), and run the command again"
        return snapshot_recovery.plan(found, self._present, existing, trouble=trouble)

    async def _with_namespaces(
        self, records: Sequence[Remains], archives: Sequence[ArchiveRemains], snapshots: Sequence[SnapshotRemains]
    ) -> Present:
        """Add the namespaces that records and the claims of volumes name. Raises ClusterError."""
        cluster = self._cluster
        if cluster is None:
            return self._present
        volumes = (self._present.volumes.get(each.volume) for each in records)
        references = (each.spec.claim_ref for each in volumes if each is not None)
        wanted = {
            *(each.record.namespace for each in records),
            *(each.record.was.namespace for each in archives),
            *(each.record.namespace for each in snapshots),
            *(reference.namespace for reference in references if reference is not None),
        }
        found = await map_concurrently(cluster.get_namespace, sorted(wanted - {""}))
        uids = {each.metadata.name: each.metadata.uid for each in found if each is not None}
        return replace(self._present, namespaces=uids)

    async def _gone(self) -> list[str]:
        """Return the volumes of this cluster that were deleted manually: they are only recovered by name."""
        lost = [
            (export, name)
            for export in self._exports.values()
            for name in doubtful(
                export.records,
                export.pending,
                cluster=self._present.cluster,
                volumes=self._present.volumes,
                waiting=(),
            )
            # A record without a claim UID is an interrupted recovery, which needs no name.
            if self._present.cluster and name not in export.pending and export.records[name].claim_uid
        ]
        there = await map_concurrently(self._is_there, lost)
        return sorted(name for (_, name), holds in zip(lost, there, strict=True) if holds)

    async def _is_there(self, each: tuple[Export, str]) -> bool:
        try:
            return await has_leftovers(*each)
        except ExportError:
            return False

    async def _stored(self) -> dict[str, list[Stored]]:
        """Return, by volume, the archives and trash entries of volumes that still exist."""
        found: dict[str, list[Stored]] = {}
        for place, export in self._exports.items():
            trash, begun = await export.trash.names(), await export.trash.begun()
            entries = [(returned.volume_of(name), {"trash": name, "begun": name in begun}) for name in trash]
            entries += [(each.volume, {"archive": name, "was": each}) for name, each in export.archived.items()]
            known = [(volume, what) for name, what in entries if (volume := self._returned(place, name)) is not None]
            archives = await export.archives() if any("archive" in what for _, what in known) else []
            for volume, what in known:
                what["there"] = "trash" in what or what["archive"] in archives
                each = await self._look_home(place, export, volume, what)
                if each.there or each.home != "gone":
                    found.setdefault(volume.name, []).append(each)
        return found

    def _returned(self, place: Place, name: str) -> Volume | None:
        """Return the volume of this provisioner with that name, if it is on the export and keeps its data."""
        volume = self._present.volumes.get(name)
        if volume is None or not volume.is_by(self._present.provisioner) or not returned.keeps(volume):
            return None
        return volume if returned.path_on(place, volume) else None

    async def _look_home(self, place: Place, export: Export, volume: Volume, what: Mapping[str, Any]) -> Stored:
        record = export.records.get(volume.name)
        try:
            home, trouble = await export.contents(returned.path_on(place, volume) or ()), ""
        except ExportError as exc:
            home, trouble = "data", f"its directory cannot be read: {exc}"
        return Stored(place=place, volume=volume, home=home, record=record, trouble=trouble, **what)

    def _away(self, stored: Iterable[str]) -> list[str]:
        """Leave out volumes that are being reclaimed."""
        return sorted(name for name in stored if not returned.is_being_reclaimed(self._present.volumes[name]))

    def _now(self) -> str:
        return times.text(datetime.now(UTC))

    def _records(self) -> list[Remains]:
        return [
            Remains(place=place, volume=volume, record=record, pending=volume in export.pending, contents="data")
            for place, export in self._exports.items()
            for volume, record in export.records.items()
        ]

    def _archives(self) -> list[ArchiveRemains]:
        return [
            ArchiveRemains(place=place, archive=archive, record=record)
            for place, export in self._exports.items()
            for archive, record in export.archived.items()
        ]

    def _snapshots(self) -> list[SnapshotRemains]:
        return [
            SnapshotRemains(place=place, handle=handle, record=record, deleted=export.snapshots.deleted.get(handle, ""))
            for place, export in self._exports.items()
            for handle, record in export.snapshots.complete.items()
        ]

    async def _examine(self, each: Remains) -> Remains:
        """Add the state of its directory."""
        export, contents, trouble = self._exports[each.place], each.contents, ""
        try:
            if await export.directory_missing(each.volume):
                contents = "gone"
            elif each.pending:
                contents = "data" if await export.has_leftovers(each.volume) else "empty"
        except ExportError as exc:
            trouble = f"its directory cannot be read: {exc}"
        return replace(each, contents=contents, trouble=trouble)

    # ------------------------------------------------------------------------------------------- creating

    async def apply(self, prospect: Prospect, on_progress: Progress, *, cluster_gone: bool) -> Mapping[str, str]:
        """Carry out the plan; return the reason per volume or archive that failed. It can be repeated.

        Raises StillAtWork, before anything is changed, if the lost cluster seems alive and `cluster_gone` is False.
        """
        jobs: list[tuple[str, Step | ArchiveRemains | SnapshotStep]] = [
            *((step.remains.volume, step) for step in prospect.steps if not isinstance(step.action, Skip)),
            *((each.archive, each) for each in prospect.archives),
            *((step.remains.handle, step) for step in prospect.snapshots if not step.is_skipped),
        ]
        if jobs and prospect.lost is not None and prospect.alive and not cluster_gone:
            raise StillAtWork(f"{prospect.lost.is_at_work()}. Nothing was changed")
        done = 0

        async def carry_out(job: tuple[str, Step | ArchiveRemains | SnapshotStep]) -> tuple[str, str]:
            nonlocal done
            name, what = job
            why = await self._carry_out(what)
            done += 1
            on_progress(done, len(jobs))
            return name, why

        return {name: why for name, why in await map_concurrently(carry_out, jobs) if why}

    async def _carry_out(self, what: Step | ArchiveRemains | SnapshotStep) -> str:
        """Carry out one job; return why it failed, or an empty text."""
        try:
            if isinstance(what, ArchiveRemains):
                await self._exports[what.place].replace_archive_record(what.archive, what.record)
                return ""
            if isinstance(what, SnapshotStep):
                return await self._make_snapshot(what)
            if isinstance(what.action, Bring):
                return await self._bring(what, what.action)
            return await self.make(what)
        except (ExportError, ClusterError, InvalidRecord, PathTaken, AlreadyThere) as exc:
            return str(exc)

    async def _bring(self, step: Step, action: Bring) -> str:
        """Bring data back to a volume.

        The record comes first: once it exists, the archive of the volume does not expire, even after an interruption.
        """
        export, volume = self._exports[step.remains.place], step.remains.volume
        if await self._has_changed(action.volume):
            return "the volume has changed during the command: run it again to see the new state"
        await export.reinstate(volume, action.record, archive=action.archive, trash=action.trash)
        return ""

    async def _make_snapshot(self, step: SnapshotStep) -> str:
        """Create the objects of a snapshot, then write its record; return why that failed, or an empty text.

        Objects of an earlier, interrupted recovery count. Raises ExportError, ClusterError.
        """
        cluster, handle, record = self._cluster, step.remains.handle, step.remains.record
        assert cluster is not None
        export = self._exports[step.remains.place]
        if await export.snapshots.refresh(handle) != record:
            return "its record has changed during the command: check that the cluster that had it is not at work"
        if step.content is not None:
            try:
                await cluster.create_snapshot_content(step.content)
            except AlreadyExists:
                content = await cluster.get_snapshot_content(names.restored_content_name(handle))
                if content is None or content.spec.source.snapshot_handle != handle:
                    return f"another VolumeSnapshotContent {names.restored_content_name(handle)} exists"
        if step.snapshot is not None:
            try:
                await cluster.create_snapshot(step.snapshot)
            except AlreadyExists:
                there = await cluster.get_snapshot(record.namespace, record.snapshot)
                wanted = names.restored_content_name(handle)
                if there is None or there.spec.source.volume_snapshot_content_name != wanted:
                    return "a VolumeSnapshot of that name was created during the command: run it again to compare it"
        if step.record is not None:
            await export.snapshots.replace_record(handle, step.record)
        return ""

    async def make(self, step: Step) -> str:
        """Carry out one step; return why it failed, or an empty text. Raises ExportError, ClusterError.

        The record comes first: after a crash before the volume is created, the next recovery recognizes the record as
        an interrupted recovery and resumes it.
        """
        assert self._cluster is not None
        assert not isinstance(step.action, Skip | Bring)
        export, volume, record = self._exports[step.remains.place], step.remains.volume, step.action.record
        live = await export.refresh_record(volume)
        if live not in (step.remains.record, record):
            return "its record has changed during the command: check that the cluster that had it is not at work"
        seen = step.action.volume if isinstance(step.action, Enter) else None
        if seen is not None and await self._has_changed(seen):
            return "the volume has changed during the command: run it again to see the new state"
        if live != record:
            await export.replace_record(volume, record)
        uid = ""
        if isinstance(step.action, Make):
            try:
                uid = (await self._cluster.create_volume(step.action.body)).metadata.uid
            except AlreadyExists:
                return "a volume of that name was created during the command: run it again to compare it"
        await export.settle(volume, uid)
        return ""

    async def _has_changed(self, seen: Volume) -> bool:
        assert self._cluster is not None
        now = await self._cluster.get_volume(seen.name)
        return now is None or (now.metadata.uid, now.spec) != (seen.metadata.uid, seen.spec)


@asynccontextmanager
async def open_recovery(settings: Settings, *, offline: bool) -> AsyncIterator[Recovery]:
    """Open all exports and read the cluster. With `offline`, continue without the cluster if it cannot be reached.

    Raises ClusterError, InvalidSettings.
    """
    async with AsyncExitStack() as stack:
        cluster, why = None, ""
        try:
            session = await stack.enter_async_context(open_session(settings))
            present, cluster = await present_in(session.cluster, settings.provisioner), session.cluster
            ledgers: Ledgers = session
            scope = ledgers.scope
        except (ApiUnavailable, InvalidSettings) as exc:
            if not offline or (isinstance(exc, InvalidSettings) and settings.kubeconfig is not None):
                raise
            ledgers, present, why = (
                await stack.enter_async_context(open_ledgers(settings)),
                Present(provisioner=settings.provisioner),
                str(exc),
            )
            missed = [Unseen("the cluster", why)] if isinstance(exc, ApiUnavailable) else []
            scope = ledgers.scope.but(missed)
        yield Recovery(ledgers.exports, cluster, present, scope=scope, offline=why, places=ledgers.registry.places)


async def present_in(cluster: Cluster, provisioner: str) -> Present:
    """Read the volumes and claims of the cluster. Raises ClusterError."""
    volumes, claims = await list_all(cluster, Volume), await list_all(cluster, Claim)
    return Present(
        provisioner=provisioner,
        cluster=await cluster.cluster_uid(),
        volumes={volume.name: volume for volume in volumes},
        claims={claim.key: claim for claim in claims},
    )
