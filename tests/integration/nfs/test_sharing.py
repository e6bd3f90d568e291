"""Many exports in one process: one connection per server, and little memory."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Ownership
from testbed import ganesha
from testbed.ganesha import Export, Ganesha
from tests.support.connections import connections_to

pytestmark = pytest.mark.timeout(90)

EXPORTS = 200


@pytest.fixture
def many(tmp_path: Path) -> Ganesha:
    """A server with 200 exports, not yet started; skips the test if no server can run."""
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(tmp_path)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    for number in range(EXPORTS):
        (tmp_path / str(number)).mkdir()
    return Ganesha([Export(tmp_path / str(number), f"/many/{number}") for number in range(EXPORTS)], versions=(3, 4))


async def test_two_hundred_exports_on_one_connection(many: Ganesha, pool: ConnectionPool, version: str) -> None:
    """200 exports of one server share one connection and use less than 16 MiB; the last one closes the connection."""
    with many as server:
        tracemalloc.start()
        trees = [
            DirectTree(
                location("127.0.0.1", f"/many/{number}"),
                pool,
                version=version,
                port=server.port,
                mount_port=server.mount_port,
            )
            for number in range(EXPORTS)
        ]
        await asyncio.gather(*(tree.make_directory(("volume",), Ownership()) for tree in trees))
        assert connections_to(server.port) == 1
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 16 << 20
        tracemalloc.stop()
        assert len({await tree.root_id() for tree in trees}) == EXPORTS
        await asyncio.gather(*(tree.close() for tree in trees))
        await asyncio.sleep(0.1)
        assert connections_to(server.port) == 0
