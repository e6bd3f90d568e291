"""Sites for the contract of the NFS client: NFS-Ganesha on loopback, in each NFS version.

One server runs for the whole session; each test exports its own directory there. The tenant works over NFSv3, because
Ganesha caches directories and does not notice changes in the underlying file system.
"""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator

import pytest

from provisioner.core.locations import Location, RelPath, location
from provisioner.nfs.client.connect import Endpoint
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Place
from provisioner.nfs.client.nfs3 import Client3
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol import mount3, nfs3, xdr
from provisioner.nfs.protocol.rpc import Credentials, Procedure
from provisioner.nfs.protocol.xdr import Cursor
from provisioner.ports.tree import Ownership, PathMissing, Tree
from testbed import ganesha
from testbed.ganesha import Export, Ganesha
from testbed.lifecycle import NfsServer
from tests.contract.sites import Factory, Seen, Site

ROOT = Credentials()
TIMEOUT_S = 30.0
FOREVER = Deadline(at_s=float("inf"))
UNCHECKED_CREATE, FILE_SYNC = 0, 2

_SERVER = pytest.StashKey[tuple[Ganesha, pathlib.Path]]()


class Tenant:
    """A tenant on an export of a server on 127.0.0.1, over NFSv3."""

    def __init__(self, port: int, mount_port: int) -> None:
        service = Endpoint("127.0.0.1", port, nfs3.PROGRAM, nfs3.VERSION)
        mounts = Endpoint("127.0.0.1", mount_port, mount3.PROGRAM, mount3.VERSION)
        self._connection = Connection(service, ROOT, Resolver(), timeout_s=TIMEOUT_S)
        self._client = Client3(self._connection, Connection(mounts, ROOT, Resolver(), timeout_s=TIMEOUT_S))

    async def open(self, export: RelPath) -> None:
        """Look up the export's root."""
        self._root = (await self._client.root(FOREVER, export)).handle

    async def make_directory(self, path: RelPath) -> None:
        """MKDIR."""
        await self._client.make_directory(FOREVER, Place(self._root, path), Ownership(mode=0o755))

    async def write_file(self, path: RelPath, text: str) -> None:
        """CREATE and WRITE (RFC 1813 sections 3.3.8 and 3.3.7)."""
        parent = (await self._client.look_up(FOREVER, Place(self._root, path[:-1]))).handle
        attributes = nfs3.sattr3(mode=0o644, uid=None, gid=None)
        create = xdr.opaque(parent) + xdr.string(path[-1]) + xdr.uint(UNCHECKED_CREATE) + attributes
        await self._call(8, create)
        file = (await self._client.look_up(FOREVER, Place(self._root, path))).handle
        content = text.encode()
        place = xdr.hyper(0) + xdr.uint(len(content)) + xdr.uint(FILE_SYNC)
        await self._call(7, xdr.opaque(file) + place + xdr.opaque(content))

    async def plant_symlink(self, path: RelPath, target: str) -> None:
        """SYMLINK."""
        await self._client.make_symlink(FOREVER, Place(self._root, path), target)

    async def look(self, path: RelPath) -> Seen | None:
        """LOOKUP, and READLINK or READ (RFC 1813 section 3.3.6)."""
        place = Place(self._root, path)
        try:
            found = await self._client.look_up(FOREVER, place)
        except PathMissing:
            return None
        seen = found.attributes
        if seen.type == "directory":
            assert seen.uid is not None
            assert seen.gid is not None
            return Seen("directory", seen.mode, seen.uid, seen.gid)
        if seen.type == "symlink":
            return Seen("symlink", text=await self._client.read_symlink(FOREVER, place))
        reply = await self._call(6, xdr.opaque(found.handle) + xdr.hyper(0) + xdr.uint(65536))
        reply.fixed(4 + 84)  # attributes: file_attributes follow, fattr3
        reply.fixed(8)  # count, eof
        return Seen("file", text=reply.opaque(65536).decode())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _call(self, number: int, arguments: bytes) -> Cursor:
        reply = await self._connection.call(FOREVER, Procedure(nfs3.PROGRAM, nfs3.VERSION, number, arguments, _same))
        assert reply.uint() == 0
        return reply


class NfsSite:
    """A site whose export is a directory of an NFS server, local or remote."""

    owners = True

    def __init__(self, tree: Tree, tenant: Tenant, local: pathlib.Path | None) -> None:
        self.tree = tree
        self.local = local
        self.write_file = tenant.write_file
        self.plant_symlink = tenant.plant_symlink
        self.look = tenant.look


def _same(reply: Cursor) -> Cursor:
    return reply


def _server(request: pytest.FixtureRequest) -> tuple[Ganesha, pathlib.Path]:
    """Return the session's server and its exported directory; skips the test if no server can run."""
    stash = request.config.stash
    if _SERVER not in stash:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="contract-"))
        reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(directory)
        if reason:
            directory.rmdir()
            pytest.skip(f"this machine cannot run an NFS server: {reason}")
        server = Ganesha([Export(directory, "/contract")], versions=(3, 4))
        server.start()
        request.config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        request.config.add_cleanup(server.stop)
        stash[_SERVER] = server, directory
    return stash[_SERVER]


@contextlib.asynccontextmanager
async def reached(
    server: NfsServer, where: Location, version: str, *, local: pathlib.Path | None
) -> AsyncIterator[NfsSite]:
    """Open a directory of a server with the client; without a `local` path, create it over NFS first."""
    tree = DirectTree(
        where,
        ConnectionPool(ROOT, timeout_s=TIMEOUT_S),
        version=version,
        port=server.port,
        mount_port=server.mount_port,
    )
    tenant = Tenant(server.port, server.mount_port)
    try:
        if local is None:
            await tenant.open(where.components[:-1])
            await tenant.make_directory(where.components[-1:])
        await tenant.open(where.components)
        yield NfsSite(tree, tenant, local)
    finally:
        tenant.close()
        await tree.close()


def _direct(version: str) -> Factory:
    @contextlib.asynccontextmanager
    async def direct(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
        server, directory = _server(request)
        name = secrets.token_hex(6)
        (directory / name).mkdir()
        where = location("127.0.0.1", f"/contract/{name}")
        async with reached(server, where, version, local=directory / name) as site:
            yield site

    direct.__name__ = f"direct-{version}"
    return direct


FACTORIES: list[Factory] = list(map(_direct, ("3", "4.0", "4.1", "4.2")))
