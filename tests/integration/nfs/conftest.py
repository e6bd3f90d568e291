"""A Ganesha server for each test, and trees on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from testbed import ganesha
from testbed.ganesha import Export, Ganesha

TIMEOUT_S = 3.0

MakeTree = Callable[..., DirectTree]


# A version without sessions and one with them are tested on each change; `make test-all` has all versions.
@pytest.fixture(params=["3", "4.1", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("4.0", "4.2"))])
def version(request: pytest.FixtureRequest) -> str:
    """All NFS versions."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Ganesha]:
    """A server in all versions with exports of every kind; skips the test if no server can run."""
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(tmp_path)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    directories = {name: tmp_path / name for name in ("plain", "squashed", "readonly")}
    for directory in directories.values():
        directory.mkdir()
    exports = [
        Export(directories["plain"], "/plain"),
        Export(directories["squashed"], "/squashed", squash="Root_Squash"),
        Export(directories["readonly"], "/readonly", access="RO"),
    ]
    with Ganesha(exports, versions=(3, 4)) as running:
        yield running


@pytest.fixture
async def pool() -> ConnectionPool:
    """The connection pool of a process that acts as root."""
    return ConnectionPool(Credentials(), timeout_s=TIMEOUT_S)


@pytest.fixture
async def tree(server: Ganesha, pool: ConnectionPool) -> AsyncIterator[MakeTree]:
    """A function that creates trees by export path and version; they are closed after the test."""
    made: list[DirectTree] = []

    def make(path: str = "/plain", *, version: str | None = None, registry: ConnectionPool = pool) -> DirectTree:
        made.append(
            DirectTree(
                location("127.0.0.1", path), registry, version=version, port=server.port, mount_port=server.mount_port
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()
