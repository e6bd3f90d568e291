"""ledger.measuring: what lies in a directory is counted once, page by page."""

from __future__ import annotations

import pytest

from provisioner.core.locations import RelPath
from provisioner.ledger.measuring import Measured, measure
from provisioner.ports.tree import Cause, ExportError, Ownership, PathMissing
from tests.support.fakes.tree import MemoryTree
from tests.support.ledger_faults import opened


async def tree_with_files() -> MemoryTree:
    """Return a tree with three files in two directories, one of which has two names."""
    tree = MemoryTree()
    await tree.make_directory(("v", "inner"), Ownership())
    await tree.make_directory(("other",), Ownership())
    for path in (("v", "one"), ("v", "inner", "two"), ("v", "inner", "three"), ("other", "four")):
        tree.write_file(path, b"x" * 100)
    one, inner = await tree.files.look(("v", "one")), await tree.files.look(("v", "inner"))
    await tree.files.link(one, inner, "one-again")
    return tree


async def measured(tree: MemoryTree, path: RelPath = ("v",)) -> Measured:
    """Return the last value of a walk."""
    return [found async for found in measure(tree, path)][-1]


async def test_everything_counts_once() -> None:
    """All objects below the directory count, one with two names once, and nothing outside of it."""
    tree = await tree_with_files()
    found = await measured(tree)
    directories = (await tree.files.look(("v",))).used_bytes + (await tree.files.look(("v", "inner"))).used_bytes
    files = sum(
        [(await tree.files.look(("v", *path))).used_bytes for path in (("one",), ("inner", "two"), ("inner", "three"))]
    )
    assert (found.files, found.used_bytes, found.closed) == (5, directories + files, 0)


async def test_page_by_page() -> None:
    """Each page is a value of its own, through the export too, so that the caller can pause or stop."""
    tree = await tree_with_files()
    tree.files.page_items = 1
    pages = [found async for found in (await opened(tree)).measure(("v",))]
    assert [found.seen for found in pages] == [1] * 6
    assert pages[-1] == await measured(tree)


@pytest.mark.parametrize(("cause", "closed"), [(Cause.DENIED, 1), (Cause.NOT_FOUND, 0)])
async def test_a_directory_that_cannot_be_read(cause: Cause, closed: int) -> None:
    """A closed directory is reported, one that is gone is not; the rest counts."""
    tree = await tree_with_files()

    async def refuse(call: str, path: RelPath) -> None:
        if (call, path) == ("page", ("v", "inner")):
            raise ExportError(cause, "inner")

    tree.before = refuse
    found = await measured(tree)
    assert (found.files, found.closed) == (3, closed)


async def test_an_export_that_fails() -> None:
    """A failure of the export ends the walk, and so does a missing directory."""
    tree = await tree_with_files()
    with pytest.raises(PathMissing):
        await measured(tree, ("nothere",))

    async def hang(call: str, path: RelPath) -> None:
        if call == "page":
            raise ExportError(Cause.UNREACHABLE, "no answer")

    tree.before = hang
    with pytest.raises(ExportError):
        await measured(tree)
