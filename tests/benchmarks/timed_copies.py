"""Times copies of the daemon's engine over its own NFS client; runs in a virtual machine too, with the product only.

`python -m tests.benchmarks.timed_copies HOST PORT MOUNT_PORT ROUNDS EXPORT VERSION SOURCE` prints seconds, and how much
space the last copy took, in bytes.
"""

from __future__ import annotations

import asyncio
import sys
import time

from provisioner.core.locations import location
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Ownership

_TIMEOUT_S = 60.0


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


async def _main(host: str, port: str, mount_port: str, rounds: str, export: str, version: str, source: str) -> None:
    tree = opened(host, int(port), int(mount_port), export, version)
    await tree.root_id()
    took_s, used_bytes = await timed(tree, source, int(rounds))
    print(*(f"{each:.3f}" for each in took_s), used_bytes, flush=True)
    await tree.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
