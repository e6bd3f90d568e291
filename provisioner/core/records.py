"""Ledger records: one per volume, archive and snapshot, each stored as the target of one symlink.

A symlink's target is written and read as a whole, in one call, in every NFS version. XFS and Linux's NFSv3 server limit
it to 1,024 bytes, so a record is compact JSON with short keys. A claim whose record would exceed the limit is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct, field, structs

from provisioner.core import names
from provisioner.core.errors import InvalidRecord
from provisioner.core.names import volume_name

RECORD_LIMIT_BYTES = 1023
RECORD_VERSION = 1
"""Stored under the key `v`; a record of another version is reported and left alone."""

OnDelete = Literal["delete", "archive", "retain"]

Quota = Literal["none", "preferred", "required"]
"""Whether the size of a volume is enforced: `required` waits for that, `preferred` does not."""

_QUOTAS: tuple[Quota, ...] = get_args(Quota)

GID_LIMIT = 2**32 - 2
"""The highest group id."""

_COPY = "00000000"
UID = "00000000-0000-0000-0000-000000000000"
"""As long as any uid."""

_MODES = {"RWO": "ReadWriteOnce", "ROX": "ReadOnlyMany", "RWX": "ReadWriteMany", "RWOP": "ReadWriteOncePod"}
_SHORT_MODES = {mode: short for short, mode in _MODES.items()}


class Record(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, tag_field="v", tag=RECORD_VERSION
):
    """The ledger's record of one volume. `directory` is relative to the export's root."""

    directory: str = field(name="dir")
    namespace: str = field(name="ns")
    claim: str = field(name="pvc")
    claim_uid: str = field(name="uid")
    """Empty if the volume was recovered for a claim of this name whose uid was unknown."""
    class_name: str = field(name="class")
    on_delete: OnDelete = field(name="del")
    capacity: str = field(name="size")
    created: str = field(name="at")
    """UTC, RFC 3339, whole seconds."""
    cluster: str = field(name="by", default="")
    """The cluster of the claim: clusters that share an export leave each other's records alone."""
    modes: str = field(name="modes", default="")
    """The access modes as kubectl shortens them, separated by commas, for recreating the volume."""
    mount_options: str = field(name="mount", default="")
    """Separated by commas, for recreating the volume."""
    retention: str = field(name="keep", default="")
    """How long its archive is kept, as its class says; empty means that it never expires."""
    archive: str = field(name="from", default="")
    """The archive from which its data is or was restored."""
    retained: str = field(name="kept", default="")
    """When the volume was deleted and its directory retained; in the same form as `created`."""
    peer: bool = field(name="peer", default=False)
    """Whether the volume was taken over from another provisioner."""
    volume_uid: str = field(name="pvuid", default="")
    """The uid of the PersistentVolume object; empty until its creation is known, and in records of older versions.

    An older version cannot read a record with this field: it reports the record and leaves the volume alone.
    """
    namespace_uid: str = field(name="nsuid", default="")
    """The uid of the claim's namespace; empty if it could not be read, and in records of older versions."""
    quota: Quota = field(name="quota", default="none")
    """Whether a quota agent on the server enforces the size; only a record whose class asks for it has this field.

    An older version cannot read a record with this field: it reports the record and leaves the volume alone.
    """
    gid: Annotated[int, Meta(ge=0, le=GID_LIMIT)] = 0
    """The group that the directory has for itself; 0 if it has none, and in records of older versions.

    An older version cannot read a record with this field: it reports the record and leaves the volume alone. So it
    never writes the record again without the group.
    """

    clone_of: str = field(name="src", default="")
    """The volume or snapshot of which a pending volume becomes a copy; empty once it is settled.

    A snapshot is named by `snapshot_` and its handle.

    An older version cannot read a record with this field: it reports the record and leaves the volume alone.
    """
    copied: str = field(name="copy", default="")
    """Which copy in the ledger is complete, and is or becomes the directory; empty before that, and once settled."""

    @property
    def path(self) -> tuple[str, ...]:
        """Return the directory's components below the export's root."""
        return tuple(self.directory.split("/"))

    @property
    def access_modes(self) -> list[str]:
        """Return the access modes by their full names."""
        return [_MODES[short] for short in self.modes.split(",") if short in _MODES]


class ArchiveRecord(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, tag_field="v", tag=RECORD_VERSION
):
    """The ledger's record of one archive: which volume it was, and when it was archived."""

    volume: str = field(name="pv")
    archived: str = field(name="at")
    """UTC, RFC 3339, whole seconds."""
    was: Record
    taker: str = field(name="to", default="")
    """The volume for which its directory is being restored; only used while that volume is pending."""


class SnapshotRecord(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, tag_field="v", tag=RECORD_VERSION
):
    """The ledger's record of one snapshot. Its handle, the uid of its VolumeSnapshot, is the record's name."""

    namespace: str = field(name="ns")
    snapshot: str = field(name="name")
    claim: str = field(name="pvc")
    volume: str = field(name="pv")
    """The volume that is or was copied."""
    class_name: str = field(name="class")
    capacity: str = field(name="size")
    """The size of the volume, which a claim that restores the snapshot must request at least."""
    created: str = field(name="at")
    """When the copy began, then when it was complete: UTC, RFC 3339, whole seconds."""
    cluster: str = field(name="by", default="")
    gid: Annotated[int, Meta(ge=0, le=GID_LIMIT)] = 0
    """The group that the volume had for itself; 0 if it had none."""
    retention: str = field(name="keep", default="")
    """How long its data is kept after its deletion, as its class says; empty means that it goes with the snapshot."""
    namespace_uid: str = field(name="nsuid", default="")
    """The uid of its namespace; empty if it could not be read."""

    @property
    def key(self) -> str:
        """Return the VolumeSnapshot's `namespace/name`."""
        return f"{self.namespace}/{self.snapshot}"


NO_OBJECT = "none"
"""Instead of a volume's uid: the record is for an object that is about to be created, and for no other."""


def no_owner(directory: str, at: str, cluster: str) -> Record:
    """Return what is known about a directory that belongs to no volume, as a record for its archive."""
    return Record(
        directory=directory,
        namespace="",
        claim="",
        claim_uid="",
        class_name="",
        on_delete="archive",
        capacity="",
        created=at,
        cluster=cluster,
    )


def unowned(archive: str, at: str, was: Record) -> ArchiveRecord:
    """Return the record of an archive that never was a volume: instead of a volume's name it has its own."""
    return ArchiveRecord(archive, at, was)


def archived(record: Record) -> Record:
    """Return the record for an archive: without the volume's uid, which leaves room for other fields."""
    return structs.replace(record, volume_uid="")


def copied(record: Record) -> Record:
    """Return the record of a volume that was copied: where its data came from no longer matters."""
    return structs.replace(record, clone_of="", copied="")


def short_modes(modes: Iterable[str]) -> str:
    """Return access modes in the form of a record."""
    return ",".join(_SHORT_MODES[mode] for mode in modes if mode in _SHORT_MODES)


def parse_quota(text: str) -> Quota:
    """Return the wish that a text names. Raises ValueError.

    The encoder omits a default only if it is the same object: with an equal one, older versions could not read a record
    without a wish.
    """
    return _QUOTAS[_QUOTAS.index(text)]


def quota_of(annotations: Mapping[str, str]) -> Quota:
    """Return the wish that the annotation of a volume names; `none` if it has none that can be used."""
    try:
        return parse_quota(annotations.get(names.QUOTA, ""))
    except ValueError:
        return "none"


def milder(left: OnDelete, right: OnDelete) -> OnDelete:
    """Return the rule that keeps more of the data."""
    if "retain" in (left, right):
        return "retain"
    return "archive" if "archive" in (left, right) else "delete"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_archive_decoder = msgspec.json.Decoder(ArchiveRecord)
_snapshot_decoder = msgspec.json.Decoder(SnapshotRecord)


def encode(record: Record | ArchiveRecord | SnapshotRecord) -> str:
    """Encode a record as a symlink target.

    Raises InvalidRecord if it would not fit on every server.
    """
    try:
        target = _encoder.encode(record)
    except UnicodeEncodeError as exc:
        raise InvalidRecord("a name in the record is not valid Unicode") from exc
    if len(target) > RECORD_LIMIT_BYTES:
        if isinstance(record, SnapshotRecord):
            raise InvalidRecord(f"the record of snapshot {record.key} has {len(target)} bytes: choose shorter names")
        directory = record.directory if isinstance(record, Record) else record.was.directory
        raise InvalidRecord(
            f"the record of directory {directory!r} has {len(target)} bytes, more than the limit of"
            f" {RECORD_LIMIT_BYTES}: choose a shorter pathPattern"
        )
    return target.decode()


def require_room(name: str, record: Record) -> None:
    """Raise InvalidRecord unless the record and that of its later archive fit on every server."""
    longest = structs.replace(
        record, namespace_uid=record.namespace_uid or UID, copied=_COPY if record.clone_of else ""
    )
    encode(ArchiveRecord(name, record.created, archived(longest), volume_name(UID)))


def decode(target: str) -> Record:
    """Decode a symlink target. Raises InvalidRecord for a text that is no record, or one of another version."""
    return _decode(_decoder, target)


def decode_archive(target: str) -> ArchiveRecord:
    """Decode the record of an archive. Raises InvalidRecord as decode() does."""
    return _decode(_archive_decoder, target)


def decode_snapshot(target: str) -> SnapshotRecord:
    """Decode the record of a snapshot. Raises InvalidRecord as decode() does."""
    return _decode(_snapshot_decoder, target)


def is_foreign(target: str) -> bool:
    """Return True if an unreadable target is a record that another version of the provisioner wrote."""
    try:
        said = msgspec.json.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return isinstance(said, dict) and "v" in said


_AnyRecord = TypeVar("_AnyRecord", Record, ArchiveRecord, SnapshotRecord)


def _decode(decoder: msgspec.json.Decoder[_AnyRecord], target: str) -> _AnyRecord:
    try:
        return decoder.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise InvalidRecord(f"it is not a record of version {RECORD_VERSION}: {exc}") from exc
