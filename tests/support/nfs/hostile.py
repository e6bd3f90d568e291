"""A server with well-formed but odd replies: every name is a directory; pages and statuses are scripted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from provisioner.nfs.protocol import mount3, nfs3, xdr
from provisioner.nfs.protocol.nfs4_sessions import Channel
from provisioner.nfs.protocol.values import Attributes, DirectoryPage, Position
from provisioner.nfs.protocol.xdr import Cursor
from tests.support.nfs.replies import fattr3, fattr4, page3, page4, words

DIRECTORY = Attributes("directory", 0o755, (1, 1), 0, 0)
LIMIT_BYTES = 1 << 16
LAST_PAGE = DirectoryPage((), None)
ENOENT = 2

Pages = Callable[[Position], DirectoryPage]


def last_page(_: Position) -> DirectoryPage:
    """Return the only page of an empty directory."""
    return LAST_PAGE


@dataclass(slots=True)
class Hostile:
    """The replies of the server, and a count of its calls."""

    pages: Pages = last_page
    statuses: dict[int, int] = field(default_factory=dict)
    """The refusal of each call of an NFSv4 operation or NFSv3 procedure."""
    channel: Channel = field(default_factory=lambda: Channel(1 << 16, 1 << 17, 4096, 64, 64))
    space: tuple[int, int, int, int] = (1 << 40, 1 << 40, 1000, 1000)
    """Bytes and inodes: total and free."""
    bare: bool = False
    """Whether objects are sent without attributes."""
    calls: int = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serve on loopback; yields the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                size_bytes = int.from_bytes(await reader.readexactly(4), "big") & 0x7FFF_FFFF
                reply = self._answer(Cursor(await reader.readexactly(size_bytes)))
                self.calls += 1
                writer.write(xdr.uint(0x8000_0000 | len(reply)) + reply)
        writer.close()

    def _answer(self, call: Cursor) -> bytes:
        xid, _, _, program, version, procedure = (call.uint() for _ in range(6))
        for _ in range(2):
            call.uint(), call.opaque(400)
        head = words(xid, 1, 0, 0, 0, 0)
        if program == mount3.PROGRAM:
            return head + words(0) + xdr.opaque(b"/") + words(1, 1)
        if version == nfs3.VERSION:
            return head + self._of_3(procedure, call)
        return head + self._of_4(call)

    def _of_3(self, procedure: int, call: Cursor) -> bytes:
        if procedure == 0:
            return b""
        if procedure in self.statuses:
            return words(self.statuses[procedure], 0, 0)
        attributes = words(0) if self.bare else words(1) + fattr3(DIRECTORY)
        call.opaque(64)
        match procedure:
            case 1:
                return words(0) + fattr3(DIRECTORY)
            case 3:
                return words(0) + xdr.opaque(call.string(255).encode()) + attributes + words(0)
            case 17:
                return page3(self.pages(Position(call.hyper(), call.fixed(8))))
            case 18:
                size, free, files, files_free = self.space
                return (
                    words(0, 0) + b"".join(map(xdr.hyper, (size, free, free, files, files_free, files_free))) + words(0)
                )
        return words(ENOENT, 0, 0)

    def _of_4(self, call: Cursor) -> bytes:
        call.opaque(64)
        call.uint()
        results, status = [], 0
        for _ in range(call.uint()):
            number = call.uint()
            status = self.statuses.get(number, 0)
            body = b"" if status else self._operation(number, call)
            status = ENOENT if body is None else status
            results.append(words(number, status) + (body or b""))
            if status:
                break
        return words(status, 0, len(results)) + b"".join(results)

    def _operation(self, number: int, call: Cursor) -> bytes | None:  # noqa: C901 - one table
        match number:
            case 53:
                call.fixed(16)
                sequence, slot, _, _ = (call.uint() for _ in range(4))
                return bytes(16) + words(sequence, slot, *[self.channel.requests] * 2, 0)
            case 42:
                call.fixed(8), call.opaque(1024), call.uint(), call.uint(), call.uint()
                return xdr.hyper(7) + words(1, 0, 0) + xdr.hyper(0) + xdr.opaque(b"s") * 2 + words(0)
            case 43:
                call.fixed(8 + 4 + 4 + 2 * 28), call.uint(), call.uint(), call.uint()
                return bytes(16) + words(1, 0) + self.channel.encoded() * 2
            case 58:
                call.uint()
                return b""
            case 24 | 31 | 32:
                return b""
            case 22:
                call.opaque(128)
                return b""
            case 15:
                call.string(255)
                return b""
            case 10:
                return xdr.opaque(b"handle")
            case 9:
                return self._attributes(call.array(Cursor.uint))
            case 26:
                position = Position(call.hyper(), call.fixed(8))
                call.uint(), call.uint(), call.array(Cursor.uint)
                return page4(self.pages(position))
        return None

    def _attributes(self, words_asked: list[int]) -> bytes:
        if self.bare:
            return words(0, 0)
        if len(words_asked) > 1 and words_asked[1] & 1 << 10:
            size, free, files, files_free = self.space
            numbers = b"".join(map(xdr.hyper, (files_free, files, free, size)))
            return words(2, 1 << 21 | 1 << 23, 1 << 10 | 1 << 12) + xdr.opaque(numbers)
        return fattr4(DIRECTORY, b"handle")
