"""Snapshots: complete copies of volumes in the ledger, each a directory with its record in it.

    .provisioner/snapshots/<handle>          the snapshot: `record`, a symlink with its record, and `tree`, the data
    .provisioner/snapshots/<handle>.begun    -> the record of a snapshot that is being copied
    .provisioner/snapshots/<handle>.deleted  -> when the snapshot was deleted: its data is kept for its retention

The steps, in this order (the table of crashes: README.md):

1. *Begin*: write the record under `<handle>.begun`. Copies without such a record are discarded.
2. *Copy* into a new directory below `copies`, as for a clone.
3. *Place*: write the record into the copy, then one rename to `<handle>`. It relies on the record of step 1: once
   another process has removed that, nothing moves. So a snapshot and its record appear and disappear together.
4. *End*: remove the record of step 1.

A snapshot that is deleted goes to the trash by a rename. If its record has a retention, it is only marked, and goes to
the trash later; that rename relies on the mark, which disappears if an admin brings the snapshot back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import structs

from provisioner.core import names
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.records import SnapshotRecord, decode_snapshot, encode
from provisioner.ledger import layout, symlinks
from provisioner.ledger.archives import is_there
from provisioner.ledger.copies import Copies
from provisioner.ledger.copying import TREE, Progress
from provisioner.ledger.state import LedgerState
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import PathExists, PathMissing, Proof, Tree

_READS = 16
"""Records that are read at a time."""


class Snapshots:
    """The directories below `.provisioner/snapshots`."""

    def __init__(self, state: LedgerState, copies: Copies) -> None:
        self._state = state
        self._tree = state.tree
        self._copies = copies
        self._complete: dict[str, SnapshotRecord] = {}
        self._begun: dict[str, SnapshotRecord] = {}
        self._deleted: dict[str, str] = {}
        self._replacing = asyncio.Lock()
        """All records have one name, and so have their drafts."""

    @property
    def complete(self) -> Mapping[str, SnapshotRecord]:
        """The records of complete snapshots, by handle."""
        return self._complete

    @property
    def begun(self) -> Mapping[str, SnapshotRecord]:
        """The records of snapshots that are being copied, by handle."""
        return self._begun

    @property
    def deleted(self) -> Mapping[str, str]:
        """When the snapshots were deleted whose data is kept for a time, by handle: UTC, RFC 3339."""
        return self._deleted

    async def read(self) -> None:
        """Read the records of all snapshots. Those that cannot be read are left out, with their data."""
        handles: list[str] = []
        with suppress(PathMissing):  # an older version created the ledger
            handles = [entry.name for entry in await self._tree.list(layout.SNAPSHOTS) if entry.type == "directory"]
        records = zip(handles, await map_bounded(self._record, handles, limit=_READS), strict=True)
        complete = {handle: record for handle, record in records if record is not None}
        marks = await symlinks.read_all(self._tree, layout.SNAPSHOTS)
        begun = {
            name.removesuffix(layout.BEGUN): record
            for name, target in marks.items()
            if name.endswith(layout.BEGUN) and (record := _decoded(target)) is not None
        }
        self._deleted = {
            name.removesuffix(layout.DELETED): target for name, target in marks.items() if name.endswith(layout.DELETED)
        }
        self._complete, self._begun = complete, begun

    async def refresh(self, handle: str) -> SnapshotRecord | None:
        """Read the record of a complete snapshot from the export; None if there is none."""
        record = await self._record(handle)
        if record is None:
            self._complete.pop(handle, None)
        else:
            self._complete[handle] = record
        return record

    async def replace_record(self, handle: str, record: SnapshotRecord) -> None:
        """Replace the record of a complete snapshot, if it still is what was read last. Raises Cause.RECORD."""
        path = (*layout.snapshot(handle), layout.RECORD)
        async with self._replacing:
            await symlinks.replace(self._tree, path, encode(record), was=encode(self._complete[handle]))
        self._complete[handle] = record

    async def begin(self, handle: str, record: SnapshotRecord) -> SnapshotRecord:
        """Write the record of a snapshot that is about to be copied (step 1); return the record that counts.

        Success if an earlier attempt wrote it.
        """
        try:
            await self._tree.make_symlink(layout.begun_snapshot(handle), encode(record))
        except PathExists:
            target = await self._tree.read_symlink(layout.begun_snapshot(handle))
            record = decode_snapshot(target)
        self._begun[handle] = record
        return record

    async def copy(
        self,
        handle: str,
        source: Tree,
        path: RelPath,
        progress: Progress,
        *,
        allows: Callable[[], bool],
    ) -> str:
        """Copy a volume's directory (step 2); return the name of the copy. Raises CopyFailed."""
        return await self._copies.make(names.snapshot_source(handle), source, path, progress, allows=allows)

    async def place(self, handle: str, token: str, created: str) -> SnapshotRecord:
        """Make a complete copy a snapshot (steps 3 and 4); return its record. Success if done before."""
        begun = self._begun[handle]
        record = structs.replace(begun, created=created)
        copy = layout.copy(names.snapshot_source(handle), token)
        if await self._record(handle) is None:
            with suppress(PathExists):
                await self._tree.make_symlink((*copy, layout.RECORD), encode(record))
            proof = Proof(layout.begun_snapshot(handle), encode(begun))
            await self._tree.rename(copy, layout.snapshot(handle), proofs=[proof])
        await self.end(handle)
        return await self.refresh(handle) or record

    async def end(self, handle: str) -> None:
        """Discard what was copied of a snapshot and is none yet, and then the record that it has begun."""
        await self._copies.discard(names.snapshot_source(handle))
        await symlinks.remove(self._tree, layout.begun_snapshot(handle))
        self._begun.pop(handle, None)

    async def remove(self, handle: str) -> None:
        """Move a snapshot into the trash. Success if it is gone already."""
        await self._trash(handle)

    async def mark_deleted(self, handle: str, at: str) -> None:
        """Note that a snapshot was deleted whose data is kept for its retention. The first time counts."""
        path = layout.deleted_snapshot(handle)
        try:
            await self._tree.make_symlink(path, at)
        except PathExists:
            at = await self._tree.read_symlink(path)
        self._deleted[handle] = at

    async def unmark(self, handle: str) -> None:
        """Note that a deleted snapshot is in use again. Success if it is not marked."""
        await symlinks.remove(self._tree, layout.deleted_snapshot(handle))
        self._deleted.pop(handle, None)

    async def expire(self, handle: str) -> None:
        """Move a snapshot into the trash, unless the mark that it was deleted has changed. Raises Cause.RECORD."""
        await self._trash(handle, Proof(layout.deleted_snapshot(handle), self._deleted[handle]))

    async def _trash(self, handle: str, *proofs: Proof) -> None:
        await self._copies.trash(layout.snapshot(handle), layout.COPY + names.snapshot_source(handle), *proofs)
        self._complete.pop(handle, None)
        await self.unmark(handle)

    async def is_there(self, handle: str) -> bool:
        """Return True if the data of a snapshot exists."""
        return await is_there(self._tree, self.path(handle))

    @staticmethod
    def path(handle: str) -> RelPath:
        """Return the directory with the data of a snapshot."""
        return (*layout.snapshot(handle), TREE)

    async def _record(self, handle: str) -> SnapshotRecord | None:
        with suppress(PathMissing):
            return _decoded(await self._tree.read_symlink((*layout.snapshot(handle), layout.RECORD)))
        return None


def _decoded(target: str) -> SnapshotRecord | None:
    with suppress(InvalidRecord):
        return decode_snapshot(target)
    return None
