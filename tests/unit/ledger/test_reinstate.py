"""ledger.reinstate: a volume's data come back out of the trash or an archive, and nothing is replaced."""

from __future__ import annotations

import pytest

from provisioner.core.locations import RelPath
from provisioner.ledger import reinstate
from provisioner.ledger.errors import AlreadyThere
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import Directory, File, MemoryTree

SOURCE: RelPath = ("archived-data",)
PLACES: list[RelPath] = [("data",), ("team", "data")]

each_place = pytest.mark.parametrize("path", PLACES, ids="/".join)


async def with_data() -> MemoryTree:
    """Return a tree with data that can come back."""
    tree = MemoryTree()
    await tree.make_directory(SOURCE, Ownership())
    tree.write_file((*SOURCE, "file"), b"data")
    return tree


@each_place
async def test_data_come_back(path: RelPath) -> None:
    """The directory gets its path, below parents that are created if missing; a second move changes nothing."""
    tree = await with_data()
    for _ in range(2):
        await reinstate.move(tree, SOURCE, path)
        assert tree.look((*path, "file")) == File(b"data")
        assert tree.look(SOURCE) is None


@each_place
async def test_data_in_their_place(path: RelPath) -> None:
    """A directory with content at the path stays, and so do the data that should come back."""
    tree = await with_data()
    await tree.make_directory(path, Ownership())
    tree.write_file((*path, "newer"), b"newer")
    with pytest.raises(AlreadyThere, match="data is never replaced"):
        await reinstate.move(tree, SOURCE, path)
    assert tree.look((*path, "newer")) == File(b"newer")
    assert tree.look((*SOURCE, "file")) == File(b"data")


@each_place
async def test_a_purge_between_the_look_and_the_rename(path: RelPath) -> None:
    """If the data go right before the rename, the error says so, and the path stays free."""
    tree = await with_data()

    async def purge(call: str, _path: RelPath) -> None:
        if call == "rename":
            await tree.remove_tree(SOURCE)

    tree.before = purge
    with pytest.raises(ExportError, match="does not exist any more") as caught:
        await reinstate.move(tree, SOURCE, path)
    assert caught.value.cause is Cause.RECORD
    assert not isinstance(tree.look(path), Directory)
