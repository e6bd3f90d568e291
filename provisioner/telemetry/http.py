"""A small HTTP/1.1 server for GET and HEAD requests of untrusted clients.

Without a NetworkPolicy every pod can reach the endpoint, and it shares the event loop with the Lease and the work. So
everything that a client can cost is limited: connections, the time and the size of a request, the time of a response,
and the bytes that wait to be sent. When there are too many connections, a new one replaces the one that has been silent
longest, so that a probe gets through. aiohttp's server limits neither connections nor the time of a request, and sends
its name and version in each response.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Literal, cast
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 16 * 1024
"""How much one connection can have waiting to be sent; all connections share the body of a response."""
_SEND_BUFFER_BYTES = 64 * 1024
"""The same in the kernel, which counts towards the memory of the pod."""
_BACKLOG = 512
"""How many connections the kernel can queue."""
_PER_ITERATION = 8
"""Connections, requests or chunks per iteration of the event loop, so that other work gets its share."""
_LINGER_S = 2.0
"""How long a refused client can keep sending, so that it reads the refusal."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what clients can cost."""

    connections: int = 512
    head_bytes: int = 8 * 1024
    head_s: float = 10.0
    """From the first byte of a request, or the connection, to the end of its headers."""
    answer_s: float = 30.0
    """From there until the client has received the response."""
    idle_s: float = 90.0
    """Between two requests on one connection: longer than the usual scrape interval."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower-case; of several headers with one name, the last counts."""

    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Response:
    """One response."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that is refused; the connection is closed after it."""

    def __init__(self, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.phrase)
        self.response = Response(f"{status.phrase}\n".encode(), status=status, headers=headers or {})


def parse(head: bytes) -> Request:
    """Parse the head of a request, without the empty line. Raises Refused."""
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST) from None
    if not version.startswith("HTTP/1."):
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Refused(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip()
    if method not in ("GET", "HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    wanted = {each.strip().lower() for each in headers.get("connection", "").split(",")}
    keep_alive = "close" not in wanted and (version != "HTTP/1.0" or "keep-alive" in wanted)
    return Request(method, _path(target), headers, keep_alive)


def _path(target: str) -> str:
    try:
        path = urlsplit(target).path if "://" in target else target.partition("?")[0]
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST) from None
    return path or "/"


class _Connection(asyncio.Protocol):
    """One client. A timer closes the connection when its state lasts too long."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.state: Literal["waiting", "reading", "answering", "lingering"] = "waiting"
        self.since_s = self._loop.time()

    # ------------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport, but not the class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_CHUNK_BYTES)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._enter("waiting", self._limits.head_s)
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self.state == "lingering":
            return
        if self.state == "waiting":
            self._enter("reading", self._limits.head_s)
        self._buffer += data
        self._advance()

    # ------------------------------------------------------------------------------------------- states

    def abort(self) -> None:
        """Close the connection immediately."""
        if self._transport is not None:
            self._transport.abort()

    def _enter(self, state: Literal["waiting", "reading", "answering", "lingering"], limit_s: float) -> None:
        self.state, self.since_s = state, self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(limit_s, self.abort)

    def _advance(self) -> None:
        """Answer the request in the buffer once its head is complete."""
        if self.state != "reading" or self._transport is None:
            return
        self._buffer = self._buffer.lstrip(b"\r\n")
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if max(len(head), len(rest)) > self._limits.head_bytes:
            self._refuse(Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        elif end:
            self._buffer = rest
            self._transport.pause_reading()  # a client has one request at a time
            self._enter("answering", self._limits.answer_s)
            self._task = self._loop.create_task(self._answer(head))

    def _refuse(self, refusal: Refused) -> None:
        if self._transport is None:
            return
        self._buffer = b""
        self._transport.resume_reading()
        self._enter("lingering", _LINGER_S)
        self._transport.write(_head(refusal.response, keep_alive=False) + refusal.response.body)
        self._transport.write_eof()

    async def _answer(self, head: bytes) -> None:
        await self._server.queue.next()
        try:
            request = parse(head)
        except Refused as refusal:
            self._refuse(refusal)
            return
        await self._send(await self._response(request), request)
        self._finish(request)

    async def _response(self, request: Request) -> Response:
        try:
            return await self._server.handler(request)
        except Exception as exc:
            # The only broad catch of the server: a bug in one response must not end the other connections.
            if exc is not self._server.logged:
                log.exception("answer_failed", path=request.path)
            self._server.logged = exc
            return Response(b"Internal Server Error\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _send(self, response: Response, request: Request) -> None:
        """Send a response in chunks: all connections share its body."""
        chunk, rest = _head(response, keep_alive=request.keep_alive), memoryview(response.body)
        if request.method == "HEAD":
            rest = rest[:0]
        while self._transport is not None and (chunk or rest):
            await self._writable.wait()
            await self._server.queue.next()
            room = _CHUNK_BYTES - len(chunk)
            self._write(chunk + rest[:room])
            chunk, rest = b"", rest[room:]

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _finish(self, request: Request) -> None:
        transport = self._transport
        if transport is None:
            return
        if not request.keep_alive:
            transport.close()  # the timer keeps running until everything is sent
            return
        transport.resume_reading()
        if self._buffer:
            self._enter("reading", self._limits.head_s)
            self._advance()
        else:
            self._enter("waiting", self._limits.idle_s)


def _head(response: Response, *, keep_alive: bool) -> bytes:
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Date": formatdate(usegmt=True),
        "Connection": "keep-alive" if keep_alive else "close",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status = HTTPStatus(response.status)
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode("latin-1")


class _FairQueue:
    """Releases a few waiting callers per iteration of the event loop, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for the caller's turn."""
        waiting = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._release)
        self._waiting.append(waiting)
        await waiting

    def _release(self) -> None:
        for _ in range(min(_PER_ITERATION, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._release)


class _Server:
    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.queue = _FairQueue()
        self.connections: set[_Connection] = set()
        self.logged: Exception | None = None
        """The last unexpected error: requests that share a response log it once."""

    def admit(self, connection: _Connection) -> None:
        """Admit a new connection, and close the longest silent one if there are too many."""
        if len(self.connections) >= self.limits.connections:
            silent = min(self.connections, key=lambda each: (each.state == "answering", each.since_s))
            self.connections.discard(silent)
            silent.abort()
        self.connections.add(connection)


@asynccontextmanager
async def serving(host: str, port: int, handler: Handler, *, limits: Limits | None = None) -> AsyncIterator[int]:
    """Serve while the context is open; yield the port. Raises OSError if the address is unavailable."""
    server = _Server(handler, limits or Limits())
    listening = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server), host, port, backlog=_PER_ITERATION
    )
    for each in listening.sockets:
        with each.dup() as shared:
            shared.listen(_BACKLOG)  # the event loop accepts as many connections per iteration as `backlog`
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for connection in list(server.connections):
            connection.abort()
