"""Removing trees that are wide, deep, or not all ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, Entry, ExportError, NotEmpty
from tests.integration.nfs.conftest import TIMEOUT_S, MakeTree

pytestmark = pytest.mark.timeout(120)


def fill(directory: Path, count: int) -> None:
    """Put so many empty files into a new directory."""
    directory.mkdir()
    for number in range(count):
        directory.joinpath(f"{number:06}-{'x' * 50}").touch()


def dig(top: Path, depth: int) -> None:
    """Make a chain of directories deeper than any path can name."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


async def test_memory_does_not_grow_with_a_directory(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """Removing 12,000 entries of one directory takes no more than twice the memory of removing 3,000."""
    one = tree(version=version)
    peaks = []
    for name, count in (("warm", 100), ("small", 3000), ("large", 12000)):
        await asyncio.to_thread(fill, tmp_path / "plain" / name, count)
        tracemalloc.start()
        assert await one.remove_tree((name,)) == count + 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2 * peaks[1]


async def test_a_tree_deeper_than_any_path(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """A chain of 3,000 directories, which no path can name, goes whole."""
    await asyncio.to_thread(dig, tmp_path / "plain" / "top", 3000)
    assert await tree(version=version).remove_tree(("top",)) == 3001


async def test_what_is_not_ours_stays_and_the_rest_goes(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """What the server lets nobody but root remove is told as denied, after everything else has gone."""
    top = tmp_path / "plain" / "top"
    top.mkdir()
    for name in ("ours", "theirs", "more"):
        fill(top / name, 3)
    for place in (top, top / "ours", top / "more"):
        os.chown(place, 1000, 1000)
    somebody = ConnectionPool(Credentials(uid=1000, gid=1000), timeout_s=TIMEOUT_S)
    one = tree(version=version, registry=somebody)
    with pytest.raises(ExportError) as caught:
        await one.remove_tree(("top",))
    assert caught.value.cause is Cause.DENIED
    assert await one.list(("top",)) == [Entry("theirs", "directory")]
    assert len(await one.list(("top", "theirs"))) == 3


async def test_what_tenants_leave(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """Shut and sticky directories of others, odd names and what clients keep of open files go like all else."""
    top = tmp_path / "plain" / "top"
    top.mkdir()
    for name, mode in (("shut", 0o000), ("read-only", 0o555), ("sticky", 0o1777), ("searched", 0o311)):
        fill(top / name, 3)
        os.chown(top / name, 1000, 1000)
        os.chmod(top / name, mode)
    for odd in (b".nfs000000000000012300000001", b"new\nline", b"\xff\xfe", b" ", b"-rf", b"a\\b", b"n" * 255):
        (top / os.fsdecode(odd)).touch()
    os.mkfifo(top / "fifo")
    assert await tree(version=version).remove_tree(("top",)) == 4 * 4 + 8 + 1
    assert not top.exists()


async def test_a_tenant_that_still_writes(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """A tree that somebody goes on writing into, by a directory that was open before, still goes, and ends him."""
    top = tmp_path / "plain" / "top"
    fill(top, 500)
    (top / "below").mkdir()

    async def write() -> int:
        handle, written = os.open(top / "below", os.O_RDONLY), 0
        try:
            while True:
                os.close(os.open(f"more-{written}", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
                written += 1
                await asyncio.sleep(0.002)
        except FileNotFoundError:
            return written
        finally:
            os.close(handle)

    tenant = asyncio.create_task(write())
    await asyncio.sleep(0.05)
    removed = 0
    while top.exists():
        try:
            removed += await tree(version=version).remove_tree(("top",))
        except NotEmpty:  # told by a server between two of his files: the purge comes back later
            await asyncio.sleep(0.05)
    assert await tenant > 0
    assert removed > 0


@pytest.fixture
def immutable(tmp_path: Path, server: object) -> Iterator[Path]:
    """A file that not even root may remove."""
    top = tmp_path / "plain" / "top"
    top.mkdir()
    fill(top / "kept", 1)
    (file,) = (top / "kept").iterdir()
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable files")
    yield file
    make_mutable(file)


def make_mutable(file: Path) -> None:
    """Let a file be removed again; one that is gone is none."""
    subprocess.run(["chattr", "-i", file], capture_output=True, check=False)


async def test_an_immutable_file(tree: MakeTree, version: str, tmp_path: Path, immutable: Path) -> None:
    """What the server's administrator made immutable is told as denied, after all else has gone."""
    fill(tmp_path / "plain" / "top" / "other", 10)
    one = tree(version=version)
    with pytest.raises(ExportError) as caught:
        await one.remove_tree(("top",))
    assert caught.value.cause is Cause.DENIED
    assert await one.list(("top",)) == [Entry("kept", "directory")]
    await asyncio.to_thread(make_mutable, immutable)
    assert await one.remove_tree(("top",)) == 3
