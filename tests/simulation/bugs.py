"""Deliberate bugs, each a small change of one part: the simulation must find every one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from msgspec import structs

from provisioner.controllers.cache import ClusterCache
from provisioner.core import instances, names
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Metadata, Namespace, Volume
from provisioner.core.paths import LEDGER
from provisioner.core.records import ArchiveRecord, Record, encode
from provisioner.core.tenancy import Tenant
from provisioner.ledger import opening, restore
from provisioner.ledger.enrollment import Enrollment
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, PathTaken
from provisioner.ledger.export import Export
from provisioner.ledger.heartbeats import Heartbeats
from provisioner.ledger.occupancy import Occupancy
from provisioner.ledger.provisioning import Provisioning
from provisioner.ledger.trash import Trash
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import AnyItem, Cluster, Kind, Page
from provisioner.ports.tree import ExportError, NotEmpty, Ownership, PathExists, PathMissing, Proof, Tree
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Loop, Metrics
from tests.simulation.process import PROVISIONER, Parts, running
from tests.simulation.world import NAS

_TRASH: RelPath = (LEDGER, "trash")


class _Through:
    """A port as it is, but for what a subclass does otherwise."""

    def __init__(self, port: Any, cache: ClusterCache | None = None) -> None:
        self._port = port
        self._cache = cache or ClusterCache(PROVISIONER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


class Mutant(Parts):
    """Parts of which one is another kind."""

    def __init__(
        self,
        *,
        export: type[Export] = Export,
        tree: type[_Through] | None = None,
        cluster: type[_Through] | None = None,
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

    def cache(self) -> ClusterCache:
        """See `Parts`."""
        return self._cache(PROVISIONER)

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
    """The loops of the process run as they are; what they raise ends it."""

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
    """Believes what it remembers of the ledger, whatever another leader has done to it since."""

    async def require_unchanged(self, volume_name: str) -> tuple[RelPath, Proof]:
        record = self._state.index.records[volume_name]
        return record.path, Proof((LEDGER, "volumes", volume_name), encode(record))

    async def refresh(self, volume_name: str) -> Record | None:
        return self._state.index.records.get(volume_name)

    async def is_pending(self, volume_name: str) -> bool:
        return True


class _Unproven(_Through):
    """A rename does not look at what it relies on."""

    async def rename(self, source: RelPath, target: RelPath, **_proofs: Any) -> None:
        await self._port.rename(source, target)

    async def move_symlink(self, source: RelPath, target: RelPath, *, replace: bool = False, **_proofs: Any) -> None:
        await self._port.move_symlink(source, target, replace=replace)


class _NamesInTheTrashAreFree(Trash):
    """Nothing is left of what was purged."""

    def may_come_late(self, name: str) -> bool:
        return False


class _PutsBackWhatAnotherBrought(Provisioning):
    """A restore that fails gives back what lies there."""

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
    """Takes every rule for delete."""

    async def archive(self, volume_name: str, at: datetime) -> str | None:
        await self.move_to_trash(volume_name)
        return None


class _RecordOfWhatIsLeftEnds(Export):
    """The sweep believes that every directory without a volume is gone."""

    async def directory_missing(self, volume_name: str) -> bool:
        return True


class _FinalizerTooEarly(_Through):
    async def get_volume(self, name: str) -> Volume | None:
        volume: Volume | None = await self._port.get_volume(name)
        if volume is not None and volume.status.phase == "Released":
            await self._port.set_finalizer(volume, names.FINALIZER, present=False)
        return volume


class _FinalizerNever(_Through):
    """Volumes are made without a finalizer, and none is put on."""

    async def create_volume(self, body: Mapping[str, Any]) -> Volume:
        metadata = {**body["metadata"], "finalizers": []}
        made: Volume = await self._port.create_volume({**body, "metadata": metadata})
        return made

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        if not present:
            await self._port.set_finalizer(volume, finalizer, present=False)


class _ClaimNotReadAgain(_Through):
    """Every claim that is asked for counts as gone."""

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        return None


class _VolumeFromCache(_Through):
    async def get_volume(self, name: str) -> Volume | None:
        return self._cache.volumes.get(name)


# ------------------------------------------------------------------------------------------------ provisioning


class _PathExistsIsSuccess(_Through):
    """A retry after an unknown outcome takes whatever is there for its own."""

    async def make_directory(self, path: RelPath, access: Ownership) -> None:
        with suppress(PathExists):
            await self._port.make_directory(path, access)


class _RecordAfterDirectory(_Through):
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
    """Every server tells `team` from `TEAM`."""

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        opened = await super().open(create=create, others=others, carried=carried)
        self._folds = False
        self._state.index = await opening.read(self._tree, mend=create)
        return opened


class _RootsNotLookedFor(Occupancy):
    """Another export's root is a directory as any other."""

    async def require_no_root_above(self, path: RelPath) -> None:
        return None


class _NobodyIsHomeless(ClusterCache):
    """A volume on a server that nothing names does not count."""

    def anywhere(self, export: Location, path: RelPath) -> Iterator[Volume]:
        return iter(())


class _NobodyHolds(ClusterCache):
    def holder(
        self, export: Location, path: RelPath, *, other_than: str = "", passed: Collection[str] = ()
    ) -> Volume | None:
        return None


class _AdoptAnything(Export):
    """Whatever record names the directory, it is handed out again."""

    def adoptable(self, record: Record) -> str | None:
        return next((volume for volume, held in self.records.items() if held.path == record.path), None)


class _NeverSettled(Export):
    async def settle(self, volume_name: str, volume_uid: str = "") -> None:
        return None


class _UndoWhatIsFull(Export):
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


class _TellsAll(Occupancy):
    """Events say whose volume has a directory, whoever asks."""

    async def require_free(self, volume_name: str, record: Record, adopt_from: str | None) -> None:
        try:
            await super().require_free(volume_name, record, adopt_from)
        except PathTaken as exc:
            raise PathTaken(str(exc)) from exc


class _RestoredByItsClass(Export):
    """What an archive was counts for nothing once a claim has it back."""

    async def provision(self, volume_name: str, record: Record, ownership: Ownership, **how: Any) -> Record:
        held = await super().provision(volume_name, record, ownership, **how)
        if held.archive:
            held = structs.replace(held, on_delete=record.on_delete, retention=record.retention)
            await self.replace_record(volume_name, held)
        return held


# ------------------------------------------------------------------------------------------------ identity


class _AnyObject(Export):
    """Which PersistentVolume object a record is for is never learned."""

    async def settle(self, volume_name: str, volume_uid: str = "") -> None:
        await super().settle(volume_name)

    async def replace_record(self, volume_name: str, record: Record) -> None:
        await super().replace_record(volume_name, structs.replace(record, volume_uid=""))


class _AnyCluster(_Through):
    """Every cluster says that it is the same one."""

    async def cluster_uid(self) -> str:
        return "one"


class _NeverFollows(Export):
    """A record is for the claim that it was written for, whatever becomes of the volume."""

    async def replace_record(self, volume_name: str, record: Record) -> None:
        if record.claim_uid == self.records[volume_name].claim_uid:
            await super().replace_record(volume_name, record)


class _AnyReleasedOne(Export):
    """A released volume of a peer's is taken at its word, whenever it came."""

    @property
    def since(self) -> str:
        return ""


class _CommandsSeeNoVolumes(_Through):
    """A command does not look which volumes there are."""

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        page: Page[AnyItem] = await self._port.list(kind, continue_token=continue_token)
        return Page([], page.version) if kind == "volumes" and running.get() is None else page


class _NamespaceByName(_Through):
    """A namespace is told by its name alone."""

    async def get_namespace(self, name: str) -> Namespace | None:
        found: Namespace | None = await self._port.get_namespace(name)
        return Namespace(Metadata(name=name, uid=name)) if found is not None else None


class _VolumeByOneName(_Through):
    """A volume by another name of the server counts as not made."""

    async def get_volume(self, name: str) -> Volume | None:
        volume: Volume | None = await self._port.get_volume(name)
        nfs = volume.spec.nfs if volume is not None else None
        return None if nfs is not None and nfs.server != NAS.server else volume


class _ExpiryAsksNobody(Export):
    """Whether the volume of an archive is there again does not count: another one is asked for."""

    @property
    def archived(self) -> Mapping[str, ArchiveRecord]:
        return {name: structs.replace(each, volume=_NOBODY) for name, each in super().archived.items()}


class _PurgeAsksNobody(Trash):
    """The same for what is in the trash."""

    async def names(self) -> list[str]:
        return [f"{_NOBODY}{name}" for name in await super().names()]

    async def purge(self, name: str, **how: Any) -> int:
        return await super().purge(name.removeprefix(_NOBODY), **how)


_NOBODY = "nobody-"


class _BegunAnew(Export):
    """Where there is no ledger, one is made, whatever volumes say."""

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        return await super().open(create=create, others=others)


class _IdNeverRestored(Export):
    """Records are written again, and the export keeps the id that it has got meanwhile."""

    async def restore_ledger(self, id: str, records: Mapping[str, Record]) -> dict[str, str]:
        await opening.restore_directories(self._tree)
        return await self.take_over(records)


class _UnreadableStays(Enrollment):
    """What cannot be read is never written again."""

    async def _write_again(self, volume_name: str, record: Record) -> None:
        return None


class _SignsUnread(Heartbeats):
    """Leaves its sign, and never looks at another's."""

    _own = ""

    async def instance(self, name: str) -> str:
        return self._own

    async def sign_instance(self, name: str, sign: str, *, over: bool) -> None:
        await super().sign_instance(name, sign, over=True)
        self._own = sign


class _NobodyIsAtWork(Heartbeats):
    """Every other instance counts as one that has stopped."""

    async def instance(self, name: str) -> str:
        found = await super().instance(name)
        sign = instances.parse(found) if found else None
        return found if sign is None or sign.state else str(replace(sign, state="left"))


class _PurgeTooMuch(Trash):
    """What cannot be settled in the trash is done at the root."""

    async def purge(self, name: str, **how: Any) -> int:
        for entry in await self._tree.list(()):
            if entry.name.startswith("archived-"):
                with suppress(NotEmpty, ExportError):
                    await self._tree.remove_tree((entry.name,))
        return await super().purge(name, **how)


BUGS: dict[str, Parts] = {
    "the volume goes before its directory": Mutant(export=_VolumeBeforeRename),
    "the record goes before the directory": Mutant(export=_RecordBeforeRename),
    "the ledger is not read again": Mutant(export=with_parts(_records=_LedgerFromMemory), tree=_Unproven),
    "a rename does not look at what it relies on": Mutant(tree=_Unproven),
    "nothing keeps a name in the trash taken": Mutant(export=with_parts(trash=_NamesInTheTrashAreFree)),
    "what another leader brought back is put back": Mutant(
        export=with_parts(_provisioning=_PutsBackWhatAnotherBrought)
    ),
    "an archive takes the place of another one": Mutant(export=_ArchiveOverAnother),
    "archive means delete": Mutant(export=_DeleteArchived),
    "a record ends while its directory is there": Mutant(export=_RecordOfWhatIsLeftEnds),
    "the finalizer goes first": Mutant(cluster=_FinalizerTooEarly),
    "there is no finalizer": Mutant(cluster=_FinalizerNever),
    "the claim is not read again": Mutant(cluster=_ClaimNotReadAgain),
    "the volume is read from the cache": Mutant(cluster=_VolumeFromCache),
    "a directory that exists is taken for one's own": Mutant(tree=_PathExistsIsSuccess),
    "the record comes after the directory": Mutant(tree=_RecordAfterDirectory),
    "overlaps are not looked for": Mutant(export=with_parts(_occupancy=_NoOverlapCheck), cache=_NobodyHolds),
    "anything is adopted": Mutant(export=_AdoptAnything, cache=_NobodyHolds),
    "a record is never settled": Mutant(export=_NeverSettled),
    "undo removes what is full": Mutant(export=_UndoWhatIsFull),
    "undo ends the record only": Mutant(export=_UndoTheRecordOnly),
    "nothing is ever undone": Mutant(export=_UndoNever),
    "the purge goes beyond the trash": Mutant(export=with_parts(trash=_PurgeTooMuch)),
    "expiry asks nobody": Mutant(export=_ExpiryAsksNobody),
    "the purge asks nobody": Mutant(export=with_parts(trash=_PurgeAsksNobody)),
    "a volume by another name of its server counts as not made": Mutant(cluster=_VolumeByOneName),
    "a directory within another export is handed out": Mutant(export=with_parts(_occupancy=_RootsNotLookedFor)),
    "names that differ in case are two on every server": Mutant(export=_NamesAsWritten),
    "volumes on no known export do not count": Mutant(cache=_NobodyIsHomeless),
    "the loops of the process are not supervised": Mutant(supervisor=_Unsupervised),
    "any volume of the recorded name will do": Mutant(export=_AnyObject),
    "any cluster's record will do": Mutant(export=_AnyObject, cluster=_AnyCluster),
    "neighbours are not looked for": Mutant(cache=_NobodyHolds),
    "a record never follows": Mutant(export=_NeverFollows),
    "events tell of other namespaces": Mutant(export=with_parts(_occupancy=_TellsAll)),
    "a restored volume goes by its class": Mutant(export=_RestoredByItsClass),
    "the sign of another instance is not read": Mutant(export=with_parts(heartbeats=_SignsUnread)),
    "another instance is not waited for": Mutant(export=with_parts(heartbeats=_NobodyIsAtWork)),
    "a directory is adopted whoever has it": Mutant(
        export=with_parts(_occupancy=_NoOverlapCheck), cluster=_CommandsSeeNoVolumes
    ),
    "a namespace is told by its name": Mutant(cluster=_NamespaceByName),
    "a released volume of a peer's is trusted": Mutant(export=_AnyReleasedOne),
    "a lost ledger is begun anew": Mutant(export=_BegunAnew),
    "the id of a lost ledger does not come back": Mutant(export=_IdNeverRestored),
    "a record that cannot be read stays": Mutant(export=with_parts(_enrollment=_UnreadableStays)),
}
