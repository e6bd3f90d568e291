"""mounted: endless directories and trees of any shape need bounded memory and end with a clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import pytest

from provisioner.mounted.tree import MountedTree
from provisioner.ports import endless
from provisioner.ports.tree import Cause, Entry, ExportError

pytestmark = pytest.mark.timeout(120)


class Seen:
    """A directory entry that no longer exists."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_symlink(self) -> bool:
        """See os.DirEntry."""
        return False

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        """See os.DirEntry."""
        return False


@pytest.fixture
async def tree(tmp_path: pathlib.Path) -> AsyncIterator[MountedTree]:
    """A tree on tmp_path, with a directory `some`."""
    (tmp_path / "some").mkdir()
    made = MountedTree(str(tmp_path), require_mount=False, timeout_s=1.0)
    yield made
    await made.close()


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[Any]], None]:
    """Make the kernel return these entries for every directory."""

    def give(entries: Iterator[Any]) -> None:
        @contextlib.contextmanager
        def scandir(_: int) -> Iterator[Iterator[Any]]:
            yield entries

        monkeypatch.setattr(os, "scandir", scandir)

    return give


def names() -> Iterator[Seen]:
    """Endless entries."""
    return (Seen(f"name-{number}") for number in count())


def broken_off() -> Iterator[Seen]:
    """An entry, and then the error of the kernel's NFS client for a server that repeats a position."""
    yield Seen("first")
    raise OSError(errno.ELOOP, "Too many levels of symbolic links")


async def test_an_endless_list_fails(
    tree: MountedTree, scanned: Callable[[Iterator[Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of an endless directory fails with a clear error; a list with a limit returns that many entries."""
    monkeypatch.setattr(endless, "LISTING_LIMIT", 1000)
    scanned(names())
    with pytest.raises(ExportError) as caught:
        await tree.list(("some",))
    assert caught.value.cause is Cause.OTHER
    assert "directory some has more than 1,000 entries, or has no end" in caught.value.advice
    assert len(await tree.list(("some",), at_most=50)) == 50


async def test_eloop_in_a_directory_is_a_readdir_loop(
    tree: MountedTree, scanned: Callable[[Iterator[Any]], None]
) -> None:
    """ELOOP in the middle of a directory is reported as a readdir loop by lists and removals."""
    for call in (tree.list(("some",)), tree.remove_tree(("some",))):
        scanned(broken_off())
        with pytest.raises(ExportError) as caught:
            await call
        assert caught.value.cause is Cause.OTHER
        assert "repeats a directory position (readdir loop) in directory some" in caught.value.advice


async def test_entries_that_never_exist_end_a_removal(
    tree: MountedTree, scanned: Callable[[Iterator[Any]], None]
) -> None:
    """A directory that keeps listing entries that do not exist ends a removal with a clear error."""
    scanned(names())
    with pytest.raises(ExportError) as caught:
        await tree.remove_tree(("some",))
    assert "directory some lists entries that do not exist" in caught.value.advice


def level_by_level(top: pathlib.Path) -> None:
    """Ten levels of 200 empty directories, of which one is the next level."""
    for _ in range(10):
        top.mkdir()
        for number in range(200):
            (top / f"{number:03}-{'x' * 100}").mkdir()
        top = top / "below"


def side_by_side(top: pathlib.Path) -> None:
    """A directory with 2,000 empty directories."""
    for number in range(2000):
        (top / f"{number:04}-{'x' * 100}").mkdir(parents=True)


@pytest.mark.parametrize("shape", [level_by_level, side_by_side])
async def test_a_removal_holds_few_entries(tmp_path: pathlib.Path, shape: Callable[[pathlib.Path], None]) -> None:
    """A removal of 2,000 directories in any arrangement holds a few entries at a time."""
    shape(tmp_path / "gone")
    tree = MountedTree(str(tmp_path), require_mount=False, timeout_s=60.0)
    tracemalloc.start()
    assert await tree.remove_tree(("gone",)) > 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    await tree.close()
    assert peak < 256 << 10


async def test_a_list_with_a_limit(tree: MountedTree) -> None:
    """A list with a limit returns all entries if there are fewer."""
    assert await tree.list((), at_most=5) == [Entry("some", "directory")]
