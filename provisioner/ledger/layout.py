"""The paths of a ledger: what is where below `.provisioner` on an export.

    .provisioner/export              -> the export's id
    .provisioner/since               -> since when a provisioner has kept this ledger
    .provisioner/pending/<volume>    -> the record of a volume whose PersistentVolume is not confirmed yet
    .provisioner/volumes/<volume>    -> the record of a volume whose PersistentVolume exists, or existed
    .provisioner/archives/<archive>  -> the record of the archive of that name at the export's root
    .provisioner/clusters/<cluster>  -> when a provisioner of that cluster was here last
    .provisioner/clusters/<cluster>.<digest>  -> the instance that works for the cluster (core.instances)
    .provisioner/trash/<volume>         a volume's directory until it is removed; with `.begun` behind it, partly gone
    .provisioner/trash/<volume>.<time>  an archive's directory, by the time in its record; and those of older versions
    .provisioner/copies/<volume>.<random>   a copy for a volume until it is complete: `tree`, and `links` beside it
    .provisioner/snapshots/<handle>     a snapshot: its `record`, a symlink, and its data, `tree`
    .provisioner/snapshots/<handle>.begun   -> the record of a snapshot that is being copied
    .provisioner/snapshots/<handle>.deleted -> when a snapshot was deleted whose data is kept for a time
    .provisioner/groups/<gid>        -> the volume that holds this group id, or held it last, and its cluster
    .provisioner/drafts/<name>       -> a record right before it replaces another one
    .provisioner/quota/<volume>      -> the quota agent's answer (core.quota); only the agent writes it
    .provisioner/agent               -> the quota agent's heartbeat
    .provisioner/names-é             -> shows which names the server treats as equal
    .provisioner/mark-<name>         -> for a moment, while two exports with one id are compared

`->` is a symlink, whose target is the text. The list in this folder's README.md leads, for developers. The design is in
docs/development/design.md, "The export's ledger".
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
"""The state of a volume, which is the directory that its record is in."""
STATES: tuple[State, ...] = get_args(State)

ID: RelPath = (LEDGER, "export")
SINCE: RelPath = (LEDGER, "since")
ARCHIVES: RelPath = (LEDGER, "archives")
CLUSTERS: RelPath = (LEDGER, "clusters")
TRASH: RelPath = (LEDGER, "trash")
DRAFTS: RelPath = (LEDGER, "drafts")
GROUPS: RelPath = (LEDGER, "groups")
COPIES: RelPath = (LEDGER, "copies")
SNAPSHOTS: RelPath = (LEDGER, "snapshots")
ENDED_GROUP: RelPath = (*DRAFTS, "ended_group")

NAMES: RelPath = (LEDGER, "names-\u00e9")
MARK = "mark-"
BEGUN = ".begun"
DELETED = ".deleted"
RECORD = "record"
COPY = "copy-"
"""The begin of the name of a copy in the trash, which is no volume's data."""
TOMBSTONE = ".provisioner-gone"

_NO_TIME = datetime.fromtimestamp(0, UTC)
"""The time of a record that has none."""

PRIVATE = Ownership(mode=0o700)


def of(state: State, volume_name: str) -> RelPath:
    """Return the path of a volume's record."""
    return (LEDGER, state, volume_name)


def archive(name: str) -> RelPath:
    """Return the path of an archive's record."""
    return (*ARCHIVES, name)


def group(gid: int) -> RelPath:
    """Return the path of the entry of a group id."""
    return (*GROUPS, str(gid))


def copy(volume_name: str, token: str) -> RelPath:
    """Return the path of a copy for a volume."""
    return (*COPIES, f"{volume_name}.{token}")


def snapshot(handle: str) -> RelPath:
    """Return the path of a snapshot."""
    return (*SNAPSHOTS, handle)


def begun_snapshot(handle: str) -> RelPath:
    """Return the path of the record of a snapshot that is being copied."""
    return (*SNAPSHOTS, handle + BEGUN)


def deleted_snapshot(handle: str) -> RelPath:
    """Return the path of the time at which a snapshot was deleted."""
    return (*SNAPSHOTS, handle + DELETED)


def mark(name: str) -> RelPath:
    """Return the path of a mark."""
    return (LEDGER, name)


def trashed(volume_name: str) -> RelPath:
    """Return where a volume's directory goes in the trash.

    It is one path, so that a rename that is carried out twice finds the first one's result.
    """
    return (*TRASH, volume_name)


def trashed_before(volume_name: str, record: Record) -> RelPath:
    """Return where an earlier directory goes that has a volume's path in the trash."""
    return (*TRASH, f"{volume_name}.{times.file_stamp(times.parse(record.created) or _NO_TIME)}")


def trashed_archive(record: ArchiveRecord, at: datetime) -> RelPath:
    """Return where an archive's directory goes.

    `at` counts if the record has no time that can be read.
    """
    return (*TRASH, f"{record.volume}.{times.file_stamp(times.parse(record.archived) or at)}")


def directories() -> list[RelPath]:
    """Return all directories of a ledger, in the order in which they are created."""
    return [
        (LEDGER,),
        *((LEDGER, state) for state in STATES),
        ARCHIVES,
        CLUSTERS,
        TRASH,
        DRAFTS,
        GROUPS,
        COPIES,
        SNAPSHOTS,
    ]
