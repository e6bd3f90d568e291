"""Compounds on a connection: bare in NFSv4.0, in the slots of a session in NFSv4.1 and 4.2 (RFC 8881 section 2.10).

This client opens no files and holds no locks, so losing a session costs little. The rules that it follows:

- A session belongs to one TCP connection. A new connection gets a new session.
- A new session is created with the same client owner and a new verifier, as if the client had restarted. Once the
  server has confirmed it, the server drops the previous session (RFC 8881 section 18.35.4, case 5), together with the
  requests of that session that it has not begun. So no request of a broken connection starts late.
- No request is sent twice. A request without a reply is bound to its slot (section 2.10.6.2), so the client never uses
  that slot again.

In two cases the client uses a new owner instead, which makes it another client for the server:

- The previous connection still drains. Its session must live until the last reply.
- The server answers NFS4ERR_DELAY. Linux does so if it cannot drop the previous session because one of its requests is
  still running.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.nfs.client import errors
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import CHUNK_BYTES
from provisioner.nfs.client.slots import Slots, SlotsClosed
from provisioner.nfs.client.transport import RpcTransport
from provisioner.nfs.protocol import nfs4, nfs4_sessions
from provisioner.nfs.protocol.nfs4 import Answer, Operation, Status
from provisioner.nfs.protocol.nfs4_sessions import Channel, CreatedSession
from provisioner.ports.tree import Cause, ExportError

SLOTS_WANTED = 128
OPERATIONS_WANTED = 64
REQUEST_BYTES = RESPONSE_BYTES = CHUNK_BYTES + 4096
"""Room for a READ or a WRITE. A server reserves no memory for it: of a reply it keeps 4096 bytes at most."""

_FORE = Channel(REQUEST_BYTES, RESPONSE_BYTES, 4096, OPERATIONS_WANTED, SLOTS_WANTED)
_NEEDED = Channel(4096, 4096, 0, 8, 1)
"""Minimum for the largest compounds: two names and a record, one directory entry, or a RENAME on two paths."""
_BACK = Channel(4096, 4096, 0, 2, 1)

# NFSv4.0 does not say how many operations a compound can have; older Linux servers accept 16.
_UNNEGOTIATED = Channel(64 << 10, 128 << 10, 0, 16, 1)

# The server refused SEQUENCE, so nothing ran, and the session is unusable (RFC 8881 sections 15.1.11 and 18.46.3).
_SESSION_GONE = frozenset(
    {
        Status.NFS4ERR_BADSESSION,
        Status.NFS4ERR_DEADSESSION,
        Status.NFS4ERR_BADSLOT,
        Status.NFS4ERR_BAD_HIGH_SLOT,
        Status.NFS4ERR_CONN_NOT_BOUND_TO_SESSION,
        Status.NFS4ERR_SEQ_MISORDERED,
        Status.NFS4ERR_SEQ_FALSE_RETRY,
        Status.NFS4ERR_EXPIRED,
        Status.NFS4ERR_STALE_CLIENTID,
    }
)


class Compounds(Protocol):
    """Sends compounds to the server."""

    @property
    def limits(self) -> Channel:
        """How large a compound and its reply can be."""
        ...

    async def run(self, deadline: Deadline, operations: Sequence[Operation[object]]) -> Answer:
        """Send a compound once.

        Raises ExportError for problems of the connection, not for a failed operation.
        """
        ...


class Sessionless:
    """NFSv4.0 (RFC 7530): operations on directories need no client ID and no session."""

    limits = _UNNEGOTIATED

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run(self, deadline: Deadline, operations: Sequence[Operation[object]]) -> Answer:
        """See Compounds."""
        return await self._connection.call(deadline, nfs4.compound(operations, minor=0))


@dataclass(slots=True, eq=False)
class _Session:
    """One session on one TCP connection, with the next sequence ID of each slot."""

    id: bytes
    transport: RpcTransport
    channel: Channel
    slots: Slots
    sequences: list[int]
    gone: bool = False

    def settle(self, slot: int, answer: Answer | None) -> None:
        """Update the slot after a reply.

        Without a reply the slot is unusable, so drop the session.
        """
        if answer is None:
            self.drop()
            return
        if answer.completed:
            self.sequences[slot] = (self.sequences[slot] + 1) & 0xFFFF_FFFF
            sequence = answer.results[0]
            if isinstance(sequence, nfs4_sessions.Sequenced):
                self.slots.limit(min(sequence.target_highest_slot, self.channel.requests - 1))
        self.slots.give(slot)

    def drop(self) -> None:
        """Stop using the session; callers that wait for a slot use the next session."""
        self.gone = True
        self.slots.close()


class Sessions:
    """NFSv4.1 and 4.2: one session at a time with the slots that the server grants, and a new one when it is lost."""

    def __init__(self, connection: Connection, minor: int) -> None:
        self._connection = connection
        self._minor = minor
        self._owner = _new_owner()
        self._session: _Session | None = None
        self._making = asyncio.Lock()

    @property
    def limits(self) -> Channel:
        """The limits that the server granted last."""
        return self._session.channel if self._session is not None else _UNNEGOTIATED

    async def run(self, deadline: Deadline, operations: Sequence[Operation[object]]) -> Answer:
        """See Compounds.

        If the server refuses SEQUENCE, the compound did not run: repeat it in a new session.
        """
        while True:
            session = await self._current(deadline)
            try:
                slot = await session.slots.take(deadline.export)
            except SlotsClosed:
                continue
            answer = await self._send(deadline, session, slot, operations)
            if answer.completed:
                return Answer(answer.status, operations, answer.results[1:])
            reason = errors.refused4(answer.status, "SEQUENCE", self._connection.identity)
            if answer.status in _SESSION_GONE:
                session.drop()
            elif reason.cause is not Cause.NOT_YET:
                raise reason
            await deadline.pause(reason)

    async def _send(
        self, deadline: Deadline, session: _Session, slot: int, operations: Sequence[Operation[object]]
    ) -> Answer:
        sequence = nfs4_sessions.sequence(
            session.id, session.sequences[slot], slot, highest_slot=session.channel.requests - 1
        )
        procedure = nfs4.compound((sequence, *operations), self._minor)
        settle = functools.partial(session.settle, slot)
        return await self._connection.exchange(session.transport, deadline, procedure, settle)

    async def _current(self, deadline: Deadline) -> _Session:
        transport = await self._connection.transport()
        session = self._session
        if session is not None and session.transport is transport and not session.gone:
            return session
        async with self._making:
            transport = await self._connection.transport()
            session = self._session
            if session is None or session.transport is not transport or session.gone:
                session = self._session = await self._make(deadline, transport)
            return session

    async def _make(self, deadline: Deadline, transport: RpcTransport) -> _Session:
        """EXCHANGE_ID, CREATE_SESSION and RECLAIM_COMPLETE (RFC 8881 section 2.4)."""
        if (
            self._session is not None
            and self._session.transport is not transport
            and not self._session.transport.closed
        ):
            self._owner = _new_owner()
        try:
            created = await self._create(deadline, transport, waits=False)
        except ExportError as exc:
            if exc.cause is not Cause.NOT_YET:
                raise
            self._owner = _new_owner()
            created = await self._create(deadline, transport)
        destroy_session = nfs4.compound((nfs4_sessions.destroy_session(created.id),), self._minor)
        transport.farewell = functools.partial(self._connection.post, transport, destroy_session)
        channel = created.channel.within(_FORE)
        if _NEEDED.within(channel) != _NEEDED:
            raise errors.session_too_small(self._connection.endpoint.server, f"4.{self._minor}", channel, _NEEDED)
        transport.slots = self._connection.slots(channel.requests)
        session = _Session(created.id, transport, channel, transport.slots, [1] * channel.requests)
        slot = await session.slots.take(deadline.export)
        # Some servers refuse changes until they know that the client reclaims nothing (RFC 8881 section 18.51.3).
        await self._send(deadline, session, slot, (nfs4_sessions.reclaim_complete(),))
        return session

    async def _create(self, deadline: Deadline, transport: RpcTransport, *, waits: bool = True) -> CreatedSession:
        exchange_id = nfs4_sessions.exchange_id(os.urandom(nfs4_sessions.VERIFIER_BYTES), self._owner)
        client = (await self._run_alone(deadline, transport, exchange_id))[exchange_id]
        create_session = nfs4_sessions.create_session(client, _FORE, _BACK)
        return (await self._run_alone(deadline, transport, create_session, waits=waits))[create_session]

    async def _run_alone(
        self, deadline: Deadline, transport: RpcTransport, operation: Operation[object], *, waits: bool = True
    ) -> Answer:
        """Run an operation that needs no session.

        If the server asks to try later, wait if `waits`, else raise Cause.NOT_YET.
        """
        while True:
            answer = await self._connection.exchange(transport, deadline, nfs4.compound((operation,), self._minor))
            if answer.status == Status.NFS4_OK:
                return answer
            if answer.status == Status.NFS4ERR_MINOR_VERS_MISMATCH:
                raise self._no_such_minor()
            reason = errors.refused4(answer.status, f"operation {operation.number}", self._connection.identity)
            if reason.cause is not Cause.NOT_YET or not waits:
                raise reason
            await deadline.pause(reason)

    def _no_such_minor(self) -> ExportError:
        server = self._connection.endpoint.server
        return errors.version_missing(server, f"4.{self._minor}", "NFS4ERR_MINOR_VERS_MISMATCH")


def _new_owner() -> bytes:
    return b"nfs-provisioner " + os.urandom(16).hex().encode()
