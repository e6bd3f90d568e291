"""A relay in front of a server, which shows the calls to the tests, changes them, and cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

Cut = Literal["before", "after"]
LAST = 0x8000_0000


async def at_once(_call: bytes) -> None:
    """Pass a call on immediately."""


class Relay:
    """Passes calls on to a port of 127.0.0.1, one by one.

    `change` can rewrite a call, and `change_reply` the reply to a call. `cut` can close the connection at a call:
    "before" the server sees the call, or "after" the server has answered it, without the reply. The relay passes a call
    on when `hold` returns.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.change: Callable[[bytes], bytes] = lambda call: call
        self.change_reply: Callable[[bytes, bytes], bytes] = lambda call, reply: reply
        self.hold: Callable[[bytes], Awaitable[None]] = at_once
        self.cut: Callable[[bytes], Cut | None] = lambda call: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, one call at a time."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                call = await _record(reader)
                cut = self.cut(call)
                if cut == "before":
                    break
                await self.hold(call)
                self.sent_bytes += len(call)
                to_server.write(self.change(call))
                reply = await _record(from_server)
                self.received_bytes += len(reply)
                if cut == "after":
                    break
                writer.write(self.change_reply(call, reply))
        to_server.close()
        writer.close()


async def _record(reader: asyncio.StreamReader) -> bytes:
    """Read a record of one fragment, with its mark (RFC 5531 section 11)."""
    mark = await reader.readexactly(4)
    return mark + await reader.readexactly(int.from_bytes(mark, "big") & ~LAST)


@contextlib.asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    """Start a relay in front of a port."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=1 << 20)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
