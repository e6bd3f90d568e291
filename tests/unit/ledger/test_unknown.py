"""ledger.unknown: which directories have no owner, and how many calls the search costs."""

from __future__ import annotations

import pytest

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import PathIndex
from provisioner.core.records import encode
from provisioner.ledger.export import Export
from provisioner.ledger.unknown import unknown_directories
from provisioner.ports.tree import Cause, ExportError, Ownership, PathMissing
from tests.support import samples
from tests.support.fakes.tree import MemoryTree

PLAIN = Ownership(mode=0o755)


def index(*paths: str) -> PathIndex:
    """Return an index of known paths."""
    known = PathIndex()
    for path in paths:
        known.add(tuple(path.split("/")), path)
    return known


async def tree_of(*files: str, empty: tuple[str, ...] = ()) -> MemoryTree:
    """Return a tree with these files and these empty directories."""
    tree = MemoryTree()
    for directory in [*(file.rpartition("/")[0] for file in files), *empty]:
        path = tuple(directory.split("/"))
        if directory and tree.look(path) is None:
            await tree.make_directory(path, PLAIN)
    for file in files:
        tree.write_file(tuple(file.split("/")))
    return tree


async def test_only_unknown_directories() -> None:
    """A directory that is not empty is unknown unless it is known, leads to a known one, or lies below one."""
    tree = await tree_of(
        "shop/data/file", "shop/data/inner/file", "shop/old/file", "a/b/c/file", "a/b/x/deep/file", "lonely/file",
        "file", empty=("shop/empty", "void"),
    )  # fmt: skip
    found = await unknown_directories(tree, index("shop/data", "a/b/c"), limit=10)
    assert found == [("a", "b", "x"), ("lonely",), ("shop", "old")]


async def test_what_is_no_stray() -> None:
    """The ledger, archives, what servers put there, and files are not reported."""
    tree = await tree_of(
        ".provisioner/volumes/file", "archived-old/file", "lost+found/file", ".snapshot/hourly/file", "shop/@eaDir/file"
    )
    tree.plant_symlink(("link",), "/etc")
    assert await unknown_directories(tree, index("shop/data"), limit=10) == []


@pytest.mark.parametrize(
    "name",
    ["lost+found", ".snapshot", ".snapshots", ".zfs", "#snapshot", "#recycle", "@eaDir", "@tmp", "@Recycle",
     ".@__thumb", "@Recently-Snapshot", ".recycle", ".Recycle.Bin", ".Trash-1000", ".TemporaryItems", ".AppleDouble",
     ".etc", ".@upload_cache", "@sharebin", "~snapshot", ".ifsvar", "$RECYCLE.BIN", "System Volume Information",
     "Network Trash Folder", "Temporary Items", "aquota.user.d", ".of-a-future-nas", "@docker"],
)  # fmt: skip
async def test_what_a_nas_keeps_at_the_root(name: str) -> None:
    """What file servers and their clients keep at an export's root is not reported, and a known volume stays known."""
    tree = await tree_of(f"{name}/file", ".volumes/known/file", ".volumes/other/file")
    assert await unknown_directories(tree, index(".volumes/known"), limit=10) == [(".volumes", "other")]


async def test_an_archives_name_means_something_at_the_root_only() -> None:
    """Below the root a directory can have any name."""
    tree = await tree_of("shop/archived-x/file", "shop/.provisioner/file")
    assert await unknown_directories(tree, index("shop/data"), limit=10) == [
        ("shop", ".provisioner"),
        ("shop", "archived-x"),
    ]


async def test_what_it_costs() -> None:
    """The search costs one listing per directory on the way, one look per unknown one, and nothing below a volume."""
    tree = await tree_of("shop/data/inner/file", "shop/old/below/file", "a/b/c/d/file", "other/file")
    calls: list[tuple[str, RelPath]] = []

    async def count(call: str, path: RelPath) -> None:
        calls.append((call, path))

    tree.before = count
    await unknown_directories(tree, index("shop/data", "a/b/c"), limit=10)
    assert sorted(calls) == [
        ("is_empty", ("other",)), ("is_empty", ("shop", "old")),
        ("list", ()), ("list", ("a",)), ("list", ("a", "b")), ("list", ("shop",)),
    ]  # fmt: skip


async def test_not_more_than_that() -> None:
    """At most `limit` directories are returned."""
    tree = await tree_of(*(f"{number:03}/file" for number in range(100)))
    assert await unknown_directories(tree, index("shop/data"), limit=20) == [(f"{number:03}",) for number in range(20)]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (PathMissing("gone"), [("other",)]),
        (ExportError(Cause.SYMLINK), [("other",)]),
        (ExportError(Cause.DENIED), [("other",), ("shut",)]),
    ],
)
async def test_one_that_cannot_be_looked_into(error: ExportError, found: list[RelPath]) -> None:
    """A directory that denies access is reported, one that is gone is not, and the others are looked at."""
    tree = await tree_of("shut/file", "other/file", "way/old/file")

    async def refuse(call: str, path: RelPath) -> None:
        if path and path[0] in ("shut", "way"):
            raise error

    tree.before = refuse
    assert await unknown_directories(tree, index("way/data"), limit=10) == found


@pytest.mark.parametrize("call", ["list", "is_empty"])
async def test_an_export_that_fails(call: str) -> None:
    """An export that does not answer raises an error."""
    tree = await tree_of("other/file")

    async def fail(name: str, _path: RelPath) -> None:
        if name == call:
            raise ExportError(Cause.UNREACHABLE)

    tree.before = fail
    with pytest.raises(ExportError) as caught:
        await unknown_directories(tree, index("shop/data"), limit=10)
    assert caught.value.cause is Cause.UNREACHABLE


@pytest.mark.parametrize(("directory", "left"), [("held", True), ("empty", False), ("missing", False)])
async def test_whether_an_attempt_left_something(directory: str, left: bool) -> None:
    """An attempt has leftovers if its directory exists and is not empty; without a record there are none."""
    tree = await tree_of("held/file", empty=("empty",))
    export = Export(Location("nas", "/exports"), tree)
    await export.open()
    tree.plant_symlink((".provisioner", "pending", "v"), encode(samples.record(directory)))
    await export.open()
    assert await export.has_leftovers("v") is left
    assert not await export.has_leftovers("unheard-of")


async def test_strays_of_an_export() -> None:
    """An export returns its unknown directories, without its own ledger."""
    export = Export(Location("nas", "/exports"), await tree_of("held/file", "foreign/file"))
    await export.open()
    assert await export.unknown_directories(index("held"), limit=10) == [("foreign",)]
