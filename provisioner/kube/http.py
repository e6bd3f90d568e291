"""One HTTP/1.1 connection of a client: writes a request, and parses its answer as it arrives (RFC 9112).

llhttp, through httptools, parses. A request is one write, and its answer wakes the caller once, when it is complete.
An endless answer wakes its reader once per read from the socket. A connection carries one request at a time. After an
error, or if its caller gave up, it must be closed: a later request could otherwise read the rest of that answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HEAD_BYTES = 64 * 1024
"""Limit for the bytes of an answer without its body: status line, headers, and what surrounds a chunk."""
BODY_BYTES = 256 << 20
"""Limit for a body, so that a broken server cannot fill the memory; a page of a list has a few megabytes."""
UNREAD_BYTES = 2 << 20
"""Bytes of an endless answer that can wait for the reader before the connection stops reading."""

_DATE, _RETRY_AFTER = b"date", b"retry-after"
_KEPT = frozenset((_DATE, _RETRY_AFTER))
_SIZES = frozenset((b"content-length", b"transfer-encoding"))


class HttpError(Exception):
    """The request has no complete answer."""


class Disconnected(HttpError):
    """The server closed the connection before the first byte of the answer."""


class Incomplete(HttpError):
    """The answer ended early, is not HTTP, or is too large."""


@dataclass(slots=True)
class Answer:
    """An answer. `date` and `retry_after` are the headers of these names; `body` is empty for an endless answer."""

    status: int
    date: str | None
    retry_after: str | None
    body: bytes


class HttpConnection(asyncio.Protocol):
    """A connection to one server; the owner connects its transport."""

    def __init__(self) -> None:
        self.on_lost: Callable[[HttpConnection], None] | None = None
        """Called once when the connection has ended."""
        self.requests = 0
        """How many requests were sent on it."""
        self.heard = False
        """Whether a byte of the answer has arrived."""
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._asked = self._endless = self._paused = False
        self._begin_answer()

    def _begin_answer(self) -> None:
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._size = self._overhead = 0
        self._sized = self._headed = self._complete = self._keep_alive = False

    # ------------------------------------------------------------------------------------------- for the owner

    @property
    def open(self) -> bool:
        """Whether a request can be written."""
        return self._transport is not None and self._error is None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the answer is complete and the server keeps the connection open for another request."""
        return (
            self._complete
            and self._keep_alive
            and self.open
            # An answer can overtake its request; the rest of that request would precede the next one.
            and (self._transport is None or not self._transport.get_write_buffer_size())
        )

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return its whole answer. Raises HttpError and OSError."""
        self._send(request, endless=False)
        while not self._complete:
            await self._wait()
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        return self._answer(body)

    async def begin(self, request: bytes) -> Answer:
        """Send a request and return its answer without the body, which `read` returns. Raises HttpError and OSError."""
        self._send(request, endless=True)
        while not self._headed:
            await self._wait()
        return self._answer(b"")

    async def read(self) -> bytes:
        """Return all bytes of the body that have arrived since the last call; empty at the end of the body."""
        while not self._parts and not self._complete:
            await self._wait()
        chunk, self._parts, self._size = b"".join(self._parts), [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    def expect(self, silence_s: float) -> None:
        """Fail the endless answer if nothing arrives for `silence_s`."""
        self._heard_s = self._loop.time()
        self._silence = self._loop.call_later(silence_s, self._listen, silence_s)

    def detach(self) -> asyncio.Transport:
        """Return the transport for another protocol: the answer has opened a tunnel."""
        assert self._transport is not None
        transport, self._transport = self._transport, None
        return transport

    def abort(self) -> None:
        """Close the connection immediately."""
        self._fail(Disconnected())

    # ------------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports have the methods of asyncio.Transport, but not the class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._asked or self._complete or self._error is not None:
            # Not the answer to a request: some servers announce that they close an idle connection.
            self.abort()
            return
        self.heard = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as exc:
            self._fail(Incomplete(f"the answer is not HTTP: {exc}"))
            return
        except HttpParserUpgrade:
            self._fail(Incomplete("the server changes to another protocol"))
            return
        if self._overhead > HEAD_BYTES and not self._complete:
            self._fail(Incomplete(f"the headers of the answer are longer than {HEAD_BYTES >> 10} KiB"))
        elif self._endless:
            self._heard_s = self._loop.time()
            self._offer()
        elif self._size > BODY_BYTES:
            self._fail(Incomplete(f"the answer is larger than {BODY_BYTES >> 20} MiB"))

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(exc)
        if self._silence is not None:
            self._silence.cancel()
        if self.on_lost is not None:
            self.on_lost(self)

    # ------------------------------------------------------------------------------------------- httptools

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._complete:
            self._keep_alive = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. A trailer is ignored: it cannot change how the body was read (RFC 9110, 6.5.1)."""
        name = name.lower()
        if self._headed or self._complete:
            return
        if name in _KEPT:
            self._headers[name] = value
        elif name in _SIZES:
            self._sized = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        if not self._complete:
            self._status = self._parser.get_status_code()
            self._keep_alive = self._parser.should_keep_alive()
            self._headed = self._status >= 200

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if not self._complete:
            self._parts.append(body)
            self._size += len(body)
            self._overhead = 0

    def on_message_complete(self) -> None:
        """See httptools. An informational answer precedes the final one (RFC 9110, 15.2)."""
        if self._complete:
            return
        if self._status < 200:
            self._begin_answer()
            return
        self._complete = True
        self._wake()

    # ------------------------------------------------------------------------------------------- inside

    def _send(self, request: bytes, *, endless: bool) -> None:
        if not self.open or self._transport is None:
            raise Disconnected
        if self._silence is not None:
            self._silence.cancel()
        self._begin_answer()
        self.heard = False
        self._asked, self._endless = True, endless
        self.requests += 1
        self._transport.write(request)

    def _answer(self, body: bytes) -> Answer:
        headers = self._headers
        return Answer(self._status, _text(headers.get(_DATE)), _text(headers.get(_RETRY_AFTER)), body)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _offer(self) -> None:
        """Wake the reader of an endless answer, or stop reading until it has caught up."""
        if self._size > UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._parts or self._headed:
            self._wake()

    def _listen(self, silence_s: float) -> None:
        quiet_s = 0.0 if self._paused else self._loop.time() - self._heard_s
        if quiet_s >= silence_s:
            self._fail(Incomplete(f"nothing arrived for {silence_s:g} s"))
        elif not self._complete and self._error is None:
            self._silence = self._loop.call_later(silence_s - quiet_s, self._listen, silence_s)

    def _end(self, exc: Exception | None) -> None:
        """Note the end of the connection, which is the end of an answer without a length (RFC 9112, 6.3)."""
        if self._headed and not self._sized and not self._complete and exc is None and self._error is None:
            self._complete, self._keep_alive = True, False
            self._wake()
        if not self.heard:
            self._fail(exc or Disconnected())
        else:
            self._fail(Incomplete("the connection ended in the middle of the answer"))

    def _fail(self, error: Exception) -> None:
        """Close the connection; an answer that is complete stays valid."""
        if self._error is None:
            self._error = error
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
        if self._transport is not None:
            self._transport.abort()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
