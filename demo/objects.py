"""A few calls of an API server in JSON, over the connection that the daemon uses.

`testbed.api` is no substitute: it signs in with tokens only, while a kubeconfig can have certificates or a plugin.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Set
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import msgspec

from provisioner.kube.connection import Call, Connection, Verb, open_connection
from provisioner.ports.cluster import NotFound

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON."""

_CALL_S = 15.0
_SILENCE_S = 600.0


@asynccontextmanager
async def open_objects(kubeconfig: str) -> AsyncIterator[Objects]:
    """Connect to the cluster of a kubeconfig. Raises InvalidSettings."""
    answered: set[str] = set()

    def observe(verb: str, path: str, status: int) -> None:
        if verb == "watch" and status == HTTPStatus.OK:
            answered.add(path)

    async with open_connection(kubeconfig, observe=observe, connections=16) as connection:
        yield Objects(connection, answered)


class Objects:
    """Objects by their paths. Every method raises ClusterError.

    `watches_answered` contains the paths whose watches the server has started.
    """

    def __init__(self, connection: Connection, watches_answered: Set[str]) -> None:
        self.watches_answered = watches_answered
        self._connection = connection

    async def get(self, path: str) -> Object:
        """Return the object or the list at a path."""
        return await self._send("get", path)

    async def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection at a path, and return the stored object."""
        return await self._send("create", path, body)

    async def delete(self, path: str) -> None:
        """Delete the object at a path; a missing object is a success."""
        with suppress(NotFound):
            await self._send("delete", path)

    async def exists(self, path: str) -> bool:
        """Return True if an object exists at a path."""
        try:
            await self._send("get", path)
        except NotFound:
            return False
        return True

    async def watch(self, path: str) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield the objects of a collection and their changes.

        Each item is ADDED, MODIFIED or DELETED, and the object.
        """
        call = Call("watch", path, path, _CALL_S, query="watch=1")
        rest = b""
        async for chunk in self._connection.stream(call, silence_s=_SILENCE_S):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = msgspec.json.decode(line)
                yield event["type"], event["object"]

    async def _send(self, verb: Verb, path: str, body: Object | None = None) -> Object:
        data = None if body is None else msgspec.json.encode(body)
        answer = await self._connection.request(Call(verb, path, path, _CALL_S, body=data))
        decoded: Object = msgspec.json.decode(answer)
        return decoded
