"""Whether a directory is free for a volume.

The checks look at this export's ledger, at those of the exports above it, and for roots on the way. Two clusters, or
two exports that share a directory, can want the same directory at the same moment. NFS has no transaction over two
records, so each of them *writes its own record first and looks at the others then*. Of two that do so, at least one
sees the other and retreats; both can retreat, and then both retry. So every look here comes after the caller's own
record is on the export, and before anything else is created.
"""

from __future__ import annotations

from provisioner.core import discretion
from provisioner.core.discretion import owner_by
from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.records import Record
from provisioner.ledger import nesting
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.state import LedgerState
from provisioner.ledger.volume_records import VolumeRecords


class Occupancy:
    """Checks that a directory is free, which raise PathTaken."""

    def __init__(self, state: LedgerState, records: VolumeRecords) -> None:
        self._state = state
        self._tree = state.tree
        self._records = records

    async def require_free(self, volume_name: str, record: Record, adopt_from: str | None) -> None:
        """Raise PathTaken if, by the index, the directory or one above or below it is taken.

        Records of the volume itself and of `adopt_from` do not count. A record that the index has and the export does
        not have any more does not count either, and leaves the index.
        """
        state = self._state
        asker = owner_by(record)
        archive = state.index.archive_at(record.path[0])
        if archive is not None:
            owner = owner_by(state.index.archives[archive].was)
            raise PathTaken(discretion.taken(asker, record.directory, owner, f"archive {archive!r}"))
        if (outer := await self._taken_above(record.path)) is not None:
            raise PathTaken(discretion.taken(asker, record.directory, None, outer))
        allowed = (volume_name, adopt_from or "")
        while (holder := state.index.touching(record.path, other_than=allowed)) is not None:
            held = state.index.records[holder]
            if await self._records.exists(holder):
                by = f"volume {holder} ({held.directory}) in the ledger of export {state.export_name}"
                raise PathTaken(discretion.taken(asker, record.directory, owner_by(held), by))
            state.index.remove(holder)  # ended by another cluster, or another replica

    async def require_still_free(self, volume_name: str, record: Record, adopt_from: str | None) -> None:
        """Read the records that other clusters have written since, then do as `require_free`."""
        await self._records.learn_new()
        await self.require_free(volume_name, record, adopt_from)

    async def require_no_root_above(self, path: RelPath) -> None:
        """Raise PathTaken if a directory on the way to a path is the root of another export."""
        await nesting.require_no_root_above(self._tree, path)

    async def vet(self, volume_name: str, record: Record) -> None:
        """Raise PathTaken if a directory that exists cannot become a volume's.

        That is so where another volume of any cluster has it, or one above or below it; where it is an archive; where
        it is the root of another export, or lies in one; and where a record that cannot be read can name it. The
        volume's own record does not count.
        """
        if await nesting.is_root(self._tree, record.path):
            raise PathTaken(
                f"directory {record.directory!r} has a {LEDGER} in it, so it is the root of another export: choose"
                " another directory"
            )
        await self.require_no_root_above(record.path)
        await self.require_still_free(volume_name, record, None)
        if self._state.index.unreadable:
            names = ", ".join(sorted(self._state.index.unreadable))
            raise PathTaken(
                f"the ledger of export {self._state.export_name} has records that this version cannot read, and one of"
                f" them can name directory {record.directory!r}: {names}; run the version that wrote them, or rewrite"
                " them with `nfs-provisioner recover --ledger`"
            )

    async def _taken_above(self, path: RelPath) -> str | None:
        """Return who has a directory by the ledger of an export above.

        Reads that ledger again before a claim is refused.
        """
        if self._state.above.touching(path) is not None:
            self._state.above = await nesting.taken_from_above(self._tree)
        return self._state.above.touching(path)
