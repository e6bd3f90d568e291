"""An export with its ledger, trash and archives, over any Tree (design, "The export's ledger").

The order of steps is the safety: the record comes first, then the directory, then the PersistentVolume, then the
record is settled; on delete the rename comes first, then the PersistentVolume, then the record. Whatever crash comes
in between leaves a record, and the next start finds it and goes on.

    .provisioner/export              -> the export's id
    .provisioner/pending/<volume>    -> a record whose PersistentVolume has not been made yet
    .provisioner/volumes/<volume>    -> a record whose PersistentVolume has been made
    .provisioner/trash/<volume>.<time>  a directory on its way out
    .provisioner/archives/              kept for the records of archives
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Set
from contextlib import suppress
from datetime import datetime

from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import Location, Path
from provisioner.core.paths import ARCHIVE_PREFIX, LEDGER, archive_name
from provisioner.core.records import Record, decode, encode
from provisioner.nfs.ledger import Ledger
from provisioner.ports import (
    Access,
    AlreadyThere,
    Cause,
    ExportError,
    NotEmpty,
    PathExists,
    PathMissing,
    PathTaken,
    Space,
    Tree,
)

_ID: Path = (LEDGER, "export")
_PENDING: Path = (LEDGER, "pending")
_VOLUMES: Path = (LEDGER, "volumes")
_TRASH: Path = (LEDGER, "trash")
_ARCHIVES: Path = (LEDGER, "archives")
_PRIVATE = Access(mode=0o700)


class LedgeredExport:
    """The `Export` port over a `Tree`."""

    def __init__(self, location: Location, tree: Tree, *, name: str = "") -> None:
        self._location = location
        self._name = name or str(location)
        self._tree = tree
        self._ledger = Ledger()
        self._id = ""
        self._entering: set[str] = set()
        """Volumes that are in the ledger in memory while their records are on their way to the export."""

    @property
    def location(self) -> Location:
        """Where the export is, as volumes name it."""
        return self._location

    @property
    def name(self) -> str:
        """What people call it."""
        return self._name

    @property
    def id(self) -> str:
        """The id in `.provisioner/export`; empty until open() succeeded."""
        return self._id

    @property
    def records(self) -> Mapping[str, Record]:
        """The ledger in memory, by volume name."""
        return self._ledger.records

    @property
    def pending(self) -> Set[str]:
        """Volumes whose PersistentVolume was not made, as far as the ledger knows."""
        return self._ledger.pending

    @property
    def unreadable(self) -> Set[str]:
        """Names in the ledger that are no records that we know."""
        return self._ledger.unreadable

    # ------------------------------------------------------------------------------------------- opening

    async def open(self, *, create: bool = True) -> None:
        """Find the ledger, or make it where that is wanted, read all of it, check the export's id."""
        self._tree.pin("")
        root = await self._tree.root_id()
        self._tree.pin(root)
        found = await self._read_id(create=create)
        if self._id and found != self._id:
            raise ExportError(Cause.CHANGED, f"its id was {self._id} and is {found}")
        self._id = found
        ledger = Ledger()
        pending, settled = await self._targets(_PENDING), await self._targets(_VOLUMES)
        for volume in pending.keys() & settled.keys():  # settled by one replica while another one tried anew
            await self._remove((*_PENDING, volume))
        ledger.read({volume: target for volume, target in pending.items() if volume not in settled}, pending=True)
        ledger.read(settled, pending=False)
        self._ledger = ledger

    async def _read_id(self, *, create: bool) -> str:
        try:
            return await self._tree.read_symlink(_ID)
        except PathMissing:
            pass
        if self._id:
            raise ExportError(Cause.CHANGED, "its ledger is gone")
        if not create:
            raise ExportError(Cause.NO_LEDGER)
        await self._make_ledger()
        return await self._tree.read_symlink(_ID)

    async def _make_ledger(self) -> None:
        for path in ((LEDGER,), _PENDING, _VOLUMES, _TRASH, _ARCHIVES):
            try:
                await self._tree.make_directory(path, _PRIVATE)
            except PathExists:
                await self._tree.set_access(path, _PRIVATE)
        with suppress(PathExists):  # another replica was faster
            # The id last: an export that has one has a whole ledger.
            await self._tree.make_symlink(_ID, uuid.uuid4().hex)

    async def _targets(self, directory: Path) -> dict[str, str]:
        entries = await self._tree.list(directory)
        return await self._tree.read_symlinks(directory, [entry.name for entry in entries if entry.type == "symlink"])

    async def probe(self) -> Space:
        """Whether the export answers and is the one that it was, and what statfs says."""
        if self._id and await self._tree.read_symlink(_ID) != self._id:
            raise ExportError(Cause.CHANGED, "its id is another one")
        return await self._tree.space()

    # ------------------------------------------------------------------------------------------- provisioning

    def adoptable(self, record: Record) -> str | None:
        """The volume whose settled record names exactly this directory and the same namespace."""
        return self._ledger.adoptable(record)

    async def provision(self, volume: str, record: Record, access: Access, *, adopt_from: str | None = None) -> Record:
        """Record first, then the directory. Raises PathTaken, AlreadyThere, ExportError."""
        fresh = volume not in self._ledger.records and await self._enter(volume, record, adopt_from)
        held = self._ledger.records[volume]
        # A directory right below the root is nobody's but by its own name, which mkdir tells.
        others_matter = len(held.path) > 1 or not fresh or adopt_from is not None
        made = False
        try:
            # Two clusters each write their record first and look then, so that at least one of two sees the other.
            if others_matter:
                await self._look_at_others(volume, held, adopt_from)
            made = await self._make(volume, held, access, fresh=fresh, adopt_from=adopt_from)
            if others_matter and made:
                # Once more: the directory above may have become somebody's between the look and now.
                await self._look_at_others(volume, held, adopt_from)
        except PathTaken:
            await self._retreat(volume, held, fresh=fresh, made=made)
            raise
        return held

    async def _retreat(self, volume: str, held: Record, *, fresh: bool, made: bool) -> None:
        """Take back what this attempt made, since somebody else was faster."""
        try:
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
        self._ledger.enter(volume, record, pending=True)
        self._entering.add(volume)
        try:
            await self._tree.make_symlink((*_PENDING, volume), encode(record))
        except PathExists:
            self._ledger.remove(volume)
        except BaseException:
            # The outcome may be unknown: the retry meets its own record, as after a crash.
            self._ledger.remove(volume)
            raise
        else:
            return True
        finally:
            self._entering.discard(volume)
        self._ledger.read({volume: await self._tree.read_symlink((*_PENDING, volume))}, pending=True)
        if volume not in self._ledger.records:
            raise PathTaken(f"the ledger of export {self._name} has an unreadable record of volume {volume}")
        return False

    async def _refuse_taken(self, volume: str, record: Record, adopt_from: str | None) -> None:
        """Raise PathTaken when by the ledger somebody else has the directory, or one above or below it."""
        allowed = (volume, adopt_from or "")
        while (holder := self._ledger.touching(record.path, other_than=allowed)) is not None:
            held = self._ledger.records[holder]
            if await self._is_recorded(holder):
                raise PathTaken(
                    f"directory {record.directory!r} is taken: by the ledger of export {self._name}, volume {holder}"
                    f" has {held.directory!r}; make the class's pathPattern unique, for instance with ${{.PV.name}}"
                )
            self._ledger.remove(holder)  # ended by another cluster, or another replica

    async def _is_recorded(self, volume: str) -> bool:
        if volume in self._entering:
            return True
        for directory in (_VOLUMES, _PENDING):
            with suppress(PathMissing):
                await self._tree.read_symlink((*directory, volume))
                return True
        return False

    async def _look_at_others(self, volume: str, record: Record, adopt_from: str | None) -> None:
        """Learn what other clusters have recorded since, and raise PathTaken when that touches the directory."""
        for directory, pending in ((_PENDING, True), (_VOLUMES, False)):
            names = {entry.name for entry in await self._tree.list(directory) if entry.type == "symlink"}
            unknown = self._ledger.unknown(names)
            if unknown:
                self._ledger.read(await self._tree.read_symlinks(directory, unknown), pending=pending)
        await self._refuse_taken(volume, record, adopt_from)

    async def _make(self, volume: str, held: Record, access: Access, *, fresh: bool, adopt_from: str | None) -> bool:
        """Make the directory; one that is there must be adopted or an earlier attempt's. True: it was made now."""
        try:
            await self._tree.make_directory(held.path, access)
        except PathExists:
            pass
        else:
            return True
        if adopt_from is not None and self._ledger.records[adopt_from].path == held.path:
            return False  # mode and owner stay as the data's last user left them
        if not fresh and await self._tree.is_empty(held.path):
            await self._tree.set_access(held.path, access)
            return False
        if fresh:
            await self._withdraw(volume)
        raise AlreadyThere(
            f"directory {held.directory!r} exists on export {self._name}, and no record lets this claim have it:"
            " move it away, or choose another pathPattern"
        )

    async def _withdraw(self, volume: str) -> None:
        """Take back a record, and nothing else."""
        await self._remove((*_PENDING, volume))
        self._ledger.remove(volume)

    async def settle(self, volume: str) -> None:
        """Note that the PersistentVolume exists, and end the record whose directory was adopted."""
        if volume not in self._ledger.pending:
            return
        former = self._ledger.former(volume)
        if former is not None:
            await self.forget(former)  # first: afterwards nothing would tell that the two belong together
        try:
            await self._tree.move_symlink((*_PENDING, volume), (*_VOLUMES, volume))
        except PathMissing:
            await self._tree.read_symlink((*_VOLUMES, volume))  # moved by an attempt whose outcome was unknown
        self._ledger.settle(volume)

    async def undo(self, volume: str) -> bool:
        """Take back a provisioning that never got a PersistentVolume: rmdir when empty, then the record.

        A directory that is somebody else's by now, or lies in somebody else's, stays.
        """
        if volume not in self._ledger.pending:
            return True
        record = self._ledger.records[volume]
        try:
            await self._look_at_others(volume, record, None)
            await self._tree.remove_directory(record.path)
        except NotEmpty:
            return False
        except (PathMissing, PathTaken):
            pass  # never made, or somebody else's
        await self._withdraw(volume)
        return True

    # ------------------------------------------------------------------------------------------- reclaiming

    async def is_gone(self, volume: str) -> bool:
        """Whether the directory in a volume's record, or the record itself, does not exist."""
        record = self._ledger.records.get(volume)
        try:
            if record is not None:
                await self._tree.is_empty(record.path)
        except PathMissing:
            return True
        return record is None

    async def discard(self, volume: str, at: datetime) -> None:
        """Move the volume's directory into the trash; done already is success."""
        path = await self._recorded_path(volume)
        with suppress(PathMissing):
            await self._tree.rename(path, (*_TRASH, f"{volume}.{_stamp(at)}"))

    async def archive(self, volume: str, at: datetime) -> str | None:
        """Move the volume's directory to `archived-<last component>-<UTC time>` at the export's root."""
        path = await self._recorded_path(volume)
        stamp = _stamp(at)
        for attempt in range(100):
            name = archive_name(path, stamp if attempt == 0 else f"{stamp}-{attempt}")
            try:
                await self._tree.rename(path, (name,))
            except PathExists:
                continue  # never over anything
            except PathMissing:
                return None
            return name
        raise ExportError(Cause.OTHER, f"a hundred archives of {path[-1]!r} bear the time {stamp}")

    async def _recorded_path(self, volume: str) -> Path:
        """The directory that the export itself, asked now, records for a volume: what we remember may be stale."""
        known = self._ledger.records[volume]
        directory = _PENDING if volume in self._ledger.pending else _VOLUMES
        try:
            agrees = decode(await self._tree.read_symlink((*directory, volume))) == known
        except (InvalidRecord, PathMissing):
            agrees = False
        if not agrees:
            hint = f"nothing is touched; compare {'/'.join(directory)}/{volume} on the export with the volume"
            raise ExportError(Cause.RECORD, f"the record of volume {volume} is not what it was", hint=hint)
        return known.path

    async def forget(self, volume: str) -> None:
        """Remove the volume's record; last step of a reclaim."""
        if volume in self._ledger.pending:
            await self._remove((*_PENDING, volume))
        await self._remove((*_VOLUMES, volume))
        self._ledger.remove(volume)

    async def _remove(self, symlink: Path) -> None:
        with suppress(PathMissing):
            await self._tree.remove_symlink(symlink)

    async def archives(self) -> list[str]:
        """The names of the archives at the export's root."""
        return [entry.name for entry in await self._tree.list(()) if entry.name.startswith(ARCHIVE_PREFIX)]

    async def trash(self) -> list[str]:
        """The names in the trash."""
        return [entry.name for entry in await self._tree.list(_TRASH)]

    async def purge(self, name: str) -> int:
        """Remove one directory in the trash for good; returns how many entries went."""
        return await self._tree.remove_tree((*_TRASH, name))

    async def close(self) -> None:
        """Let go of the export."""
        await self._tree.close()


def _stamp(at: datetime) -> str:
    """A time within a file name: `20261123T161512.123456Z`, unique enough, and sorted as time is."""
    return at.strftime("%Y%m%dT%H%M%S.%fZ")
