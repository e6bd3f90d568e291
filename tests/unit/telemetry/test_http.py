"""telemetry.http: what a client gets, and what it can cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from provisioner.telemetry.http import Limits, Refused, Request, Response, parse, serving

SLOW_S = 60.0
"""A time limit that no test reaches."""
QUICK = Limits(head_s=0.2, answer_s=0.2, idle_s=0.2)
LARGE = b"x" * 8_000_000
"""More than any kernel buffers for a connection."""


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read the next response: status, headers, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def ends(self) -> bytes:
        """Read until the server closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""


class Server:
    """The server under test, with a counter of the calls to its handler."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))

    async def get(self, head: bytes = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n") -> tuple[int, dict[str, str], bytes]:
        """Send one request on a connection of its own."""
        client = await self.connect()
        client.send(head)
        answer = await client.answer()
        client.writer.close()
        return answer


async def echo(request: Request) -> Response:
    if request.path == "/large":
        return Response(LARGE)
    if request.path == "/hangs":
        await asyncio.sleep(SLOW_S)
    if request.path == "/fails":
        raise RuntimeError("a fault")
    return Response(request.path.encode())


@asynccontextmanager
async def at(limits: Limits | None = None) -> AsyncIterator[Server]:
    async with serving("127.0.0.1", 0, echo, limits=limits) as port:
        yield Server(port)


# ------------------------------------------------------------------------------------------------ HTTP


async def test_a_connection_is_used_again() -> None:
    """Consecutive requests, also when sent together, are answered in order on one connection."""
    async with at() as server:
        client = await server.connect()
        client.send(b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2?q HTTP/1.1\r\n\r\n\r\nHEAD /3 HTTP/1.1\r\n\r\n")
        assert [(await client.answer())[2] for _ in range(2)] == [b"/1", b"/2"]
        assert b"Content-Length: 2\r\n" in await client.reader.readuntil(b"\r\n\r\n")
        client.send(b"GET http://h/4 HTTP/1.1\r\nConnection: close\r\n\r\n")
        status, headers, body = await client.answer()
        assert (status, body, headers["connection"]) == (200, b"/4", "close")
        assert await client.ends() == b""


async def test_no_answer_names_a_server() -> None:
    """No response names the server software or its version."""
    async with at() as server:
        for first in (b"GET / HTTP/1.1", b"POST / HTTP/1.1", b"nonsense", b"GET /fails HTTP/1.1"):
            _, headers, body = await server.get(first + b"\r\n\r\n")
            assert "server" not in headers
            assert b"python" not in body.lower()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", 400),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\n folded: x", 400),
        (b"GET http://[/ HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"GET / HTTP/1.1\r\nContent-Length: 5", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked", 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1", 431),
        (b"GET /fails HTTP/1.1", 500),
        (b"PRI * HTTP/2.0", 505),
    ],
)
async def test_refused_requests(head: bytes, status: int) -> None:
    """A request that is malformed, has a body or is too large gets its status, and the server keeps serving."""
    async with at() as server:
        client = await server.connect()
        client.send(head + b"\r\n\r\n")
        assert (await client.answer())[0] == status
        if status != 500:
            assert await client.ends() == b""
        assert (await server.get())[0] == 200


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [("1.1", "", True), ("1.1", "Close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
def test_who_keeps_the_connection(version: str, connection: str, kept: bool) -> None:
    """HTTP/1.1 keeps a connection unless the client says close, HTTP/1.0 only if the client asks for it."""
    assert parse(f"GET / HTTP/{version}\r\nConnection: {connection}".encode()).keep_alive == kept


def test_a_request() -> None:
    """Header names are lower-case, the query is ignored, and an empty path is the root."""
    request = parse(b"GET /metrics?a=b HTTP/1.1\r\nACCEPT:  text/plain ")
    assert (request.path, request.headers) == ("/metrics", {"accept": "text/plain"})
    assert parse(b"GET http://host HTTP/1.1").path == "/"
    with pytest.raises(Refused):
        parse(b"")


# ------------------------------------------------------------------------------------------------ limits


def transport(client: Client) -> asyncio.Transport:
    return cast("asyncio.Transport", client.writer.transport)


async def unfinished(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 100)


async def silent(client: Client) -> None:
    """Send nothing."""


async def not_read(client: Client) -> None:
    transport(client).pause_reading()
    client.send(b"GET /large HTTP/1.1\r\n\r\n")


async def hanging(client: Client) -> None:
    client.send(b"GET /hangs HTTP/1.1\r\n\r\n")


async def refused_and_goes_on(client: Client) -> None:
    client.send(b"nonsense\r\n\r\n" + b"x" * 100_000)


async def idle(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await client.answer()


@pytest.mark.parametrize("behave", [silent, unfinished, not_read, hanging, idle])
async def test_slow_clients_are_closed(behave: Callable[[Client], object]) -> None:
    """A connection that is silent, does not complete its request, or does not read the response is closed in time."""
    async with at(QUICK) as server:
        client = await server.connect()
        await behave(client)  # type: ignore[misc]
        await asyncio.sleep(0.5)
        transport(client).resume_reading()
        got = await asyncio.wait_for(client.ends(), SLOW_S)
        assert len(got) < len(LARGE)


async def test_drops_do_not_keep_a_request_alive() -> None:
    """The time limit of a request starts with its first byte, not with its latest one."""
    async with at(QUICK) as server:
        client = await server.connect()

        async def drip() -> None:
            for _ in range(1000):
                client.send(b"X: x\r\n")
                await asyncio.sleep(0.05)

        client.send(b"GET / HTTP/1.1\r\n")
        dripping = asyncio.create_task(drip())
        assert await asyncio.wait_for(client.ends(), SLOW_S) == b""
        assert not dripping.done()
        dripping.cancel()


@pytest.mark.parametrize("behave", [silent, unfinished, not_read, hanging, refused_and_goes_on, idle])
async def test_a_probe_gets_through(behave: Callable[[Client], object]) -> None:
    """When the connections are full, a new one replaces the one that has been silent longest."""
    async with at(Limits(connections=5)) as server:
        others = [await server.connect() for _ in range(12)]
        for client in others:
            await behave(client) if behave is not idle else None  # type: ignore[misc]
        for _ in range(20):
            assert (await server.get())[0] == 200
        for client in others:
            client.writer.transport.abort()


async def test_an_answer_under_way_is_ended_last() -> None:
    """A client that is being answered stays while others are silent."""
    async with at(Limits(connections=3)) as server:
        busy = await server.connect()
        busy.send(b"GET /hangs HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        for _ in range(9):
            await server.connect()
        await asyncio.sleep(0.1)
        assert not busy.reader.at_eof()


async def test_many_at_the_same_time_leave_the_loop_to_others() -> None:
    """While 300 clients are answered, other work in the event loop keeps running."""
    locks, done = 0, False

    async def others() -> None:
        nonlocal locks
        while not done:
            locks += 1
            await asyncio.sleep(0)

    async with at() as server:
        clients = [await server.connect() for _ in range(300)]
        for client in clients:
            client.send(b"GET /x HTTP/1.1\r\n\r\n")
        counting = asyncio.create_task(others())
        answers = await asyncio.gather(*(client.answer() for client in clients))
        done = True
        await counting
        assert [body for _, _, body in answers] == [b"/x"] * 300
        assert locks >= 300 / 8
        for client in clients:
            client.writer.transport.abort()


async def test_stopping_closes_connections() -> None:
    """When the server stops, it closes every connection, in any state."""
    async with at() as server:
        clients = [await server.connect() for _ in range(3)]
        await hanging(clients[0])
        await unfinished(clients[1])
        await asyncio.sleep(0.1)
    for client in clients:
        assert await asyncio.wait_for(client.ends(), SLOW_S) == b""
