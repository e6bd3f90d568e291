"""A small RPC server on loopback that follows a script: it ignores, delays and counts calls.

The server has two programs. A call of the first one carries a name, and the reply returns that name. The second one is
the part of NFSv4.1 that is about sessions: PUTFH stands for a call on an export, and its file handle for the export.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from provisioner.nfs.protocol import rpc, xdr
from provisioner.nfs.protocol.nfs4 import Status
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.xdr import Cursor
from tests.support.nfs.replies import accepted, words

PROGRAM, VERSION = 400_000, 1
NULL = 0
PUTFH, EXCHANGE_ID, CREATE_SESSION, DESTROY_SESSION, SEQUENCE, RECLAIM_COMPLETE = 22, 42, 43, 44, 53, 58


def named(name: str, *, changes: bool = False) -> Procedure[str]:
    """Return a call that carries a name, and whose result is that name."""
    return Procedure(PROGRAM, VERSION, 1, xdr.string(name), lambda reply: reply.string(255), changes)


@dataclass(slots=True)
class Script:
    """What the server does, and the calls that it has seen."""

    deaf_to: set[str] = field(default_factory=set)
    """Names, or file handles, that are never answered."""
    mute: bool = False
    """Whether calls on new connections are never answered."""
    hold: bool = False
    """Whether replies wait until `release`, which sends the last one first."""
    delayed_owners: set[bytes] = field(default_factory=set)
    """Owners whose CREATE_SESSION gets NFS4ERR_DELAY."""
    slots: int = 64

    seen: list[tuple[int, str]] = field(default_factory=list)
    """Each name, with the number of its connection."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often each name was answered."""
    connections: int = 0
    open: int = 0
    most_open: int = 0
    owners: list[bytes] = field(default_factory=list)
    destroyed: list[bytes] = field(default_factory=list)
    """Sessions that were destroyed."""
    misused: list[str] = field(default_factory=list)
    """Violations of the slot rules: a slot used before its reply, or with a wrong sequence ID."""

    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _held: list[Callable[[], None]] = field(default_factory=list)
    _sequences: dict[tuple[bytes, int], int] = field(default_factory=dict)
    _unanswered: set[tuple[bytes, int]] = field(default_factory=set)

    def release(self) -> None:
        """Send the replies that were held back."""
        self.hold = False
        while self._held:
            self._held.pop()()

    def count(self, name: str) -> int:
        """Return how often a name was called."""
        return sum(seen == name for _, seen in self.seen)

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._writers.append(writer)
        number, mute = self.connections, self.mute
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    size = int.from_bytes(await reader.readexactly(4), "big") & ~rpc.LAST_FRAGMENT
                    record = await reader.readexactly(size)
                    if not mute:
                        self._receive(number, record, writer)
        finally:
            self.open -= 1
            writer.close()

    def _receive(self, number: int, record: bytes, writer: asyncio.StreamWriter) -> None:
        call = Cursor(record)
        xid, _, _, program, _, procedure = (call.uint() for _ in range(6))
        for _ in range(2):
            call.uint()
            call.opaque(400)
        if procedure == NULL:
            result: bytes | None = b""
        elif program == PROGRAM:
            result = self._named(number, call.string(255))
        else:
            result = self._compound(number, call)
        if result is None:
            return
        reply = rpc.mark(accepted(result, xid=xid))
        if self.hold:
            self._held.append(lambda: writer.write(reply))
        else:
            writer.write(reply)

    def _named(self, number: int, name: str) -> bytes | None:
        self.seen.append((number, name))
        if name in self.deaf_to:
            return None
        self.answered[name] += 1
        return xdr.string(name)

    def _compound(self, number: int, call: Cursor) -> bytes | None:
        call.opaque(255)
        call.uint()
        results = []
        slot: tuple[bytes, int] | None = None
        for _ in range(call.uint()):
            operation = call.uint()
            status, result = 0, b""
            if operation == SEQUENCE:
                slot, result = self._sequence(call)
            elif operation == PUTFH:
                if self._named(number, call.opaque(128).decode()) is None:
                    return None
            else:
                status, result = self._of_session(operation, call)
            results.append(words(operation, status) + result)
            if status:
                break
        if slot is not None:
            self._unanswered.discard(slot)
        return words(status) + xdr.opaque(b"") + words(len(results)) + b"".join(results)

    def _sequence(self, call: Cursor) -> tuple[tuple[bytes, int], bytes]:
        session, sequence, number = call.fixed(16), call.uint(), call.uint()
        call.uint()
        call.uint()
        slot = session, number
        if slot in self._unanswered:
            self.misused.append(f"slot {number} was used before it was answered")
        if sequence != self._sequences.get(slot, 0) + 1:
            self.misused.append(f"slot {number} was used with sequence id {sequence}")
        self._sequences[slot] = sequence
        self._unanswered.add(slot)
        return slot, session + words(sequence, number, self.slots - 1, self.slots - 1, 0)

    def _of_session(self, operation: int, call: Cursor) -> tuple[int, bytes]:
        if operation == EXCHANGE_ID:
            call.fixed(8)
            self.owners.append(call.opaque(1024))
            call.fixed(4 + 4 + 4)
            client = len(self.owners)
            server = xdr.opaque(b"server")
            return 0, xdr.hyper(client) + words(1, 0, 0) + xdr.hyper(0) + server + server + words(0)
        if operation == CREATE_SESSION:
            client = call.hyper()
            call.fixed(4 + 4 + 2 * 28 + 4 + 4 + 4)
            if self.owners[client - 1] in self.delayed_owners:
                return Status.NFS4ERR_DELAY, b""
            channel = words(0, 65536, 65536, 4096, 16, self.slots, 0)
            return 0, client.to_bytes(16, "big") + words(1, 0) + channel + channel
        if operation == DESTROY_SESSION:
            self.destroyed.append(call.fixed(16))
            return 0, b""
        assert operation == RECLAIM_COMPLETE
        call.uint()
        return 0, b""


@asynccontextmanager
async def listening(script: Script) -> AsyncIterator[int]:
    """Start a server that follows the script; yields its port on 127.0.0.1."""
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
