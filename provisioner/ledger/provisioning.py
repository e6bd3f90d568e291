"""Provisioning a volume on an export, and undoing unfinished attempts.

The steps, in this order (the table of crashes: README.md):

1. *Reserve*: write the record into `pending/`. From here on no directory can exist that no record names.
2. *Look at others*: refuse if another cluster or export has the directory. Only now, after step 1 is done.
3. *Create*: make the directory, or rename the archive that the claim restores, or the copy of the volume that it
   clones. `begin_copy` does steps 1 and 2 before the copy begins (see `copies`), and `provision` repeats them after it.
   Where step 2 has nothing to look at, steps 1 and 3 are one call to the tree.
4. *Look again*: another cluster can have got the directory above between 2 and 3.
5. The caller creates the PersistentVolume, then calls `settle`: the record moves from `pending/` to `volumes/`.

`undo` reverses 3 and 1 for a pending record. It removes only an empty directory, and moves a copy into the trash.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from msgspec import structs

from provisioner.core.groups import GidRange
from provisioner.core.records import Record, copied, encode
from provisioner.core.tenancy import Tenant, adopt_command
from provisioner.ledger import archives, layout, modes, opening, restore, symlinks
from provisioner.ledger.copies import Copies
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, NoFreeGroup, PathTaken, unreadable_record
from provisioner.ledger.grouping import Grouping
from provisioner.ledger.occupancy import Occupancy
from provisioner.ledger.state import LedgerState
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.tree import (
    Cause,
    ExportError,
    MakeDirectory,
    MakeSymlink,
    ModeRefused,
    MoveSymlink,
    NotEmpty,
    Ownership,
    PathExists,
    PathMissing,
)

_DIFFERS = (Cause.EXISTS, Cause.NOT_FOUND, Cause.RECORD)
"""Refusals of a call that expects the export to be as the index has it."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """How an attempt begins: whether its record is new, and whether the directory was created in the same call."""

    fresh: bool
    tried: bool = False
    """Whether the same call tried to create the directory."""
    failure: ExportError | None = None
    """Why it was not created, or not completely."""


class Provisioning:
    """Creates directories of volumes, settles their records and undoes attempts."""

    def __init__(
        self,
        state: LedgerState,
        records: VolumeRecords,
        occupancy: Occupancy,
        grouping: Grouping,
        copies: Copies,
    ) -> None:
        self._state = state
        self._tree = state.tree
        self._records = records
        self._occupancy = occupancy
        self._grouping = grouping
        self._copies = copies

    # ------------------------------------------------------------------------------------------- provision

    async def begin_copy(self, volume_name: str, record: Record, gid_range: GidRange | None) -> Record:
        """Do steps 1 and 2 for a volume that becomes a copy; see `Export.begin_copy`."""
        async with opening.probed_if_missing(self._tree, self._state.export_id):
            begun = await self._begin(volume_name, record, None, gid_range, None)
            held = self._state.index.records[volume_name]
            try:
                await self._occupancy.require_no_root_above(held.path)
                await self._occupancy.require_still_free(volume_name, held, None)
                if await self._copies.is_complete(volume_name, held):
                    return self._state.index.records[volume_name]
                # The group, before there is a copy that has it.
                held = self._state.index.records[volume_name]
                held = await self._grouping.claim(volume_name, held, gid_range, fresh=begun.fresh)
            except (PathTaken, NoFreeGroup):
                await self._retreat(volume_name, held, fresh=begun.fresh, made=False)
                raise
            # Before the copy begins: so what is there later is the copy.
            if not await archives.is_free(self._tree, held.path):
                if begun.fresh:
                    await self._records.withdraw(volume_name)
                raise self._in_the_way(held)
            return self._state.index.records[volume_name]

    async def provision(
        self,
        volume_name: str,
        record: Record,
        ownership: Ownership,
        *,
        adopt_from: str | None,
        tenant: Tenant,
        gid_range: GidRange | None,
        copy: str,
    ) -> Record:
        """Do steps 1 to 4; see `Export.provision`."""
        async with opening.probed_if_missing(self._tree, self._state.export_id):
            return await self._provision(volume_name, record, ownership, adopt_from, tenant, gid_range, copy)

    async def _provision(
        self,
        volume_name: str,
        record: Record,
        ownership: Ownership,
        adopt_from: str | None,
        tenant: Tenant,
        gid_range: GidRange | None,
        copy: str,
    ) -> Record:
        # Data that is there keeps its group, or has none.
        is_made = not record.archive and not record.clone_of
        if gid_range is not None and (not is_made or await self._has_data(adopt_from)):
            gid_range = None
        # No other cluster can want a directory right below the root that has the volume's own name in it, so the looks
        # at the other records can be skipped. Any other name can be that of a volume that another cluster is
        # reclaiming: its directory is gone already, and a repeated rename of it would move this one.
        own = len(record.path) == 1 and volume_name in record.directory and adopt_from is None
        # 1. The record first: of this attempt, or of an earlier one, which stays. With nothing to look at, and no group
        # to get first, the directory follows in the same call.
        alone = own and is_made and gid_range is None
        directory = MakeDirectory(record.path, ownership) if alone else None
        begun = await self._begin(volume_name, record, adopt_from, gid_range, directory)
        held = self._state.index.records[volume_name]
        others_matter = not own or not begun.fresh
        made = False
        try:
            # 2. Look at the others, now that the record is there: of two that write first, at least one sees the other.
            if others_matter:
                await self._occupancy.require_no_root_above(held.path)
                await self._occupancy.require_still_free(volume_name, held, adopt_from)
            # The group, before there is a directory that could have it.
            if adopt_from is not None and gid_range is None:
                held = await self._grouping.follow(volume_name, held, self._former(adopt_from))
            elif not held.archive and not held.clone_of:
                held = await self._grouping.claim(volume_name, held, gid_range, fresh=begun.fresh)
            # 3. The directory.
            if held.archive:
                made = await self._restore(volume_name, held, tenant, fresh=begun.fresh)
                held = self._state.index.records.get(volume_name, held)  # with the archive's rule
            elif held.clone_of:
                made = await self._place(volume_name, held, copy)
                held = self._state.index.records.get(volume_name, held)
            else:
                made = await self._make(volume_name, held, ownership, begun, adopt_from=adopt_from)
            # 4. Once more: the directory above can have become another volume's between the look and now.
            if others_matter and made:
                await self._occupancy.require_still_free(volume_name, held, adopt_from)
        except (PathTaken, NoFreeGroup):
            await self._retreat(volume_name, held, fresh=begun.fresh, made=made)
            raise
        return held

    async def _has_data(self, former: str | None) -> bool:
        """Return True if there is a former volume that has a group, or whose directory exists."""
        record = self._former(former) if former is not None else None
        return record is not None and (bool(record.gid) or not await archives.is_free(self._tree, record.path))

    def _former(self, volume_name: str) -> Record:
        """Return the record of the volume whose directory is adopted.

        Raises Cause.RECORD if it has ended since the caller read it, as by the end of a reclaim.
        """
        record = self._state.index.records.get(volume_name)
        if record is None:
            raise ExportError(Cause.RECORD, volume_name)
        return record

    async def _begin(
        self,
        volume_name: str,
        record: Record,
        adopt_from: str | None,
        gid_range: GidRange | None,
        directory: MakeDirectory | None,
    ) -> _Begun:
        """Ensure that there is a record for this attempt. Create the directory too if the record is new."""
        known = volume_name in self._state.index.records and volume_name not in self._state.unconfirmed
        # Read it again: another replica, or the reclaim of the volume, can have ended it since.
        known = known and await self._records.refresh(volume_name) is not None
        if known:
            begun = _Begun(fresh=False)
        else:
            begun = await self._reserve(volume_name, record, adopt_from, gid_range, directory)
        held = self._state.index.records[volume_name]
        if held.archive == record.archive or volume_name not in self._state.index.pending:
            return begun
        # Since the earlier attempt the claim's annotation that names an archive was set, changed or removed.
        if not await self.undo(volume_name):
            raise AlreadyThere(
                f"directory {held.directory!r} of an earlier attempt for this claim is not empty: move its content away"
            )
        return await self._reserve(volume_name, record, adopt_from, gid_range, directory)

    async def _reserve(
        self,
        volume_name: str,
        record: Record,
        adopt_from: str | None,
        gid_range: GidRange | None,
        directory: MakeDirectory | None,
    ) -> _Begun:
        """Write the record, or read that of an earlier attempt. Create the directory too if the record is new.

        The index gets the record before the export does, so that two claims of this process cannot reserve one
        directory side by side.
        """
        state = self._state
        await self._grouping.prepare(gid_range)
        await self._occupancy.require_free(volume_name, record, adopt_from)
        record = self._grouping.assigned(record, gid_range)
        state.index.enter(volume_name, record, "pending")
        state.reserving.add(volume_name)
        reservation = MakeSymlink(layout.of("pending", volume_name), encode(record))
        try:
            await self._tree.carry_out(reservation, *(() if directory is None else (directory,)))
        except BaseException as exc:
            if isinstance(exc, ExportError) and exc.done:
                state.unconfirmed.discard(volume_name)
                return _Begun(fresh=True, tried=True, failure=exc)
            if not isinstance(exc, PathExists):
                # The outcome can be unknown: the retry finds its own record, as after a crash, or undo() finds it.
                state.unconfirmed.add(volume_name)
                raise
            # An earlier attempt wrote it: of this process with an unknown outcome, or of a former leader.
            state.unconfirmed.discard(volume_name)
            state.index.remove(volume_name)
        else:
            state.unconfirmed.discard(volume_name)
            return _Begun(fresh=True, tried=directory is not None)
        finally:
            state.reserving.discard(volume_name)
        state.index.read({volume_name: await self._tree.read_symlink(layout.of("pending", volume_name))}, "pending")
        if volume_name not in state.index.records:
            raise unreadable_record(state.export_name, volume_name)
        return _Begun(fresh=False)

    async def _make(
        self, volume_name: str, held: Record, ownership: Ownership, begun: _Begun, *, adopt_from: str | None
    ) -> bool:
        """Create the directory, unless the call that wrote the record did.

        Returns False if it is there and is adopted, or is an earlier attempt's. Raises AlreadyThere for any other
        directory that is there.
        """
        if held.gid:
            ownership = replace(ownership, gid=held.gid)
        try:
            if begun.failure is not None:
                raise begun.failure
            if not begun.tried:
                await self._tree.make_directory(held.path, ownership)
        except ModeRefused as exc:
            self._note_mode(volume_name, modes.tolerated(exc, ownership))
            return True
        except PathExists:
            pass
        else:
            return True
        if adopt_from is not None and self._former(adopt_from).path == held.path:
            return False  # mode and owner stay as the data's last user left them
        if not begun.fresh and await self._tree.is_empty(held.path):
            # The record was there before, and no pod can have written to the directory: the earlier attempt created it.
            self._note_mode(volume_name, await modes.set_access(self._tree, held.path, ownership))
            return False
        if begun.fresh:
            await self._records.withdraw(volume_name)
        raise self._in_the_way(held)

    def _in_the_way(self, held: Record) -> AlreadyThere:
        return AlreadyThere(
            f"directory {held.directory!r} already exists on export {self._state.export_name}, and no record gives it"
            f" to this claim: choose another pathPattern, or ask an admin to hand it over with `{adopt_command(held)}`"
        )

    async def _place(self, volume_name: str, held: Record, copy: str) -> bool:
        """Rename a complete copy to the claim's directory; return False if that was done before."""
        try:
            return await self._copies.place(volume_name, held, copy)
        except PathExists as exc:
            raise self._in_the_way(held) from exc

    def _note_mode(self, volume_name: str, refusal: str) -> None:
        if refusal:
            self._state.mode_refusals[volume_name] = refusal

    async def _restore(self, volume_name: str, held: Record, tenant: Tenant, *, fresh: bool) -> bool:
        """Rename the archive that a record names to the claim's directory.

        Returns False if that was done before.
        """
        async with self._state.archive_lock(held.archive):
            try:
                return await restore.bring_back(self._tree, self._state.index, volume_name, held, tenant, fresh=fresh)
            except (ArchiveUnusable, AlreadyThere):
                held = self._state.index.records.get(volume_name, held)  # with the archive's rule, if it got that far
                # Nothing is renamed back: another leader can have restored what lies there for this very claim.
                if await self._records.is_pending(volume_name) and not await restore.has_moved(self._tree, held):
                    await self._give_up(volume_name, held)
                raise

    async def _retreat(self, volume_name: str, held: Record, *, fresh: bool, made: bool) -> None:
        """Undo what this attempt made, since another volume got the directory first."""
        try:
            if made and held.archive:
                await self._give_back(volume_name, held)
                return
            if made and held.clone_of:
                await self._copies.withdraw(volume_name, held)
            elif made:
                await self._tree.remove_directory(held.path)
        except NotEmpty:
            return  # the other volume's directory is still in it: the record stays, for undo()
        except PathMissing:
            pass
        if fresh:
            await self._records.withdraw(volume_name)

    # ------------------------------------------------------------------------------------------- settle

    async def settle(self, volume_name: str, volume_uid: str) -> None:
        """Do step 5; see `Export.settle`."""
        state = self._state
        state.mode_refusals.pop(volume_name, None)
        held = state.index.records.get(volume_name)
        if held is None:
            return
        if volume_name not in state.index.pending and volume_uid in ("", held.volume_uid) and not held.clone_of:
            return
        former, archive = state.index.former(volume_name), held.archive if volume_name in state.index.pending else ""
        if (
            former is None
            and not archive
            and not held.clone_of
            and await self._settle_as_known(volume_name, held, volume_uid)
        ):
            return
        if former is not None:
            # The record of the adopted directory's former volume ends first: once the new one is settled, nothing
            # shows any longer that the two belong together.
            await self._records.forget(former)
        live = await self._records.refresh(volume_name)
        record = structs.replace(live or held, volume_uid=volume_uid or (live or held).volume_uid)
        if live is not None and live != record:
            # The uid goes in before the record is settled: a crash in between leaves a pending record, which the live
            # volume settles.
            await self._records.replace(volume_name, record)
        if live is None or volume_name in state.index.pending:
            await self._move_to_volumes(volume_name, record)
        if record.clone_of:
            # A pending record keeps this: without it, nothing would show whose data the directory holds.
            await self._records.replace(volume_name, copied(record))
        if archive:
            # Last: without the archive's record, a pending record would not tell whose data the directory holds.
            await archives.drop(self._tree, state.index, archive)

    async def _settle_as_known(self, volume_name: str, held: Record, volume_uid: str) -> bool:
        """Settle a record in one call if the export has it as the index does; return True if that is done.

        That is so for nearly all volumes. Otherwise the caller looks at what the export has.
        """
        if volume_name not in self._state.index.pending or volume_uid in ("", held.volume_uid):
            return False
        record = structs.replace(held, volume_uid=volume_uid)
        pending = layout.of("pending", volume_name)
        # The uid goes in before the record is settled: a crash in between leaves a pending record, which the live
        # volume settles.
        draft, put_in = symlinks.replacement(pending, encode(record), was=encode(held))
        try:
            await self._tree.carry_out(draft, put_in, MoveSymlink(pending, layout.of("volumes", volume_name)))
        except ExportError as exc:
            if exc.cause not in _DIFFERS:
                raise
            await symlinks.remove(self._tree, draft.path)
            return False
        self._state.index.enter(volume_name, record, "volumes")
        return True

    async def _move_to_volumes(self, volume_name: str, record: Record) -> None:
        pending, settled = layout.of("pending", volume_name), layout.of("volumes", volume_name)
        try:
            await self._tree.move_symlink(pending, settled)
        except PathMissing:
            # An attempt with an unknown outcome moved it, or a leader that did not know of the volume withdrew it.
            with suppress(PathExists):
                await self._tree.make_symlink(settled, encode(record))
        except PathExists:
            await symlinks.remove(self._tree, pending)  # another leader has settled it since it was read
        self._state.index.enter(volume_name, record, "volumes")

    # ------------------------------------------------------------------------------------------- undo

    async def undo(self, volume_name: str) -> bool:
        """Reverse steps 3 and 1; see `Export.undo`."""
        if volume_name not in self._state.index.pending:
            return True
        if not await self._records.is_pending(volume_name):
            return True  # another leader settled or withdrew it, or it never got to the export
        record = self._state.index.records[volume_name]
        if record.archive:
            # Whoever has a directory above by now: the archive's data must not stay behind without a record. The rename
            # relies on the records of the volume and the archive, so it moves nothing else.
            return await self._give_back(volume_name, record)
        if record.clone_of:
            # No pod has used the copy, and its source has the data.
            await self._copies.withdraw(volume_name, record)
            await self._records.withdraw(volume_name)
            return True
        try:
            await self._occupancy.require_still_free(volume_name, record, None)
            await self._tree.remove_directory(record.path)
        except NotEmpty:
            return False
        except (PathMissing, PathTaken):
            pass  # never made, or another volume's
        await self._records.withdraw(volume_name)
        return True

    async def _give_back(self, volume_name: str, held: Record) -> bool:
        """Rename a restored directory back to its archive and remove the record.

        Returns True if that was done.
        """
        async with self._state.archive_lock(held.archive):
            return await restore.put_back(self._tree, volume_name, held) and await self._give_up(volume_name, held)

    async def _give_up(self, volume_name: str, held: Record) -> bool:
        """Remove the record of a restore that has moved nothing.

        Returns False if something was moved after all. Each rename of a restore relies on the record, so nothing moves
        once it is gone. But another leader can have moved the archive right before: then the record is written again,
        for nothing else shows whose data is there.
        """
        if held.gid:
            await restore.leave_group(self._tree, self._state.index, held)
        await self._records.withdraw(volume_name)
        if not await restore.has_moved(self._tree, held):
            return True
        with suppress(PathExists):
            await self._tree.make_symlink(layout.of("pending", volume_name), encode(held))
        self._state.index.enter(volume_name, held, "pending")
        return False
