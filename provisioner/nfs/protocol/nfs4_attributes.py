"""NFSv4 attributes (RFC 8881 and 7530, section 5): a bitmap of numbers, then the values in ascending order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.values import Attributes, Fsid
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.tree import EntryType, FilesystemStats

T = TypeVar("T")

HANDLE_LIMIT_BYTES = 128
BITMAP_LIMIT_WORDS = 8
"""Limit for a `bitmap4`: the attributes of all minor versions take three words."""
VALUES_LIMIT_BYTES = 65536

# Attribute numbers (RFC 8881 sections 5.6 and 5.7).
TYPE = 1
CHANGE = 3
FSID = 8
RDATTR_ERROR = 11
FILEHANDLE = 19
FILEID = 20
FILES_AVAIL = 21
FILES_TOTAL = 23
MODE = 33
OWNER = 36
OWNER_GROUP = 37
SPACE_AVAIL = 42
SPACE_TOTAL = 44

OBJECT = (TYPE, FSID, MODE)
ENTRY = (TYPE, FSID, RDATTR_ERROR, FILEHANDLE, MODE)
SPACE = (FILES_AVAIL, FILES_TOTAL, SPACE_AVAIL, SPACE_TOTAL)
VERSION = (CHANGE, FILEID)
_KNOWN = frozenset((*OBJECT, *ENTRY, *SPACE, *VERSION))

# `nfs_ftype4` (section 3.2).
NF4DIR, NF4LNK, NF4NAMEDATTR = 2, 5, 9


@dataclass(frozen=True, slots=True)
class Fattr4:
    """Known values of a `fattr4`; None for attributes that the server left out."""

    type: EntryType | None = None
    change: int | None = None
    fsid: Fsid | None = None
    rdattr_error: int | None = None
    handle: bytes | None = None
    fileid: int | None = None
    files_avail: int | None = None
    files_total: int | None = None
    mode: int | None = None
    space_avail: int | None = None
    space_total: int | None = None

    @property
    def attributes(self) -> Attributes | None:
        """The attributes that all versions share.

        None if the server left out the type or the file system.
        """
        if self.type is None or self.fsid is None:
            return None
        return _attributes(self.type, (self.mode or 0) & 0o7777, self.fsid)

    @property
    def space(self) -> FilesystemStats:
        """Size and free space, with 0 for values that the server does not count."""
        total, avail = self.space_total or 0, self.space_avail or 0
        return FilesystemStats.counted(total, avail, self.files_total or 0, self.files_avail or 0)


def bitmap(*numbers: int) -> bytes:
    """`bitmap4` (section 3.3.7) with these bits set."""
    words = [0] * (max(numbers, default=-1) // 32 + 1)
    for number in numbers:
        words[number // 32] |= 1 << number % 32
    return xdr.array(map(xdr.uint, words))


def settable(*, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> bytes:
    """`fattr4` with mode and owner, as far as they are not None.

    Owner and group are sent as decimal numbers (RFC 8881 and RFC 7530 section 5.9). Servers accept numbers with
    AUTH_SYS, while names would need a mapping that client and server share.
    """
    values = {
        MODE: None if mode is None else xdr.uint(mode),
        OWNER: None if uid is None else xdr.string(str(uid)),
        OWNER_GROUP: None if gid is None else xdr.string(str(gid)),
    }
    present = {number: value for number, value in values.items() if value is not None}
    return bitmap(*present) + xdr.opaque(b"".join(present.values()))


def of_type(kind: int, seen: Fattr4 | None = None) -> bytes:
    """`fattr4` for VERIFY: an `nfs_ftype4` and, from `seen`, the file ID and the change attribute."""
    values = {TYPE: xdr.uint(kind)}
    if seen is not None and seen.change is not None:
        values[CHANGE] = xdr.hyper(seen.change)
    if seen is not None and seen.fileid is not None:
        values[FILEID] = xdr.hyper(seen.fileid)
    return bitmap(*values) + xdr.opaque(b"".join(values.values()))


def fattr4(reply: Cursor) -> Fattr4:
    """`fattr4` (section 3.3.8).

    Raises MalformedReply for attributes that this client never asks for.
    """
    present = numbers(reply)
    if not present <= _KNOWN:
        raise MalformedReply(f"attributes {sorted(present - _KNOWN)}, which were not asked for")
    values = Cursor(reply.opaque(VALUES_LIMIT_BYTES))

    def value(number: int, decode: Callable[[Cursor], T]) -> T | None:
        return decode(values) if number in present else None

    # Python evaluates the arguments in this order, which must be the order of the attribute numbers.
    found = Fattr4(
        type=value(TYPE, _type),
        change=value(CHANGE, Cursor.hyper),
        fsid=value(FSID, _fsid),
        rdattr_error=value(RDATTR_ERROR, Cursor.uint),
        handle=value(FILEHANDLE, _handle),
        fileid=value(FILEID, Cursor.hyper),
        files_avail=value(FILES_AVAIL, Cursor.hyper),
        files_total=value(FILES_TOTAL, Cursor.hyper),
        mode=value(MODE, Cursor.uint),
        space_avail=value(SPACE_AVAIL, Cursor.hyper),
        space_total=value(SPACE_TOTAL, Cursor.hyper),
    )
    values.finish()
    return found


@functools.lru_cache(maxsize=64)
def _attributes(kind: EntryType, mode: int, fsid: Fsid) -> Attributes:
    """Create attributes.

    Most entries of a directory have equal ones, which the cache holds once.
    """
    return Attributes(kind, mode, fsid)


def numbers(reply: Cursor) -> frozenset[int]:
    """`bitmap4` (section 3.3.7): the bits that are set."""
    return _numbers(tuple(reply.array(Cursor.uint, BITMAP_LIMIT_WORDS)))


@functools.lru_cache(maxsize=16)
def _numbers(words: tuple[int, ...]) -> frozenset[int]:
    """Decode a bitmap.

    Most entries of a directory have the same one, which the cache decodes once.
    """
    return frozenset(
        32 * index + bit for index, word in enumerate(words) if word for bit in range(32) if word >> bit & 1
    )


def _type(values: Cursor) -> EntryType:
    kind = values.uint()
    if not 1 <= kind <= NF4NAMEDATTR:
        raise MalformedReply(f"nfs_ftype4 {kind}")
    return "directory" if kind == NF4DIR else "symlink" if kind == NF4LNK else "file"


def _fsid(values: Cursor) -> Fsid:
    return values.hyper(), values.hyper()


def _handle(values: Cursor) -> bytes:
    return values.opaque(HANDLE_LIMIT_BYTES)
