"""Sites for the contract of `Tree`: the tree, and direct access to its export for tenants and admins."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import pytest

from provisioner.core.locations import RelPath
from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import EntryType, Tree
from tests.support.fakes.tree import Directory, File, MemoryTree, Symlink, type_of


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry seen by a tenant; directories have mode and owner, links and files have text."""

    type: EntryType
    mode: int = 0
    uid: int = 0
    gid: int = 0
    text: str = ""


class Site(Protocol):
    """An empty export with a tree."""

    tree: Tree
    local: pathlib.Path | None
    """Where the export's root is on this machine, for tests that need a thread of their own behind the tree's back."""
    owners: bool
    """Whether the site permits chown."""

    async def write_file(self, path: RelPath, text: str) -> None:
        """Write a file, as a tenant."""
        ...

    async def plant_symlink(self, path: RelPath, target: str) -> None:
        """Create a symlink, as a tenant."""
        ...

    async def look(self, path: RelPath) -> Seen | None:
        """Return the entry at a path, or None."""
        ...


Factory = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Site]]
"""Makes a site for one test; its `__name__` is the test's parameter. The request gives it fixtures, e.g. a server."""


class MemorySite:
    """A site in memory."""

    def __init__(self) -> None:
        self.memory = MemoryTree()
        self.tree: Tree = self.memory
        self.local: pathlib.Path | None = None
        self.owners = True

    async def write_file(self, path: RelPath, text: str) -> None:
        """See `Site`."""
        self.memory.write_file(path, text.encode())

    async def plant_symlink(self, path: RelPath, target: str) -> None:
        """See `Site`."""
        self.memory.plant_symlink(path, target)

    async def look(self, path: RelPath) -> Seen | None:
        """See `Site`."""
        match self.memory.look(path):
            case None:
                return None
            case Directory() as node:
                return Seen("directory", node.mode, node.uid, node.gid)
            case Symlink() as node:
                return Seen(type_of(node), text=node.target)
            case File() as node:
                return Seen(type_of(node), text=node.content.decode())


class LocalSite:
    """A site whose export is a local directory."""

    def __init__(self, tree: Tree, local: pathlib.Path) -> None:
        self.tree = tree
        self.root = local
        self.local: pathlib.Path | None = local
        self.owners = os.geteuid() == 0

    async def write_file(self, path: RelPath, text: str) -> None:
        """See `Site`."""
        self.root.joinpath(*path).write_text(text)

    async def plant_symlink(self, path: RelPath, target: str) -> None:
        """See `Site`."""
        self.root.joinpath(*path).symlink_to(target)

    async def look(self, path: RelPath) -> Seen | None:
        """See `Site`."""
        return look(self.root.joinpath(*path))


def look(place: pathlib.Path) -> Seen | None:
    """Return the entry at a local path."""
    try:
        seen = place.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(seen.st_mode):
        return Seen("directory", stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid)
    if stat.S_ISLNK(seen.st_mode):
        return Seen("symlink", text=os.readlink(place))
    return Seen("file", text=place.read_text())


@contextlib.asynccontextmanager
async def memory(_request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """The fake."""
    yield MemorySite()


@contextlib.asynccontextmanager
async def mounted(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """The driver for mounted exports, on a local directory."""
    root: pathlib.Path = request.getfixturevalue("tmp_path")
    tree = MountedTree(str(root), require_mount=False, timeout_s=30.0)
    try:
        yield LocalSite(tree, root)
    finally:
        await tree.close()
