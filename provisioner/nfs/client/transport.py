"""One TCP connection while it lives: calls go out, and answers are matched to them by transaction id (RFC 5531).

RFC 8881 section 2.9.2 (and 7530 section 3.1.1) has a server answer every request on its connection or drop the
connection, and forbids the client to repeat it there. So a call whose caller gave up stays registered until the answer
comes or the connection ends: only then is it settled. A connection is not dropped because one call takes too long,
for that would lose the answers to all others. It goes through these states instead:

- stuck: a call whose caller has gone has no answer for three times the time limit of a call (a minute at most), or
  such calls hold all slots. The owner moves to another connection.
- draining: no new calls. It ends when every call has its answer, or after that time when no caller waits any more.
- closed. TCP notices that the other machine is gone. A server that sends nothing for `SILENCE_S` is given up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

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
    """A call that was sent. `answer` is its result; `settled` stays False when the caller has gone before it came.

    `answered` says whether the server has sent a reply, `sent_s` when the call was sent by the event loop's time.
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
        """Whether the caller has gone before the answer came."""
        return not self.settled and self.answer.done()

    def receive(self, record: bytes) -> None:
        """The reply is here. Raises MalformedReply, with the call not yet settled, when it cannot be read."""
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
        """There is no result, and there will be none."""
        self._settle(None)
        if not self.answer.done():
            self.answer.set_exception(exc)

    def _settle(self, result: T | None) -> None:
        self.settled = True
        if self._on_settled is not None:
            self._on_settled(result)


class RpcTransport(asyncio.Protocol):
    """One TCP connection to `peer`; `reserved` says whether it came from a source port below 1024.

    `limit_s` is the time limit of the calls on it, which those who make them keep.
    """

    def __init__(self, peer: str, port: int, *, reserved: bool, limit_s: float) -> None:
        self.peer = peer
        self.port = port
        self.reserved = reserved
        self._patience_s = min(PATIENCE_LIMITS * limit_s, LONGEST_PATIENCE_S)
        self._watch_s = min(WATCH_S, limit_s / 2)
        self.slots = Slots(CALLS_IN_FLIGHT)
        """For the calls on it; with a session, those of the session."""
        self.farewell: Callable[[], None] | None = None
        """What to send last, before it ends drained."""
        self.on_stuck: Callable[[], None] | None = None
        """Called again and again while it is stuck, until it drains."""
        self.closed = self.draining = False
        self.reason = Lost("")
        """Why it ended, once it has."""
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
        """Send a call. `on_settled` runs once, with the result or None for a failure, whether or not anybody waits."""
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
        """Take no more calls, and end when those in flight have had their time."""
        self.draining = True
        self._drain_until = self._loop.time() + self._patience_s
        self.slots.close()

    def close(self) -> None:
        """End the connection at once; what is in flight is lost."""
        self._end(Lost(f"{self.peer}: the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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
        """Write what was sent in this turn of the event loop: one system call for all of it."""
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(unwritten))

    def _receive(self, record: bytes) -> None:
        xid = rpc.xid_of(record)
        if rpc.is_call(record):
            return
        pending = self._pending.get(xid)
        if pending is None:
            raise MalformedReply("an answer to a call that was not made")
        pending.receive(record)
        self._pending.pop(xid, None)
        self.answered = True

    def _look(self) -> None:
        """Close the connection when it is drained, unused for too long, or the server has sent nothing for too long."""
        now = self._loop.time()
        idle_s = now - self._active_at
        if self.draining and self._is_drained(now):
            self._take_leave()
        elif not self._pending and idle_s >= IDLE_S:
            self.close()
        elif self._pending and idle_s >= SILENCE_S:
            hint = silent_hint(self.peer, self.port)
            self._end(Lost(f"{self.peer}: nothing came back for {SILENCE_S:.0f} s", hint=hint))
        elif self.on_stuck is not None and not self.draining and self._is_stuck(now):
            self.on_stuck()
        if not self.closed:
            self._watch = self._loop.call_later(self._watch_s, self._look)

    def _is_stuck(self, now: float) -> bool:
        abandoned = [call for call in self._pending.values() if call.abandoned]
        if abandoned and len(abandoned) >= self.slots.count:
            return True
        # A server that says nothing at all is another matter: see SILENCE_S.
        heard = now - self._active_at < self._patience_s
        return heard and any(now - call.sent_s >= self._patience_s for call in abandoned)

    def _is_drained(self, now: float) -> bool:
        return not self._pending or (
            now >= self._drain_until and all(call.abandoned for call in self._pending.values())
        )

    def _take_leave(self) -> None:
        """Say farewell where that has not been done, and close the connection the next time."""
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
