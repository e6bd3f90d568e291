"""Copies that become volumes: a hidden directory in the ledger, and one rename once it is complete.

The steps, in this order (the table of crashes: README.md):

1. The caller has written the pending record, which names the source (`Record.clone_of`), and nothing is at its path.
2. *Copy* into a new directory below `copies`, which has a random name. A later leader never continues there: a write
   of an earlier leader that the server runs late reaches only a copy that no volume gets.
3. *Complete*: the record gets the name of the complete copy (`Record.copied`). From here on, what is at the volume's
   path is this copy.
4. *Place*: the rename to the volume's path. It relies on the record: once another process has changed that, nothing
   moves.
5. What is left in `copies` goes to the trash.

Copies that are not needed go to the trash by a rename, which the purge empties.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

from msgspec import structs

from provisioner.core import names
from provisioner.core.locations import RelPath
from provisioner.core.records import Record, encode
from provisioner.ledger import layout, modes, symlinks
from provisioner.ledger.archives import is_free, is_there
from provisioner.ledger.copying import TREE, Progress, Regroup, TreeCopy
from provisioner.ledger.shares import CopyLimits, Shares
from provisioner.ledger.state import LedgerState
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof, Tree

_TRIES = 100
"""Names in the trash that are tried for one copy."""


class Copies:
    """The directories below `.provisioner/copies`."""

    def __init__(self, state: LedgerState, records: VolumeRecords, limits: CopyLimits) -> None:
        self._shares = Shares(limits)
        self._state = state
        self._tree = state.tree
        self._records = records

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
        """Copy a directory for a volume (step 2), once it is its turn; return the name of the copy.

        Raises CopyFailed. A copy that fails or is cancelled is left for `discard`.
        """
        async with self._shares.share() as share:
            await self.discard(volume_name)
            token = secrets.token_hex(4)
            copy = TreeCopy(source, self._tree, progress, allows=allows, regroup=regroup, share=share)
            await copy.run(path, layout.copy(volume_name, token))
            return token

    async def is_complete(self, volume_name: str, held: Record) -> bool:
        """Return True if the copy that a record names exists, in `copies` or at the volume's path already.

        Otherwise the record ceases to name it.
        """
        if not held.copied:
            return False
        complete = (*layout.copy(volume_name, held.copied), TREE)
        if await is_there(self._tree, complete) or await is_there(self._tree, held.path):
            return True
        await self._replace(volume_name, held, structs.replace(held, copied=""))
        return False

    async def place(self, volume_name: str, held: Record, token: str) -> bool:
        """Move a complete copy to the volume's path (steps 3 to 5); return False if that was done before.

        Raises PathExists if something else is there.
        """
        if token and token != held.copied:
            if not await is_free(self._tree, held.path):
                raise PathExists(held.directory)
            held = await self._replace(volume_name, held, structs.replace(held, copied=token))
        complete = (*layout.copy(volume_name, held.copied), TREE)
        moved = await is_there(self._tree, complete) or not await is_there(self._tree, held.path)
        if moved:
            if len(held.path) > 1:
                with suppress(PathExists):
                    await modes.make_directory(self._tree, held.path[:-1], modes.PARENT)
            await self._tree.rename(complete, held.path, proofs=[_proof(volume_name, held)])
        await self.discard(volume_name)
        return moved

    async def withdraw(self, volume_name: str, held: Record) -> None:
        """Move all of a volume's copies into the trash, that at its path included.

        While the complete copy is still in `copies`, another directory is at the path, if any: it is not touched.
        """
        if held.copied and await is_there(self._tree, (*layout.copy(volume_name, held.copied), TREE)):
            # First the record: after a crash, nothing else tells that the copy was not moved to the path.
            held = await self._replace(volume_name, held, structs.replace(held, copied=""))
        await self.discard(volume_name)
        if held.copied:
            _, proof = await self._records.require_unchanged(volume_name)
            await self.trash(held.path, f"{layout.COPY}{volume_name}.{held.copied}", proof)

    async def discard(self, volume_name: str) -> None:
        """Move what a volume has in `copies` into the trash."""
        for name in await self._names():
            if _volume_of(name) == volume_name:
                await self.trash((*layout.COPIES, name), layout.COPY + name)

    async def discard_unneeded(self) -> int:
        """Move the copies that neither a pending volume nor a snapshot needs into the trash; return how many.

        A former leader can have left some, by calls that came late.
        """
        discarded = 0
        for name in await self._names():
            try:
                await self._tree.read_symlink(_needed_by(name))
            except PathMissing:
                await self.trash((*layout.COPIES, name), layout.COPY + name)
                discarded += 1
        return discarded

    async def _names(self) -> list[str]:
        with suppress(PathMissing):  # an older version created the ledger
            return sorted(entry.name for entry in await self._tree.list(layout.COPIES) if entry.type == "directory")
        return []

    async def trash(self, path: RelPath, name: str, *proofs: Proof) -> None:
        """Rename a directory into the trash, under a name that is free. Success if it is gone."""
        for number in range(_TRIES):
            try:
                await self._tree.rename(path, (*layout.TRASH, f"{name}-{number}" if number else name), proofs=proofs)
            except PathMissing:
                return
            except PathExists:
                continue
            else:
                return
        raise ExportError(Cause.OTHER, f"the trash has {_TRIES} copies of the name {name}")

    async def _replace(self, volume_name: str, was: Record, record: Record) -> Record:
        """Replace a pending record if the export still has it. Raises Cause.RECORD."""
        pending = layout.of("pending", volume_name)
        await symlinks.replace(self._tree, pending, encode(record), was=encode(was))
        self._state.index.enter(volume_name, record, "pending")
        return record


def _volume_of(name: str) -> str:
    return name.rpartition(".")[0] or name


def _needed_by(name: str) -> RelPath:
    """Return the path of the record that a copy is for."""
    handle = names.snapshot_handle(_volume_of(name))
    return layout.begun_snapshot(handle) if handle else layout.of("pending", _volume_of(name))


def _proof(volume_name: str, held: Record) -> Proof:
    return Proof(layout.of("pending", volume_name), encode(held))
