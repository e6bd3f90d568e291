"""ledger.aliases: two names of one export are recognized, and a copy of an export is refused."""

from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from provisioner.core.locations import Location
from provisioner.core.paths import LEDGER
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError
from tests.support.fakes.tree import Directory, MemoryTree, Symlink

BY_NAME, BY_ADDRESS = Location("nas", "/exports"), Location("10.0.0.5", "/exports")


def marks(tree: MemoryTree) -> list[str]:
    ledger = tree.look((LEDGER,))
    assert isinstance(ledger, Directory)
    return [name for name, node in ledger.entries.items() if isinstance(node, Symlink) and name.startswith("mark-")]


async def test_a_second_name_of_an_export() -> None:
    """Opening an export by a second name returns the object of the first name, and leaves no mark behind."""
    tree = MemoryTree()
    first, second = Export(BY_NAME, tree), Export(BY_ADDRESS, tree)
    assert await first.open(others=[first, second]) is first
    assert await second.open(others=[first, second]) is first
    assert (second.id, marks(tree)) == ("", [])
    assert await first.open(others=[first, second]) is first, "it is read again in each term"


async def test_two_names_that_are_opened_side_by_side() -> None:
    """Of two objects that are opened at the same time, both opens return the same one."""

    async def yielding(_call: str, _path: tuple[str, ...]) -> None:
        await asyncio.sleep(0)

    tree = MemoryTree(before=yielding, after=yielding)
    both = [Export(BY_NAME, tree), Export(BY_ADDRESS, tree)]
    one, other = await asyncio.gather(*(each.open(others=both) for each in both))
    assert one is other


async def test_exports_with_ids_of_their_own() -> None:
    """Two exports with different ids are two, and no mark is written to compare them."""
    trees = [MemoryTree(), MemoryTree()]
    first, second = (Export(Location("nas", f"/{number}"), tree) for number, tree in enumerate(trees))
    await first.open(others=[first, second])
    assert await second.open(others=[first, second]) is second
    assert first.id != second.id


async def test_a_copy_of_an_export() -> None:
    """A copy, with its ledger and id, is refused with the name of the other export, which stays usable."""
    tree, copied = MemoryTree(), MemoryTree(root_id="another server")
    original = Export(BY_NAME, tree)
    await original.open()
    copied.root = deepcopy(tree.root)
    copy = Export(BY_ADDRESS, copied)
    for _ in range(2):
        with pytest.raises(ExportError) as caught:
            await copy.open(others=[original, copy])
        assert caught.value.cause is Cause.COPY
        assert "nas:/exports" in caught.value.advice
        assert ".provisioner" in caught.value.advice
    assert (copy.id, marks(tree), marks(copied)) == ("", [], [])
    assert await original.open(others=[original, copy]) is original
    # As the advice says: remove the ledger of the copy.
    del copied.root.entries[LEDGER]
    assert await copy.open(others=[original, copy]) is copy


async def test_the_other_name_does_not_answer() -> None:
    """While the open export does not answer, nothing is decided: neither same nor copy."""
    tree, dead = MemoryTree(), MemoryTree()
    first, second = Export(BY_NAME, dead), Export(BY_ADDRESS, tree)
    dead.root = tree.root
    await first.open()

    async def silent(_call: str, _path: tuple[str, ...]) -> None:
        raise ExportError(Cause.UNREACHABLE)

    dead.before = silent
    with pytest.raises(ExportError) as caught:
        await second.open(others=[first, second])
    assert caught.value.cause is Cause.UNREACHABLE


async def test_another_name_that_does_not_answer() -> None:
    """If the export fails by its first name, opening it by the second one reports that the first one fails."""
    tree = MemoryTree()
    first, second = Export(BY_NAME, tree), Export(BY_ADDRESS, tree)
    await first.open(others=[first, second])

    async def fails(call: str, _path: tuple[str, ...]) -> None:
        if call == "make_symlink":
            raise ExportError(Cause.READ_ONLY)

    tree.before = fails
    with pytest.raises(ExportError) as caught:
        await second.open(others=[first, second])
    assert caught.value.cause is Cause.READ_ONLY
    assert f"the error is of export {BY_NAME}," in caught.value.event_message(str(BY_ADDRESS))
