"""A small HTTP/1.1 server that answers GET and HEAD, to clients that are not trusted.

Every pod reaches the endpoint where no NetworkPolicy forbids it, and it shares the event loop with the Lease and the
work. So everything that a client can cost has a limit: connections, the time and the size of a request, the time of an
answer, and what waits to be sent. Where there are too many connections a new one takes the place of the one that has
been silent longest, so that a probe gets through. aiohttp's server has no limits on connections and on the time of a
request, and names itself and its version in each answer.
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
from typing import Literal
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 16 * 1024
"""What one connection may have waiting to be sent; all share the text of an answer itself."""
_SEND_BUFFER_BYTES = 64 * 1024
"""The same in the kernel, which counts as our memory too."""
_BACKLOG = 512
"""Connections that the kernel may hold for us."""
_AT_ONCE = 8
"""Connections, requests and chunks that are taken up in one turn of the event loop: the rest of it has its turn too."""
_LINGER_S = 2.0
"""How long a refused client may go on sending, so that it reads why it was refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may cost."""

    connections: int = 512
    head_bytes: int = 8 * 1024
    head_s: float = 10.0
    """From the first byte of a request, or the connection, to the end of its headers."""
    answer_s: float = 30.0
    """From there until the client has taken the answer."""
    idle_s: float = 90.0
    """Between two requests of one connection: longer than the usual scrape interval."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; headers have lower-case names, and the last one of a name counts."""

    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that is not answered; the connection ends with it."""

    def __init__(self, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status.phrase)
        self.response = Response(f"{status.phrase}\n".encode(), status=status, headers=headers or {})


def parse(head: bytes) -> Request:
    """A request by its head, without the empty line. Raises Refused."""
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
    """One client. One timer ends the connection when its present state has lasted too long."""

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
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=_CHUNK_BYTES)
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

    # ------------------------------------------------------------------------------------------- its states

    def abort(self) -> None:
        """End it without another word."""
        if self._transport is not None:
            self._transport.abort()

    def _enter(self, state: Literal["waiting", "reading", "answering", "lingering"], limit_s: float) -> None:
        self.state, self.since_s = state, self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(limit_s, self.abort)

    def _advance(self) -> None:
        """Answer the request in the buffer once its head is there."""
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
        await self._server.locks.next()
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
            # The broad catch of the server: a fault of ours with one answer must not end the others.
            if exc is not self._server.logged:
                log.exception("answer_failed", path=request.path)
            self._server.logged = exc
            return Response(b"Internal Server Error\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _send(self, response: Response, request: Request) -> None:
        """In chunks: all connections share the text of an answer."""
        chunk, rest = _head(response, keep_alive=request.keep_alive), memoryview(response.body)
        if request.method == "HEAD":
            rest = rest[:0]
        while self._transport is not None and (chunk or rest):
            await self._writable.wait()
            await self._server.locks.next()
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
            transport.close()  # the timer goes on until all is sent
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


class _Turns:
    """Lets a few of those who wait go on in each turn of the event loop, in their order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Return when it is the caller's turn."""
        waiting = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._go_on)
        self._waiting.append(waiting)
        await waiting

    def _go_on(self) -> None:
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._go_on)


class _Server:
    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.locks = _Turns()
        self.connections: set[_Connection] = set()
        self.logged: Exception | None = None
        """The latest fault: many that share an answer log it once."""

    def admit(self, connection: _Connection) -> None:
        """Take a new connection in, if need be in the place of another one."""
        if len(self.connections) >= self.limits.connections:
            silent = min(self.connections, key=lambda each: (each.state == "answering", each.since_s))
            self.connections.discard(silent)
            silent.abort()
        self.connections.add(connection)


@asynccontextmanager
async def serving(host: str, port: int, handler: Handler, *, limits: Limits | None = None) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port. Raises OSError when the address cannot be had."""
    server = _Server(handler, limits or Limits())
    listening = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server), host, port, backlog=_AT_ONCE
    )
    for each in listening.sockets:
        with each.dup() as shared:
            shared.listen(_BACKLOG)  # asyncio accepts as many in one turn as it lets the kernel hold
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for connection in list(server.connections):
            connection.abort()
