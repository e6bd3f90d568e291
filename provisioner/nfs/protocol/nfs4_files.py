"""Files in NFSv4 (RFC 7530, 8881, 7862): what a copy needs of them, and copies within the server.

These operations leave no open file on the server. OPEN creates a file, and CLOSE in the same compound closes it by the
current stateid (RFC 8881 section 16.2.3.1.2). CLONE and COPY use the anonymous stateid, like READ and WRITE (section
8.2.3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_attributes import (
    FILEHANDLE,
    FILEID,
    FSID,
    HANDLE_LIMIT_BYTES,
    MODE,
    OWNER,
    OWNER_GROUP,
    RDATTR_ERROR,
    TYPE,
    VALUES_LIMIT_BYTES,
)
from provisioner.nfs.protocol.values import (
    NAME_LIMIT_BYTES,
    NANOSECONDS,
    SYMLINK_LIMIT_BYTES,
    DirectoryEntry,
    DirectoryPage,
    Facts,
    Position,
)
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.files import Kept, Kind

T = TypeVar("T")

# Attribute numbers (RFC 8881 sections 5.6 and 5.7).
SIZE = 4
TIME_ACCESS, TIME_ACCESS_SET = 47, 48
TIME_MODIFY, TIME_MODIFY_SET = 53, 54
MAXREAD, MAXWRITE = 30, 31
NUMLINKS = 35
SPACE_USED = 45
FACTS = (TYPE, SIZE, FSID, FILEID, MODE, NUMLINKS, OWNER, OWNER_GROUP, SPACE_USED, TIME_ACCESS, TIME_MODIFY)
ENTRY = (*FACTS, RDATTR_ERROR, FILEHANDLE)
_ASKED = frozenset(ENTRY)

NF4REG, NF4DIR, NF4LNK, NF4FIFO = 1, 2, 5, 7
_KINDS: Mapping[int, Kind] = {NF4REG: "file", NF4DIR: "directory", NF4LNK: "symlink", NF4FIFO: "fifo"}
SET_TO_CLIENT_TIME4 = 1
OWNER_LIMIT_BYTES = 1024
READ_LIMIT_BYTES = 1 << 20

# OPEN (section 18.16.1).
OPEN4_SHARE_ACCESS_WRITE, OPEN4_SHARE_ACCESS_WANT_NO_DELEG = 2, 0x400
OPEN4_SHARE_DENY_NONE = 0
OPEN4_CREATE, GUARDED4, CLAIM_NULL = 1, 1, 0
OPEN4_RESULT_CONFIRM = 2
OPEN_DELEGATE_NONE, OPEN_DELEGATE_NONE_EXT = 0, 3
WND4_CONTENTION, WND4_RESOURCE = 1, 2
# Each compound closes the file that it opens, so all can use the same owner.
OPEN_OWNER = b"nfs-provisioner"

STATEID_BYTES, VERIFIER_BYTES = 16, 8
ANONYMOUS = bytes(STATEID_BYTES)
CURRENT = xdr.uint(1) + bytes(12)

# `stable_how4` (section 18.32.1).
UNSTABLE4, FILE_SYNC4 = 0, 2
_TO_THE_END = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """Result of OPEN: the stateid, and whether NFSv4.0 needs an OPEN_CONFIRM."""

    stateid: bytes
    unconfirmed: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """Result of COPY and WRITE, often with fewer bytes than requested.

    Data that is not `stable` needs a COMMIT.

    The COMMIT must return the same `verifier`.
    """

    size_bytes: int
    stable: bool
    verifier: bytes


def getattr() -> Operation[Facts | None]:
    """GETATTR (section 18.7) of what a copy has to know; None for an object without these attributes."""
    return Operation(9, attributes4.bitmap(*FACTS), lambda reply: _facts(reply)[0], call="getattr")


def largest_sizes() -> Operation[tuple[int, int]]:
    """GETATTR of the largest READ and the largest WRITE in a file system; 0 for one that the server does not say."""
    return Operation(9, attributes4.bitmap(MAXREAD, MAXWRITE), _largest_sizes, call="getattr")


def readdir(position: Position, size_bytes: int) -> Operation[DirectoryPage]:
    """READDIR (section 18.23) for a copy; it must be the last operation of its compound."""
    where = xdr.hyper(position.cookie) + position.verifier + xdr.uint(size_bytes) + xdr.uint(size_bytes)
    decode = functools.partial(_readdir4resok, position, size_bytes)
    return Operation(26, where + attributes4.bitmap(*ENTRY), decode, call="readdir")


def readlink() -> Operation[str]:
    """READLINK (section 18.24), with the whole target."""
    return Operation(27, b"", lambda reply: reply.string(SYMLINK_LIMIT_BYTES), call="readlink")


def create_fifo(name: str, attributes: bytes) -> Operation[None]:
    """CREATE (section 18.4) of a FIFO, which becomes the current file handle."""
    arguments = xdr.uint(NF4FIFO) + xdr.string(name) + attributes
    return Operation(6, arguments, _create4resok, changes=True)


def link(name: str) -> Operation[None]:
    """LINK (section 18.9) of the saved file into the current directory."""
    return Operation(11, xdr.string(name), _change_info4, changes=True)


def read(offset_bytes: int, size_bytes: int) -> Operation[bytes]:
    """READ (section 18.22)."""
    return Operation(25, ANONYMOUS + xdr.hyper(offset_bytes) + xdr.uint(size_bytes), _read4resok)


def write(offset_bytes: int, data: bytes, *, stable: bool) -> Operation[Copied]:
    """WRITE (section 18.32)."""
    how = xdr.uint(FILE_SYNC4 if stable else UNSTABLE4)
    arguments = ANONYMOUS + xdr.hyper(offset_bytes) + how + xdr.opaque(data)
    return Operation(38, arguments, functools.partial(_write4resok, len(data)), changes=True)


def seek(offset_bytes: int, *, data: bool) -> Operation[tuple[bool, int]]:
    """SEEK (RFC 7862 section 15.11): whether the end was reached, and the offset of the next data or hole."""
    what = xdr.uint(0 if data else 1)
    return Operation(69, ANONYMOUS + xdr.hyper(offset_bytes) + what, lambda reply: (reply.bool(), reply.hyper()))


def settable(
    *,
    size_bytes: int | None = None,
    mode: int | None = None,
    owner: str | None = None,
    group: str | None = None,
    accessed_ns: int | None = None,
    modified_ns: int | None = None,
) -> bytes:
    """`fattr4` (section 3.3.8) with the values that are not None."""
    values = {
        SIZE: None if size_bytes is None else xdr.hyper(size_bytes),
        MODE: None if mode is None else xdr.uint(mode),
        OWNER: None if owner is None else xdr.string(owner),
        OWNER_GROUP: None if group is None else xdr.string(group),
        TIME_ACCESS_SET: None if accessed_ns is None else _settime4(accessed_ns),
        TIME_MODIFY_SET: None if modified_ns is None else _settime4(modified_ns),
    }
    present = {number: value for number, value in values.items() if value is not None}
    return attributes4.bitmap(*present) + xdr.opaque(b"".join(present.values()))


def create(name: str, attributes: bytes) -> Operation[Opened]:
    """OPEN (section 18.16) with GUARDED4: create a file that must not exist, as the current file handle.

    The open becomes the current stateid, for a `close` in the same compound.
    """
    # The session has the client ID (section 18.16.3).
    return _open(name, attributes, OPEN4_SHARE_ACCESS_WRITE | OPEN4_SHARE_ACCESS_WANT_NO_DELEG, 0, OPEN_OWNER)


def create40(name: str, attributes: bytes, client: int, owner: bytes) -> Operation[Opened]:
    """OPEN of NFSv4.0 (RFC 7530 section 16.16), by a new open-owner: `confirm` and `close40` follow."""
    return _open(name, attributes, OPEN4_SHARE_ACCESS_WRITE, client, owner)


def _open(name: str, attributes: bytes, access: int, client: int, owner: bytes) -> Operation[Opened]:
    share = xdr.uint(access) + xdr.uint(OPEN4_SHARE_DENY_NONE)
    how = xdr.uint(OPEN4_CREATE) + xdr.uint(GUARDED4) + attributes
    claim = xdr.uint(CLAIM_NULL) + xdr.string(name)
    arguments = xdr.uint(0) + share + xdr.hyper(client) + xdr.opaque(owner) + how + claim
    return Operation(18, arguments, _open4resok, changes=True, call="open")


def close() -> Operation[bytes]:
    """CLOSE (section 18.2) the file that this compound has opened."""
    return Operation(4, xdr.uint(0) + CURRENT, _stateid)


def confirm(stateid: bytes) -> Operation[bytes]:
    """OPEN_CONFIRM (RFC 7530 section 16.18): the second request of an open-owner."""
    return Operation(20, stateid + xdr.uint(1), _stateid)


def close40(stateid: bytes, sequence: int) -> Operation[bytes]:
    """CLOSE of NFSv4.0 (RFC 7530 section 16.2)."""
    return Operation(4, xdr.uint(sequence) + stateid, _stateid)


def set_client_id(verifier: bytes, id: bytes) -> Operation[tuple[int, bytes]]:
    """SETCLIENTID (RFC 7530 section 16.33), without a callback: the client ID and a verifier to confirm it."""
    callback = xdr.uint(0x4000_0000) + xdr.string("tcp") + xdr.string("0.0.0.0.0.0") + xdr.uint(0)
    return Operation(35, verifier + xdr.opaque(id) + callback, lambda reply: (reply.hyper(), _verifier(reply)))


def confirm_client_id(client: int, verifier: bytes) -> Operation[None]:
    """SETCLIENTID_CONFIRM (RFC 7530 section 16.34)."""
    return Operation(36, xdr.hyper(client) + verifier, xdr.void)


def commit() -> Operation[bytes]:
    """COMMIT (section 18.3) the whole file.

    The verifier changes if the server has restarted since a COPY.
    """
    return Operation(5, xdr.hyper(0) + xdr.uint(_TO_THE_END), _verifier)


def clone() -> Operation[None]:
    """CLONE (RFC 7862 section 15.13) the whole saved file into the current file."""
    return Operation(71, ANONYMOUS * 2 + xdr.hyper(0) * 2 + xdr.hyper(_TO_THE_END), xdr.void, changes=True)


def copy(offset_bytes: int, size_bytes: int) -> Operation[Copied]:
    """COPY (RFC 7862 section 15.2) from the saved file to the same offset of the current file, synchronously.

    Both files are on this server, so the call names no source server. `size_bytes` must not be 0.
    """
    consecutive, synchronous = xdr.uint(1), xdr.uint(1)
    where = xdr.hyper(offset_bytes) * 2 + xdr.hyper(size_bytes)
    arguments = ANONYMOUS * 2 + where + consecutive + synchronous + xdr.array(())
    return Operation(60, arguments, functools.partial(_copy4resok, size_bytes), changes=True)


def _stateid(reply: Cursor) -> bytes:
    return reply.fixed(STATEID_BYTES)


def _verifier(reply: Cursor) -> bytes:
    return reply.fixed(VERIFIER_BYTES)


def _settime4(time_ns: int) -> bytes:
    seconds, nanoseconds = divmod(time_ns, NANOSECONDS)
    return xdr.uint(SET_TO_CLIENT_TIME4) + xdr.hyper(seconds % 2**64) + xdr.uint(nanoseconds)


def _time_ns(values: Cursor) -> int:
    """`nfstime4` (section 3.3.1): seconds since 1970, negative before 1970, plus nanoseconds."""
    seconds, nanoseconds = values.hyper(), values.uint()
    if nanoseconds >= NANOSECONDS:
        raise MalformedReply(f"{nanoseconds} nanoseconds")
    return (seconds - 2**64 if seconds >> 63 else seconds) * NANOSECONDS + nanoseconds


def _facts(reply: Cursor) -> tuple[Facts | None, bytes | None]:
    """`fattr4` (section 3.3.8) of an object, and its file handle.

    Without a type, a file system and a file ID there are no facts: the object is behind a mount point, or gone.
    """
    present = attributes4.numbers(reply)
    if not present <= _ASKED:
        raise MalformedReply(f"attributes {sorted(present - _ASKED)}, which were not asked for")
    values = Cursor(reply.opaque(VALUES_LIMIT_BYTES))

    def value(number: int, decode: Callable[[Cursor], T], default: T) -> T:
        return decode(values) if number in present else default

    # In the order of the attribute numbers.
    kind, size_bytes = value(TYPE, Cursor.uint, 0), value(SIZE, Cursor.hyper, 0)
    fsid = value(FSID, lambda each: (each.hyper(), each.hyper()), (0, 0))
    value(RDATTR_ERROR, Cursor.uint, 0)
    handle: bytes | None = value(FILEHANDLE, lambda each: each.opaque(HANDLE_LIMIT_BYTES), b"") or None
    fileid, mode, links = value(FILEID, Cursor.hyper, 0), value(MODE, Cursor.uint, 0), value(NUMLINKS, Cursor.uint, 1)
    owner, group = (value(number, _owner, "") for number in (OWNER, OWNER_GROUP))
    used_bytes = value(SPACE_USED, Cursor.hyper, size_bytes)
    accessed_ns, modified_ns = (value(number, _time_ns, 0) for number in (TIME_ACCESS, TIME_MODIFY))
    values.finish()
    if not {TYPE, FSID, FILEID} <= present:
        return None, handle
    kept = Kept(mode & 0o7777, owner, group, accessed_ns, modified_ns)
    return Facts(_KINDS.get(kind, "other"), fsid, fileid, links, size_bytes, used_bytes, kept), handle


def _largest_sizes(reply: Cursor) -> tuple[int, int]:
    present = attributes4.numbers(reply)
    values = Cursor(reply.opaque(VALUES_LIMIT_BYTES))
    if not present <= {MAXREAD, MAXWRITE}:
        raise MalformedReply(f"attributes {sorted(present)}, which were not asked for")
    return values.hyper() if MAXREAD in present else 0, values.hyper() if MAXWRITE in present else 0


def _owner(values: Cursor) -> str:
    return values.string(OWNER_LIMIT_BYTES)


def _readdir4resok(position: Position, size_bytes: int, reply: Cursor) -> DirectoryPage:
    verifier = reply.fixed(VERIFIER_BYTES)
    entries: list[DirectoryEntry] = []
    cookie, begin = position.cookie, reply.left
    while reply.bool():
        cookie, name = reply.hyper(), reply.string(NAME_LIMIT_BYTES)
        facts, handle = _facts(reply)
        entries.append(DirectoryEntry(name, handle, None, cookie, facts))
        if begin - reply.left >= size_bytes:
            reply.skip()
            return DirectoryPage(tuple(entries), Position(cookie, verifier), verifier)
    end = reply.bool()
    return DirectoryPage(tuple(entries), None if end else Position(cookie, verifier), verifier)


def _change_info4(reply: Cursor) -> None:
    reply.bool()
    reply.fixed(8 + 8)


def _create4resok(reply: Cursor) -> None:
    _change_info4(reply)
    attributes4.numbers(reply)


def _read4resok(reply: Cursor) -> bytes:
    reply.bool()  # eof
    return reply.opaque(READ_LIMIT_BYTES)


def _write4resok(asked_bytes: int, reply: Cursor) -> Copied:
    size_bytes, stable_how, verifier = reply.uint(), reply.uint(), _verifier(reply)
    if not 0 < size_bytes <= asked_bytes or stable_how > FILE_SYNC4:
        raise MalformedReply(f"{size_bytes} bytes written with stable_how4 {stable_how}, of {asked_bytes}")
    return Copied(size_bytes, stable_how != UNSTABLE4, verifier)


def _open4resok(reply: Cursor) -> Opened:
    stateid = _stateid(reply)
    _change_info4(reply)
    flags = reply.uint()
    attributes4.numbers(reply)  # attributes that were set
    delegation = reply.uint()
    if delegation == OPEN_DELEGATE_NONE_EXT:
        if reply.uint() in (WND4_CONTENTION, WND4_RESOURCE):
            reply.bool()
    elif delegation != OPEN_DELEGATE_NONE:
        # The server could not recall a delegation either, without a back channel (section 10.2).
        raise MalformedReply("a delegation that was not requested")
    return Opened(stateid, bool(flags & OPEN4_RESULT_CONFIRM))


def _copy4resok(asked_bytes: int, reply: Cursor) -> Copied:
    if reply.array(_stateid):
        raise MalformedReply("an asynchronous copy, although a synchronous one was requested")
    size_bytes, stable_how, verifier = reply.hyper(), reply.uint(), _verifier(reply)
    reply.bool()  # consecutive
    reply.bool()  # synchronous
    if size_bytes > asked_bytes or stable_how > FILE_SYNC4:
        raise MalformedReply(f"{size_bytes} bytes copied with stable_how4 {stable_how}, of {asked_bytes}")
    return Copied(size_bytes, stable_how != UNSTABLE4, verifier)
