"""NFS version 4 (RFC 7530, 8881 for 4.1, 7862 for 4.2): COMPOUND, and the directory operations as values.

A compound is a sequence of `Operation`s; the server stops at the first one that fails. Its `Answer` says how many
operations succeeded, and returns the result of each by the operation itself: `answer[getattr]`.

Section numbers are those of RFC 8881; the bytes are the same in all three minor versions. Sessions are in
nfs4_sessions, attributes in nfs4_attributes.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4_attributes import HANDLE_LIMIT_BYTES, Fattr4
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.values import (
    NAME_LIMIT_BYTES,
    SYMLINK_KEPT,
    SYMLINK_LIMIT_BYTES,
    DirectoryEntry,
    DirectoryPage,
    Position,
)
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.refusals import Call

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PROGRAM = 100003
VERSION = 4
COMPOUND = 1
OP_ILLEGAL = 10044
_HIGHEST_OPERATION = 75
TAG_LIMIT_BYTES = 1024


class Status(enum.IntEnum):
    """`nfsstat4` (RFC 8881 section 15.1, RFC 7862 section 11.1, RFC 8276 section 8.3).

    The values that these operations can return.
    """

    NFS4_OK = 0
    NFS4ERR_PERM = 1
    NFS4ERR_NOENT = 2
    NFS4ERR_IO = 5
    NFS4ERR_NXIO = 6
    NFS4ERR_ACCESS = 13
    NFS4ERR_EXIST = 17
    NFS4ERR_XDEV = 18
    NFS4ERR_NOTDIR = 20
    NFS4ERR_ISDIR = 21
    NFS4ERR_INVAL = 22
    NFS4ERR_FBIG = 27
    NFS4ERR_NOSPC = 28
    NFS4ERR_ROFS = 30
    NFS4ERR_MLINK = 31
    NFS4ERR_NAMETOOLONG = 63
    NFS4ERR_NOTEMPTY = 66
    NFS4ERR_DQUOT = 69
    NFS4ERR_STALE = 70
    NFS4ERR_BADHANDLE = 10001
    NFS4ERR_BAD_COOKIE = 10003
    NFS4ERR_NOTSUPP = 10004
    NFS4ERR_TOOSMALL = 10005
    NFS4ERR_SERVERFAULT = 10006
    NFS4ERR_BADTYPE = 10007
    NFS4ERR_DELAY = 10008
    NFS4ERR_SAME = 10009
    NFS4ERR_EXPIRED = 10011
    NFS4ERR_LOCKED = 10012
    NFS4ERR_GRACE = 10013
    NFS4ERR_FHEXPIRED = 10014
    NFS4ERR_SHARE_DENIED = 10015
    NFS4ERR_WRONGSEC = 10016
    NFS4ERR_CLID_INUSE = 10017
    NFS4ERR_RESOURCE = 10018
    NFS4ERR_MOVED = 10019
    NFS4ERR_NOFILEHANDLE = 10020
    NFS4ERR_MINOR_VERS_MISMATCH = 10021
    NFS4ERR_STALE_CLIENTID = 10022
    NFS4ERR_BAD_STATEID = 10025
    NFS4ERR_NOT_SAME = 10027
    NFS4ERR_SYMLINK = 10029
    NFS4ERR_RESTOREFH = 10030
    NFS4ERR_ATTRNOTSUPP = 10032
    NFS4ERR_BADXDR = 10036
    NFS4ERR_OPENMODE = 10038
    NFS4ERR_BADOWNER = 10039
    NFS4ERR_BADCHAR = 10040
    NFS4ERR_BADNAME = 10041
    NFS4ERR_OP_ILLEGAL = 10044
    NFS4ERR_FILE_OPEN = 10046
    NFS4ERR_ADMIN_REVOKED = 10047
    NFS4ERR_BADSESSION = 10052
    NFS4ERR_BADSLOT = 10053
    NFS4ERR_COMPLETE_ALREADY = 10054
    NFS4ERR_CONN_NOT_BOUND_TO_SESSION = 10055
    NFS4ERR_SEQ_MISORDERED = 10063
    NFS4ERR_REQ_TOO_BIG = 10065
    NFS4ERR_REP_TOO_BIG = 10066
    NFS4ERR_TOO_MANY_OPS = 10070
    NFS4ERR_SEQ_FALSE_RETRY = 10076
    NFS4ERR_BAD_HIGH_SLOT = 10077
    NFS4ERR_DEADSESSION = 10078
    NFS4ERR_WRONG_TYPE = 10083
    NFS4ERR_OFFLOAD_DENIED = 10091
    NFS4ERR_OFFLOAD_NO_REQS = 10094
    NFS4ERR_NOXATTR = 10095
    NFS4ERR_XATTR2BIG = 10096


_STATUS_NAMES = {status.value: status.name for status in Status}


def status_name(status: int) -> str:
    """Return the name of an nfsstat4 in the RFC."""
    return _STATUS_NAMES.get(status) or f"nfsstat4 {status}"


@dataclass(slots=True, eq=False)  # not frozen: that makes creation four times as slow, and each call creates dozens
class Operation(Generic[T_co]):
    """One operation of a compound: its number, its arguments in XDR, and how to read its resok."""

    number: int
    arguments: bytes
    decode: Callable[[Cursor], T_co]
    changes: bool = False
    call: Call = "call"
    """The kind of call, for error messages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a compound: `completed` operations succeeded, and `status` is NFS4_OK or that of the next one."""

    status: int
    operations: Sequence[Operation[object]]
    results: tuple[object, ...]

    @property
    def completed(self) -> int:
        """How many operations succeeded; if one failed, this is its index."""
        return len(self.results)

    @property
    def changed(self) -> bool:
        """Whether an operation that changes something succeeded."""
        return any(operation.changes for operation in self.operations[: self.completed])

    @property
    def refused(self) -> Call:
        """The kind of call of the operation that failed."""
        return self.operations[self.completed].call if self.completed < len(self.operations) else "call"

    def __getitem__(self, operation: Operation[T]) -> T:
        """Return the result of an operation that succeeded."""
        return cast("T", self.results[self.operations.index(operation)])


_NUMBERS = tuple(xdr.uint(number) for number in range(_HIGHEST_OPERATION + 1))
_OUTCOME = struct.Struct(">II")


def compound(operations: Sequence[Operation[object]], minor: int) -> Procedure[Answer]:
    """COMPOUND (section 16.2), of minor version 0, 1 or 2."""
    encoded = [xdr.opaque(b""), xdr.uint(minor), xdr.uint(len(operations))]
    changes = False
    for operation in operations:
        encoded += (_NUMBERS[operation.number], operation.arguments)
        changes = changes or operation.changes

    def decode(reply: Cursor) -> Answer:
        return _answer(reply, operations)

    return Procedure(PROGRAM, VERSION, COMPOUND, b"".join(encoded), decode, changes)


def _answer(reply: Cursor, operations: Sequence[Operation[object]]) -> Answer:
    status = reply.uint()
    reply.opaque(TAG_LIMIT_BYTES)
    count = reply.uint()
    if count > len(operations) or (not status and count < len(operations)):
        raise MalformedReply(f"{count} results for {len(operations)} operations")
    results: list[object] = []
    for operation in operations[:count]:
        number, outcome = reply.unpack(_OUTCOME)
        if number != operation.number and not (number == OP_ILLEGAL and outcome):
            raise MalformedReply(f"the result of operation {number} instead of operation {operation.number}")
        if outcome:
            # The result of a failed operation can have more than its status (as SETATTR's does). It is the last result,
            # so the rest stays unread.
            if outcome != status:
                raise MalformedReply(f"status {status} for a compound whose last operation has {outcome}")
            return Answer(status, operations, tuple(results))
        decode = operation.decode
        results.append(None if decode is xdr.void else decode(reply))
    if status and count == len(operations):
        raise MalformedReply(f"status {status} for a compound whose operations all succeeded")
    reply.finish()
    return Answer(status, operations, tuple(results))


# ---------------------------------------------------------------------------------------------------- file handles
# Operations without a result are cached: those of the ledger's directories are in every compound.


def putrootfh() -> Operation[None]:
    """PUTROOTFH (section 18.21): set the current file handle to the root of the server's namespace."""
    return Operation(24, b"", xdr.void)


@functools.lru_cache(maxsize=64)
def putfh(handle: bytes) -> Operation[None]:
    """PUTFH (section 18.19): set the current file handle."""
    return Operation(22, xdr.opaque(handle), xdr.void)


def getfh() -> Operation[bytes]:
    """GETFH (section 18.8): return the current file handle."""
    return Operation(10, b"", _handle)


@functools.cache
def savefh() -> Operation[None]:
    """SAVEFH (section 18.28): save the current file handle."""
    return Operation(32, b"", xdr.void)


@functools.cache
def restorefh() -> Operation[None]:
    """RESTOREFH (section 18.27): make the saved file handle the current one."""
    return Operation(31, b"", xdr.void)


@functools.lru_cache(maxsize=64)
def lookup(name: str) -> Operation[None]:
    """LOOKUP (section 18.13): go from a directory to one of its entries, without following a symlink."""
    return Operation(15, xdr.string(name), xdr.void, call="lookup")


# ---------------------------------------------------------------------------------------------------- attributes


def getattr(*numbers: int) -> Operation[Fattr4]:
    """GETATTR (section 18.7) of the attributes with these numbers."""
    return Operation(9, attributes4.bitmap(*numbers), attributes4.fattr4, call="getattr")


def setattr(attributes: bytes, call: Call = "call") -> Operation[None]:
    """SETATTR (section 18.30) of an encoded `fattr4`, with the anonymous stateid (section 8.2.3)."""
    return Operation(34, bytes(16) + attributes, _bitmap, changes=True, call=call)


@functools.lru_cache(maxsize=16)
def verify(attributes: bytes) -> Operation[None]:
    """VERIFY (section 18.31): continue only if the object has these attributes, else NFS4ERR_NOT_SAME."""
    return Operation(37, attributes, xdr.void)


# ---------------------------------------------------------------------------------------------------- directories


def create_directory(name: str, attributes: bytes) -> Operation[None]:
    """CREATE (section 18.4) of a directory, which becomes the current file handle."""
    arguments = xdr.uint(attributes4.NF4DIR) + xdr.string(name) + attributes
    return Operation(6, arguments, _create4resok, changes=True, call="mkdir")


def create_symlink(name: str, target: str, attributes: bytes) -> Operation[None]:
    """CREATE (section 18.4) of a symlink."""
    arguments = xdr.uint(attributes4.NF4LNK) + xdr.string(target) + xdr.string(name) + attributes
    return Operation(6, arguments, _create4resok, changes=True, call="symlink")


def readlink() -> Operation[str]:
    """READLINK (section 18.24)."""
    return Operation(27, b"", _readlink4resok, call="readlink")


def remove(name: str) -> Operation[None]:
    """REMOVE (section 18.25): remove a file, a symlink or an empty directory."""
    return Operation(28, xdr.string(name), _change_info4, changes=True, call="remove")


def rename(source_name: str, target_name: str) -> Operation[None]:
    """RENAME (section 18.26), from the saved directory into the current one."""
    names = xdr.string(source_name) + xdr.string(target_name)
    return Operation(29, names, _rename4resok, changes=True, call="rename")


def readdir(position: Position, size_bytes: int, *numbers: int) -> Operation[DirectoryPage]:
    """READDIR (section 18.23): one page of at most `size_bytes`, with the attributes of these numbers.

    If the server sends more, the rest is ignored and read again with the next page. So READDIR must be the last
    operation of its compound.
    """
    arguments = (
        xdr.hyper(position.cookie)
        + position.verifier
        + xdr.uint(size_bytes)
        + xdr.uint(size_bytes)
        + attributes4.bitmap(*numbers)
    )
    return Operation(26, arguments, functools.partial(_readdir4resok, position, size_bytes), call="readdir")


def _handle(reply: Cursor) -> bytes:
    return reply.opaque(HANDLE_LIMIT_BYTES)


def _bitmap(reply: Cursor) -> None:
    attributes4.numbers(reply)


def _change_info4(reply: Cursor) -> None:
    reply.bool()
    reply.fixed(8 + 8)


def _rename4resok(reply: Cursor) -> None:
    _change_info4(reply)
    _change_info4(reply)


def _create4resok(reply: Cursor) -> None:
    _change_info4(reply)
    _bitmap(reply)


def _readlink4resok(reply: Cursor) -> str:
    return reply.string(SYMLINK_LIMIT_BYTES)[:SYMLINK_KEPT]


def _readdir4resok(position: Position, size_bytes: int, reply: Cursor) -> DirectoryPage:
    verifier = reply.fixed(8)
    entries: list[DirectoryEntry] = []
    cookie, begin = position.cookie, reply.left
    while reply.bool():
        cookie = reply.hyper()
        name = reply.string(NAME_LIMIT_BYTES)
        found = attributes4.fattr4(reply)
        entries.append(DirectoryEntry(name, found.handle, found.attributes, cookie))
        if begin - reply.left >= size_bytes:
            reply.skip()
            return DirectoryPage(tuple(entries), Position(cookie, verifier), verifier)
    end = reply.bool()
    return DirectoryPage(tuple(entries), None if end else Position(cookie, verifier), verifier)
