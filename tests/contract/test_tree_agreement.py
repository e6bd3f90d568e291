"""The fake and the mounted driver agree: any sequence of calls has the same results and the same tree."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.core.locations import RelPath
from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import ExportError, MakeDirectory, MakeSymlink, MoveSymlink, Ownership, Rename, Tree
from tests.contract.sites import LocalSite, MemorySite, Seen, Site

pytestmark = pytest.mark.timeout(120)

Step = tuple[str, Callable[[Site], Awaitable[object]]]

names = st.sampled_from(["a", "b", "c"])
paths: st.SearchStrategy[RelPath] = st.lists(names, max_size=3).map(tuple)
below: st.SearchStrategy[RelPath] = st.lists(names, min_size=1, max_size=3).map(tuple)
accesses = st.builds(Ownership, mode=st.sampled_from([0o700, 0o755, 0o777, 0o1777]))
targets = st.sampled_from(["a", "b/c", "../a", "/", ".", "nowhere"])


def call(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Make a call of the port."""
    return st.tuples(*arguments).map(lambda given: (f"{name}{given}", lambda site: getattr(site.tree, name)(*given)))


def deed(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    """Make a change as a tenant, if the path is free and the parent is a directory."""

    async def do(site: Site, path: RelPath, text: str) -> None:
        for depth in range(len(path)):
            parent = await site.look(path[:depth])
            if parent is None or parent.type != "directory":
                return
        if await site.look(path) is None:
            await getattr(site, name)(path, text)

    return st.tuples(*arguments).map(lambda given: (f"tenant {name}{given}", lambda site: do(site, *given)))


changes = st.one_of(
    st.builds(MakeDirectory, below, accesses),
    st.builds(MakeSymlink, below, targets),
    st.builds(MoveSymlink, below, below, st.booleans()),
    st.builds(Rename, below, below),
)


steps = st.one_of(
    call("carry_out", changes, changes, changes),
    call("make_directory", paths, accesses),
    call("set_access", below, accesses),
    call("rename", below, below),
    call("remove_directory", below),
    call("make_symlink", below, targets),
    call("move_symlink", below, below),
    call("read_symlink", below),
    call("remove_symlink", below),
    call("list", paths),
    call("read_symlinks", paths, st.lists(names, min_size=1, max_size=3)),
    call("is_empty", paths),
    call("remove_tree", below),
    deed("plant_symlink", below, targets),
    deed("write_file", below, st.just("text")),
)


async def outcome(made: Awaitable[object]) -> object:
    """Return a result (lists without order), or what an error says."""
    try:
        result = await made
    except ExportError as exc:
        return type(exc), exc.cause, exc.done
    return sorted(result, key=repr) if isinstance(result, list) else result


async def whole(site: Site, tree: Tree, path: RelPath = ()) -> dict[RelPath, Seen | None]:
    """Return the content of a tree, without owners."""
    found: dict[RelPath, Seen | None] = {}
    for entry in await tree.list(path):
        place = (*path, entry.name)
        seen = await site.look(place)
        assert seen is not None
        found[place] = Seen(seen.type, seen.mode, text=seen.text)
        if entry.type == "directory":
            found |= await whole(site, tree, place)
    return found


async def compare(sequence: list[Step], root: pathlib.Path) -> None:
    """Run every step on both, and compare the outcomes and the final trees."""
    mounted = MountedTree(str(root), require_mount=False, timeout_s=30.0)
    fake, real = MemorySite(), LocalSite(mounted, root)
    try:
        for label, do in sequence:
            assert (label, await outcome(do(fake))) == (label, await outcome(do(real)))
        assert await whole(fake, fake.tree) == await whole(real, real.tree)
    finally:
        await mounted.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_the_fake_agrees_with_the_file_system(sequence: list[Step]) -> None:
    """Any sequence of calls and tenant changes has the same outcomes in memory and in a local directory."""
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(compare(sequence, pathlib.Path(root)))
