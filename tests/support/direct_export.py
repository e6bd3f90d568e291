"""Exports that the daemon reaches itself: the parameters of their classes, and calls of a tenant who mounts one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from testbed.api import Object
from testbed.ganesha import Ganesha

T = TypeVar("T")

VERSIONS: tuple[Literal[3, 4], ...] = (3, 4)
HOST = "127.0.0.1"
TENANT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DirectExport:
    """One export of a Ganesha; `version` is the class's nfsvers, None for the best one."""

    server: Ganesha
    path: str
    version: str | None = None

    @property
    def root(self) -> Path:
        """The exported directory on this machine."""
        return next(export.directory for export in self.server.exports if export.path == self.path)

    @property
    def location(self) -> str:
        """`SERVER:PATH`, as events write it."""
        return f"{HOST}:{self.path}"

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of a class on this export."""
        return {"server": HOST, "share": self.path}

    @property
    def mount_options(self) -> list[str]:
        """The mountOptions of a class on this export."""
        options = [f"port={self.server.port}"]
        if 3 in self.server.versions:
            options.append(f"mountport={self.server.mount_port}")
        return [*options, f"nfsvers={self.version}"] if self.version else options

    def directory(self, volume: Object) -> Path:
        """Return the path of a PersistentVolume's directory on this machine, whether it exists or not."""
        nfs = volume["spec"]["nfs"]
        assert nfs["server"] == HOST
        assert nfs["path"].startswith(f"{self.path}/")
        below: str = nfs["path"].removeprefix(f"{self.path}/")
        return self.root / below

    def tenant(self, act: Callable[[DirectTree], Awaitable[T]], credentials: Credentials | None = None) -> T:
        """Run calls of a tenant over NFS, by default as root, so that the server sees them.

        The server does not see changes on its disk.
        """

        async def mounted() -> T:
            pool = ConnectionPool(credentials or Credentials(), timeout_s=TENANT_TIMEOUT_S)
            tree = DirectTree(location(HOST, self.path), pool, version="4", port=self.server.port)
            try:
                return await act(tree)
            finally:
                await tree.close()

        return asyncio.run(mounted())
