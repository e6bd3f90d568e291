"""Script of test_unprivileged, as UID 65534: Ganesha with a MEM file system, and a tree in each NFSv4 version."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from provisioner.core.locations import location
from provisioner.nfs.client.connect import Endpoint, dial
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Entry, Ownership
from testbed.ganesha import Export, Ganesha


async def use(port: int, version: str) -> None:
    """Run every operation of a tree once; print the version and whether the source port is below 1024."""
    tree = DirectTree(
        location("127.0.0.1", "/mem"), ConnectionPool(Credentials(), timeout_s=10), version=version, port=port
    )
    await tree.make_directory(("a", "b"), Ownership(mode=0o777, uid=65534, gid=65534))
    await tree.set_access(("a", "b"), Ownership(mode=0o755))
    await tree.rename(("a", "b"), ("c",))
    await tree.make_symlink(("a", "record"), "text")
    assert await tree.read_symlinks(("a",), ["record", "gone"]) == {"record": "text"}
    await tree.move_symlink(("a", "record"), ("c", "record"))
    assert await tree.read_symlink(("c", "record")) == "text"
    assert await tree.list(("c",)) == [Entry("record", "symlink")]
    await tree.remove_symlink(("c", "record"))
    await tree.remove_directory(("c",))
    assert await tree.remove_tree(("a",)) == 1
    assert await tree.is_empty(())
    await tree.space()
    await tree.close()
    transport = await dial(Endpoint("127.0.0.1", port, 100003, 4), Resolver(), timeout_s=10)
    print(f"{version} reserved={transport.reserved}")
    transport.close()


def main(directory: Path) -> None:
    """Start the server and use it."""
    assert os.geteuid() == 65534

    export = directory / "export"
    export.mkdir()
    with Ganesha([Export(export, "/mem", backend="MEM")], directory=directory / "ganesha") as server:
        for version in ("4.0", "4.1", "4.2"):
            asyncio.run(use(server.port, version))


main(Path(sys.argv[1]))
