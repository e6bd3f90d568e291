"""A ledger record: what we promised about one volume's directory, as the target of one symlink.

A symlink's target is written and read whole, in one call, in every NFS version. XFS and NFSv3 servers on Linux cap it
at 1,024 bytes, so a record is compact JSON of short keys; a record that would pass the limit refuses the claim.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from provisioner.core.errors import InvalidRecord

RECORD_LIMIT_BYTES = 1023
RECORD_VERSION = 1

OnDelete = Literal["delete", "archive", "retain"]


class Record(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What the ledger says of one volume. `directory` is relative to the export's root, components parted by `/`."""

    directory: str = field(name="dir")
    namespace: str = field(name="ns")
    claim: str = field(name="pvc")
    claim_uid: str = field(name="uid")
    class_name: str = field(name="class")
    on_delete: OnDelete = field(name="del")
    capacity: str = field(name="size")
    created: str = field(name="at")
    """UTC, RFC 3339, whole seconds."""
    cluster: str = field(name="by", default="")
    """The cluster whose claim it is: of two that share an export, each leaves the other's records alone."""
    version: int = field(name="v", default=RECORD_VERSION)

    @property
    def path(self) -> tuple[str, ...]:
        """The directory's components below the export's root."""
        return tuple(self.directory.split("/"))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> str:
    """The record as a symlink target. Raises InvalidRecord where it would not fit on every server."""
    target = _encoder.encode(record)
    if len(target) > RECORD_LIMIT_BYTES:
        raise InvalidRecord(
            f"the record of directory {record.directory!r} takes {len(target)} bytes, an export holds"
            f" {RECORD_LIMIT_BYTES}: choose a shorter pathPattern"
        )
    return target.decode()


def decode(target: str) -> Record:
    """The record in a symlink target. Raises InvalidRecord for anything that we did not write, or a newer version."""
    try:
        record = _decoder.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise InvalidRecord(f"not a record of ours: {exc}") from exc
    if record.version != RECORD_VERSION:
        raise InvalidRecord(f"a record of version {record.version}; this program reads version {RECORD_VERSION}")
    return record
