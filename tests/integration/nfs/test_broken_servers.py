"""Broken servers: malformed, oversized, endless and partial replies, and connections cut anywhere in a reply."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError, Ownership
from testbed.ganesha import Ganesha
from tests.integration.nfs.conftest import TIMEOUT_S

pytestmark = pytest.mark.timeout(120)

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LAST = 0x8000_0000


@contextlib.asynccontextmanager
async def listening(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Start a server on loopback with these replies; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def call_xid(reader: asyncio.StreamReader) -> bytes:
    """Read a call and return its transaction ID."""
    size = int.from_bytes(await reader.readexactly(4), "big") & ~LAST
    return (await reader.readexactly(size))[:4]


def replying(result: bytes) -> Answer:
    """Answer every call with one accepted reply."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            reply = await call_xid(reader) + b"".join(map(xdr.uint, (1, 0, 0, 0, 0))) + result
            writer.write(xdr.uint(LAST | len(reply)) + reply)

    return answer


def writing(data: bytes, times: int) -> Answer:
    """Answer the first call with these bytes, repeated."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await call_xid(reader)
        for _ in range(times):
            writer.write(data)
            await writer.drain()
        await reader.read()

    return answer


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection at the first call."""
    await call_xid(reader)


BROKEN: dict[str, Answer] = {
    "http": writing(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1),
    "zeros": writing(bytes(4096), 10_000),
    "oversized": writing(xdr.uint(LAST | 0x7FFF_FFFF), 1),
    "endless fragments": writing(xdr.uint(1000) + bytes(1000), 100_000),
    "a reply to no call": writing(xdr.uint(LAST | 24) + bytes(24), 1),
    "empty result": replying(b""),
    "garbage result": replying(b"\xff" * 4096),
    "calls": writing(xdr.uint(LAST | 8) + bytes(8), 100_000),
    "silence": writing(b"", 1),
    "half a header": writing(b"\x80\x00", 1),
    "hanging up": hanging_up,
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_server_fails_in_bounded_memory(broken: str, version: str, pool: ConnectionPool) -> None:
    """Whatever a server sends, a call ends in time with an ExportError and uses little memory."""
    tracemalloc.start()
    async with listening(BROKEN[broken]) as port:
        tree = DirectTree(location("127.0.0.1", "/x"), pool, version=version, port=port, mount_port=port)
        before = tracemalloc.get_traced_memory()[0]
        async with asyncio.timeout(TIMEOUT_S + 5):
            with pytest.raises(ExportError) as caught:
                await tree.make_directory(("made",), Ownership())
        assert caught.value.cause in (Cause.UNREACHABLE, Cause.OTHER)
        assert tracemalloc.get_traced_memory()[1] - before < 16 << 20
        await tree.close()
    tracemalloc.stop()


class CuttingProxy:
    """Passes calls on to a server, and cuts the connection after a number of bytes of its replies."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.left_bytes: int | None = None
        """How many bytes of answers still pass; None for all."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        back, forth = await asyncio.open_connection("127.0.0.1", self._port)
        calls = asyncio.create_task(self._pass_on(reader, forth))
        try:
            while data := await back.read(65536):
                if self.left_bytes is not None:
                    data = data[: self.left_bytes]
                    self.left_bytes -= len(data)
                writer.write(data)
                await writer.drain()
                if self.left_bytes == 0:
                    break
        finally:
            calls.cancel()
            forth.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def test_a_connection_cut_anywhere_in_a_reply(server: Ganesha, version: str) -> None:
    """If the connection is cut at any byte of a reply, a change is UNREACHABLE or done, and the next call works."""
    proxy = CuttingProxy(server.port)
    async with listening(proxy.serve) as port:
        where = location("127.0.0.1", "/plain")
        pool = ConnectionPool(Credentials(), timeout_s=TIMEOUT_S)
        tree = DirectTree(where, pool, version=version, port=port, mount_port=server.mount_port)
        await tree.root_id()
        for cut in (*range(1, 80), 100, 120, 150, 200, 250, 300):
            proxy.left_bytes = cut
            outcome = (await asyncio.gather(tree.make_directory((str(cut),), Ownership()), return_exceptions=True))[0]
            assert outcome is None or (isinstance(outcome, ExportError) and outcome.cause is Cause.UNREACHABLE)
            proxy.left_bytes = None
            assert str(cut) in {entry.name for entry in await tree.list(())}
        await tree.close()


async def test_a_server_on_ipv6(server: Ganesha, version: str) -> None:
    """A server with an IPv6 address works like one with an IPv4 address."""
    if not socket.has_ipv6:
        pytest.skip("this machine cannot speak IPv6")
    proxy, mounts = CuttingProxy(server.port), CuttingProxy(server.mount_port)
    async with listening(proxy.serve, "::1") as port, listening(mounts.serve, "::1") as mount_port:
        pool = ConnectionPool(Credentials(), timeout_s=TIMEOUT_S)
        tree = DirectTree(location("[::1]", "/plain"), pool, version=version, port=port, mount_port=mount_port)
        await tree.make_directory(("made",), Ownership())
        assert [entry.name for entry in await tree.list(())] == ["made"]
        await tree.close()
