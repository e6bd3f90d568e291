"""kube.pool: connections are shared, limited, and given up as soon as they could mix up answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from provisioner.kube.http import Disconnected, HttpConnection, HttpError, Incomplete
from provisioner.kube.pool import Pool
from tests.unit.kube.server import OK, Reader, Serve, Writer, answering, read_request, serving

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Site:
    """A pool, the server behind it, and what happened there."""

    def __init__(self) -> None:
        self.connections = 0
        self.now = 0
        self.most = 0
        self.requests: list[str] = []


@asynccontextmanager
async def pooled(serve: Serve, *, limit: int = 4, idle_s: float = 15.0) -> AsyncIterator[tuple[Pool, Site]]:
    site = Site()

    async def counted(reader: Reader, writer: Writer) -> None:
        site.connections += 1
        site.now += 1
        site.most = max(site.most, site.now)
        try:
            await serve(reader, writer)
        finally:
            site.now -= 1

    async with serving(counted) as port:

        async def dial() -> HttpConnection:
            await asyncio.sleep(0.001)
            return (await asyncio.get_running_loop().create_connection(HttpConnection, "127.0.0.1", port))[1]

        pool = Pool(dial, limit=limit, idle_s=idle_s)
        try:
            async with asyncio.timeout(30):
                yield pool, site
        finally:
            await pool.close()


async def echoing(reader: Reader, writer: Writer) -> None:
    """Answer each request with its path, the later ones sooner than the earlier ones."""
    while True:
        head, _ = await read_request(reader)
        path = head.split(" ")[1].encode()
        await asyncio.sleep(0.001 * (len(head) % 7))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


async def test_one_connection_serves_requests_in_turn() -> None:
    """Requests one after the other use one connection."""
    async with pooled(echoing) as (pool, site):
        for number in range(5):
            assert (await pool.exchange(get(f"/{number}"), repeatable=True)).body == f"/{number}".encode()
    assert site.connections == 1


async def test_the_number_of_connections_is_limited() -> None:
    """Many concurrent requests share the connections, and each gets its own answer."""
    async with pooled(echoing, limit=3) as (pool, site):
        paths = [f"/{'x' * (number % 11)}{number}" for number in range(60)]
        answers = await asyncio.gather(*(pool.exchange(get(path), repeatable=True) for path in paths))
    assert [answer.body.decode() for answer in answers] == paths
    assert site.connections == site.most == 3


async def test_callers_are_served_in_order() -> None:
    """With one connection, callers get it in the order in which they asked."""
    served: list[int] = []

    async def call(pool: Pool, number: int) -> None:
        await pool.exchange(get(f"/{number}"), repeatable=True)
        served.append(number)

    async with pooled(echoing, limit=1) as (pool, _):
        await asyncio.gather(*(call(pool, number) for number in range(10)))
    assert served == list(range(10))


async def test_callers_that_give_up_mix_up_no_answers() -> None:
    """However calls are cancelled, waiting or answered, every other call gets its own answer, and no place is lost."""
    async with pooled(echoing, limit=2) as (pool, _):
        for round_ in range(40):
            paths = [f"/{round_}/{'x' * (number % 5)}{number}" for number in range(8)]
            calls = [asyncio.ensure_future(pool.exchange(get(path), repeatable=False)) for path in paths]
            await asyncio.sleep(0.0004 * (round_ % 10))
            for call in calls[round_ % 3 :: 3]:
                call.cancel()
            for path, call in zip(paths, calls, strict=True):
                with suppress(asyncio.CancelledError):
                    assert (await call).body.decode() == path
        assert (await pool.exchange(get("/last"), repeatable=True)).body == b"/last"
        both = await asyncio.gather(*(pool.exchange(get(f"/{n}"), repeatable=True) for n in range(2)))
        assert len(both) == 2


async def dropping(reader: Reader, writer: Writer) -> None:
    """Answer one request per connection, and close the connection when the second arrives."""
    await answering(OK)(reader, writer)
    await read_request(reader)


async def test_a_read_on_a_connection_that_just_ended_is_sent_again() -> None:
    """A server that closes an idle connection while a GET is under way costs nothing but a new connection."""
    async with pooled(dropping) as (pool, site):
        for _ in range(4):
            assert (await pool.exchange(GET, repeatable=True)).body == b"ok"
    assert site.connections == 4


async def test_a_write_on_a_connection_that_just_ended_is_not_repeated() -> None:
    """Whether the server has executed it is unknown, so the caller must look."""
    async with pooled(dropping) as (pool, site):
        await pool.exchange(GET, repeatable=False)
        with pytest.raises((Disconnected, OSError)):
            await pool.exchange(GET, repeatable=False)
        assert (await pool.exchange(GET, repeatable=False)).body == b"ok"
    assert site.connections == 2


async def test_a_write_is_sent_if_the_connection_is_known_to_have_ended() -> None:
    """An idle connection that the server closed earlier is not used: nothing was sent, so nothing is unknown."""
    async with pooled(answering(OK)) as (pool, site):
        for _ in range(3):
            await pool.exchange(GET, repeatable=False)
            await asyncio.sleep(0.02)
    assert site.connections == 3


async def test_a_new_connection_that_ends_is_not_repeated() -> None:
    """A server that never answers gets each request once."""
    async with pooled(answering(b"")) as (pool, site):
        for repeatable in (True, False):
            with pytest.raises(Disconnected):
                await pool.exchange(GET, repeatable=repeatable)
    assert site.connections == 2


async def test_a_failed_answer_ends_its_connection() -> None:
    """After garbage, the next request uses another connection, and no place is lost."""
    async with pooled(answering(b"garbage\r\n"), limit=1) as (pool, site):
        for _ in range(3):
            with pytest.raises(Incomplete):
                await pool.exchange(GET, repeatable=True)
    assert site.connections == 3


async def test_a_failed_dial_leaves_its_place_to_the_next() -> None:
    """While no connection can be opened, all callers get the error, and none waits forever."""

    async def refused() -> HttpConnection:
        await asyncio.sleep(0)
        raise ConnectionRefusedError

    pool = Pool(refused, limit=2)
    async with asyncio.timeout(10):
        failed = await asyncio.gather(*(pool.exchange(GET, repeatable=True) for _ in range(9)), return_exceptions=True)
    assert [type(each) for each in failed] == [ConnectionRefusedError] * 9
    await pool.close()


async def test_idle_connections_close_after_a_while() -> None:
    """A burst of requests leaves no connections behind."""
    async with pooled(echoing, limit=5, idle_s=0.1) as (pool, site):
        await asyncio.gather(*(pool.exchange(get(f"/{n}"), repeatable=True) for n in range(5)))
        for _ in range(8):
            await asyncio.sleep(0.04)
            await pool.exchange(GET, repeatable=True)
        assert site.now == 1
        await asyncio.sleep(0.4)
        assert site.now == 0
        assert (await pool.exchange(GET, repeatable=True)).body == b"/"


async def test_retired_connections_are_not_used_again() -> None:
    """After the credentials have changed, idle connections close immediately and busy ones after their answer."""
    async with pooled(echoing) as (pool, site):
        busy = asyncio.ensure_future(pool.exchange(get("/xxxxxx"), repeatable=True))
        await pool.exchange(GET, repeatable=True)
        await asyncio.sleep(0)
        pool.retire(in_use=True)
        assert (await busy).body == b"/xxxxxx"
        before = site.connections
        await pool.exchange(GET, repeatable=True)
        assert site.connections == before + 1


async def endless(reader: Reader, writer: Writer) -> None:
    """Answer a watch with one part per 10 ms, and refuse everything else."""
    head, _ = await read_request(reader)
    if "/watch" not in head:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not reader.at_eof():
        writer.write(b"1\r\na\r\n")
        await asyncio.sleep(0.01)


async def test_a_stream_that_is_closed_early_frees_its_place() -> None:
    """A reader that stops does not keep the connection, and the answer's rest is not read."""
    async with pooled(endless, limit=1) as (pool, _):
        for _ in range(3):
            stream = await pool.stream(get("/watch"))
            assert [chunk async for chunk in _first(stream.chunks(5.0))] == [b"a"]
            stream.close()
            stream.close()


async def _first(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await anext(chunks)


async def test_a_refused_stream_has_a_body() -> None:
    """The refusal is read completely, and its connection is used again."""
    async with pooled(endless, limit=1) as (pool, site):
        stream = await pool.stream(GET)
        await stream.finish()
        stream.close()
        assert (stream.status, stream.body) == (403, b"no")
    assert site.connections == 1


async def test_a_stream_on_a_connection_that_just_ended_is_begun_again() -> None:
    """A stream is a GET, so that it is sent again on a new connection."""
    async with pooled(dropping) as (pool, site):
        await pool.exchange(GET, repeatable=True)
        stream = await pool.stream(GET)
        await stream.finish()
        stream.close()
        assert stream.body == b"ok"
    assert site.connections == 2


async def test_closing_the_pool_ends_its_calls() -> None:
    """A call under way gets an error, and no connection stays open."""
    async with pooled(endless) as (pool, site):
        stream = await pool.stream(get("/watch"))
        await pool.close()
        with pytest.raises(HttpError):
            await stream.finish()
        stream.close()
        await asyncio.sleep(0.1)
        assert site.now == 0
