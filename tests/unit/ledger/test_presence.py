"""ledger.presence: which directories are missing, with few calls."""

from __future__ import annotations

import pytest

from provisioner.ledger import presence
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import MemoryTree

PLAIN = Ownership(mode=0o755)


async def made(*paths: str) -> MemoryTree:
    tree = MemoryTree()
    for path in paths:
        await tree.make_directory(tuple(path.split("/")), PLAIN)
    return tree


async def test_many_of_one_parent_take_one_listing() -> None:
    """For a hundred directories of one parent, the parent is listed and only the missing ones are looked up."""
    there = [("all", str(number)) for number in range(100)]
    tree = await made(*("/".join(path) for path in there))
    calls: list[str] = []

    async def note(call: str, _path: tuple[str, ...]) -> None:
        calls.append(call)

    tree.before = note
    gone = {("all", "gone"), ("no-parent", "a")}
    assert await presence.missing(tree, [*there, *gone]) == gone
    assert sorted(calls) == ["is_empty", "is_empty", "list"]


async def test_a_parent_that_is_gone() -> None:
    """If the parent is gone, all its directories are missing."""
    paths = [("gone", str(number)) for number in range(9)]
    assert await presence.missing(await made(), paths) == set(paths)


async def test_what_is_something_else() -> None:
    """A symlink in the place of a directory or its parent does not count as missing."""
    tree = await made("real")
    tree.plant_symlink(("link",), "real")
    assert await presence.missing(tree, [("link",), ("link", "below")]) == set()
    assert await presence.missing(tree, [("link", str(number)) for number in range(9)]) == set()


@pytest.mark.parametrize("number", [1, 9])
async def test_an_export_that_does_not_answer(number: int) -> None:
    """An export that does not answer raises an error."""
    tree = await made()

    async def silent(_call: str, _path: tuple[str, ...]) -> None:
        raise ExportError(Cause.UNREACHABLE)

    tree.before = silent
    with pytest.raises(ExportError):
        await presence.missing(tree, [("a", str(each)) for each in range(number)])
