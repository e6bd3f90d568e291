"""Removal of trees that are wide, deep or partly owned by other users."""

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
    """Create a directory with this many empty files."""
    directory.mkdir()
    for number in range(count):
        directory.joinpath(f"{number:06}-{'x' * 50}").touch()


def dig(top: Path, depth: int) -> None:
    """Create a chain of directories that is too deep for any path."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


async def test_memory_does_not_grow_with_a_directory(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """Removing 12,000 entries of one directory uses at most twice the memory of removing 3,000."""
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
    """A chain of 3,000 directories, too deep for any path, is removed."""
    await asyncio.to_thread(dig, tmp_path / "plain" / "top", 3000)
    assert await tree(version=version).remove_tree(("top",)) == 3001


async def test_entries_of_other_users_stay(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """An entry that only root can remove is reported as denied, after everything else is removed."""
    top = tmp_path / "plain" / "top"
    top.mkdir()
    for name in ("ours", "theirs", "more"):
        fill(top / name, 3)
    for place in (top, top / "ours", top / "more"):
        os.chown(place, 1000, 1000)
    other_user = ConnectionPool(Credentials(uid=1000, gid=1000), timeout_s=TIMEOUT_S)
    one = tree(version=version, registry=other_user)
    with pytest.raises(ExportError) as caught:
        await one.remove_tree(("top",))
    assert caught.value.cause is Cause.DENIED
    assert await one.list(("top",)) == [Entry("theirs", "directory")]
    assert len(await one.list(("top", "theirs"))) == 3


async def test_odd_entries_are_removed(tree: MakeTree, version: str, tmp_path: Path) -> None:
    """Locked and sticky directories of other users, odd names and `.nfs` files are removed."""
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
    """A tree is removed even if a tenant keeps writing through an open directory; its writes then fail."""
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
        except NotEmpty:  # reported between two of the tenant's files: the purge tries again later
            await asyncio.sleep(0.05)
    assert await tenant > 0
    assert removed > 0


@pytest.fixture
def immutable(tmp_path: Path, server: object) -> Iterator[Path]:
    """A file that not even root can remove."""
    top = tmp_path / "plain" / "top"
    top.mkdir()
    fill(top / "kept", 1)
    (file,) = (top / "kept").iterdir()
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable files")
    yield file
    make_mutable(file)


def make_mutable(file: Path) -> None:
    """Make a file removable again, if it exists."""
    subprocess.run(["chattr", "-i", file], capture_output=True, check=False)


async def test_an_immutable_file(tree: MakeTree, version: str, tmp_path: Path, immutable: Path) -> None:
    """An immutable file is reported as denied, after everything else is removed."""
    fill(tmp_path / "plain" / "top" / "other", 10)
    one = tree(version=version)
    with pytest.raises(ExportError) as caught:
        await one.remove_tree(("top",))
    assert caught.value.cause is Cause.DENIED
    assert await one.list(("top",)) == [Entry("kept", "directory")]
    await asyncio.to_thread(make_mutable, immutable)
    assert await one.remove_tree(("top",)) == 3
