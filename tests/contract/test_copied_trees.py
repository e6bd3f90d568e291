"""Copies of large mixed trees: each server and NFS version gives a tree that equals its source.

The trees are planted and compared behind the back of the driver, on the server's own file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest
from _pytest.mark.structures import ParameterSet

from provisioner.core.locations import RelPath, location
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.mounted.tree import MountedTree
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Ownership, PathExists, PathMissing, Tree
from testbed import vm
from testbed.vm import KernelServer
from tests.contract import trees_direct
from tests.support.planting import differences, plant_many

pytestmark = pytest.mark.timeout(900)

XFS, EXT4 = "/srv/xfs", vm.EXT4
OPTIONS = "rw,async,no_root_squash,insecure"
VERSIONS = ("3", "4.0", "4.1", "4.2")
MANY, SOME = 20_000, 1_000
EACH_CHANGE = {"mounted", "ganesha-4.2", "ganesha-3"}
"""The others take longer than a minute; `make test-all` has them."""

_SERVER = pytest.StashKey[KernelServer]()


class Ground(Protocol):
    """An empty export, and the server's own side of it."""

    tree: Tree

    async def plant(self, name: str, entries: int) -> None:
        """Create a tree of mixed entries."""
        ...

    async def compare(self, one: str, other: str) -> list[str]:
        """Return how many entries a tree has, and how a copy of it differs."""
        ...


class LocalGround:
    """An export that is a directory of this machine."""

    def __init__(self, tree: Tree, root: Path, *, mounted: bool) -> None:
        self.tree = tree
        self._root = root
        self._mounted = mounted

    async def plant(self, name: str, entries: int) -> None:
        """See `Ground`."""
        await asyncio.to_thread(plant_many, self._root / name, entries)

    async def compare(self, one: str, other: str) -> list[str]:
        """See `Ground`; NFS-Ganesha has no extended attributes, and does not set the times of symlinks."""
        flags = {"symlink_times": self._mounted, "attributes": self._mounted}
        return await asyncio.to_thread(functools.partial(differences, self._root / one, self._root / other, **flags))


class KernelGround:
    """An export of the virtual machine, where `planter` does the work."""

    _numbers = itertools.count()

    def __init__(self, tree: DirectTree, version: str) -> None:
        self.tree: Tree = tree
        self._attributes = version == "4.2"

    async def plant(self, name: str, entries: int) -> None:
        """See `Ground`."""
        assert await self._ask("plant", name, entries) == "planted"

    async def compare(self, one: str, other: str) -> list[str]:
        """See `Ground`."""
        return (await self._ask("compare", one, other, True, self._attributes)).split("\n")

    async def _ask(self, *question: object) -> str:
        name = f"{next(self._numbers)}-{secrets.token_hex(4)}"
        with contextlib.suppress(PathExists):  # the planter has not begun yet
            await self.tree.make_directory(("asks",), Ownership(mode=0o755))
        await self.tree.make_symlink(("asks", name), json.dumps(question))
        while True:
            with contextlib.suppress(PathMissing):
                return await self.tree.read_symlink(("answers", name))
            await asyncio.sleep(0.2)


Factory = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Ground]]


@contextlib.asynccontextmanager
async def mounted(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """The driver for mounted exports, on a local directory."""
    root: Path = request.getfixturevalue("tmp_path")
    tree = MountedTree(str(root), require_mount=False, timeout_s=60.0)
    try:
        yield LocalGround(tree, root, mounted=True)
    finally:
        await tree.close()


def _ganesha(version: str) -> Factory:
    @contextlib.asynccontextmanager
    async def ganesha(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
        direct = next(each for each in trees_direct.FACTORIES if each.__name__ == f"direct-{version}")
        async with direct(request) as site:
            assert site.local is not None
            yield LocalGround(site.tree, site.local, mounted=False)

    ganesha.__name__ = f"ganesha-{version}"
    return ganesha


def _kernel(name: str, export: str, version: str) -> Factory:
    @contextlib.asynccontextmanager
    async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
        server = _server(request)
        tree = DirectTree(
            location("127.0.0.1", export),
            ConnectionPool(Credentials(), timeout_s=60.0),
            version=version,
            port=server.port,
            mount_port=server.mount_port,
        )
        try:
            yield KernelGround(tree, version)
        finally:
            await tree.close()

    kernel.__name__ = f"{name}-{version}"
    return kernel


def _server(request: pytest.FixtureRequest) -> KernelServer:
    """Return the session's server; skips the test if no server can run."""
    stash = request.config.stash
    if _SERVER not in stash:
        if reason := vm.missing():
            pytest.skip(f"this machine cannot run the kernel's NFS server: {reason}")
        names = ("tests/support/planter.py", "tests/support/planting.py")
        files = {f"product/{name}": Path(__file__).parents[2].joinpath(name).read_bytes() for name in names}
        server = KernelServer(
            {XFS: OPTIONS, EXT4: OPTIONS},
            beside=f"PYTHONPATH=/product /usr/bin/python3 -m tests.support.planter {XFS} {EXT4}\n",
            files=files,
            ext4=True,
        )
        request.config.add_cleanup(server.stop)
        server.start()
        stash[_SERVER] = server
    return stash[_SERVER]


FACTORIES = [
    mounted,
    *map(_ganesha, VERSIONS),
    *(_kernel("xfs", XFS, version) for version in VERSIONS),
    *(_kernel("ext4", EXT4, version) for version in VERSIONS),
]


def _params() -> list[ParameterSet]:
    return [
        pytest.param(
            (factory, entries),
            id=f"{factory.__name__}-{entries}",
            marks=[] if entries == SOME and factory.__name__ in EACH_CHANGE else [pytest.mark.thorough],
        )
        for factory in FACTORIES
        for entries in ([SOME, MANY] if factory.__name__ in EACH_CHANGE else [MANY])
    ]


@pytest.mark.parametrize("ground", _params())
async def test_a_large_copy_equals_its_source(request: pytest.FixtureRequest, ground: tuple[Factory, int]) -> None:
    """A copy has all entries of its source, each with all that a copy keeps, and its holes take no space."""
    factory, entries = ground
    async with factory(request) as made:
        source, target = f"source-{secrets.token_hex(4)}", f"target-{secrets.token_hex(4)}"
        await made.plant(source, entries)
        progress = await copy(made.tree, (source,), (target,))
        found = await made.compare(source, f"{target}/tree")
        assert len(found) == 1, "\n".join(found[:20])
        assert (progress.left_out, progress.vanished, progress.trouble) == (0, 0, "")
        for name in (source, target):
            await made.tree.remove_tree((name,))


async def copy(tree: Tree, source: RelPath, target: RelPath) -> Progress:
    """Copy a tree within its export."""
    progress = Progress()
    await tree.make_directory(target, Ownership(mode=0o700))
    await TreeCopy(tree, tree, progress, allows=lambda: True).run(source, target)
    return progress
