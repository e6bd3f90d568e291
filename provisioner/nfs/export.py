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
from provisioner.core.paths import LEDGER, archive_name
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
        # Settled records last: where a crash left both, the settled one counts.
        ledger.read(await self._targets(_PENDING), pending=True)
        ledger.read(await self._targets(_VOLUMES), pending=False)
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
                continue
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
        held = self._ledger.records.get(volume)
        fresh = held is None
        if held is None:
            held, fresh = await self._enter(volume, record, adopt_from)
        try:
            await self._tree.make_directory(held.path, access)
        except PathExists:
            await self._take_over(volume, held, access, fresh=fresh, adopt_from=adopt_from)
        return held

    async def _enter(self, volume: str, record: Record, adopt_from: str | None) -> tuple[Record, bool]:
        """Write the record, or find that of an earlier attempt; the flag says whether it is new."""
        self._refuse_taken(volume, record, adopt_from)
        self._ledger.enter(volume, record, pending=True)
        written = False
        try:
            await self._tree.make_symlink((*_PENDING, volume), encode(record))
            written = True
            if len(record.path) > 1:
                # Only below a directory that others can have made may another cluster's volume lie above ours. Both
                # write first and look then, so that at least one of two sees the other.
                await self._learn_others()
                self._refuse_taken(volume, record, adopt_from)
        except PathExists:
            return await self._earlier(volume), False
        except PathTaken:
            await self._withdraw(volume)
            raise
        finally:
            if not written:
                self._ledger.remove(volume)  # also after an unknown outcome: the retry meets its own record
        return record, True

    async def _earlier(self, volume: str) -> Record:
        target = await self._tree.read_symlink((*_PENDING, volume))
        self._ledger.read({volume: target}, pending=True)
        held = self._ledger.records.get(volume)
        if held is None:
            raise PathTaken(f"the ledger of export {self._name} has an unreadable record of volume {volume}")
        return held

    def _refuse_taken(self, volume: str, record: Record, adopt_from: str | None) -> None:
        holder = self._ledger.touching(record.path, other_than=volume)
        if holder is not None and holder != adopt_from:
            held = self._ledger.records[holder]
            raise PathTaken(
                f"directory {record.directory!r} is taken: by the ledger of export {self._name}, volume {holder}"
                f" has {held.directory!r}; make the class's pathPattern unique, for instance with ${{.PV.name}}"
            )

    async def _learn_others(self) -> None:
        for directory, pending in ((_PENDING, True), (_VOLUMES, False)):
            names = {entry.name for entry in await self._tree.list(directory) if entry.type == "symlink"}
            unknown = self._ledger.unknown(names)
            if unknown:
                self._ledger.read(await self._tree.read_symlinks(directory, unknown), pending=pending)

    async def _take_over(
        self,
        volume: str,
        held: Record,
        access: Access,
        *,
        fresh: bool,
        adopt_from: str | None,
    ) -> None:
        """Decide on a directory that is there already: adopted, our own earlier attempt's, or somebody else's."""
        if adopt_from is not None and self._ledger.records[adopt_from].path == held.path:
            return  # mode and owner stay as the data's last user left them
        if not fresh and await self._tree.is_empty(held.path):
            await self._tree.set_access(held.path, access)
            return
        if fresh:
            await self._withdraw(volume)
        raise AlreadyThere(
            f"directory {held.directory!r} exists on export {self._name}, and no record lets this claim have it:"
            " move it away, or choose another pathPattern"
        )

    async def _withdraw(self, volume: str) -> None:
        """Take back a record of which nothing was made."""
        with suppress(PathMissing):
            await self._tree.remove_symlink((*_PENDING, volume))
        self._ledger.remove(volume)

    async def settle(self, volume: str) -> None:
        """Note that the PersistentVolume exists, and end the record whose directory was adopted."""
        if volume not in self._ledger.pending:
            return
        try:
            await self._tree.move_symlink((*_PENDING, volume), (*_VOLUMES, volume))
        except PathMissing:
            await self._tree.read_symlink((*_VOLUMES, volume))  # moved by an attempt whose outcome was unknown
        self._ledger.settle(volume)
        former = self._former_holder(volume)
        if former is not None:
            await self.forget(former)

    def _former_holder(self, volume: str) -> str | None:
        path = self._ledger.records[volume].path
        other = self._ledger.touching(path, other_than=volume)
        return other if other is not None and self._ledger.records[other].path == path else None

    async def undo(self, volume: str) -> bool:
        """Take back a provisioning that never got a PersistentVolume: rmdir when empty, then the record."""
        if volume not in self._ledger.pending:
            return True
        if self._former_holder(volume) is None:  # else the directory is that of the record it was adopted from
            try:
                await self._tree.remove_directory(self._ledger.records[volume].path)
            except NotEmpty:
                return False
            except PathMissing:
                pass
        await self._withdraw(volume)
        return True

    # ------------------------------------------------------------------------------------------- reclaiming

    async def is_gone(self, volume: str) -> bool:
        """Whether the directory in a volume's record does not exist."""
        try:
            await self._tree.is_empty(self._ledger.records[volume].path)
        except PathMissing:
            return True
        return False

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
        for directory in (_PENDING, _VOLUMES) if volume in self._ledger.pending else (_VOLUMES,):
            try:
                await self._tree.remove_symlink((*directory, volume))
            except PathMissing:
                continue
        self._ledger.remove(volume)

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
