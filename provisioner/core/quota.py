"""Quota records: what the quota agent on an NFS server answers per volume, and its heartbeat per export.

    .provisioner/quota/<volume>  -> the agent's answer: project id, limit in force, usage, or why there is no limit
    .provisioner/agent           -> the agent's heartbeat: version, file system, what it lacks, time

Both have the form of all records of a ledger: the target of a symlink, replaced by rename. Only the agent writes them.
Unlike records of volumes they can have fields that this version does not know: an agent and a provisioner of different
versions work side by side. The agent creates both inside a ledger that exists; older provisioners ignore them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field, structs

from provisioner.core import times
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.texts import encodable

ANSWERS: RelPath = (LEDGER, "quota")
HEARTBEAT: RelPath = (LEDGER, "agent")

PASS_S = 60.0
"""How often an agent looks at everything and writes its heartbeat."""
SILENT_S = 3 * PASS_S
"""An agent that has been silent for longer counts as gone."""

_BLOCK_BYTES = 4096
"""Limits are whole blocks of the usual size of both file systems."""
_ROUNDING_BYTES = 64 * 1024
"""The largest block of a file system, to which the kernel rounds a limit."""
_LARGEST_BYTES = 1 << 60
"""Any larger size is no limit in practice, and kernels differ in what they accept."""
_STAMP_CHARACTERS = len("2026-01-01T00:00:00Z")
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number in a record: any other one is forged or damaged, and calculations with it could fail."""
_TEXT_LIMIT_BYTES = 600
"""A text for people as JSON: with all other fields it fits into a symlink (records.RECORD_LIMIT_BYTES)."""

Reason = Literal[
    "",
    "labelling",
    "busy",
    "lowering",
    "overfull",
    "not-wanted",
    "held",
    "missing",
    "conflict",
    "foreign-project",
    "no-free-id",
    "invalid",
    "failed",
]
"""Why an answer has no limit, or another one than the size: a fixed set of words, which older readers can lack.

`labelling`: the content does not have the project id yet. `busy`: NFS clients hold files that have to get it.
`lowering`: a lower limit is about to be set. `overfull`: the volume holds more than its size, so that the limit is its
usage. `not-wanted`: the class asks for no limit. `held`: the record is gone, and data still has the project id (trash,
archive, links). `missing`: there is no directory. `conflict`: another volume has the directory, or one above or below.
`foreign-project`: the directory has a project id of an admin. `no-free-id`: all ids of the range are in use. `invalid`:
the record has no usable size or directory. `failed`: a call failed, and the agent tries again.
"""


class Answer(Struct, frozen=True, omit_defaults=True, gc=False, tag_field="v", tag=1):
    """The agent's answer for one volume."""

    project: _Number = field(name="id", default=0)
    """The project id that belongs to the volume; 0 if it has none."""
    limit_bytes: _Number = field(name="limit", default=0)
    """The limit in force; 0 if there is none. Never more than what the kernel enforces at this moment."""
    used_bytes: _Number = field(name="used", default=0)
    inodes: _Number = field(name="inodes", default=0)
    whole: bool = field(name="whole", default=False)
    """Whether all content has the project id, so that usage and limit are about the whole volume."""
    special: _Number = field(name="special", default=0)
    """Symlinks, fifos, sockets, devices and mount points that existed before and cannot get the project id."""
    busy: _Number = field(name="busy", default=0)
    """Files that could not get it yet, because an NFS client holds a delegation."""
    reason: str = field(name="reason", default="")
    why: str = field(name="why", default="")
    """The reason for people, with what to do about it."""
    at: str = field(name="at", default="")
    """Since when the answer is so: UTC, RFC 3339. It stays true until it changes, while the heartbeat is recent."""
    record: str = field(name="rec", default="")
    """The stamp() of the record that the limit is for; empty in answers of older agents."""


class Heartbeat(Struct, frozen=True, omit_defaults=True, gc=False, tag_field="v", tag=1):
    """The heartbeat of the agent of one export."""

    at: str = field(name="at")
    """UTC, RFC 3339: the end of the last look at everything."""
    since: str = field(name="since", default="")
    """UTC, RFC 3339: when the agent was started."""
    version: str = field(name="agent", default="")
    filesystem: str = field(name="fs", default="")
    """`xfs`, `ext4` or `zfs`: behind the kernel's NFS server, ext4 lets root write beyond a limit."""
    enforces: bool = field(name="enforces", default=False)
    """Whether the agent can set limits that the kernel enforces."""
    holds_root: bool = field(name="root", default=False)
    """Whether limits hold root in a pod too: always except on ext4, where an admin has to say so (--root-is-held)."""
    lacks: str = field(name="lacks", default="")
    """What the agent lacks for that, and what to type."""
    warns: str = field(name="warns", default="")
    """What an admin should change although limits can be set."""
    ids: str = field(name="ids", default="")
    """The range of project ids, such as `100000-199999`."""
    volumes: _Number = field(name="volumes", default=0)
    """The volumes that ask for a limit."""
    limited: _Number = field(name="limited", default=0)
    """The volumes whose limit is in force."""


def answer_path(volume_name: str) -> RelPath:
    """Return the path of the answer for a volume."""
    return (*ANSWERS, volume_name)


def stamp(created: str) -> str:
    """Return what an answer says of its record: when that was created. A volume can have two records in turn."""
    return created[:_STAMP_CHARACTERS]


def limit_for(size_bytes: int) -> int:
    """Return the limit for a size: the size in whole blocks, rounded up."""
    return min(-(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES, _LARGEST_BYTES)


def is_limit(found_bytes: int, limit_bytes: int) -> bool:
    """Return True if a limit that was read back is the one that was set: kernels round up to whole blocks."""
    if not limit_bytes:
        return not found_bytes
    return limit_bytes <= found_bytes < limit_bytes + _ROUNDING_BYTES


def enforces(answer: Answer | None, size_bytes: int) -> bool:
    """Return True if the size of a volume is enforced: all of its content is counted, and its limit is its size."""
    return answer is not None and answer.whole and is_limit(answer.limit_bytes, limit_for(size_bytes))


def is_alive(heartbeat: Heartbeat | None, now: datetime) -> bool:
    """Return True if an agent has looked at everything recently, by two clocks that agree within the pass."""
    at = times.parse(heartbeat.at) if heartbeat is not None else None
    return at is not None and abs(now - at) <= timedelta(seconds=SILENT_S)


def differs(old: Answer | None, new: Answer) -> bool:
    """Return True if an answer is worth a write: anything but a small change of the usage.

    Usage in an answer is exact to 0.5 % and 64 KiB, so that a busy export does not rewrite every answer in each pass.
    """
    if old is None or structs.replace(new, used_bytes=old.used_bytes, inodes=old.inodes, at=old.at) != old:
        return True
    moved = abs(new.used_bytes - old.used_bytes)
    counted = abs(new.inodes - old.inodes)
    return moved > tolerance_bytes(old.used_bytes) or counted > max(16, old.inodes // 200)


def tolerance_bytes(used_bytes: int) -> int:
    """Return how far the usage can be from what an answer says."""
    return max(64 * 1024, used_bytes // 200)


_encoder = msgspec.json.Encoder()
_answer_decoder = msgspec.json.Decoder(Answer)
_heartbeat_decoder = msgspec.json.Decoder(Heartbeat)


def brief(text: str) -> str:
    """Return a text for people as a record holds it: valid Unicode, and short enough to fit with all other fields."""
    text = encodable(text)
    while len(_encoder.encode(text)) > _TEXT_LIMIT_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


def encode(record: Answer | Heartbeat) -> str:
    """Encode an answer or a heartbeat as a symlink's target; its texts for people become brief()."""
    if isinstance(record, Answer):
        return _encoder.encode(structs.replace(record, why=brief(record.why))).decode()
    texts = {"lacks": brief(record.lacks), "warns": "" if record.lacks else brief(record.warns)}
    return _encoder.encode(structs.replace(record, **texts)).decode()


def decode_answer(target: str) -> Answer:
    """Decode a symlink's target. Raises InvalidRecord for a text that is no answer."""
    return _decode(_answer_decoder, target)


def decode_heartbeat(target: str) -> Heartbeat:
    """Decode a symlink's target. Raises InvalidRecord for a text that is no heartbeat."""
    return _decode(_heartbeat_decoder, target)


_AnyRecord = TypeVar("_AnyRecord", Answer, Heartbeat)


def _decode(decoder: msgspec.json.Decoder[_AnyRecord], target: str) -> _AnyRecord:
    try:
        return decoder.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise InvalidRecord(f"it is not a quota record of version 1: {exc}") from exc
