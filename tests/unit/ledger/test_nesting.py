"""ledger.nesting: exports in exports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.fakes.tree import Directory, MemoryTree

PLAIN = Ownership()


def inside(outer: MemoryTree, *path: str) -> MemoryTree:
    """A directory of an export as an export itself."""
    tree, directory = MemoryTree(), outer.root
    for name in path:
        below = directory.entries.setdefault(name, Directory())
        assert isinstance(below, Directory)
        directory = below
    tree.root = directory
    tree.outer = [("nas:/exports", outer, path)]
    return tree


async def opened(tree: MemoryTree) -> Export:
    export = Export(Location("nas", "/exports"), tree)
    await export.open()
    return export


async def made(export: Export, directory: str) -> str:
    name = f"pvc-{directory.replace('/', '-')}"
    await export.provision(name, samples.record(directory, claim_uid=directory), PLAIN)
    await export.settle(name)
    return name


@pytest.mark.parametrize("directory", ["team/db", "team/db/inside", "team/db/inside/more"])
async def test_another_exports_root_on_the_way(directory: str) -> None:
    """A directory below another export's root is refused, and the attempt leaves nothing behind."""
    outer = MemoryTree()
    await made(await opened(inside(outer, "team")), "db")
    export = await opened(outer)
    with pytest.raises(PathTaken, match=r"'team' has a \.provisioner in it"):
        await export.provision("pvc-x", samples.record(directory), PLAIN)
    assert export.records == {}
    assert outer.look((LEDGER, "pending", "pvc-x")) is None
    assert outer.look(("team", "db", "inside")) is None
    await made(export, "teams/db")


async def test_a_peers_volume_within_another_export() -> None:
    """A volume of another provisioner is not taken over if its directory lies in another export."""
    outer = MemoryTree()
    await opened(inside(outer, "team"))
    export = await opened(outer)
    refused = await export.take_over({"a": samples.record("team/old"), "b": samples.record("old")})
    assert list(refused) == ["a"]
    assert list(export.records) == ["b"]


async def test_another_exports_root_that_is_handed_over() -> None:
    """A directory that is another export's root cannot become a volume's."""
    outer = MemoryTree()
    await opened(inside(outer, "team"))
    export = await opened(outer)
    with pytest.raises(PathTaken, match="it is the root of another export: choose another directory"):
        await export.vet("pvc-x", samples.record("team"))
    await export.vet("pvc-x", samples.record("teams"))


@pytest.mark.parametrize(
    ("volume", "root"), [("team", ("team",)), ("team", ("team", "share")), ("a/b", ("a", "b", "c"))]
)
async def test_a_root_in_a_volume(volume: str, root: RelPath) -> None:
    """An export whose root lies in a volume of the export above it is refused, and gets no ledger."""
    outer = MemoryTree()
    await made(await opened(outer), volume)
    tree = inside(outer, *root)
    with pytest.raises(ExportError) as caught:
        await opened(tree)
    assert caught.value.cause is Cause.INSIDE
    assert "nas:/exports" in caught.value.advice
    assert tree.root.entries == {}


async def test_a_root_in_an_archive_or_a_ledger() -> None:
    """An export whose root lies in an archive, or in the ledger, of the export above it is refused."""
    outer = MemoryTree()
    export = await opened(outer)
    archive = await export.archive(await made(export, "old"), datetime(2026, 1, 1, tzinfo=UTC))
    assert archive is not None
    for root in ((archive,), (archive, "share"), (LEDGER, "trash", "x")):
        with pytest.raises(ExportError) as caught:
            await opened(inside(outer, *root))
        assert caught.value.cause is Cause.INSIDE
    await opened(inside(outer, "archived-by-hand"))


async def test_volumes_of_the_export_above() -> None:
    """A directory that the export above has handed out is refused, as long as the record above exists."""
    outer = MemoryTree()
    above = await opened(outer)
    volume = await made(above, "team/db")
    export = await opened(inside(outer, "team"))
    for directory in ("db", "db/inside"):
        with pytest.raises(PathTaken, match=f"{volume} of export nas:/exports"):
            await export.provision("pvc-x", samples.record(directory), PLAIN)
    await made(export, "dbs")
    await above.move_to_trash(volume)
    await above.forget(volume)
    await made(export, "db")


async def test_a_parent_that_cannot_be_looked_at() -> None:
    """If the server shows nothing above a root, the export is used as one that lies in no other."""

    async def refuses(_call: str, _path: RelPath) -> None:
        raise ExportError(Cause.DENIED)

    outer = MemoryTree()
    tree = inside(outer, "team")
    outer.before = refuses
    await made(await opened(tree), "db")


async def test_an_export_above_that_fails() -> None:
    """An error of the export above names that export, and keeps its cause."""
    outer = MemoryTree()
    await made(await opened(outer), "other")
    tree = inside(outer, "team")

    async def fails(call: str, _path: RelPath) -> None:
        if call == "list":
            raise ExportError(Cause.UNREACHABLE, "timed out", hint="see that it runs")

    outer.before = fails
    with pytest.raises(ExportError) as caught:
        await opened(tree)
    assert caught.value.cause is Cause.UNREACHABLE
    assert "the error is of export nas:/exports," in caught.value.event_message("nas:/exports/team")
    assert "see that it runs" in caught.value.advice
    assert "export nas:/exports: timed out" in str(caught.value)
