"""Deliberate bugs, each a small change to one part: the simulation must find every one of them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from msgspec import structs

from provisioner.controllers.cache import ClusterCache
from provisioner.core import instances, names
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Metadata, Namespace, Snapshot, SnapshotContent, Volume
from provisioner.core.paths import LEDGER
from provisioner.core.places import Places
from provisioner.core.records import ArchiveRecord, Record, SnapshotRecord, encode
from provisioner.core.tenancy import Tenant
from provisioner.ledger import layout, opening, restore
from provisioner.ledger.copies import Copies
from provisioner.ledger.copying import TREE, Progress, Regroup, TreeCopy
from provisioner.ledger.enrollment import Enrollment
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, CopyFailed, PathTaken
from provisioner.ledger.export import Export
from provisioner.ledger.grouping import Grouping
from provisioner.ledger.heartbeats import Heartbeats
from provisioner.ledger.occupancy import Occupancy
from provisioner.ledger.provisioning import Provisioning
from provisioner.ledger.snapshots import Snapshots
from provisioner.ledger.trash import Trash
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import AnyItem, Cluster, Kind, Page
from provisioner.ports.files import Item
from provisioner.ports.tree import (
    Change,
    Entry,
    ExportError,
    NotEmpty,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Tree,
    one_by_one,
)
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Loop, Metrics
from tests.simulation.process import PROVISIONER, Parts, running
from tests.simulation.world import NAS

_TRASH: RelPath = (LEDGER, "trash")


class Through:
    """A port that passes everything through, except what a subclass overrides."""

    def __init__(self, port: Any, cache: ClusterCache | None = None) -> None:
        self._port = port
        self._cache = cache or ClusterCache(PROVISIONER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    async def carry_out(self, *changes: Change) -> None:
        """See `Tree`; through the calls that a subclass overrides."""
        await one_by_one(cast("Tree", self), changes)


class Mutant(Parts):
    """The parts of a process, some of them replaced."""

    def __init__(
        self,
        *,
        export: type[Export] = Export,
        tree: type[Through] | None = None,
        cluster: type[Through] | None = None,
        cache: type[ClusterCache] = ClusterCache,
        supervisor: type[Supervisor] = Supervisor,
    ) -> None:
        self._export, self._tree, self._cluster, self._cache = export, tree, cluster, cache
        self._supervisor = supervisor

    def export(self, location: Location, tree: Tree) -> Export:
        """See `Parts`."""
        return self._export(location, tree if self._tree is None else cast(Tree, self._tree(tree)))

    def cluster(self, cluster: Cluster, cache: ClusterCache) -> Cluster:
        """See `Parts`."""
        return cluster if self._cluster is None else cast(Cluster, self._cluster(cluster, cache))

    def cache(self, places: Places, *, with_snapshots: bool) -> ClusterCache:
        """See `Parts`."""
        return self._cache(PROVISIONER, places=places, with_snapshots=with_snapshots)

    def supervisor(self, clock: Clock, metrics: Metrics) -> Supervisor:
        """See `Parts`."""
        return self._supervisor(clock, metrics)


def with_parts(**parts: type[object]) -> type[Export]:
    """Return an export of which parts, by their attributes' names, are of other classes."""

    class Changed(Export):
        def __init__(self, location: Location, tree: Tree, *, name: str = "") -> None:
            super().__init__(location, tree, name=name)
            for attribute, kind in parts.items():
                part = getattr(self, attribute)
                assert issubclass(kind, type(part)), f"{kind} is no {type(part)}"
                part.__class__ = kind

    return Changed


# ------------------------------------------------------------------------------------------------ supervision


class _Unsupervised(Supervisor):
    """The loops run without supervision: an error ends the process."""

    async def keep(self, loop: Loop, work: Callable[[], Awaitable[None]], **how: Any) -> None:
        await work()


# ------------------------------------------------------------------------------------------------ reclaiming


class _VolumeBeforeRename(Export):
    async def move_to_trash(self, volume_name: str) -> bool:
        self._late = {*getattr(self, "_late", ()), volume_name}
        return True

    async def forget(self, volume_name: str) -> None:
        late: set[str] = getattr(self, "_late", set())
        if volume_name in late:
            late.remove(volume_name)
            await super().move_to_trash(volume_name)
        await super().forget(volume_name)


class _RecordBeforeRename(Export):
    async def move_to_trash(self, volume_name: str) -> bool:
        record = self.records[volume_name]
        await self.forget(volume_name)
        with suppress(PathMissing):
            await self._tree.rename(record.path, (*_TRASH, volume_name))
        return True


class _LedgerFromMemory(VolumeRecords):
    """Trusts its memory of the ledger, whatever another leader has written since."""

    async def require_unchanged(self, volume_name: str) -> tuple[RelPath, Proof]:
        record = self._state.index.records[volume_name]
        return record.path, Proof((LEDGER, "volumes", volume_name), encode(record))

    async def refresh(self, volume_name: str) -> Record | None:
        return self._state.index.records.get(volume_name)

    async def is_pending(self, volume_name: str) -> bool:
        return True


class _Unproven(Through):
    """A rename does not check the records that it relies on."""

    async def rename(self, source: RelPath, target: RelPath, **_proofs: Any) -> None:
        await self._port.rename(source, target)

    async def move_symlink(self, source: RelPath, target: RelPath, *, replace: bool = False, **_proofs: Any) -> None:
        await self._port.move_symlink(source, target, replace=replace)


class _NamesInTheTrashAreFree(Trash):
    """A purged name is free immediately."""

    def may_come_late(self, name: str) -> bool:
        return False


class _PutsBackWhatAnotherBrought(Provisioning):
    """A restore that fails moves whatever lies there back to the archive."""

    async def _restore(self, volume_name: str, held: Record, tenant: Tenant, *, fresh: bool) -> bool:
        try:
            return await super()._restore(volume_name, held, tenant, fresh=fresh)
        except (ArchiveUnusable, AlreadyThere):
            if await self._records.is_pending(volume_name) and await restore.put_back(self._tree, volume_name, held):
                await self._records.withdraw(volume_name)
            raise


class _ArchiveOverAnother(Export):
    async def archive(self, volume_name: str, at: datetime) -> str | None:
        path = self.records[volume_name].path
        target = (f"archived-{path[-1]}",)
        with suppress(PathMissing):
            try:
                await self._tree.rename(path, target)
            except PathExists:
                await self._tree.remove_tree(target)
                await self._tree.rename(path, target)
        return target[0]


class _DeleteArchived(Export):
    """Treats archive like delete."""

    async def archive(self, volume_name: str, at: datetime) -> str | None:
        await self.move_to_trash(volume_name)
        return None


class _RecordOfRemainingDirectoryRemoved(Export):
    """Every directory without a volume counts as gone."""

    async def directory_missing(self, volume_name: str) -> bool:
        return True


class _FinalizerTooEarly(Through):
    async def get_volume(self, name: str) -> Volume | None:
        volume: Volume | None = await self._port.get_volume(name)
        if volume is not None and volume.status.phase == "Released":
            await self._port.set_finalizer(volume, names.FINALIZER, present=False)
        return volume


class _FinalizerNever(Through):
    """Volumes are created without a finalizer, and none is added."""

    async def create_volume(self, body: Mapping[str, Any]) -> Volume:
        metadata = {**body["metadata"], "finalizers": []}
        made: Volume = await self._port.create_volume({**body, "metadata": metadata})
        return made

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        if not present:
            await self._port.set_finalizer(volume, finalizer, present=False)


class _ClaimNotReadAgain(Through):
    """Every claim that is read live counts as gone."""

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        return None


class _VolumeFromCache(Through):
    async def get_volume(self, name: str) -> Volume | None:
        return self._cache.volumes.get(name)


# ------------------------------------------------------------------------------------------------ provisioning


class _PathExistsIsSuccess(Through):
    """A retry after an unknown outcome accepts any existing directory."""

    async def make_directory(self, path: RelPath, access: Ownership) -> None:
        with suppress(PathExists):
            await self._port.make_directory(path, access)


class _RecordAfterDirectory(Through):
    def __init__(self, port: Any, cache: ClusterCache | None = None) -> None:
        super().__init__(port, cache)
        self._late: list[tuple[RelPath, str]] = []

    async def make_symlink(self, path: RelPath, target: str) -> None:
        if path[:2] == (LEDGER, "pending"):
            self._late.append((path, target))
        else:
            await self._port.make_symlink(path, target)

    async def make_directory(self, path: RelPath, access: Ownership) -> None:
        await self._port.make_directory(path, access)
        if path[0] != LEDGER:
            late, self._late = self._late, []
            for symlink, target in late:
                await self._port.make_symlink(symlink, target)


class _NoOverlapCheck(Occupancy):
    async def require_free(self, volume_name: str, record: Record, adopt_from: str | None) -> None:
        return None


class _NamesAsWritten(Export):
    """Every server is taken for one that distinguishes `team` from `TEAM`."""

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        opened = await super().open(create=create, others=others, carried=carried)
        self._folds = False
        self._state.index = await opening.read(self._tree, repair=create)
        return opened


class _RootsNotLookedFor(Occupancy):
    """The root of another export counts as an ordinary directory."""

    async def require_no_root_above(self, path: RelPath) -> None:
        return None


class _NothingIsUnlocated(ClusterCache):
    """Volumes on unknown servers do not count."""

    def anywhere(self, export: Location, path: RelPath) -> Iterator[Volume]:
        return iter(())


class _NothingIsHeld(ClusterCache):
    def holder(
        self, export: Location, path: RelPath, *, other_than: str = "", passed: Collection[str] = ()
    ) -> Volume | None:
        return None


class _AdoptAnything(Export):
    """A directory is adopted whatever record names it."""

    def adoptable(self, record: Record) -> str | None:
        return next((volume for volume, held in self.records.items() if held.path == record.path), None)


class _NeverSettled(Export):
    async def settle(self, volume_name: str, volume_uid: str = "") -> None:
        return None


class _UndoRemovesData(Export):
    async def undo(self, volume_name: str) -> bool:
        if volume_name in self.pending:
            await self._tree.remove_tree(self.records[volume_name].path)
            await self.forget(volume_name)
        return True


class _UndoTheRecordOnly(Export):
    async def undo(self, volume_name: str) -> bool:
        if volume_name in self.pending:
            await self.forget(volume_name)
        return True


class _UndoNever(Export):
    async def undo(self, volume_name: str) -> bool:
        return True


class _IndiscreetEvents(Occupancy):
    """Events name the volume that has a directory, also to other namespaces."""

    async def require_free(self, volume_name: str, record: Record, adopt_from: str | None) -> None:
        try:
            await super().require_free(volume_name, record, adopt_from)
        except PathTaken as exc:
            raise PathTaken(str(exc)) from exc


class _RestoredByItsClass(Export):
    """A restored volume gets the rule of its class, whatever the archive's was."""

    async def provision(self, volume_name: str, record: Record, ownership: Ownership, **how: Any) -> Record:
        held = await super().provision(volume_name, record, ownership, **how)
        if held.archive:
            held = structs.replace(held, on_delete=record.on_delete, retention=record.retention)
            await self.replace_record(volume_name, held)
        return held


# ------------------------------------------------------------------------------------------------ identity


class _AnyObject(Export):
    """Records never learn the uid of their PersistentVolume."""

    async def settle(self, volume_name: str, volume_uid: str = "") -> None:
        await super().settle(volume_name)

    async def replace_record(self, volume_name: str, record: Record) -> None:
        await super().replace_record(volume_name, structs.replace(record, volume_uid=""))


class _AnyCluster(Through):
    """Every cluster has the same uid."""

    async def cluster_uid(self) -> str:
        return "one"


class _NeverFollows(Export):
    """A record keeps its claim, even if the volume is bound to another one."""

    async def replace_record(self, volume_name: str, record: Record) -> None:
        if record.claim_uid == self.records[volume_name].claim_uid:
            await super().replace_record(volume_name, record)


class _AnyReleasedOne(Export):
    """A released volume of a predecessor is trusted, whenever it was created."""

    @property
    def since(self) -> str:
        return ""


class _CommandsSeeNoVolumes(Through):
    """A command sees no volumes."""

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        page: Page[AnyItem] = await self._port.list(kind, continue_token=continue_token)
        return Page([], page.version) if kind == "volumes" and running.get() is None else page


class _NamespaceByName(Through):
    """A namespace is identified by its name alone."""

    async def get_namespace(self, name: str) -> Namespace | None:
        found: Namespace | None = await self._port.get_namespace(name)
        return Namespace(Metadata(name=name, uid=name)) if found is not None else None


class _VolumeByOneName(Through):
    """A volume by another name of the server counts as missing."""

    async def get_volume(self, name: str) -> Volume | None:
        volume: Volume | None = await self._port.get_volume(name)
        nfs = volume.spec.nfs if volume is not None else None
        return None if nfs is not None and nfs.server != NAS.server else volume


class _ExpiryChecksNoVolume(Export):
    """The expiry checks for a volume that never exists instead of the archive's."""

    @property
    def archived(self) -> Mapping[str, ArchiveRecord]:
        return {name: structs.replace(each, volume=_NO_VOLUME) for name, each in super().archived.items()}


class _PurgeChecksNoVolume(Trash):
    """The purge checks for a volume that never exists instead of the entry's."""

    async def entries(self) -> dict[str, bool]:
        return {f"{_NO_VOLUME}{name}": begun for name, begun in (await super().entries()).items()}

    def may_come_late(self, name: str) -> bool:
        return super().may_come_late(name.removeprefix(_NO_VOLUME))

    async def is_purged(self, name: str) -> bool:
        return await super().is_purged(name.removeprefix(_NO_VOLUME))

    async def release(self, name: str) -> bool:
        return await super().release(name.removeprefix(_NO_VOLUME))

    async def purge(self, name: str, **how: Any) -> int:
        return await super().purge(name.removeprefix(_NO_VOLUME), **how)


_NO_VOLUME = "no-volume-"


class _LedgerRecreated(Export):
    """A missing ledger is created, although volumes carry its id."""

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        return await super().open(create=create, others=others)


class _IdNeverRestored(Export):
    """Records are restored, but the export keeps its new id."""

    async def restore_ledger(self, id: str, records: Mapping[str, Record]) -> dict[str, str]:
        await opening.restore_directories(self._tree)
        return await self.take_over(records)


class _UnreadableStays(Enrollment):
    """Unreadable records are never restored."""

    async def _write_again(self, volume_name: str, record: Record) -> None:
        return None


class _SignsUnread(Heartbeats):
    """Writes its sign, and never reads those of others."""

    _own = ""

    async def instance(self, name: str) -> str:
        return self._own

    async def sign_instance(self, name: str, sign: str, *, over: bool) -> None:
        await super().sign_instance(name, sign, over=True)
        self._own = sign


class _OthersHaveStopped(Heartbeats):
    """Every other instance counts as stopped."""

    async def instance(self, name: str) -> str:
        found = await super().instance(name)
        sign = instances.parse(found) if found else None
        return found if sign is None or sign.state else str(replace(sign, state="left"))


class _PurgeTooMuch(Trash):
    """The purge removes archives at the root of the export as well."""

    async def purge(self, name: str, **how: Any) -> int:
        for entry in await self._tree.list(()):
            if entry.name.startswith("archived-"):
                with suppress(NotEmpty, ExportError):
                    await self._tree.remove_tree((entry.name,))
        return await super().purge(name, **how)


class _IdsNeverFreed(Grouping):
    """The entries of group ids stay."""

    async def free_unused(self, cluster: str, **how: Any) -> int:
        return 0


class _TrashNeedsNoId(Grouping):
    """An id is free while its directory is still in the trash."""

    async def free_unused(self, cluster: str, **how: Any) -> int:
        return await super().free_unused(cluster, **{**how, "in_trash": ()})

    async def _waiting(self, listed: Iterable[Entry], volume_names: Set[str]) -> set[str]:
        return set()


class _AnyEntryCounts(Grouping):
    """An id whose entry names another volume counts as the volume's own."""

    async def _claim(self, volume_name: str, held: Record, *, known: bool) -> bool:
        await super()._claim(volume_name, held, known=known)
        return True


class _CopiesBeforeTheyAreComplete(Copies):
    """A copy is placed as it is, whether its engine has finished or failed."""

    async def make(
        self,
        volume_name: str,
        source: Tree,
        path: RelPath,
        progress: Progress,
        *,
        allows: Callable[[], bool],
        regroup: Regroup | None = None,
    ) -> str:
        seen = allows()

        def some() -> bool:
            nonlocal seen
            seen = seen and progress.entries == 0
            return seen

        with suppress(CopyFailed):
            return await super().make(volume_name, source, path, progress, allows=some, regroup=regroup)
        return (await self._names())[-1].rpartition(".")[2]


class _CopiedBy(Copies):
    """Copies by another engine."""

    engine = TreeCopy

    async def make(
        self,
        volume_name: str,
        source: Tree,
        path: RelPath,
        progress: Progress,
        *,
        allows: Callable[[], bool],
        regroup: Regroup | None = None,
    ) -> str:
        await self.discard(volume_name)
        token = secrets.token_hex(4)
        copy = self.engine(source, self._tree, progress, allows=allows, regroup=regroup)
        await copy.run(path, layout.copy(volume_name, token))
        return token


def copied_by(engine: type[TreeCopy]) -> type[Export]:
    """Return an export whose copies are by another engine."""
    return with_parts(_copies=type("_Changed", (_CopiedBy,), {"engine": engine}))


class _ReplacedAreLeftOut(TreeCopy):
    """A file that is replaced by a rename during its copy counts as removed."""

    async def _copy_latest(self, item: Item, parent: Item) -> None:
        if item.links > 1 and item.kind != "symlink":
            await self._copy_linked(item, parent, item.path[-1])
        else:
            await self._copy_entry(item, parent, item.path[-1])


class _LinksAreFiles(TreeCopy):
    """Each name of a file gets a copy of its own."""

    async def _copy_linked(self, item: Item, parent: Item, name: str) -> None:
        await self._copy_entry(item, parent, name)


class _LostWritesStayLost(TreeCopy):
    """The verifier of the server's writes is not compared."""

    async def _copy_segment(self, item: Item, made: Item, begin: int, end: int, *, by_server: bool) -> int:
        unstable: set[bytes] = set()
        at = await self._copy_by_server(item, made, begin, end, unstable) if by_server else begin
        return max(at if at > begin else 0, await self._copy_data(item, made, at, end, unstable))


class _FullIsComplete(TreeCopy):
    """A file for which there is no room stays as it is."""

    async def _copy_segment(self, item: Item, made: Item, begin: int, end: int, *, by_server: bool) -> int:
        with suppress(ExportError, ExceptionGroup):
            return await super()._copy_segment(item, made, begin, end, by_server=by_server)
        return end


class _RefusedIsGone(TreeCopy):
    """What the source refuses counts as removed."""

    async def _from_source(self, call: Awaitable[Any]) -> Any:
        try:
            return await super()._from_source(call)
        except ExportError:
            return await super()._from_source(_not_there())


async def _not_there() -> None:
    raise PathMissing


class _CopiesStay(Copies):
    """A copy that is cancelled or has failed is never discarded."""

    async def discard(self, volume_name: str) -> None:
        return None

    async def discard_unneeded(self) -> int:
        return 0


class _PlacedStays(Copies):
    """The undo of a clone leaves the copy that is at the claim's path."""

    async def withdraw(self, volume_name: str, held: Record) -> None:
        await self.discard(volume_name)


class _PlacedFirst(Copies):
    """A copy is moved to the claim's path before the record names it."""

    async def place(self, volume_name: str, held: Record, token: str) -> bool:
        if token:
            await self._tree.rename((*layout.copy(volume_name, token), TREE), held.path)
            await self._replace(volume_name, held, structs.replace(held, copied=token))
            await self.discard(volume_name)
            return True
        return await super().place(volume_name, held, token)


class _DeletedWhateverThePolicy(Through):
    """Every content is read as one with the policy Delete."""

    async def get_snapshot_content(self, name: str) -> SnapshotContent | None:
        found: SnapshotContent | None = await self._port.get_snapshot_content(name)
        return found and structs.replace(found, spec=structs.replace(found.spec, deletion_policy="Delete"))


class _AnyDeletionCounts(Through):
    """A content that is being deleted is read as one whose snapshot is being deleted too."""

    async def get_snapshot_content(self, name: str) -> SnapshotContent | None:
        found: SnapshotContent | None = await self._port.get_snapshot_content(name)
        if found is None or not found.metadata.deletion_timestamp:
            return found
        asked = {**found.metadata.annotations, names.SNAPSHOT_BEING_DELETED: "yes"}
        return structs.replace(found, metadata=structs.replace(found.metadata, annotations=asked))


class _SnapshotFromCache(Through):
    """A snapshot is not read again after its content was created."""

    async def get_snapshot(self, namespace: str, name: str) -> Snapshot | None:
        return next((each for each in self._cache.snapshots.values() if each.key == f"{namespace}/{name}"), None)


class _BegunStays(Snapshots):
    """The record of a snapshot that has begun is never removed."""

    async def end(self, handle: str) -> None:
        await self._copies.discard(names.snapshot_source(handle))


class _DataStays(Snapshots):
    """The data of a deleted snapshot stays."""

    async def remove(self, handle: str) -> None:
        self._complete.pop(handle, None)


class _SnapshotsGoFirst(Snapshots):
    """A new snapshot replaces all others of its export."""

    async def begin(self, handle: str, record: SnapshotRecord) -> SnapshotRecord:
        for each in list(self._complete):
            await self.remove(each)
        return await super().begin(handle, record)


class _SourcesNotNamed(Export):
    """The pending record of a clone does not protect its source."""

    @property
    def pending(self) -> Set[str]:
        return {name for name in super().pending if not self.records[name].clone_of or self.records[name].copied}


BUGS: dict[str, Parts] = {
    "the volume is deleted before its directory": Mutant(export=_VolumeBeforeRename),
    "the record is deleted before the directory": Mutant(export=_RecordBeforeRename),
    "the ledger is not read again": Mutant(export=with_parts(_records=_LedgerFromMemory), tree=_Unproven),
    "a rename does not check what it relies on": Mutant(tree=_Unproven),
    "a purged name is free immediately": Mutant(export=with_parts(trash=_NamesInTheTrashAreFree)),
    "an archive that another leader restored is put back": Mutant(
        export=with_parts(_provisioning=_PutsBackWhatAnotherBrought)
    ),
    "an archive replaces another one": Mutant(export=_ArchiveOverAnother),
    "archive means delete": Mutant(export=_DeleteArchived),
    "a record is removed while its directory exists": Mutant(export=_RecordOfRemainingDirectoryRemoved),
    "the finalizer is removed first": Mutant(cluster=_FinalizerTooEarly),
    "there is no finalizer": Mutant(cluster=_FinalizerNever),
    "the claim is not read again": Mutant(cluster=_ClaimNotReadAgain),
    "the volume is read from the cache": Mutant(cluster=_VolumeFromCache),
    "an existing directory is accepted": Mutant(tree=_PathExistsIsSuccess),
    "the record is written after the directory": Mutant(tree=_RecordAfterDirectory),
    "overlaps are not checked": Mutant(export=with_parts(_occupancy=_NoOverlapCheck), cache=_NothingIsHeld),
    "anything is adopted": Mutant(export=_AdoptAnything, cache=_NothingIsHeld),
    "a record is never settled": Mutant(export=_NeverSettled),
    "undo removes data": Mutant(export=_UndoRemovesData),
    "undo removes the record only": Mutant(export=_UndoTheRecordOnly),
    "nothing is ever undone": Mutant(export=_UndoNever),
    "the purge leaves the trash": Mutant(export=with_parts(trash=_PurgeTooMuch)),
    "the expiry does not check for the volume": Mutant(export=_ExpiryChecksNoVolume),
    "the purge does not check for the volume": Mutant(export=with_parts(trash=_PurgeChecksNoVolume)),
    "a volume by another name of its server counts as missing": Mutant(cluster=_VolumeByOneName),
    "a directory within another export is handed out": Mutant(export=with_parts(_occupancy=_RootsNotLookedFor)),
    "names that differ in case are different on every server": Mutant(export=_NamesAsWritten),
    "volumes on unknown exports do not count": Mutant(cache=_NothingIsUnlocated),
    "the loops of the process are not supervised": Mutant(supervisor=_Unsupervised),
    "any volume of the recorded name will do": Mutant(export=_AnyObject),
    "any cluster's record will do": Mutant(export=_AnyObject, cluster=_AnyCluster),
    "neighbours are not checked": Mutant(cache=_NothingIsHeld),
    "a record never follows": Mutant(export=_NeverFollows),
    "events reveal other namespaces": Mutant(export=with_parts(_occupancy=_IndiscreetEvents)),
    "a restored volume follows its class": Mutant(export=_RestoredByItsClass),
    "the sign of another instance is not read": Mutant(export=with_parts(heartbeats=_SignsUnread)),
    "another instance is not waited for": Mutant(export=with_parts(heartbeats=_OthersHaveStopped)),
    "a directory in use is adopted": Mutant(
        export=with_parts(_occupancy=_NoOverlapCheck), cluster=_CommandsSeeNoVolumes
    ),
    "a namespace is identified by its name": Mutant(cluster=_NamespaceByName),
    "a released volume of a predecessor is trusted": Mutant(export=_AnyReleasedOne),
    "a lost ledger is created again": Mutant(export=_LedgerRecreated),
    "the id of a lost ledger is not restored": Mutant(export=_IdNeverRestored),
    "an unreadable record is not restored": Mutant(export=with_parts(_enrollment=_UnreadableStays)),
    "a copy is placed before it is complete": Mutant(export=with_parts(_copies=_CopiesBeforeTheyAreComplete)),
    "the source of a copy is reclaimed": Mutant(export=_SourcesNotNamed),
    "a file that is replaced during its copy is left out": Mutant(export=copied_by(_ReplacedAreLeftOut)),
    "hard links are copied as files": Mutant(export=copied_by(_LinksAreFiles)),
    "writes that the server has lost stay lost": Mutant(export=copied_by(_LostWritesStayLost)),
    "a file without room counts as copied": Mutant(export=copied_by(_FullIsComplete)),
    "what the source refuses counts as removed": Mutant(export=copied_by(_RefusedIsGone)),
    "copies are never discarded": Mutant(export=with_parts(_copies=_CopiesStay)),
    "the undo of a clone leaves what was placed": Mutant(export=with_parts(_copies=_PlacedStays)),
    "a copy is placed before the record names it": Mutant(export=with_parts(_copies=_PlacedFirst)),
    "snapshots are deleted whatever the policy": Mutant(cluster=_DeletedWhateverThePolicy),
    "any deletion of a content counts": Mutant(cluster=_AnyDeletionCounts),
    "a snapshot is not read again": Mutant(cluster=_SnapshotFromCache),
    "a snapshot that has begun stays": Mutant(export=with_parts(snapshots=_BegunStays)),
    "the data of a deleted snapshot stays": Mutant(export=with_parts(snapshots=_DataStays)),
    "a snapshot replaces the others": Mutant(export=with_parts(snapshots=_SnapshotsGoFirst)),
    "group ids are never freed": Mutant(export=with_parts(_grouping=_IdsNeverFreed)),
    "group ids in the trash are free": Mutant(export=with_parts(_grouping=_TrashNeedsNoId)),
    "a group id of another volume is taken": Mutant(export=with_parts(_grouping=_AnyEntryCounts)),
}
