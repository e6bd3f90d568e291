"""Which directories are there: right in any case, and for few calls."""

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
    """Of a hundred directories of one parent, one is listed and only the missing ones are looked up."""
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
    """All that was in it is missing."""
    paths = [("gone", str(number)) for number in range(9)]
    assert await presence.missing(await made(), paths) == set(paths)


async def test_what_is_something_else() -> None:
    """A symlink in a directory's place, or in its parent's, is not for us to call missing."""
    tree = await made("real")
    tree.plant_symlink(("link",), "real")
    assert await presence.missing(tree, [("link",), ("link", "below")]) == set()
    assert await presence.missing(tree, [("link", str(number)) for number in range(9)]) == set()


@pytest.mark.parametrize("number", [1, 9])
async def test_an_export_that_does_not_answer(number: int) -> None:
    """Nothing is said of it."""
    tree = await made()

    async def silent(_call: str, _path: tuple[str, ...]) -> None:
        raise ExportError(Cause.UNREACHABLE)

    tree.before = silent
    with pytest.raises(ExportError):
        await presence.missing(tree, [("a", str(each)) for each in range(number)])
