"""ONC RPC version 2 (RFC 5531): calls, replies, AUTH_SYS, and records on a byte stream.

A `Procedure` is one remote procedure with its arguments: what to send, and how to decode the result. The connection
adds a transaction ID and a credential. `results` decodes a reply up to the start of the procedure's own result.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

T_co = TypeVar("T_co", covariant=True)

RPC_VERSION = 2
CALL, REPLY = 0, 1
MSG_ACCEPTED, MSG_DENIED = 0, 1
RPC_MISMATCH, AUTH_ERROR = 0, 1
AUTH_NONE, AUTH_SYS = 0, 1
AUTH_BODY_LIMIT_BYTES = 400
GROUPS_LIMIT = 16
LAST_FRAGMENT = 0x8000_0000


class AcceptStatus(enum.IntEnum):
    """`accept_stat` (section 9)."""

    SUCCESS = 0
    PROG_UNAVAIL = 1
    PROG_MISMATCH = 2
    PROC_UNAVAIL = 3
    GARBAGE_ARGS = 4
    SYSTEM_ERR = 5


class AuthStatus(enum.IntEnum):
    """`auth_stat` (section 9): the values that a server sends to a client."""

    AUTH_BADCRED = 1
    AUTH_REJECTEDCRED = 2
    AUTH_BADVERF = 3
    AUTH_REJECTEDVERF = 4
    AUTH_TOOWEAK = 5
    AUTH_INVALIDRESP = 6
    AUTH_FAILED = 7


class CallRejected(ProvisionerError):
    """The server did not run the procedure: `accept_stat` other than SUCCESS."""

    def __init__(self, status: int, *, lowest: int = 0, highest: int = 0) -> None:
        super().__init__(AcceptStatus(status).name if status in list(AcceptStatus) else f"accept_stat {status}")
        self.status = status
        self.lowest, self.highest = lowest, highest
        """With PROG_MISMATCH: the versions that the server supports."""


class CredentialRejected(ProvisionerError):
    """The server rejected the credential: MSG_DENIED with an `auth_stat`."""

    def __init__(self, status: int) -> None:
        super().__init__(AuthStatus(status).name if status in list(AuthStatus) else f"auth_stat {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Procedure(Generic[T_co]):
    """A call: program, version and procedure number (section 8.1), arguments in XDR, and the result's decoder."""

    program: int
    version: int
    number: int
    arguments: bytes
    decode: Callable[[Cursor], T_co]
    changes: bool = False
    """Whether it can change something on the server; then it must not be repeated after an unknown outcome."""


def null(program: int, version: int) -> Procedure[None]:
    """Procedure 0 of each program, which does nothing (section 12.1)."""
    return Procedure(program, version, 0, b"", Cursor.finish)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The client's identity with AUTH_SYS (appendix A), of which the server sees the first 16 groups."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    machine: str = "nfs-provisioner"

    def credential(self) -> bytes:
        """Return `opaque_auth` with `authsys_parms`."""
        groups = xdr.array(xdr.uint(group) for group in self.groups[:GROUPS_LIMIT])
        body = xdr.uint(0) + xdr.string(self.machine) + xdr.uint(self.uid) + xdr.uint(self.gid) + groups
        return xdr.uint(AUTH_SYS) + xdr.opaque(body)


NO_CREDENTIAL = xdr.uint(AUTH_NONE) + xdr.opaque(b"")


_CALL_HEADER = struct.Struct(">6I")
_REPLY_HEADER = struct.Struct(">3I")
_CALL = xdr.uint(CALL)


def call(xid: int, procedure: Procedure[object], credential: bytes) -> bytes:
    """Encode a call message (section 9) as one record for the stream."""
    header = _CALL_HEADER.pack(xid, CALL, RPC_VERSION, procedure.program, procedure.version, procedure.number)
    return mark(b"".join((header, credential, NO_CREDENTIAL, procedure.arguments)))


def xid_of(record: bytes) -> int:
    """Return the transaction ID of a message. Raises MalformedReply."""
    return Cursor(record).uint()


def is_call(record: bytes) -> bool:
    """Return True for a call by the server: NFSv4.1 callbacks can share the connection (RFC 8881 2.10.3.1)."""
    return record[4:8] == _CALL


def results(record: bytes) -> Cursor:
    """Decode a reply message (section 9) up to the procedure's own result.

    Raises CallRejected, CredentialRejected, and MalformedReply for anything that is not a reply.
    """
    reply = Cursor(record)
    _, kind, outcome = reply.unpack(_REPLY_HEADER)
    if kind != REPLY:
        raise MalformedReply("a message that is not a reply")
    if outcome == MSG_DENIED:
        if reply.uint() == AUTH_ERROR:
            raise CredentialRejected(reply.uint())
        raise MalformedReply("the server does not speak RPC version 2")
    if outcome != MSG_ACCEPTED:
        raise MalformedReply(f"reply_stat {outcome}")
    reply.uint()
    reply.opaque(AUTH_BODY_LIMIT_BYTES)
    status = reply.uint()
    if status == AcceptStatus.PROG_MISMATCH:
        raise CallRejected(status, lowest=reply.uint(), highest=reply.uint())
    if status != AcceptStatus.SUCCESS:
        raise CallRejected(status)
    return reply


def mark(record: bytes) -> bytes:
    """Encode a record as a single fragment (section 11)."""
    return xdr.uint(LAST_FRAGMENT | len(record)) + record


class RecordReader:
    """Splits a byte stream into records (section 11), with at most one record and one read in memory."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._record = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Add bytes, and yield the records that they complete.

        Raises MalformedReply for a record above the limit, and for an empty fragment that is not the last one, because
        a server could send these endlessly.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            header = int.from_bytes(buffer[:4], "big")
            size_bytes = header & ~LAST_FRAGMENT
            last = bool(header & LAST_FRAGMENT)
            if len(self._record) + size_bytes > self._limit_bytes:
                raise MalformedReply(f"a reply of more than {self._limit_bytes} bytes")
            if not last and not size_bytes:
                raise MalformedReply("an empty fragment in the middle of a reply")
            if len(buffer) < 4 + size_bytes:
                return
            fragment = bytes(memoryview(buffer)[4 : 4 + size_bytes])
            del buffer[: 4 + size_bytes]
            if last and not self._record:  # as nearly all
                yield fragment
                continue
            self._record += fragment
            if last:
                record, self._record = bytes(self._record), bytearray()
                yield record
