"""The ledger in memory: the records of one export's volumes and archives.

It knows which volume has which directory, in which state. Pure bookkeeping over records; `ledger.volume_records` and
the other parts of an export do the calls. A path is entered before the first call that creates anything, so that two
claims that are provisioned side by side cannot both get it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from sys import intern

from msgspec import structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.folding import fold
from provisioner.core.groups import GroupIndex
from provisioner.core.locations import RelPath
from provisioner.core.names import volume_name as name_for_claim
from provisioner.core.paths import ARCHIVE_PREFIX, PathIndex
from provisioner.core.records import ArchiveRecord, Record, decode, decode_archive, is_foreign
from provisioner.ledger.layout import State


class LedgerIndex:
    """The records of one export's volumes and archives by name, and an index of paths."""

    def __init__(self, *, folds: bool = False) -> None:
        """`folds`: the server treats names as equal that differ in case or normal form."""
        self._folds = folds
        self._records: dict[str, Record] = {}
        self._pending: set[str] = set()
        self._unreadable: set[str] = set()
        self._foreign: set[str] = set()
        self._unreadable_archives: set[str] = set()
        self._paths = PathIndex(folds=folds)
        self._archives: dict[str, ArchiveRecord] = {}
        self._archive_of: dict[str, str] = {}
        self.groups = GroupIndex()

    @property
    def records(self) -> Mapping[str, Record]:
        """The records of all volumes, pending and settled."""
        return self._records

    @property
    def pending(self) -> Set[str]:
        """The volumes whose PersistentVolume is not confirmed yet."""
        return self._pending

    @property
    def unreadable(self) -> Set[str]:
        """The names of volumes and archives whose records cannot be read."""
        return self._unreadable | self._unreadable_archives

    @property
    def foreign(self) -> Set[str]:
        """The volumes among `unreadable` whose records another version wrote."""
        return self._foreign

    @property
    def archives(self) -> Mapping[str, ArchiveRecord]:
        """The records of archives."""
        return self._archives

    def state(self, volume_name: str) -> State:
        """Return the state of a volume that has a record."""
        return "pending" if volume_name in self._pending else "volumes"

    # ------------------------------------------------------------------------------------------- volumes

    def read(self, targets: Mapping[str, str], state: State) -> None:
        """Enter records that were read from the export.

        Those that cannot be read become `unreadable`.
        """
        for volume_name, target in targets.items():
            try:
                self.enter(volume_name, decode(target), state)
            except InvalidRecord:
                self._note(volume_name, target)

    def note_damage(self, targets: Mapping[str, str]) -> None:
        """Note which of the targets cannot be read.

        The other records stay as they are in memory.
        """
        for volume_name, target in targets.items():
            try:
                decode(target)
            except InvalidRecord:
                self._note(volume_name, target)

    def _note(self, volume_name: str, target: str) -> None:
        self._unreadable.add(volume_name)
        self.groups.note_unreadable(volume_name, target)
        if is_foreign(target):
            self._foreign.add(volume_name)

    def enter(self, volume_name: str, record: Record, state: State) -> None:
        """Enter a record, or replace the volume's; a settled one never becomes pending again."""
        known = self._records.get(volume_name)
        if known is not None:
            self._paths.remove(known.path, volume_name)
            self.groups.unname(known.gid)
        self._records[volume_name] = _lean(record)
        self._paths.add(record.path, volume_name, text=record.directory)
        self.groups.name(record.gid)
        self.groups.note_readable(volume_name)
        self._unreadable.discard(volume_name)
        self._foreign.discard(volume_name)
        if state == "volumes":
            self.settle(volume_name)
        elif known is None:
            self._pending.add(volume_name)

    def settle(self, volume_name: str) -> None:
        """Note that the volume's PersistentVolume exists."""
        self._pending.discard(volume_name)

    def remove(self, volume_name: str) -> None:
        """Remove a record; a no-op if there is none."""
        record = self._records.pop(volume_name, None)
        self._pending.discard(volume_name)
        self._unreadable.discard(volume_name)
        self._foreign.discard(volume_name)
        self.groups.note_readable(volume_name)
        if record is not None:
            self._paths.remove(record.path, volume_name)
            self.groups.unname(record.gid)

    def unknown(self, volume_names: Set[str]) -> Set[str]:
        """Return the names that are not in the index yet."""
        return volume_names - self._records.keys() - self._unreadable

    # ------------------------------------------------------------------------------------------- paths

    def touching(self, path: RelPath, *, other_than: Collection[str] = ()) -> str | None:
        """Return a volume, other than the given ones, whose directory overlaps with a path."""
        return self._paths.touching(path, other_than=other_than)

    def adoptable(self, record: Record) -> str | None:
        """Return the settled volume of the same directory, cluster and namespace name."""
        own = name_for_claim(record.claim_uid)
        for holder in sorted(self._paths.owners(record.path)):
            held = self._records[holder]
            same = (held.namespace, held.cluster, held.path) == (record.namespace, record.cluster, record.path)
            if same and holder != own and holder not in self._pending:
                return holder
        return None

    def former(self, volume_name: str) -> str | None:
        """Return the volume whose directory a pending volume adopts."""
        record = self._records.get(volume_name)
        return self.adoptable(record) if record is not None and volume_name in self._pending else None

    # ------------------------------------------------------------------------------------------- archives

    def read_archives(self, targets: Mapping[str, str]) -> None:
        """Enter records of archives that were read from the export.

        Those that cannot be read become `unreadable`.
        """
        for archive, target in targets.items():
            try:
                self.enter_archive(archive, decode_archive(target))
            except InvalidRecord:
                self._unreadable_archives.add(archive)
                self.groups.note_unreadable(archive, target)

    def enter_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Enter the record of an archive, or replace it."""
        known = self._archives.get(archive)
        if known is not None:
            self.groups.unname(known.was.gid)
        self.groups.name(record.was.gid)
        self._archives[archive] = record
        self._archive_of[record.volume] = archive

    def remove_archive(self, archive: str) -> None:
        """Remove the record of an archive; a no-op if there is none."""
        record = self._archives.pop(archive, None)
        if record is not None:
            self.groups.unname(record.was.gid)
        if record is not None and self._archive_of.get(record.volume) == archive:
            del self._archive_of[record.volume]

    def archive_at(self, name: str) -> str | None:
        """Return the archive of this name, as the server compares names."""
        if not fold(name).startswith(ARCHIVE_PREFIX):
            return None
        same = (archive for archive in self._archives if fold(archive) == fold(name)) if self._folds else iter(())
        return name if name in self._archives else next(same, None)

    def archive_of(self, volume_name: str) -> str | None:
        """Return the archive that a volume became, or is becoming."""
        return self._archive_of.get(volume_name)

    # ------------------------------------------------------------------------------------------- groups

    def read_groups(self, targets: Mapping[str, str]) -> None:
        """Enter the entries of groups that were read from the export. Names that are no group id are left out."""
        for name, holder in targets.items():
            if name.isascii() and name.isdecimal():
                self.groups.enter(int(name), holder)


def _lean(record: Record) -> Record:
    """Return the record with one shared copy of the texts that many records repeat.

    There can be tens of thousands of records.
    """
    return structs.replace(
        record,
        namespace=intern(record.namespace),
        class_name=intern(record.class_name),
        capacity=intern(record.capacity),
        cluster=intern(record.cluster),
        modes=intern(record.modes),
        mount_options=intern(record.mount_options),
        retention=intern(record.retention),
        namespace_uid=intern(record.namespace_uid),
    )
