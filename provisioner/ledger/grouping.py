"""Which group a volume gets for itself, and when its id is free again.

A volume has its group by two texts: its record names the id, and the entry of the id names the volume
(`ledger.groups`). The order of steps, which README.md explains:

1. The record with the lowest id that is free, by the index.
2. The entry, which only one volume can create. If another volume was faster, the record gets the next id.
3. The directory, with this group.

Data takes its id along: into an archive, into the trash, and to the claim that adopts or restores it. An id is free
once no record names it and nothing of its holder is in the trash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from contextlib import suppress

from msgspec import structs

from provisioner.core.groups import GidRange, gid_in
from provisioner.core.records import Record
from provisioner.core.returned import volume_of
from provisioner.ledger import archives, groups, layout
from provisioner.ledger.errors import NoFreeGroup, UnreadableRecord
from provisioner.ledger.state import LedgerState
from provisioner.ledger.trash import Trash
from provisioner.ledger.volume_records import VolumeRecords
from provisioner.ports.endless import TRASH_LIMIT
from provisioner.ports.tree import Entry, PathMissing


class Grouping:
    """The groups of an export's volumes."""

    def __init__(self, state: LedgerState, records: VolumeRecords, trash: Trash) -> None:
        self._state = state
        self._tree = state.tree
        self._records = records
        self._trash = trash

    # ------------------------------------------------------------------------------------------- a new volume

    async def prepare(self, gid_range: GidRange | None) -> None:
        """Look for free ids on the export if the index has none of a range; a no-op without a range."""
        if gid_range is not None and self._state.index.groups.lowest_free(gid_range) is None:
            # Other clusters can have freed some.
            await groups.learn(self._tree, self._state.index)
            await self.complete()

    def assigned(self, record: Record, gid_range: GidRange | None) -> Record:
        """Return a record with the lowest free id of a range, or with none if there is no range.

        The caller enters it into the index before its next await: until then the id is not taken. Raises NoFreeGroup,
        UnreadableRecord.
        """
        return structs.replace(record, gid=self._choose(gid_range) if gid_range is not None else 0)

    def _choose(self, gid_range: GidRange) -> int:
        state = self._state
        if state.index.groups.is_in_doubt:
            raise UnreadableRecord(
                f"the ledger of export {state.export_name} has a record that cannot be read, and it can name any group"
                " of gidRange: rewrite the record with `nfs-provisioner recover --ledger`"
            )
        gid = state.index.groups.lowest_free(gid_range)
        if gid is None:
            raise NoFreeGroup(
                f"no group id of gidRange {gid_range} is free on export {state.export_name}: use a StorageClass with a"
                " wider gidRange, or delete volumes or archives (an id is free after the purge of the trash)"
            )
        return gid

    async def claim(self, volume_name: str, held: Record, gid_range: GidRange | None, *, fresh: bool) -> Record:
        """Give a volume the group that its pending record names, or another one; return the record that counts.

        `fresh` says that this attempt wrote the record. Raises the same as `assigned`.
        """
        if volume_name not in self._state.index.pending:
            return held  # the group is on the directory already
        known = not fresh
        while held.gid or gid_range is not None:
            if held.gid and await self._claim(volume_name, held, known=known):
                return held
            if held.gid:
                await groups.learn(self._tree, self._state.index)
            await self.prepare(gid_range)
            wanted = self.assigned(held, gid_range)
            # The index first, without an await since the choice: two claims of this process never choose one id.
            self._state.index.enter(volume_name, wanted, "pending")
            await self._records.replace(volume_name, wanted)
            held, known = wanted, False
        return held

    async def _claim(self, volume_name: str, held: Record, *, known: bool) -> bool:
        """Create the entry of the id in a record; return True if the id is the volume's now.

        An entry that names the volume already counts only with `known`: the record named the id before. Otherwise it is
        left from an attempt that was undone, and another process can be about to remove it.
        """
        index, holder = self._state.index, groups.holder_of(volume_name, held)
        if await groups.claim(self._tree, index, held.gid, holder):
            return True
        return known and index.groups.holders.get(held.gid) == holder

    # ------------------------------------------------------------------------------------------- data that is there

    async def follow(self, volume_name: str, held: Record, former: Record) -> Record:
        """Give a volume the group of the directory that it adopts; return the record that counts."""
        wanted = structs.replace(held, gid=former.gid)
        if wanted != held:
            await self._records.replace(volume_name, wanted)
        await groups.hold(self._tree, self._state.index, wanted.gid, groups.holder_of(volume_name, wanted))
        return wanted

    # ------------------------------------------------------------------------------------------- upkeep

    async def complete(self) -> None:
        """Create the missing entries of settled records and of archives that name an id.

        Those of a lost ledger have none, and those of volumes that were taken over with their annotation.
        """
        index = self._state.index
        if not index.groups.has_unlisted:
            return
        for volume_name, held in list(index.records.items()):
            if volume_name not in index.pending and self._is_unlisted(held.gid):
                # Read it again: another cluster can have ended it since.
                live = await self._records.refresh(volume_name)
                if live is not None and live.gid:
                    await groups.claim(self._tree, index, live.gid, groups.holder_of(volume_name, live))
        for archive, known in list(index.archives.items()):
            if self._is_unlisted(known.was.gid):
                if await archives.read(self._tree, archive) is None:
                    index.remove_archive(archive)
                else:
                    holder = groups.holder_of(known.volume, known.was)
                    await groups.claim(self._tree, index, known.was.gid, holder)

    def _is_unlisted(self, gid: int) -> bool:
        return bool(gid) and gid not in self._state.index.groups.holders

    async def free_unused(self, cluster: str, *, in_trash: Collection[str], exists: Callable[[str], bool]) -> int:
        """Remove the entries of a cluster's ids that nothing needs any longer; return how many.

        `in_trash` are the names in the trash, as far as the caller knows them; `exists` returns True for a volume that
        the cluster has. Without a candidate this makes no call.
        """
        index = self._state.index
        waiting = {volume_of(name) for name in in_trash}
        unused = {
            gid: holder
            for gid, holder in index.groups.holders.items()
            if groups.is_of(cluster, holder)
            and not self._is_held(gid, volume_name := groups.volume_in(holder))
            and volume_name not in waiting
            and not exists(volume_name)  # its record is lost, but pods use its directory
        }
        if not unused:
            return 0
        # In the order in which data moves, so that nothing can slip past: from a record into an archive, from both of
        # them into the trash, and from there back to a record. Data that moves on to another volume changes the entry.
        await self._refresh(unused)
        listed = await self._tree.list(layout.TRASH, at_most=TRASH_LIMIT)
        if len(listed) >= TRASH_LIMIT or index.groups.is_in_doubt:
            return 0  # what the rest of the trash, or a damaged record, needs is unknown
        waiting = await self._waiting(listed, {groups.volume_in(holder) for holder in unused.values()})
        freed = 0
        for gid, holder in unused.items():
            volume_name = groups.volume_in(holder)
            if volume_name in waiting or await self._is_recorded(volume_name, gid):
                continue
            if index.groups.is_named(gid):
                await self._hand_over(gid, holder, cluster)
            else:
                freed += await groups.end(self._tree, index, gid, holder)
        return freed

    async def _hand_over(self, gid: int, former: str, cluster: str) -> None:
        """Give the entry of an id to another volume that names it: a predecessor's volumes can share a group."""
        index = self._state.index
        for volume_name, held in list(index.records.items()):
            is_settled = volume_name not in index.pending and volume_name != groups.volume_in(former)
            if is_settled and (held.gid, held.cluster) == (gid, cluster) and await self._is_recorded(volume_name, gid):
                await groups.pass_on(self._tree, index, gid, former, groups.holder_of(volume_name, held))
                return

    def _is_held(self, gid: int, volume_name: str) -> bool:
        """Return True if, by the index, the record of a volume or of its archive names an id."""
        index = self._state.index
        held, archive = index.records.get(volume_name), index.archive_of(volume_name)
        return (held is not None and held.gid == gid) or (
            archive is not None and index.archives[archive].was.gid == gid
        )

    async def _refresh(self, unused: Mapping[int, str]) -> None:
        """Read again what the export has about ids: first the records, then the archives."""
        index = self._state.index
        for gid, holder in unused.items():
            if await self._is_recorded(groups.volume_in(holder), gid):
                # Another leader wrote it, or a command: from now on it protects the id.
                await self._records.refresh(groups.volume_in(holder))
        for volume_name in [name for name, held in index.records.items() if held.gid in unused]:
            await self._records.refresh(volume_name)  # another cluster can have replaced or ended it
        await archives.learn(self._tree, index)
        for archive in [name for name, known in index.archives.items() if known.was.gid in unused]:
            if await archives.read(self._tree, archive) is None:
                index.remove_archive(archive)

    async def _waiting(self, listed: Iterable[Entry], volume_names: Set[str]) -> set[str]:
        """Return those of the volumes that still have something in the trash."""
        waiting: set[str] = set()
        for entry in listed:
            name = entry.name.removesuffix(layout.BEGUN)
            if volume_of(name) in volume_names and not await self._trash.is_purged(entry.name):
                waiting.add(volume_of(name))
        return waiting

    async def _is_recorded(self, volume_name: str, gid: int) -> bool:
        """Return True if a volume has a record that names an id, or can name it."""
        for state in layout.STATES:  # pending first: records move from there to the settled ones
            with suppress(PathMissing):
                if gid_in(await self._tree.read_symlink(layout.of(state, volume_name))) in (gid, None):
                    return True
        return False
