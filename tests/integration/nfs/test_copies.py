"""Copies while the server restarts, hangs or drops connections: each goes on, and the copy equals its source.

Tenants plant on the server's disk, in a directory that the server has not seen before: it caches the others.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.locations import location
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from testbed.ganesha import Ganesha
from tests.integration.nfs.conftest import MakeTree
from tests.support.nfs.relay import Cut, relay_to
from tests.support.planting import found_in, plant

pytestmark = pytest.mark.timeout(180)

LARGE_BYTES = 48 << 20
CALLS_PER_CUT = 600
TIMEOUT_S = 3.0


def planted(server: Ganesha) -> Path:
    """Create a source with many small files and a large one; return the exported directory."""
    root = next(export.directory for export in server.exports if export.path == "/plain")
    plant(root / "source", files=800)
    (root / "source" / "huge").write_bytes(os.urandom(LARGE_BYTES))
    return root


async def copied(tree: DirectTree, root: Path, disturb: Callable[[Progress], Coroutine[Any, Any, None]]) -> Progress:
    """Copy the source while something disturbs the server, and compare."""
    progress = Progress()
    await tree.root_id()
    async with asyncio.TaskGroup() as group:
        disturbing = group.create_task(disturb(progress))
        await TreeCopy(tree, tree, progress, allows=lambda: True).run(("source",), ("target",))
        disturbing.cancel()
    assert found_in(root / "target" / "tree") == found_in(root / "source")
    assert (progress.left_out, progress.vanished, progress.trouble) == (0, 0, "")
    return progress


async def repeatedly(progress: Progress, do: Callable[[], Coroutine[Any, Any, None]], *, times: int) -> None:
    """Do something several times during a copy, after each further part of it."""
    for part in range(1, times + 1):
        # The copy counts, and signals nothing.
        while progress.entries < part * 150 and progress.size_bytes < part * LARGE_BYTES // (times + 1):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await do()


async def test_a_server_that_restarts(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A copy goes on after each crash of its server; what the server had not stored by then is written again."""
    root, done = planted(server), 0

    async def crash() -> None:
        nonlocal done
        server.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(server.start)
        done += 1

    await copied(tree(version=version), root, lambda progress: repeatedly(progress, crash, times=3))
    assert done


@pytest.mark.thorough
async def test_a_server_that_hangs(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A copy goes on after its server was silent for longer than the time limit, and has run some calls late."""
    root, done = planted(server), 0

    async def hang() -> None:
        nonlocal done
        server.pause()
        await asyncio.sleep(2 * TIMEOUT_S)
        server.resume()
        done += 1

    await copied(tree(version=version), root, lambda progress: repeatedly(progress, hang, times=1))
    assert done


async def test_connections_that_are_lost(server: Ganesha, version: str) -> None:
    """A copy goes on after each loss of its connection, whether the server has seen the last call or not."""
    root, calls, cuts = planted(server), itertools.count(1), list[Cut]()

    def cut(_call: bytes) -> Cut | None:
        if next(calls) % CALLS_PER_CUT:
            return None
        cuts.append("before" if len(cuts) % 2 else "after")
        return cuts[-1]

    async with relay_to(server.port) as relay:
        relay.cut = cut
        pool = ConnectionPool(Credentials(), timeout_s=TIMEOUT_S)
        where = location("127.0.0.1", "/plain")
        tree = DirectTree(where, pool, version=version, port=relay.port, mount_port=server.mount_port)
        await copied(tree, root, lambda _: asyncio.sleep(0))
        await tree.close()
    assert len(cuts) >= 3
