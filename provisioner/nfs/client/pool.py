"""Pool of connections: one per server, version and port, shared by all exports of the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import NFS_PORT
from provisioner.core.mount_options import VERSIONS
from provisioner.nfs.client.backlog import MemoryBudget
from provisioner.nfs.client.connect import Endpoint
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Client
from provisioner.nfs.client.nfs3 import Client3
from provisioner.nfs.client.nfs4 import Client4
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.client.slots import Sharing
from provisioner.nfs.protocol import mount3, nfs3, nfs4
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError

_BEST_FIRST = ("4.2", "4.1", "4.0", "3")
"""The order in which versions are tried (nfs(5))."""


@dataclass(frozen=True, slots=True)
class Address:
    """An NFS service, as a class names it with `server`, `nfsvers=`, `port=` and `mountport=`."""

    server: str
    version: str | None = None
    port: int | None = None
    mount_port: int | None = None


class ServerConnection:
    """One NFS service, in the best version that the server and the class allow."""

    def __init__(self, address: Address, identity: Credentials, resolver: Resolver, *, timeout_s: float) -> None:
        if address.version not in (None, *VERSIONS):
            raise InvalidSettings(f"nfsvers={address.version} is not supported: use one of {', '.join(VERSIONS)}")
        self._address = address
        self._identity = identity
        self._resolver = resolver
        self._timeout_s = timeout_s
        self.sharing = Sharing()
        self._client: Client | None = None
        self._choosing = asyncio.Lock()

    async def client(self, deadline: Deadline) -> Client:
        """Return the client, after negotiating the version on the first call.

        Raises ExportError(VERSION).
        """
        if self._client is not None:
            return self._client
        async with self._choosing:
            if self._client is None:
                self._client = await self._choose(deadline)
            return self._client

    def close(self) -> None:
        """Close the connection; a later call opens a new one and negotiates again."""
        if self._client is not None:
            self._client.close()
        self._client = None

    async def _choose(self, deadline: Deadline) -> Client:
        refusal: ExportError | None = None
        connection4 = self._connection(Endpoint(self._address.server, self._address.port or NFS_PORT, nfs4.PROGRAM, 4))
        for version in _versions_to_try(self._address.version):
            client: Client = self._client3() if version == "3" else Client4(connection4, int(version[2:]))
            try:
                await client.negotiate(deadline)
            except ExportError as exc:
                if exc.cause is not Cause.VERSION:
                    client.close()
                    raise
                refusal = refusal or exc
                if version == "3":
                    client.close()
            else:
                if version == "3":
                    connection4.close()
                return client
        connection4.close()
        assert refusal is not None
        raise refusal

    def _client3(self) -> Client3:
        server, port = self._address.server, self._address.port
        service = Endpoint(server, port, nfs3.PROGRAM, nfs3.VERSION, usual_port=NFS_PORT)
        mounts = Endpoint(server, self._address.mount_port, mount3.PROGRAM, mount3.VERSION)
        return Client3(self._connection(service), self._connection(mounts))

    def _connection(self, endpoint: Endpoint) -> Connection:
        return Connection(endpoint, self._identity, self._resolver, timeout_s=self._timeout_s, sharing=self.sharing)


class ConnectionPool:
    """Connections to the servers in use.

    `identity` is the user that all servers see, `timeout_s` the time limit of a call.
    """

    def __init__(self, identity: Credentials, *, timeout_s: float) -> None:
        self.identity = identity
        self.timeout_s = timeout_s
        self._resolver = Resolver()
        self.removals = MemoryBudget()
        """Memory limit that all removals of trees share."""
        self._servers: dict[Address, ServerConnection] = {}

    def acquire(self, address: Address) -> ServerConnection:
        """Return the shared connection for an address; each caller must release it.

        Raises InvalidSettings.
        """
        if address not in self._servers:
            self._servers[address] = ServerConnection(address, self.identity, self._resolver, timeout_s=self.timeout_s)
        server = self._servers[address]
        server.sharing.exports += 1
        return server

    def release(self, address: Address) -> None:
        """Release the connection; it is closed with its last user."""
        server = self._servers[address]
        server.sharing.exports -= 1
        if not server.sharing.exports:
            self._servers.pop(address).close()


def _versions_to_try(wanted: str | None) -> list[str]:
    """Return the versions that `nfsvers=` allows, best first.

    Without a version these are all of them, and for "4" all minor versions.
    """
    return [version for version in _BEST_FIRST if wanted is None or wanted in (version, version.split(".")[0])]
