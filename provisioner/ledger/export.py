"""An export with its ledger, trash and archives, over any Tree (design, "The export's ledger").

The order of steps is the safety: the record comes first, then the directory, then the PersistentVolume, then the
record is settled; on delete the rename comes first, then the PersistentVolume, then the record. Whatever crash comes
in between leaves a record, and the next start finds it and goes on. Where what is: ledger.layout.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from weakref import WeakValueDictionary

from msgspec import structs

from provisioner.core import discretion, times
from provisioner.core.discretion import owner_by
from provisioner.core.errors import InvalidRecord
from provisioner.core.instances import is_instances
from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import ARCHIVE_PREFIX, LEDGER, PathIndex
from provisioner.core.records import ArchiveRecord, Record, decode, encode
from provisioner.core.recovery import Contents
from provisioner.core.returned import volume_of
from provisioner.core.tenancy import UNKNOWN, Tenant, adopt_command
from provisioner.ledger import (
    aliases,
    archives,
    layout,
    modes,
    naming,
    nesting,
    opening,
    presence,
    reinstate,
    restore,
    symlinks,
    trash,
)
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, PathTaken
from provisioner.ledger.index import Ledger
from provisioner.ledger.layout import STATES
from provisioner.ledger.unknown import unknown_directories
from provisioner.ports.tree import (
    Cause,
    ExportError,
    FilesystemStats,
    NotEmpty,
    OnProgress,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Tree,
)


class Export:
    """The `Export` port over a `Tree`."""

    def __init__(self, location: Location, tree: Tree, *, name: str = "") -> None:
        self._location = location
        self._name = name or str(location)
        self._tree = tree
        self._ledger = Ledger()
        self._id = ""
        self._since = ""
        self._folds = False
        self._above = PathIndex()
        """Directories that exports above this one have handed out."""
        self._entering: set[str] = set()
        """Volumes that are in the ledger in memory while their records are on their way to the export."""
        self._unsure: set[str] = set()
        """Pending ones of which nobody knows whether their records came to the export."""
        self._at_archives: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._ledger_refusal = ""
        self._mode_refusals: dict[str, str] = {}
        """The server's answers where it did not set the modes of directories, by volume, until that is settled."""

    @property
    def location(self) -> Location:
        """Where the export is, as volumes name it."""
        return self._location

    @property
    def name(self) -> str:
        """What people call it: its location, and its port where that is a special one."""
        return self._name

    @property
    def id(self) -> str:
        """The id in `.provisioner/export`; empty until open() succeeded."""
        return self._id

    @property
    def folds(self) -> bool:
        """Whether the server takes names for one that differ in case, or in their normal form, as open() found out."""
        return self._folds

    @property
    def since(self) -> str:
        """Since when a provisioner has kept the ledger: UTC, RFC 3339; empty before its first sign()."""
        return self._since

    @property
    def records(self) -> Mapping[str, Record]:
        """The ledger in memory, by volume name: all records since open(), with our own changes."""
        return self._ledger.records

    @property
    def pending(self) -> Set[str]:
        """The volumes in `records` of which the ledger says that their claim never got a PersistentVolume."""
        return self._ledger.pending

    @property
    def archived(self) -> Mapping[str, ArchiveRecord]:
        """The records of archives, by archive name: an archive that another provisioner left has none."""
        return self._ledger.archives

    @property
    def unreadable(self) -> Set[str]:
        """The names in the ledger that are no records of ours, or of a newer version: reported, never touched."""
        return self._ledger.unreadable

    @property
    def foreign(self) -> Set[str]:
        """Those of `unreadable` that another version of ours wrote."""
        return self._ledger.foreign

    @property
    def unreachable_hint(self) -> str:
        """What an admin should look at while it does not answer; empty when that is all that is known."""
        return self._tree.unreachable_hint

    @property
    def exposed(self) -> str:
        """The server's answer where it refused to close the ledger to others when open() made it; else empty."""
        return self._ledger_refusal

    def mode_refused(self, volume: str) -> str:
        """The server's answer where it did not set the mode of a pending volume's directory; else empty."""
        return self._mode_refusals.get(volume, "")

    # ------------------------------------------------------------------------------------------- opening

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        """Find the ledger, read all of it, check the export's id. May be called again: it reads anew.

        Only with `create` is a ledger made where there is none; else that raises Cause.NO_LEDGER. `carried` are the ids
        that volumes on it carry: while there are any, none is made, and one whose id none of them carries is not used,
        which raises Cause.CHANGED.
        Returns the one of `others` that is this export by another name; else itself. Only itself is open then. Raises
        Cause.COPY where one of `others` has the same id and is another export.
        """
        self._tree.pin("")
        root = await self._tree.root_id()
        self._tree.pin(root)
        if create and not await opening.has_ledger(self._tree):
            await nesting.taken_from_above(self._tree)  # before anything is written into the directory of a volume
        found, refusal = await opening.find(self._tree, known=self._id, carried=carried, create=create)
        same = await aliases.find(self._tree, found, (other for other in others if other is not self))
        if same is not None:
            return same
        # Right after the look at the others: of two that are opened side by side, one sees the other's id.
        self._id = found
        self._ledger_refusal = refusal or self._ledger_refusal
        self._since = await opening.since(self._tree)
        # After the ledger is there: of two that write first and look then, at least one sees the other.
        self._above = await nesting.taken_from_above(self._tree)
        self._folds = await naming.folds(self._tree, found, create=create)
        self._ledger = await opening.read(self._tree, mend=create, folds=self._folds)
        self._unsure.clear()
        return self

    @asynccontextmanager
    async def marked(self, name: str) -> AsyncIterator[None]:
        """While this is open, the ledger has a mark of that name."""
        await self._tree.make_symlink(layout.mark(name), "see which other name this export has")
        try:
            yield
        finally:
            await symlinks.remove(self._tree, layout.mark(name))

    async def probe(self) -> FilesystemStats:
        """Whether the export answers and is the one that it was, with its ledger, and what statfs says."""
        if self._id:
            await opening.probe(self._tree, self._id)
        return await self._tree.space()

    async def read_remains(self) -> None:
        """Read what is left of a ledger that has lost its id; nothing is made. Raises ExportError."""
        self._ledger = await opening.read(self._tree, mend=False)

    async def restore_ledger(self, id: str, records: Mapping[str, Record]) -> dict[str, str]:
        """Write records that are missing or cannot be read, and then the id where the ledger has another one or none.

        Returns, by volume, why for those that were not written. May be repeated: what is there stays.
        """
        await nesting.taken_from_above(self._tree)  # before anything is written into the directory of a volume
        there = await opening.restore_directories(self._tree)
        taken = await self._enter_all(records, restore=True)
        await opening.restore_id(
            self._tree, id, instead_of=there, began=(record.created for record in records.values())
        )
        return taken

    # ------------------------------------------------------------------------------------------- provisioning

    def adoptable(self, record: Record) -> str | None:
        """The volume whose settled record names exactly this directory and a namespace of the same name, if any."""
        return self._ledger.adoptable(record)

    async def provision(
        self, volume: str, record: Record, access: Ownership, *, adopt_from: str | None = None, tenant: Tenant = UNKNOWN
    ) -> Record:
        """Record first, then the directory. Returns the record that holds: that of an earlier attempt stays.

        `adopt_from` names the record whose directory may be handed out again; the caller has made sure that its volume
        is gone and that it is the tenant's. Where the record names an archive, the directory is that archive's,
        renamed, if it is the tenant's. Raises PathTaken, AlreadyThere, ArchiveUnusable.
        """
        try:
            return await self._provision(volume, record, access, adopt_from, tenant)
        except PathMissing:
            await opening.probe(self._tree, self._id)  # it says so where the ledger is what is missing
            raise

    async def _provision(
        self, volume: str, record: Record, access: Ownership, adopt_from: str | None, tenant: Tenant
    ) -> Record:
        fresh = await self._begin(volume, record, adopt_from)
        held = self._ledger.records[volume]
        # Right below the root and with the volume's own name in it, nobody else can want it. Any other name may be that
        # of a volume that another cluster is reclaiming: its directory is gone already, and its rename may come again.
        others_matter = len(held.path) > 1 or volume not in held.directory or not fresh or adopt_from is not None
        made = False
        try:
            # Two exports, or clusters, each write their record first and look then: at least one of two sees the other.
            await self._refuse_roots_above(held.path)
            if others_matter:
                await self._look_at_others(volume, held, adopt_from)
            if held.archive:
                made = await self._bring_back(volume, held, tenant, fresh=fresh)
            else:
                made = await self._make(volume, held, access, fresh=fresh, adopt_from=adopt_from)
            if others_matter and made:
                # Once more: the directory above may have become somebody's between the look and now.
                await self._look_at_others(volume, held, adopt_from)
        except PathTaken:
            await self._retreat(volume, held, fresh=fresh, made=made)
            raise
        return self._ledger.records.get(volume, held)  # with the rule of the archive that was brought back

    async def _begin(self, volume: str, record: Record, adopt_from: str | None) -> bool:
        """See that there is a record for this attempt; whether it is new."""
        known = volume in self._ledger.records and volume not in self._unsure
        # Read again: another replica, or the reclaim of the volume, may have ended it since.
        known = known and await self.reread(volume) is not None
        fresh = not known and await self._enter(volume, record, adopt_from)
        held = self._ledger.records[volume]
        if held.archive == record.archive or volume not in self._ledger.pending:
            return fresh
        # Since the earlier attempt the claim was told to get its data from an archive, or no longer to.
        if not await self.undo(volume):
            raise AlreadyThere(f"directory {held.directory!r} of an earlier attempt for this claim is not empty")
        return await self._enter(volume, record, adopt_from)

    async def _retreat(self, volume: str, held: Record, *, fresh: bool, made: bool) -> None:
        """Take back what this attempt made, since somebody else was faster."""
        try:
            if made and held.archive:
                await self._give_back(volume, held)
                return
            if made:
                await self._tree.remove_directory(held.path)
        except NotEmpty:
            return  # the other's directory is in it as yet: the record stays, for undo()
        except PathMissing:
            pass
        if fresh:
            await self._withdraw(volume)

    async def _enter(self, volume: str, record: Record, adopt_from: str | None) -> bool:
        """Write the record, or learn that of an earlier attempt; whether it is new."""
        await self._refuse_taken(volume, record, adopt_from)
        self._ledger.enter(volume, record, "pending")
        self._entering.add(volume)
        try:
            await self._tree.make_symlink(layout.of("pending", volume), encode(record))
        except PathExists:
            self._unsure.discard(volume)
            self._ledger.remove(volume)
        except BaseException:
            # The outcome may be unknown: the retry meets its own record, as after a crash, or undo() does.
            self._unsure.add(volume)
            raise
        else:
            self._unsure.discard(volume)
            return True
        finally:
            self._entering.discard(volume)
        self._ledger.read({volume: await self._tree.read_symlink(layout.of("pending", volume))}, "pending")
        if volume not in self._ledger.records:
            raise PathTaken(f"the ledger of export {self._name} has an unreadable record of volume {volume}")
        return False

    async def _refuse_taken(self, volume: str, record: Record, adopt_from: str | None) -> None:
        """Raise PathTaken when by the ledger somebody else has the directory, or one above or below it."""
        asker = owner_by(record)
        archive = self._ledger.archive_at(record.path[0])
        if archive is not None:
            owner = owner_by(self._ledger.archives[archive].was)
            raise PathTaken(discretion.taken(asker, record.directory, owner, f"archive {archive!r}"))
        if (outer := await self._taken_above(record.path)) is not None:
            raise PathTaken(discretion.taken(asker, record.directory, None, outer))
        allowed = (volume, adopt_from or "")
        while (holder := self._ledger.touching(record.path, other_than=allowed)) is not None:
            held = self._ledger.records[holder]
            if await self._is_recorded(holder):
                by = f"volume {holder} ({held.directory}) in the ledger of export {self._name}"
                raise PathTaken(discretion.taken(asker, record.directory, owner_by(held), by))
            self._ledger.remove(holder)  # ended by another cluster, or another replica

    async def _refuse_roots_above(self, path: RelPath) -> None:
        """Raise PathTaken when a directory on the way to a path is another export's root."""
        await nesting.require_no_root_above(self._tree, path)

    async def _taken_above(self, path: RelPath) -> str | None:
        """Who has a directory by the ledger of an export above this one; asked again before anyone is refused."""
        if self._above.touching(path) is not None:
            self._above = await nesting.taken_from_above(self._tree)
        return self._above.touching(path)

    async def _is_recorded(self, volume: str) -> bool:
        if volume in self._entering:
            return True
        for state in STATES:
            with suppress(PathMissing):
                await self._tree.read_symlink(layout.of(state, volume))
                return True
        return False

    async def _look_at_others(self, volume: str, record: Record, adopt_from: str | None) -> None:
        """Learn what other clusters have recorded since, and raise PathTaken when that touches the directory."""
        await self._learn_of_others()
        await self._refuse_taken(volume, record, adopt_from)

    async def _learn_of_others(self) -> None:
        listings = await asyncio.gather(*(self._tree.list((LEDGER, state)) for state in STATES))
        for state, listing in zip(STATES, listings, strict=True):
            unknown = self._ledger.unknown({entry.name for entry in listing if entry.type == "symlink"})
            if unknown:
                self._ledger.read(await symlinks.read(self._tree, (LEDGER, state), sorted(unknown)), state)

    async def _make(self, volume: str, held: Record, access: Ownership, *, fresh: bool, adopt_from: str | None) -> bool:
        """Make the directory; one that is there must be adopted or an earlier attempt's. True: it was made now."""
        try:
            self._note_mode(volume, await modes.make_directory(self._tree, held.path, access))
        except PathExists:
            pass
        else:
            return True
        if adopt_from is not None and self._ledger.records[adopt_from].path == held.path:
            return False  # mode and owner stay as the data's last user left them
        if not fresh and await self._tree.is_empty(held.path):
            self._note_mode(volume, await modes.set_access(self._tree, held.path, access))
            return False
        if fresh:
            await self._withdraw(volume)
        raise AlreadyThere(
            f"directory {held.directory!r} exists on export {self._name}, and no record lets this claim have it:"
            f" choose another pathPattern, or have an admin hand it over with `{adopt_command(held)}`"
        )

    def _note_mode(self, volume: str, refusal: str) -> None:
        if refusal:
            self._mode_refusals[volume] = refusal

    async def _bring_back(self, volume: str, held: Record, tenant: Tenant, *, fresh: bool) -> bool:
        async with self._at_archive(held.archive):
            try:
                return await restore.bring_back(self._tree, self._ledger, volume, held, tenant, fresh=fresh)
            except (ArchiveUnusable, AlreadyThere):
                # Nothing is put back: what lies there now, another leader may have brought back for this very claim.
                if await self._has_come(volume) and not await restore.has_moved(self._tree, held):
                    await self._give_up(volume, held)
                raise

    def _at_archive(self, archive: str) -> asyncio.Lock:
        """One of us at a time brings an archive back, gives it back, or ends it."""
        lock = self._at_archives.get(archive)
        if lock is None:
            lock = self._at_archives[archive] = asyncio.Lock()
        return lock

    async def _give_back(self, volume: str, held: Record) -> bool:
        """Make an archive again of what was brought back, and take back the record; whether that was done."""
        async with self._at_archive(held.archive):
            return await restore.put_back(self._tree, volume, held) and await self._give_up(volume, held)

    async def _give_up(self, volume: str, held: Record) -> bool:
        """Take back the record of a restore that has moved nothing; whether that is so.

        From then on nothing is moved for it any more. What another leader has moved until then has its record again.
        """
        await self._withdraw(volume)
        if not await restore.has_moved(self._tree, held):
            return True
        with suppress(PathExists):
            await self._tree.make_symlink(layout.of("pending", volume), encode(held))
        self._ledger.enter(volume, held, "pending")
        return False

    async def _has_come(self, volume: str) -> bool:
        """Whether the export itself has a pending record for a volume; else what it has is learned anew."""
        try:
            await self._tree.read_symlink(layout.of("pending", volume))
        except PathMissing:
            self._unsure.discard(volume)
            await self.reread(volume)
            return False
        self._unsure.discard(volume)
        return True

    async def _withdraw(self, volume: str) -> None:
        """Take back a record, and nothing else."""
        self._mode_refusals.pop(volume, None)
        await symlinks.remove(self._tree, layout.of("pending", volume))
        self._ledger.remove(volume)

    async def settle(self, volume: str, uid: str = "") -> None:
        """Note that the PersistentVolume exists, with this uid: from now on only a reclaim may end the record.

        A record that is settled already gets the uid as well; an empty one changes nothing of what is recorded.
        """
        self._mode_refusals.pop(volume, None)
        held = self._ledger.records.get(volume)
        if held is None or (volume not in self._ledger.pending and uid in ("", held.volume_uid)):
            return
        former, archive = self._ledger.former(volume), held.archive if volume in self._ledger.pending else ""
        if former is not None:
            # First: afterwards nothing would tell that the two belong together.
            await self.forget(former)
        live = await self.reread(volume)
        record = structs.replace(live or held, volume_uid=uid or (live or held).volume_uid)
        if live is not None and live != record:
            # Before it is settled: a crash in between leaves a pending record, which the live volume settles.
            await self.amend(volume, record)
        if live is None or volume in self._ledger.pending:
            await self._move_settled(volume, record)
        if archive:
            # Last: a pending record whose archive has none would not tell whose directory that is.
            await archives.drop(self._tree, self._ledger, archive)

    async def _move_settled(self, volume: str, record: Record) -> None:
        pending, settled = layout.of("pending", volume), layout.of("volumes", volume)
        try:
            await self._tree.move_symlink(pending, settled)
        except PathMissing:
            # Moved by an attempt whose outcome was unknown; or taken back by a leader who did not know of the volume.
            with suppress(PathExists):
                await self._tree.make_symlink(settled, encode(record))
        except PathExists:
            await symlinks.remove(self._tree, pending)  # another leader has settled it since it was read
        self._ledger.enter(volume, record, "volumes")

    async def undo(self, volume: str) -> bool:
        """Take back a provisioning that never got a PersistentVolume: rmdir when empty, then the record.

        What came from an archive becomes that archive again. False when the directory holds something: nothing was
        touched. A settled record is left alone (True).
        """
        if volume not in self._ledger.pending:
            return True
        if not await self._has_come(volume):  # settled or taken back by another leader, or never written
            return True
        record = self._ledger.records[volume]
        try:
            await self._look_at_others(volume, record, None)
            if record.archive:
                return await self._give_back(volume, record)
            await self._tree.remove_directory(record.path)
        except NotEmpty:
            return False
        except (PathMissing, PathTaken):
            pass  # never made, or somebody else's
        await self._withdraw(volume)
        return True

    async def take_over(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Enter volumes that another provisioner made; nothing but the ledger is touched.

        Returns, by volume, why for those that were not entered: somebody else has the directory, or one above or below.
        """
        return await self._enter_all(records, restore=False)

    async def _enter_all(self, records: Mapping[str, Record], *, restore: bool) -> dict[str, str]:
        """With `restore` a record takes the place of one that cannot be read."""
        taken: dict[str, str] = {}
        fresh: list[str] = []
        await self._learn_of_others()
        for volume, record in records.items():
            try:
                if volume not in self._ledger.records:
                    await self._take(volume, record, restore=restore)
                    fresh.append(volume)
            except PathTaken as exc:
                taken[volume] = str(exc)
        # As in provision(): of two clusters that write first and look then, at least one sees the other.
        await self._learn_of_others()
        for volume in fresh:
            held = self._ledger.records.get(volume)
            try:
                if held is not None:  # else it has been reclaimed already
                    await self._refuse_taken(volume, held, None)
            except PathTaken as exc:
                taken[volume] = str(exc)
                await self.forget(volume)
        return taken

    async def _take(self, volume: str, record: Record, *, restore: bool) -> None:
        await self._refuse_roots_above(record.path)
        await self._refuse_taken(volume, record, None)
        if restore and volume in self._ledger.unreadable:
            await self._write_again(volume, record)
        self._ledger.enter(volume, record, "volumes")
        self._entering.add(volume)
        try:
            with suppress(PathExists):
                await self._tree.make_symlink(layout.of("volumes", volume), encode(record))
            written = await self._tree.read_symlink(layout.of("volumes", volume))
        finally:
            # The outcome may be unknown: the retry meets its own record.
            self._ledger.remove(volume)
            self._entering.discard(volume)
        self._ledger.read({volume: written}, "volumes")
        if volume not in self._ledger.records:
            raise PathTaken(f"the ledger of export {self._name} has an unreadable record of volume {volume}")

    async def reinstate(self, volume: str, record: Record, *, archive: str = "", trash: str = "") -> None:
        """Let the data of a volume that exists come back into its directory, out of an archive or the trash.

        The record comes first, where the volume has none; then the rename, never over anything but an empty directory;
        then the archive's record ends. Raises PathTaken, AlreadyThere, and Cause.RECORD where the data are gone.
        """
        await self._learn_of_others()
        if await self.reread(volume) is None:
            await self._take(volume, record, restore=False)
        path, _ = await self._recorded(volume)
        if archive:
            await reinstate.move(self._tree, (archive,), path)
            await archives.drop(self._tree, self._ledger, archive)
        else:
            await reinstate.move(self._tree, (*layout.TRASH, trash), path)

    async def contents(self, path: RelPath) -> Contents:
        """What there is of a directory."""
        try:
            return "empty" if await self._tree.is_empty(path) else "data"
        except PathMissing:
            return "gone"

    async def _write_again(self, volume: str, record: Record) -> None:
        """Put a record in the place of one that cannot be read; what another version wrote stays."""
        if await self.reread(volume) is None and volume in self._ledger.unreadable - self._ledger.foreign:
            await symlinks.replace(self._tree, layout.of("volumes", volume), encode(record))

    async def vet(self, volume: str, record: Record) -> None:
        """Raise PathTaken where a directory that is there cannot become a volume's.

        Another volume, of whatever cluster, has it, or one above or below; it is an archive; it is another export's
        root, or lies in one; or a record that cannot be read may have it. The volume's own record does not count.
        """
        if await nesting.is_root(self._tree, record.path):
            raise PathTaken(f"directory {record.directory!r} has a {LEDGER} in it: it is the root of another export")
        await self._refuse_roots_above(record.path)
        await self._look_at_others(volume, record, None)
        if self._ledger.unreadable:
            names = ", ".join(sorted(self._ledger.unreadable))
            raise PathTaken(
                f"the ledger of export {self._name} has records that this version cannot read, and one of them may have"
                f" directory {record.directory!r}: {names}"
            )

    async def amend(self, volume: str, record: Record) -> None:
        """Put a record in the place of the volume's: whoever reads sees the one or the other, whole."""
        state = self._ledger.state(volume)
        await symlinks.replace(self._tree, layout.of(state, volume), encode(record))
        self._ledger.enter(volume, record, state)

    async def reread(self, volume: str) -> Record | None:
        """The volume's record as the export itself has it now, and `records` from then on; None where it has none."""
        unreadable: dict[str, str] = {}
        for state in ("volumes", "pending"):  # the likeliest first
            with suppress(PathMissing):
                target = await self._tree.read_symlink(layout.of(state, volume))
                try:
                    live = decode(target)
                except InvalidRecord:
                    unreadable[volume] = target
                    continue
                self._ledger.enter(volume, live, state)
                return live
        if volume not in self._entering:
            self._ledger.remove(volume)
        self._ledger.read(unreadable, "volumes")
        return None

    # ------------------------------------------------------------------------------------------- reclaiming

    async def directory_missing(self, volume: str) -> bool:
        """Whether the directory in a volume's record, or the record itself, does not exist."""
        record = self._ledger.records.get(volume)
        try:
            if record is not None:
                await self._tree.is_empty(record.path)
        except PathMissing:
            return True
        return record is None

    async def find_damage(self) -> None:
        """Read all settled records again: those that cannot be read any more are `unreadable` from then on."""
        self._ledger.note_damage(await symlinks.read_all(self._tree, (LEDGER, "volumes")))

    async def has_leftovers(self, volume: str) -> bool:
        """Whether what is at the path in a volume's record may not be taken away as an attempt: it holds something."""
        record = self._ledger.records.get(volume)
        try:
            return record is not None and not await self._tree.is_empty(record.path)
        except PathMissing:
            return False

    async def missing(self, paths: Iterable[RelPath]) -> Set[RelPath]:
        """Those of the directories at whose path there is nothing: a listing of each parent, not a call for each."""
        return await presence.missing(self._tree, paths)

    async def unknown_directories(self, known: PathIndex, *, limit: int) -> list[RelPath]:
        """Directories that hold something and are neither known, nor on the way to a known one; at most so many.

        The ledger, archives, and what servers put into a root themselves are none. One call for each directory on the
        way to a known one, and one for each stray.
        """
        return await unknown_directories(self._tree, known, limit=limit)

    async def move_to_trash(self, volume: str) -> bool:
        """Move the volume's directory into the trash, where an earlier attempt has not; False where there is none."""
        path, proof = await self._recorded(volume)
        aside = layout.trashed_before(volume, self._ledger.records[volume])
        return await trash.move(self._tree, volume, path, proof, aside=aside)

    async def archive(self, volume: str, at: datetime) -> str | None:
        """Move the volume's directory to `archived-…`, with a record; its name there, None where there was nothing."""
        _, proof = await self._recorded(volume)
        return await archives.store(self._tree, self._ledger, volume, at, proof)

    async def retain(self, volume: str, at: datetime) -> bool:
        """Note in the record that the PersistentVolume goes and that the directory is to stay; once is enough.

        False where there is no directory: the record stays, for what is mounted there may come back.
        """
        path, _ = await self._recorded(volume)
        record = self._ledger.records[volume]
        if not record.retained:
            await self.amend(volume, structs.replace(record, retained=times.text(at)))
        return await archives.is_there(self._tree, path)

    async def _recorded(self, volume: str) -> tuple[RelPath, Proof]:
        """The directory that the export itself, asked now, records for a volume: what we remember may be stale."""
        known = self._ledger.records.get(volume)
        for state in sorted(STATES, key=lambda state: state != self._ledger.state(volume)):
            try:
                text = await self._tree.read_symlink(layout.of(state, volume))
                live = decode(text)
            except (InvalidRecord, PathMissing):
                continue
            if live == known:
                return live.path, Proof(layout.of(state, volume), text)
            self._ledger.enter(volume, live, state)  # for the next attempt, which will judge by this one
        hint = f"nothing is touched; compare the record of {volume} in {LEDGER} on the export with the volume"
        raise ExportError(Cause.RECORD, f"the record of volume {volume} is not what it was", hint=hint)

    async def forget(self, volume: str) -> None:
        """Remove the volume's record; last step of a reclaim."""
        if volume in self._ledger.pending:
            await symlinks.remove(self._tree, layout.of("pending", volume))
        await symlinks.remove(self._tree, layout.of("volumes", volume))
        self._ledger.remove(volume)

    async def archives(self) -> list[str]:
        """The names of the archives at the export's root, those without a record among them."""
        return [
            entry.name
            for entry in await self._tree.list(())
            if entry.name.startswith(ARCHIVE_PREFIX) and self._ledger.touching((entry.name,)) is None
        ]

    async def expire(self, archive: str, at: datetime) -> bool:
        """Move an archive that has a record into the trash, then end its record.

        False, and nothing is touched, while a claim waits for it or where the ledger, asked now, has another record.
        """
        async with self._at_archive(archive):
            return await archives.expire(self._tree, self._ledger, archive, at)

    async def end_archive(self, archive: str) -> bool:
        """End the record of an archive whose directory is gone.

        False, and nothing is touched, while its volume has a record or a claim waits for it.
        """
        async with self._at_archive(archive):
            return await archives.end_lost(self._tree, self._ledger, archive)

    async def amend_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Put a record in the place of the archive's, in one step."""
        async with self._at_archive(archive):
            await archives.amend(self._tree, self._ledger, archive, record)

    async def heartbeat(self, cluster: str, at: datetime) -> None:
        """Leave word that a provisioner of that cluster is at work on this export."""
        await symlinks.replace(self._tree, (*layout.CLUSTERS, cluster), times.text(at))
        if not self._since:
            with suppress(PathExists):  # another provisioner was faster
                await self._tree.make_symlink(layout.SINCE, times.text(at))
            self._since = await opening.since(self._tree)

    async def heartbeats(self) -> Mapping[str, str]:
        """When a provisioner of which cluster was here last: UTC, RFC 3339."""
        signs = await symlinks.read_all(self._tree, layout.CLUSTERS)
        return {name: at for name, at in signs.items() if not is_instances(name)}

    async def instance(self, name: str) -> str:
        """The sign of an instance that stands under this name (core.instances); empty where there is none."""
        with suppress(PathMissing):
            return await self._tree.read_symlink((*layout.CLUSTERS, name))
        return ""

    async def sign_instance(self, name: str, sign: str, *, over: bool) -> None:
        """Leave the sign of an instance in the place of the one that is there; without `over` raises PathExists."""
        path = (*layout.CLUSTERS, name)
        if over:
            await symlinks.replace(self._tree, path, sign)
        else:
            await self._tree.make_symlink(path, sign)

    async def trash(self) -> list[str]:
        """The names in the trash, or as many of them as we hold: the others come when these have gone."""
        return await trash.names(self._tree)

    async def begun(self) -> Set[str]:
        """Those names in the trash whose removal has begun: a part may be gone, or all of it."""
        return await trash.begun(self._tree)

    def may_come_late(self, name: str) -> bool:
        """Whether a rename to this name in the trash, of a leader that was held up, may still be carried out.

        That of an archive cannot: what it moves has a name that nothing else ever gets.
        """
        return not self._tree.verifies and volume_of(name) == name

    async def purge(self, name: str, *, on_progress: OnProgress | None = None, taken: bool = False) -> int:
        """Remove one directory in the trash for good, as Tree.remove_tree does; returns how many entries went.

        Where its name is to stay `taken`, a directory stays that no rename can replace.
        """
        return await trash.purge(self._tree, name, on_progress=on_progress, taken=taken)

    async def close(self) -> None:
        """Let go of the export."""
        await self._tree.close()
