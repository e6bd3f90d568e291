"""Reclaiming a volume: its directory is trashed, archived or retained.

The steps, in this order (the table of crashes: README.md):

1. `archive` reserves the archive's name by a record; `retain` marks the volume's record.
2. `move_to_trash` and `archive` rename the directory. The rename relies on the volume's record, read right before.
3. The caller deletes the PersistentVolume, then its finalizer.
4. The caller removes the record (`Export.forget`), unless the volume is retained.

Data moves first, by one rename that either happens or does not; only then the cluster forgets the volume, and the
ledger last. So no record ends while the data that it names is still in its place.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import structs

from provisioner.core import times
from provisioner.core.paths import ARCHIVE_PREFIX
from provisioner.core.records import ArchiveRecord, Record
from provisioner.ledger import archives, groups, layout
from provisioner.ledger.state import LedgerState
from provisioner.ledger.trash import Trash
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.tree import Proof


class Reclaiming:
    """Moves the directories of deleted volumes, and ends archives."""

    def __init__(self, state: LedgerState, records: VolumeRecords, trash: Trash) -> None:
        self._state = state
        self._tree = state.tree
        self._records = records
        self._trash = trash

    async def move_as_known(self, volume_name: str, *signs: Proof) -> bool:
        """Move a volume's directory into the trash in one call; see `Export.move_as_known`."""
        known = self._state.index.records.get(volume_name)
        grouped = known is not None and known.gid != 0  # a group needs a step before the rename
        expected = None if grouped else self._records.expected(volume_name)
        return expected is not None and await self._trash.take(volume_name, *expected, *signs)

    async def move_to_trash(self, volume_name: str) -> bool:
        """Move a volume's directory into the trash; see `Export.move_to_trash`."""
        if await self.move_as_known(volume_name):
            return True
        # Something is not as expected: read what the export has.
        path, proof = await self._records.require_unchanged(volume_name)
        record = self._state.index.records[volume_name]
        # Until the purge only the group's entry says that the id is in use.
        await groups.hold(self._tree, self._state.index, record.gid, groups.holder_of(volume_name, record))
        aside = layout.trashed_before(volume_name, record)
        return await self._trash.move(volume_name, path, proof, aside=aside)

    async def archive(self, volume_name: str, at: datetime) -> str | None:
        """Rename a volume's directory to an archive; see `Export.archive`."""
        _, proof = await self._records.require_unchanged(volume_name)
        return await archives.store(self._tree, self._state.index, volume_name, at, proof)

    async def retain(self, volume_name: str, at: datetime) -> bool:
        """Mark a volume's record as retained; see `Export.retain`."""
        path, _ = await self._records.require_unchanged(volume_name)
        record = self._state.index.records[volume_name]
        if not record.retained:
            await self._records.replace(volume_name, structs.replace(record, retained=times.text(at)))
        return await archives.is_there(self._tree, path)

    async def archive_names(self) -> list[str]:
        """Return the names of the archives at the root; see `Export.archives`."""
        return [
            entry.name
            for entry in await self._tree.list(())
            if entry.name.startswith(ARCHIVE_PREFIX) and self._state.index.touching((entry.name,)) is None
        ]

    async def set_aside(self, was: Record, at: datetime) -> str:
        """Rename a directory that belongs to no volume to an archive; see `Export.set_aside`."""
        return await archives.set_aside(self._tree, self._state.index, was, at)

    async def enter_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Write the record of an archive that has none; see `Export.enter_archive`."""
        async with self._state.archive_lock(archive):
            await archives.enter(self._tree, self._state.index, archive, record)

    async def expire(self, archive: str, at: datetime) -> bool:
        """Move an archive into the trash; see `Export.expire`."""
        async with self._state.archive_lock(archive):
            return await archives.expire(self._tree, self._state.index, archive, at)

    async def end_archive(self, archive: str) -> bool:
        """End the record of an archive whose directory is gone; see `Export.end_archive`."""
        async with self._state.archive_lock(archive):
            return await archives.end_lost(self._tree, self._state.index, archive)

    async def replace_archive_record(self, archive: str, record: ArchiveRecord) -> None:
        """Replace an archive's record in one step."""
        async with self._state.archive_lock(archive):
            await archives.replace_record(self._tree, self._state.index, archive, record)
