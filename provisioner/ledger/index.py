"""The ledger in memory: which volume has which directory on one export, how far it is, and which archives there are.

Pure bookkeeping over records; ledger.export does the calls. A path is entered before the first call that creates
anything, so that two claims that are provisioned side by side cannot both take it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from sys import intern

from msgspec import structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.folding import fold
from provisioner.core.locations import RelPath
from provisioner.core.names import volume_name
from provisioner.core.paths import ARCHIVE_PREFIX, PathIndex
from provisioner.core.records import ArchiveRecord, Record, decode, decode_archive, is_foreign
from provisioner.ledger.layout import State


class LedgerIndex:
    """The records of one export by volume name, an index of their paths, and the records of its archives by name."""

    def __init__(self, *, folds: bool = False) -> None:
        """`folds`: the server takes names for one that differ in case, or in their normal form."""
        self._folds = folds
        self._records: dict[str, Record] = {}
        self._pending: set[str] = set()
        self._unreadable: set[str] = set()
        self._foreign: set[str] = set()
        self._unreadable_archives: set[str] = set()
        self._paths = PathIndex(folds=folds)
        self._archives: dict[str, ArchiveRecord] = {}
        self._archive_of: dict[str, str] = {}

    @property
    def records(self) -> Mapping[str, Record]:
        """All records of volumes, however far they are."""
        return self._records

    @property
    def pending(self) -> Set[str]:
        """Those without a PersistentVolume as yet."""
        return self._pending

    @property
    def unreadable(self) -> Set[str]:
        """Names whose targets are no records that we know."""
        return self._unreadable | self._unreadable_archives

    @property
    def foreign(self) -> Set[str]:
        """Those of volumes that another version wrote."""
        return self._foreign

    @property
    def archives(self) -> Mapping[str, ArchiveRecord]:
        """The records of archives."""
        return self._archives

    def state(self, volume: str) -> State:
        """How far a volume that has a record is."""
        return "pending" if volume in self._pending else "volumes"

    # ------------------------------------------------------------------------------------------- volumes

    def read(self, targets: Mapping[str, str], state: State) -> None:
        """Enter what was read from the export; what cannot be read is kept apart, never touched."""
        for volume, target in targets.items():
            try:
                self.enter(volume, decode(target), state)
            except InvalidRecord:
                self._note(volume, target)

    def note_damage(self, targets: Mapping[str, str]) -> None:
        """Keep apart those of the targets that cannot be read; all others stay as they are in memory."""
        for volume, target in targets.items():
            try:
                decode(target)
            except InvalidRecord:
                self._note(volume, target)

    def _note(self, volume: str, target: str) -> None:
        self._unreadable.add(volume)
        if is_foreign(target):
            self._foreign.add(volume)

    def enter(self, volume: str, record: Record, state: State) -> None:
        """Enter a record in place of the one that the volume had; a settled one never becomes pending again."""
        known = self._records.get(volume)
        if known is not None:
            self._paths.remove(known.path, volume)
        self._records[volume] = _lean(record)
        self._paths.add(record.path, volume)
        self._unreadable.discard(volume)
        self._foreign.discard(volume)
        if state == "volumes":
            self.settle(volume)
        elif known is None:
            self._pending.add(volume)

    def settle(self, volume: str) -> None:
        """The volume's PersistentVolume exists."""
        self._pending.discard(volume)

    def remove(self, volume: str) -> None:
        """Take a record out; one that is not in it is none."""
        record = self._records.pop(volume, None)
        self._pending.discard(volume)
        self._unreadable.discard(volume)
        self._foreign.discard(volume)
        if record is not None:
            self._paths.remove(record.path, volume)

    def unknown(self, volumes: Set[str]) -> Set[str]:
        """Those of the names that are not in the ledger yet."""
        return volumes - self._records.keys() - self._unreadable

    # ------------------------------------------------------------------------------------------- paths

    def touching(self, path: RelPath, *, other_than: Collection[str] = ()) -> str | None:
        """A volume whose directory is this path, or one above or below it, and that is none of the given."""
        return self._paths.touching(path, other_than=other_than)

    def adoptable(self, record: Record) -> str | None:
        """The volume with a settled record of exactly this directory, from the same cluster and a namespace's name."""
        own = volume_name(record.claim_uid)
        for holder in sorted(self._paths.owners(record.path)):
            held = self._records[holder]
            same = (held.namespace, held.cluster, held.path) == (record.namespace, record.cluster, record.path)
            if same and holder != own and holder not in self._pending:
                return holder
        return None

    def former(self, volume: str) -> str | None:
        """The volume whose settled record a pending one is to follow: its directory was adopted."""
        record = self._records.get(volume)
        return self.adoptable(record) if record is not None and volume in self._pending else None

    # ------------------------------------------------------------------------------------------- archives

    def read_archives(self, targets: Mapping[str, str]) -> None:
        """Enter the records of archives that were read from the export; an unreadable one is reported as others are."""
        for archive, target in targets.items():
            try:
                self.enter_archive(archive, decode_archive(target))
            except InvalidRecord:
                self._unreadable_archives.add(archive)

    def enter_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Enter the record of an archive."""
        self._archives[archive] = record
        self._archive_of[record.volume] = archive

    def remove_archive(self, archive: str) -> None:
        """Take the record of an archive out."""
        record = self._archives.pop(archive, None)
        if record is not None and self._archive_of.get(record.volume) == archive:
            del self._archive_of[record.volume]

    def archive_at(self, name: str) -> str | None:
        """The archive that has this name at the export's root, as the server compares names."""
        if not fold(name).startswith(ARCHIVE_PREFIX):
            return None
        same = (archive for archive in self._archives if fold(archive) == fold(name)) if self._folds else iter(())
        return name if name in self._archives else next(same, None)

    def archive_of(self, volume: str) -> str | None:
        """The archive that a volume became, or is becoming."""
        return self._archive_of.get(volume)


def _lean(record: Record) -> Record:
    """The record with what repeats from record to record kept once: there may be tens of thousands."""
    return structs.replace(
        record,
        namespace=intern(record.namespace),
        class_name=intern(record.class_name),
        capacity=intern(record.capacity),
        cluster=intern(record.cluster),
        modes=intern(record.modes),
        mount_options=intern(record.mount_options),
        retention=intern(record.retention),
    )
