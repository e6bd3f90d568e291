"""kube.http: one connection against a server that answers byte for byte as written here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.kube import http
from provisioner.kube.http import Answer, Disconnected, HttpConnection, HttpError, Incomplete
from tests.unit.kube.server import OK, Reader, Serve, Writer, answering, read_request, serving

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def connected(port: int) -> HttpConnection:
    _, connection = await asyncio.get_running_loop().create_connection(HttpConnection, "127.0.0.1", port)
    return connection


async def asked(serve: Serve) -> tuple[Answer, bool]:
    """Return the answer to one request, and whether the connection can be used again."""
    async with serving(serve) as port:
        connection = await connected(port)
        try:
            async with asyncio.timeout(10):
                return await connection.exchange(GET), connection.reusable
        finally:
            connection.abort()


def kept(answer: bytes) -> Serve:
    """Answer once and keep the connection open."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(answer)
        await reader.read()

    return serve


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

WHOLE = [
    (OK, 200, b"ok", True),
    (b"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", 200, b"ok", True),
    (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, b"ok", True),
    (CHUNKED + b"2;name=value\r\nok\r\n0\r\nDate: not now\r\nX: y\r\n\r\n", 200, b"ok", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    (OK + OK, 200, b"ok", False),
    (OK + b"garbage", 200, b"ok", False),
]


@pytest.mark.parametrize(("answer", "status", "body", "reusable"), WHOLE)
async def test_every_form_of_an_answer(answer: bytes, status: int, body: bytes, reusable: bool) -> None:
    """Length, chunks, trailers, informational answers and no body are read; unasked bytes end the connection."""
    found, again = await asked(kept(answer))
    assert (found.status, found.body, again) == (status, body, reusable)


@pytest.mark.parametrize(("answer", "status", "body"), [case[:3] for case in WHOLE])
async def test_an_answer_byte_by_byte(answer: bytes, status: int, body: bytes) -> None:
    """An answer whose bytes arrive one at a time is the same answer."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        for byte in answer:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await reader.read()

    found, _ = await asked(serve)
    assert (found.status, found.body) == (status, body)


class Wire(asyncio.Transport):
    """A transport that only notes whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def fed(pieces: Sequence[bytes]) -> tuple[object, ...]:
    """Return the result of an answer that arrives in these pieces, followed by the end of the connection."""

    async def exchange() -> tuple[object, ...]:
        connection = HttpConnection()
        connection.connection_made(Wire())
        asking = asyncio.ensure_future(connection.exchange(GET))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        reusable = connection.reusable
        connection.connection_lost(None)
        try:
            answer = await asking
        except HttpError as exc:
            return type(exc), str(exc)
        return answer.status, answer.date, answer.retry_after, answer.body, reusable

    return asyncio.run(exchange())


ODD = [
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    CHUNKED + b"5\r\nok",
    CHUNKED + b"zz\r\nok\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 429 Slow\r\nRetry-After: 1\r\nDate: d\r\nContent-Length: 0\r\n\r\n",
]


@given(st.sampled_from([*(case[0] for case in WHOLE), *ODD]), st.lists(st.integers(0, 200), max_size=8))
def test_the_splitting_of_an_answer_changes_nothing(answer: bytes, cuts: list[int]) -> None:
    """However the network splits an answer or garbage, the result is that of the same bytes in one piece."""
    if answer.startswith(OK) and len(answer) > len(OK):
        return  # whether the surplus has arrived when the caller asks depends on the splitting
    at = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(at) if start < end]
    assert fed(pieces) == fed([answer] if answer else [])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP"),
        (CHUNKED + b"zz\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "in the middle"),
        (CHUNKED + b"5\r\nok", "in the middle"),
        (CHUNKED + b"2\r\nok\r\n", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000, "headers"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "headers"),
        (CHUNKED + b"0\r\nX: " + b"x" * 400_000, "headers"),
        (CHUNKED + b"1;" + b"x" * 400_000, "headers"),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, why: str) -> None:
    """Garbage, a truncated answer and endless headers, trailers or chunk extensions raise Incomplete."""
    with pytest.raises(Incomplete, match=why):
        await asked(answering(answer))


async def test_a_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory for one answer is limited."""
    monkeypatch.setattr(http, "BODY_BYTES", 1 << 20)
    with pytest.raises(Incomplete, match="larger than 1 MiB"):
        await asked(answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000))


async def test_a_server_that_closes_without_an_answer() -> None:
    """The error differs from that of an incomplete answer: the request can be sent again if it changes nothing."""
    with pytest.raises(Disconnected):
        await asked(answering(b""))


async def test_a_body_that_ends_with_the_connection() -> None:
    """Without a length, the end of the connection is the end of the body (RFC 9112, 6.3)."""
    answer, reusable = await asked(answering(b"HTTP/1.1 200 OK\r\n\r\nok"))
    assert (answer.body, reusable) == (b"ok", False)


async def test_requests_follow_each_other_on_a_connection() -> None:
    """A connection carries any number of requests, and each gets its own answer."""
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)]
    async with serving(answering(*answers)) as port:
        connection = await connected(port)
        assert [(await connection.exchange(GET)).body for _ in range(5)] == [b"%d" % n for n in range(5)]


@pytest.mark.parametrize("unasked", [OK, b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x", b""])
async def test_an_idle_connection_that_the_server_ends(unasked: bytes) -> None:
    """After unasked bytes or the end of the connection, no request is written any more."""
    free = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await answering(OK)(reader, writer)
        await free.wait()
        writer.write(unasked)

    async with serving(serve) as port:
        connection = await connected(port)
        await connection.exchange(GET)
        assert connection.reusable
        free.set()
        ended = asyncio.Event()
        connection.on_lost = lambda _: ended.set()
        await ended.wait()
        assert not connection.open
        with pytest.raises(Disconnected):
            await connection.exchange(GET)


async def test_an_endless_answer_arrives_as_it_is_written() -> None:
    """Each part reaches the reader before the next is written; the end of the body is an empty part."""
    step = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        for part in (b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n", b"0\r\n\r\n"):
            await step.wait()
            step.clear()
            writer.write(part)
        await reader.read()

    async with serving(serve) as port:
        connection = await connected(port)
        assert (await connection.begin(GET)).status == 200
        read = []
        for _ in range(3):
            assert not connection.reusable
            step.set()
            read.append(await connection.read())
        assert read == [b"a", b"bc", b""]
        assert connection.reusable
        connection.abort()


async def test_a_reader_that_is_slower_than_the_server() -> None:
    """While a reader pauses, the connection stops reading; nothing is lost, and little waits in memory."""
    sent = 0

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 64_000)
            await writer.drain()
            sent += 64_000
        await reader.read()

    async with serving(serve) as port:
        connection = await connected(port)
        await connection.begin(GET)
        connection.expect(0.2)
        await asyncio.sleep(0.5)
        assert sent < 40_000_000
        size = 0
        while chunk := await connection.read():
            size += len(chunk)
            assert len(chunk) < 4_000_000
        assert size == 64_000_000
        connection.abort()


async def read_all(connection: HttpConnection, into: list[bytes]) -> None:
    while chunk := await connection.read():
        into.append(chunk)


async def test_an_endless_answer_that_goes_silent() -> None:
    """If nothing arrives for the given time, the answer has failed; before that, parts are not late."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        for _ in range(6):
            await asyncio.sleep(0.06)
            writer.write(b"1\r\na\r\n")
        await reader.read()

    async with serving(serve) as port:
        connection = await connected(port)
        await connection.begin(GET)
        connection.expect(0.3)
        read = list[bytes]()
        with pytest.raises(Incomplete, match=r"nothing arrived for 0\.3 s"):
            await read_all(connection, read)
        assert b"".join(read) == b"aaaaaa"


async def test_an_answer_that_ends_in_a_failure_yields_what_arrived() -> None:
    """The parts of an endless answer before a broken connection are read first; then the error is raised."""
    async with serving(answering(CHUNKED + b"1\r\na\r\n")) as port:
        connection = await connected(port)
        await connection.begin(GET)
        assert await connection.read() == b"a"
        with pytest.raises(Incomplete):
            await connection.read()


async def test_a_caller_that_gives_up() -> None:
    """The answer to an abandoned request is never read as the answer to another: the connection is not reusable."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await asyncio.sleep(0.1)
        writer.write(OK)
        await reader.read()

    async with serving(serve) as port:
        connection = await connected(port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await connection.exchange(GET)
        assert not connection.reusable
        connection.abort()


async def test_an_answer_before_the_end_of_its_request() -> None:
    """An early answer counts, but the rest of the request must not precede another one."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    async with serving(serve) as port:
        connection = await connected(port)
        size = 50_000_000
        request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)
        assert (await connection.exchange(request)).status == 413
        assert not connection.reusable
        connection.abort()
