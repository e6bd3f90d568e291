"""The ledger's place on an export (design, "The export's ledger"): what is where below `.provisioner`.

    .provisioner/export              -> the export's id
    .provisioner/since               -> since when a provisioner has kept this ledger
    .provisioner/pending/<volume>    -> a record whose PersistentVolume has not been made yet
    .provisioner/volumes/<volume>    -> a record whose PersistentVolume has been made
    .provisioner/archives/<archive>  -> the record of the archive of that name at the export's root
    .provisioner/clusters/<cluster>  -> when a provisioner of that cluster was here last
    .provisioner/clusters/<cluster>.<digest>  -> the instance that works here in its name (core.instances)
    .provisioner/trash/<volume>         a volume's directory on its way out; with `.begun` behind it, a part may be gone
    .provisioner/trash/<volume>.<time>  that of an archive, by the time that its record has; and of older versions
    .provisioner/drafts/<name>       -> a record that is about to take the place of another one
    .provisioner/names-é             -> to see which names the server takes for one
    .provisioner/mark-<name>         -> for a moment, while two exports with one id are compared

`->` is a symlink, whose target is the text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from provisioner.core import times
from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.records import ArchiveRecord, Record
from provisioner.ports.tree import Ownership

State = Literal["pending", "volumes"]
"""How far a volume is, which is the directory that its record is in."""
STATES: tuple[State, ...] = get_args(State)

ID: RelPath = (LEDGER, "export")
SINCE: RelPath = (LEDGER, "since")
ARCHIVES: RelPath = (LEDGER, "archives")
CLUSTERS: RelPath = (LEDGER, "clusters")
TRASH: RelPath = (LEDGER, "trash")
DRAFTS: RelPath = (LEDGER, "drafts")

NAMES: RelPath = (LEDGER, "names-\u00e9")
MARK = "mark-"
BEGUN = ".begun"
TOMBSTONE = ".provisioner-gone"

_NO_TIME = datetime.fromtimestamp(0, UTC)
"""For a record that does not tell its time."""

PRIVATE = Ownership(mode=0o700)


def of(state: State, volume: str) -> RelPath:
    """Where a volume's record is."""
    return (LEDGER, state, volume)


def archive(name: str) -> RelPath:
    """Where the record of an archive is."""
    return (*ARCHIVES, name)


def mark(name: str) -> RelPath:
    """Where a mark is."""
    return (LEDGER, name)


def trashed(volume: str) -> RelPath:
    """Where a volume's directory goes: one place, so that a rename which is carried out twice meets its first time."""
    return (*TRASH, volume)


def trashed_before(volume: str, record: Record) -> RelPath:
    """Where an earlier directory goes that has the place of a volume in the trash."""
    return (*TRASH, f"{volume}.{times.file_stamp(times.parse(record.created) or _NO_TIME)}")


def trashed_archive(record: ArchiveRecord, at: datetime) -> RelPath:
    """Where an archive's directory goes; `at` is for a record whose own time is none."""
    return (*TRASH, f"{record.volume}.{times.file_stamp(times.parse(record.archived) or at)}")


def directories() -> list[RelPath]:
    """All directories of a ledger, in the order in which they are made."""
    return [(LEDGER,), *((LEDGER, state) for state in STATES), ARCHIVES, CLUSTERS, TRASH, DRAFTS]
