"""Hostile servers with valid NFS: endless directories, odd limits, endless refusals."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4_sessions import Channel
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.nfs.protocol.values import Attributes, DirectoryEntry, DirectoryPage, Position
from provisioner.ports import endless
from provisioner.ports.tree import Cause, ExportError, FilesystemStats
from tests.integration.nfs.test_broken_servers import listening, replying
from tests.support.nfs.hostile import Hostile, Pages

pytestmark = pytest.mark.timeout(240)

LINK = Attributes("symlink", 0o777, (1, 1), 0, 0)
TIMEOUT_S = 30.0


@asynccontextmanager
async def tree_on(hostile: Hostile, version: str | None, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[DirectTree]:
    """Open a tree on the server."""
    async with hostile.listening() as port:
        pool = ConnectionPool(Credentials(), timeout_s=timeout_s)
        tree = DirectTree(location("127.0.0.1", "/x"), pool, version=version, port=port, mount_port=port)
        yield tree
        await tree.close()


def entry(name: str) -> DirectoryEntry:
    """Return a symlink entry of this name."""
    return DirectoryEntry(name, b"handle", LINK)


def looping(period: int, *, empty: bool = False) -> Pages:
    """Return pages whose positions repeat after a number of pages."""

    def page(position: Position) -> DirectoryPage:
        cookie = 5 + (position.cookie - 4) % period
        return DirectoryPage(() if empty else (entry(f"name-{cookie}"),), Position(cookie))

    return page


def endless_names(position: Position) -> DirectoryPage:
    """Return a page of new names."""
    names = tuple(entry(f"pvc-{position.cookie + number:012}") for number in range(200))
    return DirectoryPage(names, Position(position.cookie + 200))


def endless_nothing(position: Position) -> DirectoryPage:
    """Return the same name at a new position each time."""
    return DirectoryPage((entry("same"),), Position(position.cookie + 1))


@pytest.mark.parametrize("period", [1, 2, 5, 100])
async def test_a_readdir_loop_is_reported(version: str, period: int) -> None:
    """A list fails with a clear error if a position repeats, after any number of pages."""
    hostile = Hostile(looping(period))
    async with tree_on(hostile, version) as tree:
        with pytest.raises(ExportError) as caught:
            await tree.list(("some", "directory"))
    assert "repeats a directory position (readdir loop) in directory some/directory" in caught.value.advice
    assert hostile.calls < 12 * period + 20


async def test_endless_empty_pages_are_a_loop(version: str) -> None:
    """Endless empty pages are a loop, for a list and for is_empty."""
    async with tree_on(Hostile(lambda _: DirectoryPage((), Position(0))), version) as tree:
        for call in (tree.list, tree.is_empty):
            with pytest.raises(ExportError, match="readdir loop"):
                await call(())


@pytest.mark.parametrize("pages", [endless_names, endless_nothing])
async def test_an_endless_directory_fails_in_bounded_memory(
    pages: Pages, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of endless new names or positions fails at the limit, and holds no more entries than the limit."""
    monkeypatch.setattr(endless, "LISTING_LIMIT", 5000)
    async with tree_on(Hostile(pages), version) as tree:
        tracemalloc.start()
        with pytest.raises(ExportError) as caught:
            await tree.list(())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "the export's root has more than 5,000 entries, or has no end" in caught.value.advice
        assert caught.value.cause is Cause.OTHER
        assert peak < 4 << 20


async def test_a_limited_list_of_an_endless_directory(version: str) -> None:
    """A list with a limit stops reading at the limit."""
    hostile = Hostile(endless_names)
    async with tree_on(hostile, version) as tree:
        assert len(await tree.list((), at_most=300)) == 300
    assert hostile.calls < 20


async def test_an_oversized_page_is_read_in_parts(version: str) -> None:
    """A page beyond the requested size is read up to that size, and the rest with the next pages, without gaps."""
    names = [f"{number:04}-{'x' * 200}" for number in range(1, 601)]
    everything = tuple(DirectoryEntry(name, b"handle", LINK, cookie) for cookie, name in enumerate(names, 1))
    hostile = Hostile(lambda position: DirectoryPage(everything[position.cookie :], None))
    async with tree_on(hostile, version) as tree:
        assert [each.name for each in await tree.list(())] == names


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        (Channel(1 << 16, 512, 0, 64, 64), "512 bytes per reply (4096 are needed)"),
        (Channel(1 << 16, 0, 0, 64, 64), "0 bytes per reply (4096 are needed)"),
        (Channel(100, 1 << 16, 0, 64, 64), "100 bytes per request (4096 are needed)"),
        (Channel(1 << 16, 1 << 16, 0, 7, 64), "7 operations per request (8 are needed)"),
        (Channel(1 << 16, 1 << 16, 0, 0, 64), "0 operations per request (8 are needed)"),
        (Channel(1 << 16, 1 << 16, 0, 64, 0), "0 slots (1 are needed)"),
    ],
)
async def test_a_session_that_is_too_small_is_refused(channel: Channel, words: str) -> None:
    """The refusal says what the server grants, what is required, and which versions need no session."""
    async with tree_on(Hostile(channel=channel), "4.1") as tree:
        with pytest.raises(ExportError) as caught:
            await tree.root_id()
    assert caught.value.cause is Cause.VERSION
    assert words in caught.value.advice
    assert "nfsvers=3" in caught.value.advice


async def test_a_session_that_is_too_small_selects_an_older_version() -> None:
    """If the class names no version and sessions are too small, NFS 4.0 is used, which has no sessions."""
    async with tree_on(Hostile(channel=Channel(512, 512, 0, 4, 1)), None) as tree:
        assert await tree.list(()) == []


@pytest.mark.parametrize("channel", [Channel(4096, 4096, 0, 8, 1), Channel(*[2**32 - 1] * 5)])
async def test_the_smallest_session_and_the_largest_work(channel: Channel) -> None:
    """Long paths, lists, links and removals work in the smallest accepted session, and in one without limits."""
    async with tree_on(Hostile(channel=channel), "4.1") as tree:
        deep = tuple(f"{number}-{'n' * 200}" for number in range(12))
        assert await tree.list(deep) == []
        assert await tree.space() == FilesystemStats(1 << 40, 1 << 40, 1000, 1000)
        assert await tree.read_symlinks(deep, []) == {}
        with pytest.raises(ExportError):
            await tree.rename(deep, deep)


@pytest.mark.parametrize(
    ("said", "space"),
    [
        ((0, 0, 0, 0), FilesystemStats(0, 0, 0, 0)),
        ((1000, 2**64 - 5, 10, 2**64 - 1), FilesystemStats(1000, 0, 10, 0)),
        ((2**63 - 1, 2**63 - 1, 0, 0), FilesystemStats(2**63 - 1, 2**63 - 1, 0, 0)),
    ],
)
async def test_odd_numbers_of_bytes(said: tuple[int, int, int, int], space: FilesystemStats, version: str) -> None:
    """Zeros stay zeros, and a negative number of free bytes becomes zero."""
    async with tree_on(Hostile(space=said), version) as tree:
        assert await tree.space() == space


FOR_EVER: dict[str, dict[str, dict[int, int]]] = {
    "delay": {"3": {17: 10008}, "4.0": {26: 10008}, "4.1": {26: 10008}, "4.2": {26: 10008}},
    "too small": {"3": {17: 10005}, "4.0": {26: 10005}, "4.1": {26: 10005}, "4.2": {26: 10005}},
    "moved": {"3": {17: 71}, "4.0": {26: 10019}, "4.1": {22: 10019}, "4.2": {22: 10019}},
    "stale": {"3": {17: 70}, "4.0": {26: 70}, "4.1": {22: 70}, "4.2": {22: 70}},
    "bad cookie": {"3": {17: 10003}, "4.0": {26: 10003}, "4.1": {26: 10003}, "4.2": {26: 10003}},
    "bad session": {"4.1": {53: 10052}, "4.2": {53: 10052}},
    "grace": {"4.1": {58: 10013, 26: 10013}, "4.0": {26: 10013}},
}


@pytest.mark.parametrize(
    ("version", "statuses"),
    [
        pytest.param(version, statuses, id=f"{version}-{what}")
        for what, by_version in FOR_EVER.items()
        for version, statuses in by_version.items()
    ],
)
async def test_an_endless_refusal_ends_in_time(version: str, statuses: dict[int, int]) -> None:
    """If a server repeats the same refusal endlessly, a call ends with an ExportError within its time limit."""
    async with tree_on(Hostile(statuses=statuses), version, timeout_s=2.0) as tree, asyncio.timeout(60):
        with pytest.raises(ExportError) as caught:
            await tree.list(())
    assert caught.value.advice


async def test_objects_without_attributes(version: str) -> None:
    """A server that omits the types of objects is reported, or asked in another way."""
    async with tree_on(Hostile(bare=True), version) as tree:
        if version == "3":
            assert await tree.list(("some",)) == []
        else:
            with pytest.raises(ExportError, match="does not report its type"):
                await tree.list(("some",))


async def test_answers_of_random_numbers_are_an_export_error(version: str) -> None:
    """For arbitrary numbers in a reply, each call of a tree returns a result or raises an ExportError."""
    chance = random.Random(version)
    small = [*range(70), 10008, 10005, 10021, 0x8000_0000, 0xFFFF_FFFF]
    for _ in range(60):
        numbers = b"".join(xdr.uint(chance.choice(small)) for _ in range(chance.randrange(40)))
        async with listening(replying(numbers)) as port:
            pool = ConnectionPool(Credentials(), timeout_s=0.2)
            tree = DirectTree(location("127.0.0.1", "/x"), pool, version=version, port=port, mount_port=port)
            for call in (tree.space(), tree.list(("a",)), tree.rename(("a",), ("b",)), tree.remove_tree(("a",))):
                with contextlib.suppress(ExportError):
                    await call
            await tree.close()
