"""Records for volumes that exist already.

The volumes are another provisioner's, those of a lost ledger, and those whose data comes back.

`take_over` and `restore` touch nothing but the ledger: the directories are there, and in use. Each record is written as
settled, because the volume has its PersistentVolume. As in `ledger.provisioning`, the record is written first, and the
records of other clusters are read afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from provisioner.core.records import Record, encode
from provisioner.ledger import archives, groups, layout, reinstate, symlinks
from provisioner.ledger.errors import PathTaken, unreadable_record
from provisioner.ledger.occupancy import Occupancy
from provisioner.ledger.state import LedgerState
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.tree import PathExists


class Enrollment:
    """Writes settled records for volumes that have none on the export."""

    def __init__(self, state: LedgerState, records: VolumeRecords, occupancy: Occupancy) -> None:
        self._state = state
        self._tree = state.tree
        self._records = records
        self._occupancy = occupancy

    async def take_over(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Write records for volumes that another provisioner made; see `Export.take_over`."""
        return await self._reserve_all(records, restore=False)

    async def restore(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Write the records of a lost ledger, also in the place of those that cannot be read.

        Returns, by volume, why a record was not written.
        """
        return await self._reserve_all(records, restore=True)

    async def reinstate(self, volume_name: str, record: Record, *, archive: str, trash: str) -> None:
        """Move a volume's data back into its directory; see `Export.reinstate`."""
        await self._records.learn_new()
        # 1. The record, where the volume has none.
        if await self._records.refresh(volume_name) is None:
            await self._reserve(volume_name, record, restore=False)
        path, _ = await self._records.require_unchanged(volume_name)
        # 2. The rename; 3. the end of the archive's record.
        if archive:
            await reinstate.move(self._tree, (archive,), path)
            await archives.drop(self._tree, self._state.index, archive)
        else:
            await reinstate.move(self._tree, (*layout.TRASH, trash), path)

    async def _reserve_all(self, records: Mapping[str, Record], *, restore: bool) -> dict[str, str]:
        refused: dict[str, str] = {}
        fresh: list[str] = []
        await self._records.learn_new()
        for volume_name, record in records.items():
            try:
                if volume_name not in self._state.index.records:
                    await self._reserve(volume_name, record, restore=restore)
                    fresh.append(volume_name)
            except PathTaken as exc:
                refused[volume_name] = str(exc)
        # Look again once all are written: of two clusters that write first and look then, at least one sees the other.
        await self._records.learn_new()
        for volume_name in fresh:
            held = self._state.index.records.get(volume_name)
            try:
                if held is not None:  # otherwise it has been reclaimed already
                    await self._occupancy.require_free(volume_name, held, None)
            except PathTaken as exc:
                refused[volume_name] = str(exc)
                await self._records.forget(volume_name)
        return refused

    async def _reserve(self, volume_name: str, record: Record, *, restore: bool) -> None:
        """Write one settled record; one that is there already stays and counts."""
        state = self._state
        await self._occupancy.require_no_root_above(record.path)
        await self._occupancy.require_free(volume_name, record, None)
        if restore and volume_name in state.index.unreadable:
            await self._write_again(volume_name, record)
        state.index.enter(volume_name, record, "volumes")
        state.reserving.add(volume_name)
        try:
            with suppress(PathExists):
                await self._tree.make_symlink(layout.of("volumes", volume_name), encode(record))
            written = await self._tree.read_symlink(layout.of("volumes", volume_name))
        finally:
            # The outcome can be unknown: the retry finds its own record.
            state.index.remove(volume_name)
            state.reserving.discard(volume_name)
        state.index.read({volume_name: written}, "volumes")
        held = state.index.records.get(volume_name)
        if held is None:
            raise unreadable_record(state.export_name, volume_name)
        if held.gid:
            await groups.claim(self._tree, state.index, held.gid, groups.holder_of(volume_name, held))

    async def _write_again(self, volume_name: str, record: Record) -> None:
        """Replace a record that cannot be read; one that another version wrote stays."""
        state = self._state
        if (
            await self._records.refresh(volume_name) is None
            and volume_name in state.index.unreadable - state.index.foreign
        ):
            await symlinks.replace(self._tree, layout.of("volumes", volume_name), encode(record))
