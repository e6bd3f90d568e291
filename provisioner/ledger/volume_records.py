"""The records of volumes on an export: reading, replacing and removing them.

Each change is one call that is atomic on the server. The ledger in memory (`ledger.index`) follows what these calls
find: another cluster, another leader or an admin can have changed a record since this process read it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from msgspec import structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.records import Quota, Record, decode, encode
from provisioner.ledger import groups, layout, symlinks
from provisioner.ledger.layout import STATES
from provisioner.ledger.state import LedgerState
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof


class VolumeRecords:
    """The records below `.provisioner/pending` and `.provisioner/volumes`."""

    def __init__(self, state: LedgerState) -> None:
        self._state = state
        self._tree = state.tree

    async def exists(self, volume_name: str) -> bool:
        """Return True if the export has a record of the volume or is about to get one.

        It is about to get one while this process writes it.
        """
        if volume_name in self._state.reserving:
            return True
        for state in STATES:
            with suppress(PathMissing):
                await self._tree.read_symlink(layout.of(state, volume_name))
                return True
        return False

    async def refresh(self, volume_name: str) -> Record | None:
        """Read a volume's record from the export and put it into the index.

        Returns None if the export has none.
        """
        unreadable: dict[str, str] = {}
        for state in ("volumes", "pending"):  # the more likely one first
            with suppress(PathMissing):
                target = await self._tree.read_symlink(layout.of(state, volume_name))
                try:
                    live = decode(target)
                except InvalidRecord:
                    unreadable[volume_name] = target
                    continue
                self._state.index.enter(volume_name, live, state)
                return live
        if volume_name not in self._state.reserving:
            self._state.index.remove(volume_name)
        self._state.index.read(unreadable, "volumes")
        return None

    async def is_pending(self, volume_name: str) -> bool:
        """Return True if the export has a pending record of the volume now.

        If not, the index gets what the export has instead.
        """
        try:
            await self._tree.read_symlink(layout.of("pending", volume_name))
        except PathMissing:
            self._state.unconfirmed.discard(volume_name)
            await self.refresh(volume_name)
            return False
        self._state.unconfirmed.discard(volume_name)
        return True

    def expected(self, volume_name: str) -> tuple[RelPath, Proof] | None:
        """Return what `require_unchanged` returns if the export has the record of the index.

        The proof decides: a rename that relies on it moves nothing if the export has another record.
        """
        known = self._state.index.records.get(volume_name)
        with suppress(InvalidRecord):
            if known is not None:
                state = self._state.index.state(volume_name)
                return known.path, Proof(layout.of(state, volume_name), encode(known))
        return None

    async def require_unchanged(self, volume_name: str) -> tuple[RelPath, Proof]:
        """Return the recorded directory, and the record as proof for a rename of it.

        Reads the record from the export. Raises Cause.RECORD where it differs from the one in the index: the caller has
        judged by that one. The index gets the new record, and the next attempt judges by it.
        """
        known = self._state.index.records.get(volume_name)
        for state in sorted(STATES, key=lambda state: state != self._state.index.state(volume_name)):
            try:
                text = await self._tree.read_symlink(layout.of(state, volume_name))
                live = decode(text)
            except (InvalidRecord, PathMissing):
                continue
            if live == known:
                return live.path, Proof(layout.of(state, volume_name), text)
            self._state.index.enter(volume_name, live, state)
        hint = f"nothing was touched; compare the record of {volume_name} in {LEDGER} on the export with the volume"
        raise ExportError(Cause.RECORD, f"the record of volume {volume_name} has changed", hint=hint)

    async def learn_new(self) -> None:
        """Read the records that the index does not have.

        Other clusters and other leaders write some.
        """
        listings = await asyncio.gather(*(self._tree.list((LEDGER, state)) for state in STATES))
        for state, listing in zip(STATES, listings, strict=True):
            unknown = self._state.index.unknown({entry.name for entry in listing if entry.type == "symlink"})
            if unknown:
                self._state.index.read(await symlinks.read(self._tree, (LEDGER, state), sorted(unknown)), state)

    async def find_damage(self) -> None:
        """Read all settled records again and note which of them cannot be read."""
        async for some in symlinks.batches(self._tree, (LEDGER, "volumes")):
            self._state.index.note_damage(some)

    async def replace(self, volume_name: str, record: Record) -> None:
        """Replace a volume's record in one step.

        A reader sees the old one or the new one, never a part.
        """
        state = self._state.index.state(volume_name)
        await symlinks.replace(self._tree, layout.of(state, volume_name), encode(record))
        self._state.index.enter(volume_name, record, state)

    async def follow_class(self, volume_name: str, held: Record, quota: Quota) -> Record:
        """Give the pending record of an attempt another quota; return the record that counts.

        A class can be deleted and created again with another quota while a claim waits. Returns `held`, and writes
        nothing, if the export has another record; the index then has that one.
        """
        if await self.refresh(volume_name) != held or volume_name not in self._state.index.pending:
            return held
        wanted = structs.replace(held, quota=quota)
        await symlinks.replace(self._tree, layout.of("pending", volume_name), encode(wanted), was=encode(held))
        self._state.index.enter(volume_name, wanted, "pending")
        return wanted

    async def write_again(self, volume_name: str, record: Record) -> None:
        """Write the pending record of an attempt again, unless the export has one of the volume.

        A leader that reserves right before another one creates the directory takes it for a stranger's, and withdraws.
        """
        if await self.refresh(volume_name) is None:
            with suppress(PathExists):
                await self._tree.make_symlink(layout.of("pending", volume_name), encode(record))
            await self.refresh(volume_name)

    async def withdraw(self, volume_name: str) -> None:
        """Remove a pending record, and then the entry of its group; nothing else.

        The group of a directory that was to be adopted goes back to its former volume first.
        """
        state = self._state
        state.mode_refusals.pop(volume_name, None)
        held, former = state.index.records.get(volume_name), state.index.former(volume_name)
        if held is not None and former is not None and state.index.records[former].gid == held.gid:
            holder = groups.holder_of(former, state.index.records[former])
            await groups.hold(self._tree, state.index, held.gid, holder)
        await symlinks.remove(self._tree, layout.of("pending", volume_name))
        state.index.remove(volume_name)
        holder = groups.holder_of(volume_name, held) if held is not None else ""
        if held is not None and state.index.groups.holders.get(held.gid) == holder:
            await groups.end(self._tree, state.index, held.gid, holder)

    async def forget(self, volume_name: str) -> None:
        """Remove a volume's record, whatever its state: the last step of a reclaim."""
        if volume_name in self._state.index.pending:
            await symlinks.remove(self._tree, layout.of("pending", volume_name))
        await symlinks.remove(self._tree, layout.of("volumes", volume_name))
        self._state.index.remove(volume_name)
