"""One TCP connection: sends calls, and matches replies to them by transaction ID (RFC 5531).

What happens to a call whose caller gave up? The server must either answer every request on its connection or drop the
connection, and the client must not repeat a request on the same connection (RFC 8881 section 2.9.2, RFC 7530 section
3.1.1). So an abandoned call stays registered until the reply arrives or the connection ends. Only then is it settled.

Closing the connection because one call takes too long would be the simple way, but it would lose the replies to all
other calls, and it would not stop the server. So a connection goes through these states instead:

- stuck: an abandoned call has no reply for PATIENCE_LIMITS times the time limit of a call (LONGEST_PATIENCE_S at most),
  or abandoned calls hold all slots. The owner moves to another connection.
- draining: the connection accepts no new calls. It closes when every call has its reply, or after the same time if no
  caller waits any longer.
- closed: TCP reports that the other machine is gone, or the server sent nothing for `SILENCE_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.client.errors import Lost, hangs_up_hint, network_hint, not_nfs_hint, silent_hint
from provisioner.nfs.client.slots import Slots
from provisioner.nfs.protocol import rpc
from provisioner.nfs.protocol.rpc import Procedure, RecordReader
from provisioner.nfs.protocol.xdr import MalformedReply

T = TypeVar("T")

REPLY_LIMIT_BYTES = 1 << 20
CALLS_IN_FLIGHT = 128
IDLE_S = 60.0
SILENCE_S = 60.0
WATCH_S = 2.0
PATIENCE_LIMITS = 3
LONGEST_PATIENCE_S = 60.0


class Pending(Generic[T]):
    """A call that was sent.

    `answer` is the result for the caller. `settled` is True once the reply has arrived or can no longer arrive, even if
    the caller gave up. `answered` is True if the server has sent a reply. `sent_s` is when the call was sent, in the
    event loop's time.
    """

    __slots__ = ("_on_settled", "_procedure", "answer", "answered", "sent_s", "settled")

    def __init__(self, procedure: Procedure[T], on_settled: Callable[[T | None], None] | None) -> None:
        self._procedure = procedure
        self._on_settled = on_settled
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[T] = loop.create_future()
        self.sent_s = loop.time()
        self.settled = self.answered = False

    @property
    def abandoned(self) -> bool:
        """Whether the caller gave up before the reply."""
        return not self.settled and self.answer.done()

    def receive(self, record: bytes) -> None:
        """Settle the call with a reply.

        Raises MalformedReply, without settling it, if the reply is unreadable.
        """
        try:
            result = self._procedure.decode(rpc.results(record))
        except MalformedReply:
            raise
        except ProvisionerError as exc:
            self.answered = True
            self.fail(exc)
        else:
            self.answered = True
            self._settle(result)
            if not self.answer.done():
                self.answer.set_result(result)

    def fail(self, exc: ProvisionerError) -> None:
        """Settle the call with an error."""
        self._settle(None)
        if not self.answer.done():
            self.answer.set_exception(exc)

    def _settle(self, result: T | None) -> None:
        self.settled = True
        if self._on_settled is not None:
            self._on_settled(result)


class RpcTransport(asyncio.Protocol):
    """One TCP connection to `peer`; `reserved` says whether its source port is below 1024.

    `limit_s` is the time limit of the calls on it, which the callers enforce.
    """

    def __init__(self, peer: str, port: int, *, reserved: bool, limit_s: float) -> None:
        self.peer = peer
        self.port = port
        self.reserved = reserved
        self._patience_s = min(PATIENCE_LIMITS * limit_s, LONGEST_PATIENCE_S)
        self._watch_s = min(WATCH_S, limit_s / 2)
        self.slots = Slots(CALLS_IN_FLIGHT)
        """Slots for calls on this connection; with a session, the slots of the session."""
        self.farewell: Callable[[], None] | None = None
        """Called once the connection is drained, to send a last call before it closes."""
        self.on_stuck: Callable[[], None] | None = None
        """Called repeatedly while the connection is stuck, until it drains."""
        self.closed = self.draining = False
        self.reason = Lost("")
        """Why the connection ended."""
        self.answered = False
        self._loop = asyncio.get_running_loop()
        self._reader = RecordReader(REPLY_LIMIT_BYTES)
        self._pending: dict[int, Pending[Any]] = {}
        self._unwritten: list[bytes] = []
        self._xid = random.getrandbits(32)
        self._active_at = self._loop.time()
        self._drain_until = 0.0
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None

    def send(
        self, procedure: Procedure[T], credential: bytes, on_settled: Callable[[T | None], None] | None = None
    ) -> Pending[T]:
        """Send a call.

        `on_settled` runs once with the result, or None for a failure, even if the caller gave up.
        """
        assert self._transport is not None
        pending = Pending(procedure, on_settled)
        if self.closed:
            pending.fail(Lost(f"{self.peer}: the connection is closed"))
            return pending
        self._xid = (self._xid + 1) & 0xFFFF_FFFF
        if not self._pending:
            self._active_at = self._loop.time()
        self._pending[self._xid] = pending
        if not self._unwritten:
            self._loop.call_soon(self._write)
        self._unwritten.append(rpc.call(self._xid, procedure, credential))
        return pending

    def drain(self) -> None:
        """Accept no more calls, and close the connection once the calls in flight have ended."""
        self.draining = True
        self._drain_until = self._loop.time() + self._patience_s
        self.slots.close()

    def close(self) -> None:
        """Close the connection immediately; the replies to calls in flight are lost."""
        self._end(Lost(f"{self.peer}: the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports have the methods of asyncio.Transport, but not the class.
        self._transport = cast(asyncio.Transport, transport)
        self._watch = self._loop.call_later(self._watch_s, self._look)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._active_at = self._loop.time()
        try:
            for record in self._reader.feed(data):
                self._receive(record)
        except MalformedReply as exc:
            self._end(Lost(f"{self.peer}: {exc}", hint=not_nfs_hint(self.peer)))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            hint = network_hint(exc, self.peer, self.port)
        else:
            hint = "" if self.answered else hangs_up_hint(self.peer)
        self._end(Lost(f"{self.peer}: {exc or 'the server closed the connection'}", hint=hint))

    def _write(self) -> None:
        """Write all calls of this turn of the event loop in one system call."""
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(unwritten))

    def _receive(self, record: bytes) -> None:
        xid = rpc.xid_of(record)
        if rpc.is_call(record):
            return
        pending = self._pending.get(xid)
        if pending is None:
            raise MalformedReply("a reply to a call that was not made")
        pending.receive(record)
        self._pending.pop(xid, None)
        self.answered = True

    def _look(self) -> None:
        """Check the state of the connection.

        Close one that is drained, idle or silent for too long, and report one that is stuck.
        """
        now = self._loop.time()
        idle_s = now - self._active_at
        if self.draining and self._is_drained(now):
            self._take_leave()
        elif not self._pending and idle_s >= IDLE_S:
            self.close()
        elif self._pending and idle_s >= SILENCE_S:
            hint = silent_hint(self.peer, self.port)
            self._end(Lost(f"{self.peer}: the server sent nothing for {SILENCE_S:.0f} s", hint=hint))
        elif self.on_stuck is not None and not self.draining and self._is_stuck(now):
            self.on_stuck()
        if not self.closed:
            self._watch = self._loop.call_later(self._watch_s, self._look)

    def _is_stuck(self, now: float) -> bool:
        abandoned = [call for call in self._pending.values() if call.abandoned]
        if abandoned and len(abandoned) >= self.slots.count:
            return True
        # A server that sends nothing at all is not stuck but silent: see SILENCE_S.
        heard = now - self._active_at < self._patience_s
        return heard and any(now - call.sent_s >= self._patience_s for call in abandoned)

    def _is_drained(self, now: float) -> bool:
        return not self._pending or (
            now >= self._drain_until and all(call.abandoned for call in self._pending.values())
        )

    def _take_leave(self) -> None:
        """Call the farewell the first time, and close the connection the second time."""
        if self.farewell is None:
            self.close()
        else:
            farewell, self.farewell = self.farewell, None
            farewell()

    def _end(self, reason: Lost) -> None:
        if self.closed:
            return
        self.closed = True
        self.reason = reason
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.slots.close()
        pending, self._pending = self._pending, {}
        for call in pending.values():
            call.fail(Lost(reason.detail, hint=reason.hint))
