"""Times copies of the daemon's engine over its own NFS client; runs in a virtual machine too, with the product only.

`python -m tests.benchmarks.timed_copies HOST PORT MOUNT_PORT ROUNDS EXPORT VERSION SOURCE` prints seconds, and how much
space the last copy took, in bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator

from provisioner.core.locations import location
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.files import Item
from provisioner.ports.tree import Ownership

_TIMEOUT_S = 60.0
_WRITES = 16


def opened(host: str, port: int, mount_port: int, export: str, version: str) -> DirectTree:
    """Return an export of the server."""
    pool = ConnectionPool(Credentials(), timeout_s=_TIMEOUT_S)
    return DirectTree(location(host, export), pool, version=version, port=port, mount_port=mount_port)


async def timed(tree: DirectTree, source: str, rounds: int) -> tuple[list[float], int]:
    """Copy a tree several times; return the seconds of each, and the space that the last copy took."""
    took_s: list[float] = []
    used_bytes = 0
    for number in range(rounds):
        await asyncio.sleep(3)  # what was removed before is free
        target = f"copy-{number}-{time.monotonic_ns()}"
        await tree.make_directory((target,), Ownership(mode=0o700))
        before = (await tree.space()).free_bytes
        began_s = time.monotonic()
        await TreeCopy(tree, tree, Progress(), allows=lambda: True).run((source,), (target,))
        took_s.append(time.monotonic() - began_s)
        used_bytes = before - (await tree.space()).free_bytes
        await tree.remove_tree((target,))
    return took_s, used_bytes


async def plant(tree: DirectTree, name: str, files: int, size_bytes: int, content: bytes) -> None:
    """Create a directory with files of this size, a hundred in each directory below it."""
    await tree.make_directory((name,), Ownership(mode=0o755))
    for first in range(0, files, 100):
        await tree.make_directory((name, str(first)), Ownership(mode=0o755))
        parent = await tree.files.look((name, str(first)))
        pieces = _pieces(min(100, files - first), size_bytes, tree.files.chunk_bytes)
        made: dict[int, Item] = {}
        for batch in iter(lambda: [*itertools.islice(pieces, _WRITES)], []):  # noqa: B023
            for number, _, _ in batch:
                if number not in made:
                    made[number] = await tree.files.make(parent, str(number), "file")
            async with asyncio.TaskGroup() as group:
                for number, begin, length in batch:
                    data = content[begin % (1 << 20) :][:length]
                    group.create_task(tree.files.write(made[number], begin, data, stable=False))
        for file in made.values():
            await tree.files.flush(file)


def _pieces(files: int, size_bytes: int, chunk_bytes: int) -> Iterator[tuple[int, int, int]]:
    for number in range(files):
        for begin in range(0, size_bytes, chunk_bytes):
            yield number, begin, min(chunk_bytes, size_bytes - begin)


async def _main(host: str, port: str, mount_port: str, rounds: str, export: str, version: str, source: str) -> None:
    tree = opened(host, int(port), int(mount_port), export, version)
    await tree.root_id()
    took_s, used_bytes = await timed(tree, source, int(rounds))
    print(*(f"{each:.3f}" for each in took_s), used_bytes, flush=True)
    await tree.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
