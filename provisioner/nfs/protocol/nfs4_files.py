"""Regular files in NFSv4.2 (RFC 8881, 7862): create a file, set its attributes, and copy within the server.

These operations leave no state on the server. OPEN creates a file, and CLOSE in the same compound closes it by the
current stateid (RFC 8881 section 16.2.3.1.2). CLONE and COPY use the anonymous stateid, like READ and WRITE (section
8.2.3).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_attributes import MODE, OWNER, OWNER_GROUP, TYPE, VALUES_LIMIT_BYTES
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

# Attribute numbers (RFC 8881 sections 5.6 and 5.7).
SIZE = 4
TIME_ACCESS, TIME_ACCESS_SET = 47, 48
TIME_MODIFY, TIME_MODIFY_SET = 53, 54
FILE = (TYPE, SIZE, MODE, OWNER, OWNER_GROUP, TIME_ACCESS, TIME_MODIFY)

NF4REG = 1
SET_TO_CLIENT_TIME4 = 1
OWNER_LIMIT_BYTES = 1024
NANOSECONDS = 10**9

# OPEN (section 18.16.1).
OPEN4_SHARE_ACCESS_WRITE, OPEN4_SHARE_ACCESS_WANT_NO_DELEG = 2, 0x400
OPEN4_SHARE_DENY_NONE = 0
OPEN4_CREATE, GUARDED4, CLAIM_NULL = 1, 1, 0
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
class Time:
    """`nfstime4` (section 3.3.1): seconds since 1970, negative before 1970, plus nanoseconds."""

    seconds: int
    nanoseconds: int = 0

    def encoded(self) -> bytes:
        """Return the time in XDR."""
        return xdr.hyper(self.seconds % 2**64) + xdr.uint(self.nanoseconds)


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """Attributes that a copy keeps.

    Owner and group are the server's own strings, numbers or names.
    """

    regular: bool
    size_bytes: int
    mode: int
    owner: str
    group: str
    accessed: Time
    modified: Time


@dataclass(frozen=True, slots=True)
class Copied:
    """Result of COPY, often with fewer bytes than requested.

    Data that is not `stable` needs a COMMIT.

    The COMMIT must return the same `verifier`.
    """

    size_bytes: int
    stable: bool
    verifier: bytes


def getattr() -> Operation[FileAttributes]:
    """GETATTR (section 18.7) of the attributes that a copy keeps."""
    return Operation(9, attributes4.bitmap(*FILE), _file_attributes)


def settable(
    *,
    size_bytes: int | None = None,
    mode: int | None = None,
    owner: str | None = None,
    group: str | None = None,
    accessed: Time | None = None,
    modified: Time | None = None,
) -> bytes:
    """`fattr4` (section 3.3.8) with the values that are not None."""
    values = {
        SIZE: None if size_bytes is None else xdr.hyper(size_bytes),
        MODE: None if mode is None else xdr.uint(mode),
        OWNER: None if owner is None else xdr.string(owner),
        OWNER_GROUP: None if group is None else xdr.string(group),
        TIME_ACCESS_SET: None if accessed is None else _settime4(accessed),
        TIME_MODIFY_SET: None if modified is None else _settime4(modified),
    }
    present = {number: value for number, value in values.items() if value is not None}
    return attributes4.bitmap(*present) + xdr.opaque(b"".join(present.values()))


def create(name: str, attributes: bytes) -> Operation[None]:
    """OPEN (section 18.16) with GUARDED4: create a file that must not exist, as the current file handle.

    The open becomes the current stateid, for a `close` in the same compound.
    """
    access = OPEN4_SHARE_ACCESS_WRITE | OPEN4_SHARE_ACCESS_WANT_NO_DELEG
    sequence_id, client = xdr.uint(0), xdr.hyper(0)  # The session has both (section 18.16.3).
    share = xdr.uint(access) + xdr.uint(OPEN4_SHARE_DENY_NONE)
    how = xdr.uint(OPEN4_CREATE) + xdr.uint(GUARDED4) + attributes
    claim = xdr.uint(CLAIM_NULL) + xdr.string(name)
    return Operation(18, sequence_id + share + client + xdr.opaque(OPEN_OWNER) + how + claim, _open4resok, changes=True)


def close() -> Operation[None]:
    """CLOSE (section 18.2) the file that this compound has opened."""
    return Operation(4, xdr.uint(0) + CURRENT, _stateid)


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


def _stateid(reply: Cursor) -> None:
    reply.fixed(STATEID_BYTES)


def _verifier(reply: Cursor) -> bytes:
    return reply.fixed(VERIFIER_BYTES)


def _settime4(time: Time) -> bytes:
    return xdr.uint(SET_TO_CLIENT_TIME4) + time.encoded()


def _time(values: Cursor) -> Time:
    seconds, nanoseconds = values.hyper(), values.uint()
    if nanoseconds >= NANOSECONDS:
        raise MalformedReply(f"{nanoseconds} nanoseconds")
    return Time(seconds - 2**64 if seconds >> 63 else seconds, nanoseconds)


def _file_attributes(reply: Cursor) -> FileAttributes:
    """`fattr4` (section 3.3.8) with exactly the requested attributes."""
    present = attributes4.numbers(reply)
    if present != set(FILE):
        raise MalformedReply(f"attributes {sorted(present)} instead of {sorted(FILE)}")
    values = Cursor(reply.opaque(VALUES_LIMIT_BYTES))
    # Python evaluates the arguments in this order, which must be the order of the attribute numbers.
    found = FileAttributes(
        regular=values.uint() == NF4REG,
        size_bytes=values.hyper(),
        mode=values.uint() & 0o7777,
        owner=values.string(OWNER_LIMIT_BYTES),
        group=values.string(OWNER_LIMIT_BYTES),
        accessed=_time(values),
        modified=_time(values),
    )
    values.finish()
    return found


def _open4resok(reply: Cursor) -> None:
    _stateid(reply)
    reply.bool()  # change_info4
    reply.fixed(8 + 8)
    reply.uint()  # result flags
    attributes4.numbers(reply)  # attributes that were set
    delegation = reply.uint()
    if delegation == OPEN_DELEGATE_NONE_EXT:
        if reply.uint() in (WND4_CONTENTION, WND4_RESOURCE):
            reply.bool()
    elif delegation != OPEN_DELEGATE_NONE:
        # The server could not recall a delegation either, without a back channel (section 10.2).
        raise MalformedReply("a delegation that was not requested")


def _copy4resok(asked_bytes: int, reply: Cursor) -> Copied:
    if reply.array(_stateid):
        raise MalformedReply("an asynchronous copy, although a synchronous one was requested")
    size_bytes, stable_how, verifier = reply.hyper(), reply.uint(), _verifier(reply)
    reply.bool()  # consecutive
    reply.bool()  # synchronous
    if size_bytes > asked_bytes or stable_how > FILE_SYNC4:
        raise MalformedReply(f"{size_bytes} bytes copied with stable_how4 {stable_how}, of {asked_bytes}")
    return Copied(size_bytes, stable_how != UNSTABLE4, verifier)
