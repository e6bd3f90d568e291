"""Removing trees that are wide, deep, or not all ours."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest

from provisioner.nfs.direct.servers import Servers
from provisioner.nfs.protocol.rpc import Identity
from provisioner.ports import Cause, Entry, ExportError
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
    somebody = Servers(Identity(uid=1000, gid=1000), timeout_s=TIMEOUT_S)
    one = tree(version=version, registry=somebody)
    with pytest.raises(ExportError) as caught:
        await one.remove_tree(("top",))
    assert caught.value.cause is Cause.DENIED
    assert await one.list(("top",)) == [Entry("theirs", "directory")]
    assert len(await one.list(("top", "theirs"))) == 3
