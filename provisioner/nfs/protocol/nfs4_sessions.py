"""NFSv4.1 sessions (RFC 8881 section 2.10): operations for sessions, and SEQUENCE, which begins every compound."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.rpc import AUTH_NONE
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

SESSION_ID_BYTES = 16
VERIFIER_BYTES = 8
OPAQUE_LIMIT_BYTES = 1024
SP4_NONE = 0
_SEQUENCE = struct.Struct(">4I")
_SEQUENCED = struct.Struct(">5I")


@dataclass(frozen=True, slots=True)
class ClientId:
    """Result of EXCHANGE_ID: the client ID, and the sequence ID for the CREATE_SESSION that confirms it."""

    id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Channel:
    """`channel_attrs4` (section 18.36): limits for the size and number of requests."""

    request_bytes: int
    response_bytes: int
    cached_response_bytes: int
    operations: int
    requests: int

    def within(self, other: Channel) -> Channel:
        """Return the lower limit of the two for each value."""
        return Channel(*map(min, astuple(self), astuple(other)))

    def encoded(self) -> bytes:
        """Return the limits in XDR, without header padding and RDMA."""
        return b"".join(map(xdr.uint, (0, *astuple(self), 0)))


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """Result of CREATE_SESSION: the session ID, and the limits that the server grants."""

    id: bytes
    channel: Channel


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Result of SEQUENCE: the slot that was used, and the highest slot that the client should use."""

    slot: int
    target_highest_slot: int


def exchange_id(verifier: bytes, owner: bytes) -> Operation[ClientId]:
    """EXCHANGE_ID (section 18.35), without state protection.

    A new verifier with a known owner means that the client has restarted. Once the new client ID is confirmed, the
    server drops the sessions of the previous incarnation (section 18.35.4, case 5).
    """
    flags = xdr.uint(0)
    arguments = verifier + xdr.opaque(owner) + flags + xdr.uint(SP4_NONE) + xdr.array(())
    return Operation(42, arguments, _exchange_id4resok)


def create_session(client: ClientId, fore: Channel, back: Channel) -> Operation[CreatedSession]:
    """CREATE_SESSION (section 18.36), with a minimal back channel: the client holds no state to be called back for."""
    flags, callback_program = xdr.uint(0), xdr.uint(0x4000_0000)
    security = xdr.array((xdr.uint(AUTH_NONE),))
    arguments = b"".join(
        (
            xdr.hyper(client.id),
            xdr.uint(client.sequence),
            flags,
            fore.encoded(),
            back.encoded(),
            callback_program,
            security,
        )
    )
    return Operation(43, arguments, _create_session4resok)


def destroy_session(session: bytes) -> Operation[None]:
    """DESTROY_SESSION (section 18.37): the server no longer runs requests of the session that it has not begun."""
    return Operation(44, session, xdr.void)


def reclaim_complete() -> Operation[None]:
    """RECLAIM_COMPLETE (section 18.51): the client reclaims no state after a restart of the server."""
    return Operation(58, xdr.uint(0), xdr.void)


def sequence(session: bytes, sequence_id: int, slot: int, highest_slot: int) -> Operation[Sequenced]:
    """SEQUENCE (section 18.46): the slot that this compound uses.

    The client does not ask the server to cache the reply: callers handle an unknown outcome, because they know what the
    call was for.
    """
    return Operation(53, session + _SEQUENCE.pack(sequence_id, slot, highest_slot, 0), _sequence4resok)


def _exchange_id4resok(reply: Cursor) -> ClientId:
    client = ClientId(reply.hyper(), reply.uint())
    reply.uint()  # flags
    if reply.uint() != SP4_NONE:
        raise MalformedReply("state protection that was not requested")
    reply.hyper()  # server_owner: minor id, major id
    reply.opaque(OPAQUE_LIMIT_BYTES)
    reply.opaque(OPAQUE_LIMIT_BYTES)  # server scope
    reply.array(_nfs_impl_id4)
    return client


def _nfs_impl_id4(reply: Cursor) -> None:
    reply.opaque(OPAQUE_LIMIT_BYTES)  # domain
    reply.opaque(OPAQUE_LIMIT_BYTES)  # name
    reply.fixed(12)  # date


def _create_session4resok(reply: Cursor) -> CreatedSession:
    session = reply.fixed(SESSION_ID_BYTES)
    reply.uint()  # sequence
    reply.uint()  # flags
    fore = _channel_attrs4(reply)
    _channel_attrs4(reply)
    return CreatedSession(session, fore)


def _channel_attrs4(reply: Cursor) -> Channel:
    reply.uint()  # header padding
    channel = Channel(*(reply.uint() for _ in range(5)))
    reply.array(Cursor.uint)  # RDMA
    return channel


def _sequence4resok(reply: Cursor) -> Sequenced:
    reply.fixed(SESSION_ID_BYTES)
    _sequence, slot, _highest_slot, target_highest_slot, _flags = reply.unpack(_SEQUENCED)
    return Sequenced(slot, target_highest_slot)
