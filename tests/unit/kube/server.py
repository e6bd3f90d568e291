"""A server on loopback whose answers are scripted byte for byte, for the tests of the HTTP client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Serve = Callable[[Reader, Writer], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: today\r\n\r\nok"


async def read_request(reader: Reader) -> tuple[str, bytes]:
    """Return the head and the body of one request; raises EOFError at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    sizes = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
    return head, await reader.readexactly(int(sizes[0]) if sizes else 0)


def answering(*answers: bytes) -> Serve:
    """Answer the requests of each connection with these, in order, and close it after the last."""

    async def serve(reader: Reader, writer: Writer) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return serve


@asynccontextmanager
async def serving(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection with `serve`, which closes it when it returns; yield the port."""
    writers = set[Writer]()

    async def connected(reader: Reader, writer: Writer) -> None:
        writers.add(writer)
        with suppress(EOFError, OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writers.discard(writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)
