"""An export with its ledger, trash and archives, over any `Tree`.

README.md in this folder has the protocol: the states, the order of steps, what a crash leaves. The steps themselves are
in `provisioning`, `reclaiming` and `enrollment`; this module opens and probes an export, and puts its parts together.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Set
from contextlib import asynccontextmanager
from datetime import datetime

from provisioner.core.groups import GidRange
from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import PathIndex
from provisioner.core.records import ArchiveRecord, Quota, Record
from provisioner.core.recovery import Contents
from provisioner.core.tenancy import UNKNOWN, Tenant
from provisioner.ledger import aliases, layout, measuring, naming, nesting, opening, presence, symlinks
from provisioner.ledger.answers import Answers
from provisioner.ledger.copies import Copies
from provisioner.ledger.copying import Progress, Regroup
from provisioner.ledger.enrollment import Enrollment
from provisioner.ledger.grouping import Grouping
from provisioner.ledger.heartbeats import Heartbeats
from provisioner.ledger.measuring import Measured
from provisioner.ledger.occupancy import Occupancy
from provisioner.ledger.provisioning import Provisioning
from provisioner.ledger.reclaiming import Reclaiming
from provisioner.ledger.shares import CopyLimits
from provisioner.ledger.snapshots import Snapshots
from provisioner.ledger.state import LedgerState
from provisioner.ledger.trash import Trash
from provisioner.ledger.unknown import unknown_directories
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.tree import FilesystemStats, Ownership, PathMissing, Proof, Tree


class Export:
    """One export: its volumes by name, and its parts `trash`, `snapshots`, `heartbeats` and `answers`."""

    def __init__(
        self,
        location: Location,
        tree: Tree,
        *,
        name: str = "",
        copies: CopyLimits = CopyLimits(),  # noqa: B008
    ) -> None:
        self._location = location
        self._tree = tree
        self._folds = False
        self._ledger_refusal = ""
        self._state = LedgerState(tree, export_name=name or str(location))
        self._records = VolumeRecords(self._state)
        self._occupancy = Occupancy(self._state, self._records)
        self.trash = Trash(tree)
        self._grouping = Grouping(self._state, self._records, self.trash)
        self._copies = Copies(self._state, self._records, copies)
        self.snapshots = Snapshots(self._state, self._copies)
        self._provisioning = Provisioning(self._state, self._records, self._occupancy, self._grouping, self._copies)
        self._enrollment = Enrollment(self._state, self._records, self._occupancy)
        self.heartbeats = Heartbeats(tree)
        self.answers = Answers(tree)
        self._reclaiming = Reclaiming(self._state, self._records, self.trash)

    @property
    def location(self) -> Location:
        """Where the export is, as volumes name it."""
        return self._location

    @property
    def name(self) -> str:
        """The name in messages: the location, with its port where that is not the usual one."""
        return self._state.export_name

    @property
    def id(self) -> str:
        """The id in `.provisioner/export`; empty until open() has succeeded."""
        return self._state.export_id

    @property
    def folds(self) -> bool:
        """Whether the server folds names: case, or normal forms. Found out by open()."""
        return self._folds

    @property
    def since(self) -> str:
        """Since when the ledger is kept: UTC, RFC 3339; empty before the first heartbeat."""
        return self.heartbeats.since

    @property
    def records(self) -> Mapping[str, Record]:
        """The records of volumes by name: all that open() has read, with later changes."""
        return self._state.index.records

    @property
    def pending(self) -> Set[str]:
        """The volumes in `records` whose claims have no PersistentVolume, by the ledger."""
        return self._state.index.pending

    @property
    def archived(self) -> Mapping[str, ArchiveRecord]:
        """The records of archives by name; an archive of another provisioner has none."""
        return self._state.index.archives

    @property
    def unreadable(self) -> Set[str]:
        """The names in the ledger whose records this version cannot read.

        They are reported, and only `restore_ledger` replaces them.
        """
        return self._state.index.unreadable

    @property
    def foreign(self) -> Set[str]:
        """Those of `unreadable` that another version of this program wrote."""
        return self._state.index.foreign

    @property
    def unreachable_hint(self) -> str:
        """What an admin can check while the export does not answer, or empty."""
        return self._tree.unreachable_hint

    @property
    def exposed(self) -> str:
        """The server's answer if it refused to make a new ledger private, or empty."""
        return self._ledger_refusal

    def mode_refused(self, volume_name: str) -> str:
        """Return the server's answer if it refused a mode for a pending volume, or empty."""
        return self._state.mode_refusals.get(volume_name, "")

    # ------------------------------------------------------------------------------------------- opening

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        """Find the ledger, check the export's id, and read all records.

        Can be called again, and reads all again. `create` allows a ledger to be made where there is none; without it
        that raises Cause.NO_LEDGER. `carried` are the ids that volumes on the export carry: with any of them no ledger
        is made, and an id that is not among them raises Cause.CHANGED.

        Returns the one of `others` that is this export by another name, or this object. Only the returned one is open.
        Raises Cause.COPY if one of `others` has the same id and is another export.
        """
        self._tree.pin("")
        root = await self._tree.root_id()
        self._tree.pin(root)
        if create and not await opening.has_ledger(self._tree):
            # Before anything is written: the root can lie in the directory of a volume.
            await nesting.taken_from_above(self._tree)
        found, refusal = await opening.find(self._tree, known=self.id, carried=carried, create=create)
        same = await aliases.find(self._tree, found, (other for other in others if other is not self))
        if same is not None:
            return same
        # Right after the look at the others, without an await: of two that are opened side by side, the second one
        # sees the id of the first.
        self._state.export_id = found
        self._ledger_refusal = refusal or self._ledger_refusal
        await self.heartbeats.read_since()
        # After the ledger is there: of two that write first and look then, at least one sees the other.
        self._state.above = await nesting.taken_from_above(self._tree)
        self._folds = await naming.folds(self._tree, found, create=create)
        self._state.index = await opening.read(self._tree, repair=create, folds=self._folds)
        await self.snapshots.read()
        self._state.unconfirmed.clear()
        return self

    @asynccontextmanager
    async def marked(self, name: str) -> AsyncIterator[None]:
        """Keep a mark of that name in the ledger while this context is open."""
        await self._tree.make_symlink(layout.mark(name), "see which other name this export has")
        try:
            yield
        finally:
            await symlinks.remove(self._tree, layout.mark(name))

    async def probe(self) -> FilesystemStats:
        """Check that the export answers and is the same one; return what statfs says."""
        if self.id:
            await opening.probe(self._tree, self.id)
        return await self._tree.space()

    async def read_remains(self) -> None:
        """Read what is left of a ledger without an id. Creates nothing."""
        self._state.index = await opening.read(self._tree, repair=False)

    async def restore_ledger(self, id: str, records: Mapping[str, Record]) -> dict[str, str]:
        """Write records that are missing or unreadable, then the id if it is another one.

        Returns, by volume, why a record was not written. Can be repeated: what is there stays.
        """
        # Before anything is written: the root can lie in the directory of a volume.
        await nesting.taken_from_above(self._tree)
        there = await opening.restore_directories(self._tree)
        refused = await self._enrollment.restore(records)
        await opening.restore_id(
            self._tree, id, instead_of=there, began=(record.created for record in records.values())
        )
        return refused

    async def close(self) -> None:
        """Close the tree."""
        await self._tree.close()

    # ------------------------------------------------------------------------------------------- provisioning

    def adoptable(self, record: Record) -> str | None:
        """Return the volume whose settled record has the same directory and namespace name."""
        return self._state.index.adoptable(record)

    async def provision(
        self,
        volume_name: str,
        record: Record,
        ownership: Ownership,
        *,
        adopt_from: str | None = None,
        tenant: Tenant = UNKNOWN,
        gid_range: GidRange | None = None,
        copy: str = "",
    ) -> Record:
        """Write the record, then create the directory; return the record that counts.

        `copy` is the complete copy that becomes the directory, if the record names the volume that is cloned.

        The record of an earlier attempt stays and counts. `adopt_from` names the record whose directory can be handed
        out again; the caller has checked that its volume is gone and that it is the tenant's. If the record names an
        archive, the archive's directory is renamed to the claim's, if the archive is the tenant's. With `gid_range` a
        new directory gets a group of its own; data that is there keeps its group. Raises PathTaken, AlreadyThere,
        ArchiveUnusable, NoFreeGroup.
        """
        return await self._provisioning.provision(
            volume_name, record, ownership, adopt_from=adopt_from, tenant=tenant, gid_range=gid_range, copy=copy
        )

    async def begin_copy(self, volume_name: str, record: Record, gid_range: GidRange | None = None) -> Record:
        """Write the record of a volume that becomes a copy of `record.clone_of`; return the record that counts.

        If that has `copied`, the copy is complete. With `gid_range` the copy gets a group of its own. Raises PathTaken,
        AlreadyThere, NoFreeGroup.
        """
        return await self._provisioning.begin_copy(volume_name, record, gid_range)

    async def copy_from(
        self,
        source: Export,
        path: RelPath,
        volume_name: str,
        progress: Progress,
        *,
        allows: Callable[[], bool],
        regroup: Regroup | None = None,
    ) -> str:
        """Copy a directory of another export, or of this one, for a volume; return the name of the copy.

        It goes on until the copy is complete, or `allows` returns False. With `regroup` what has the source's group
        gets that of the copy. Raises CopyFailed.
        """
        return await self._copies.make(volume_name, source._tree, path, progress, allows=allows, regroup=regroup)

    async def snapshot_of(
        self, source: Export, path: RelPath, handle: str, progress: Progress, *, allows: Callable[[], bool]
    ) -> str:
        """Copy a directory for a snapshot that has begun; return the name of the copy. Raises CopyFailed."""
        return await self.snapshots.copy(handle, source._tree, path, progress, allows=allows)

    async def discard_copies(self, volume_name: str) -> None:
        """Move the copies for a volume that are not its directory yet into the trash."""
        await self._copies.discard(volume_name)

    async def discard_unneeded_copies(self) -> int:
        """Move the copies that no pending volume needs into the trash; return how many."""
        return await self._copies.discard_unneeded()

    async def settle(self, volume_name: str, volume_uid: str = "") -> None:
        """Record that the PersistentVolume exists, with this uid.

        From then on only a reclaim ends the record. A record that is settled already gets the uid too. An empty uid
        leaves the recorded one.
        """
        await self._provisioning.settle(volume_name, volume_uid)

    async def undo(self, volume_name: str) -> bool:
        """Undo a provisioning that never got a PersistentVolume.

        Removes the directory if it is empty, then the record. A directory that came from an archive becomes that
        archive again, and one that is a copy goes to the trash. Returns False if the directory is not empty: then
        nothing was touched. Leaves a settled record alone and returns True.
        """
        return await self._provisioning.undo(volume_name)

    # ------------------------------------------------------------------------------------------- records

    async def take_over(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Write records for volumes that another provisioner made.

        Touches nothing but the ledger. Returns, by volume, why a record was not written: another volume has the
        directory, or one above or below it.
        """
        return await self._enrollment.take_over(records)

    async def reinstate(self, volume_name: str, record: Record, *, archive: str = "", trash: str = "") -> None:
        """Move a volume's data back into its directory, out of an archive or the trash.

        Writes the record first if the volume has none, then renames, never over anything but an empty directory, then
        ends the archive's record. Raises PathTaken, AlreadyThere, and Cause.RECORD if the data is gone.
        """
        await self._enrollment.reinstate(volume_name, record, archive=archive, trash=trash)

    async def vet(self, volume_name: str, record: Record) -> None:
        """Raise PathTaken if an existing directory cannot become a volume's."""
        await self._occupancy.vet(volume_name, record)

    async def replace_record(self, volume_name: str, record: Record) -> None:
        """Replace a volume's record in one step: no reader ever sees a part of it."""
        await self._records.replace(volume_name, record)

    async def refresh_record(self, volume_name: str) -> Record | None:
        """Read a volume's record from the export into `records`; None if there is none."""
        return await self._records.refresh(volume_name)

    async def follow_class(self, volume_name: str, held: Record, quota: Quota) -> Record:
        """Give the pending record of an attempt the quota that its class asks for now; return the record that counts.

        Returns `held`, and writes nothing, if the export has another record.
        """
        return await self._records.follow_class(volume_name, held, quota)

    async def rewrite_pending(self, volume_name: str, record: Record) -> None:
        """Write the record of an unfinished attempt again, whose directory this process has created.

        Does nothing if the export has a record of the volume. The next `provision` continues the attempt, and finds out
        whether the directory is still there, and still this volume's.
        """
        await self._records.write_again(volume_name, record)

    async def find_damage(self) -> None:
        """Read all settled records again, and update `unreadable`."""
        await self._records.find_damage()

    # ------------------------------------------------------------------------------------------- directories

    async def contents(self, path: RelPath) -> Contents:
        """Return what a directory holds."""
        try:
            return "empty" if await self._tree.is_empty(path) else "data"
        except PathMissing:
            return "gone"

    async def directory_missing(self, volume_name: str) -> bool:
        """Return True if a volume has no record, or its directory does not exist."""
        record = self.records.get(volume_name)
        try:
            if record is not None:
                await self._tree.is_empty(record.path)
        except PathMissing:
            return True
        return record is None

    async def has_leftovers(self, volume_name: str) -> bool:
        """Return True if the directory of an unfinished volume is not empty and must be kept."""
        record = self.records.get(volume_name)
        try:
            return record is not None and not await self._tree.is_empty(record.path)
        except PathMissing:
            return False

    def measure(self, path: RelPath) -> AsyncGenerator[Measured, None]:
        """Yield what was counted in a directory after each page of entries; see `ledger.measuring`."""
        return measuring.measure(self._tree, path)

    async def missing(self, paths: Iterable[RelPath]) -> Set[RelPath]:
        """Return the paths at which there is nothing; see `ledger.presence`."""
        return await presence.missing(self._tree, paths)

    async def unknown_directories(self, known: PathIndex, *, limit: int) -> list[RelPath]:
        """Return at most `limit` unknown directories that hold something.

        See `ledger.unknown`. The ledger, archives, and what servers put into a root themselves do not count.
        """
        return await unknown_directories(self._tree, known, limit=limit)

    # ------------------------------------------------------------------------------------------- reclaiming

    async def move_as_known(self, volume_name: str, sign: Proof) -> bool:
        """Move a volume's directory into the trash in one call that relies on its record and on an instance's sign.

        Returns False, and has moved nothing, if the export is not as this process knows it: ask again whether the
        volume can be reclaimed, then use `move_to_trash`.
        """
        return await self._reclaiming.move_as_known(volume_name, sign)

    async def move_to_trash(self, volume_name: str) -> bool:
        """Move a volume's directory into the trash; return False if there is none."""
        return await self._reclaiming.move_to_trash(volume_name)

    async def archive(self, volume_name: str, at: datetime) -> str | None:
        """Rename a volume's directory to `archived-…`; return the name, or None if gone."""
        return await self._reclaiming.archive(volume_name, at)

    async def retain(self, volume_name: str, at: datetime) -> bool:
        """Record that the PersistentVolume goes and the directory stays; once is enough.

        Returns False if there is no directory: the record stays, for what is mounted there can come back.
        """
        return await self._reclaiming.retain(volume_name, at)

    async def forget(self, volume_name: str) -> None:
        """Remove a volume's record: the last step of a reclaim."""
        await self._records.forget(volume_name)

    async def tidy_groups(self, cluster: str, *, in_trash: Collection[str], exists: Callable[[str], bool]) -> int:
        """Free a cluster's group ids that nothing needs any longer, and complete the list of those in use.

        `in_trash` are the names in the trash, `exists` returns True for a volume that the cluster has. Returns how many
        ids were freed. At rest this makes no call.
        """
        await self._grouping.complete()
        return await self._grouping.free_unused(cluster, in_trash=in_trash, exists=exists)

    # ------------------------------------------------------------------------------------------- archives

    async def archives(self) -> list[str]:
        """Return the names of the archives at the export's root, with and without records."""
        return await self._reclaiming.archive_names()

    async def set_aside(self, was: Record, at: datetime) -> str:
        """Rename a directory that belongs to no volume to an archive with a record; return the archive's name.

        `was` names the directory. Raises PathTaken if it is a volume's, an archive or another export, and PathMissing.
        """
        await self._occupancy.vet("", was)
        return await self._reclaiming.set_aside(was, at)

    async def enter_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Write the record of an archive that has none, so that an admin can expire it.

        A record that is there already stays and counts. Raises Cause.RECORD if it cannot be read.
        """
        await self._reclaiming.enter_archive(archive, record)

    async def expire(self, archive: str, at: datetime) -> bool:
        """Move an archive that has a record into the trash, then end its record.

        Returns False, and touches nothing, while a claim waits for it, or if the export has another record of it now.
        """
        return await self._reclaiming.expire(archive, at)

    async def end_archive(self, archive: str) -> bool:
        """End the record of an archive whose directory is gone.

        Returns False, and touches nothing, while its volume has a record or a claim waits for it.
        """
        return await self._reclaiming.end_archive(archive)

    async def replace_archive_record(self, archive: str, record: ArchiveRecord) -> None:
        """Replace an archive's record in one step."""
        await self._reclaiming.replace_archive_record(archive, record)
