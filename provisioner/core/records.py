"""Ledger records: what we promised about one volume's directory, or archived, as the target of one symlink.

A symlink's target is written and read whole, in one call, in every NFS version. XFS and NFSv3 servers on Linux cap it
at 1,024 bytes, so a record is compact JSON of short keys; a record that would pass the limit refuses the claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct, field, structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.names import volume_name

RECORD_LIMIT_BYTES = 1023
RECORD_VERSION = 1
"""Under the key `v`; a record of another version is reported and left alone."""

OnDelete = Literal["delete", "archive", "retain"]

_UID = "00000000-0000-0000-0000-000000000000"

_MODES = {"RWO": "ReadWriteOnce", "ROX": "ReadOnlyMany", "RWX": "ReadWriteMany", "RWOP": "ReadWriteOncePod"}
_SHORT_MODES = {mode: short for short, mode in _MODES.items()}


class Record(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, tag_field="v", tag=RECORD_VERSION
):
    """What the ledger says of one volume. `directory` is relative to the export's root, components parted by `/`."""

    directory: str = field(name="dir")
    namespace: str = field(name="ns")
    claim: str = field(name="pvc")
    claim_uid: str = field(name="uid")
    """Empty once the volume was recovered for a claim of this name, whose uid nobody knew then."""
    class_name: str = field(name="class")
    on_delete: OnDelete = field(name="del")
    capacity: str = field(name="size")
    created: str = field(name="at")
    """UTC, RFC 3339, whole seconds."""
    cluster: str = field(name="by", default="")
    """The cluster whose claim it is: of two that share an export, each leaves the other's records alone."""
    modes: str = field(name="modes", default="")
    """The access modes as kubectl shortens them, parted by commas, for a volume that has to be made anew."""
    mount_options: str = field(name="mount", default="")
    """Parted by commas; for the same."""
    retention: str = field(name="keep", default="")
    """How long an archive of it is kept, as its class says; empty is for ever."""
    archive: str = field(name="from", default="")
    """The archive that its data is to come from, or came from."""
    retained: str = field(name="kept", default="")
    """Since when the volume is gone and the directory stays, as its rule wants it; in the same form as `created`."""
    peer: bool = field(name="peer", default=False)
    """Whether another provisioner made the volume, and we took it over."""
    volume_uid: str = field(name="pvuid", default="")
    """The uid of the PersistentVolume object; empty until its creation is known, and in records of older versions.

    An older version cannot read a record with this field: it reports the record and leaves the volume alone.
    """
    namespace_uid: str = field(name="nsuid", default="")
    """The uid of the claim's namespace; empty where it could not be read, and in records of older versions."""

    @property
    def path(self) -> tuple[str, ...]:
        """The directory's components below the export's root."""
        return tuple(self.directory.split("/"))

    @property
    def access_modes(self) -> list[str]:
        """The access modes by their full names."""
        return [_MODES[short] for short in self.modes.split(",") if short in _MODES]


class ArchiveRecord(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False, tag_field="v", tag=RECORD_VERSION
):
    """What the ledger says of one archive: which volume it was, and since when it has been one."""

    volume: str = field(name="pv")
    archived: str = field(name="at")
    """UTC, RFC 3339, whole seconds."""
    was: Record
    taker: str = field(name="to", default="")
    """The volume for which its directory was, or was about to be, brought back; of use while that one is pending."""


NO_OBJECT = "none"
"""In the place of a volume's uid: the record is for an object that is about to be created, and for no other."""


def archived(record: Record) -> Record:
    """The record as that of its archive carries it: without the volume's uid, which leaves room for more."""
    return structs.replace(record, volume_uid="")


def short_modes(modes: Iterable[str]) -> str:
    """Access modes as a record carries them."""
    return ",".join(_SHORT_MODES[mode] for mode in modes if mode in _SHORT_MODES)


def milder(left: OnDelete, right: OnDelete) -> OnDelete:
    """Of two rules, the one that leaves more of the data."""
    if "retain" in (left, right):
        return "retain"
    return "archive" if "archive" in (left, right) else "delete"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_archive_decoder = msgspec.json.Decoder(ArchiveRecord)


def encode(record: Record | ArchiveRecord) -> str:
    """The record as a symlink target. Raises InvalidRecord where it would not fit on every server."""
    try:
        target = _encoder.encode(record)
    except UnicodeEncodeError as exc:
        raise InvalidRecord("a name in the record is not valid Unicode") from exc
    if len(target) > RECORD_LIMIT_BYTES:
        directory = record.directory if isinstance(record, Record) else record.was.directory
        raise InvalidRecord(
            f"the record of directory {directory!r} takes {len(target)} bytes, an export holds"
            f" {RECORD_LIMIT_BYTES}: choose a shorter pathPattern"
        )
    return target.decode()


def require_room(volume: str, record: Record) -> None:
    """Raise InvalidRecord unless the record fits on every server, and that of its archive as well."""
    whole = structs.replace(record, namespace_uid=record.namespace_uid or _UID)
    encode(ArchiveRecord(volume, record.created, archived(whole), volume_name(_UID)))


def decode(target: str) -> Record:
    """The record in a symlink target. Raises InvalidRecord for anything that we did not write, or a newer version."""
    return _decode(_decoder, target)


def decode_archive(target: str) -> ArchiveRecord:
    """The record of an archive. Raises InvalidRecord as decode() does."""
    return _decode(_archive_decoder, target)


def is_foreign(target: str) -> bool:
    """Whether a target that we cannot read is a record that another version of ours wrote: it says so itself."""
    try:
        said = msgspec.json.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError):
        return False
    return isinstance(said, dict) and "v" in said


_AnyRecord = TypeVar("_AnyRecord", Record, ArchiveRecord)


def _decode(decoder: msgspec.json.Decoder[_AnyRecord], target: str) -> _AnyRecord:
    try:
        return decoder.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise InvalidRecord(f"not a record of ours, or of version {RECORD_VERSION}: {exc}") from exc
