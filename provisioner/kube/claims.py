"""Claims as a command writes them, with the rights of the admin who runs it: the daemon creates and changes none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from provisioner.core.objects import Claim
from provisioner.kube import codec, errors, events
from provisioner.kube.connection import JSON, MERGE_PATCH, Call, Connection, Verb, open_connection
from provisioner.ports.cluster import Rejected

_CALL_S = 15.0
_CLAIMS = "persistentvolumeclaims"

T = TypeVar("T")


class Claims:
    """Creates and annotates claims, and reads what is said of one. Raises ClusterError only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, body: Mapping[str, object], *, namespace: str) -> Claim:
        """Create a claim. Raises AlreadyExists."""
        call = _call("create", _CLAIMS, _path(namespace, _CLAIMS), body=body)
        return await self._ask(call, codec.CLAIMS.item)

    async def annotate(self, claim: Claim, annotations: Mapping[str, str]) -> Claim:
        """Add annotations to exactly the claim that was read. Raises Conflict when it has changed, NotFound."""
        meta = claim.metadata
        unchanged = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        path = f"{_path(meta.namespace, _CLAIMS)}/{quote(meta.name, safe='')}"
        patch = {"metadata": {**unchanged, "annotations": annotations}}
        call = _call("patch", _CLAIMS, path, body=patch, content_type=MERGE_PATCH)
        return await self._ask(call, codec.CLAIMS.item)

    async def events(self, claim: Claim) -> Sequence[events.Told]:
        """What is said of a claim."""
        query = urlencode(events.query(claim.uid))
        call = _call("list", "events", _path(claim.metadata.namespace, "events"), query=query)
        return await self._ask(call, events.decode)

    async def _ask(self, call: Call, decode: Callable[[bytes], T]) -> T:
        body = await self._connection.request(call)
        try:
            return decode(body)
        except codec.DECODE_ERRORS as exc:
            raise errors.undecodable(str(call), exc) from exc


def _path(namespace: str, resource: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/{resource}"


def _call(
    verb: Verb,
    resource: str,
    path: str,
    *,
    query: str = "",
    body: Mapping[str, object] | None = None,
    content_type: str = JSON,
) -> Call:
    try:
        data = None if body is None else msgspec.json.encode(body)
    except UnicodeEncodeError as exc:
        raise Rejected(f"{verb} {path}: a text in it is not Unicode") from exc
    return Call(verb, resource, path, _CALL_S, query=query, body=data, content_type=content_type)


@asynccontextmanager
async def open_claims(kubeconfig: str | None) -> AsyncIterator[Claims]:
    """The claims of a kubeconfig's cluster, or of the one that this pod runs in. Raises InvalidSettings."""
    async with open_connection(kubeconfig, observe=lambda verb, resource, code: None, connections=2) as connection:
        yield Claims(connection)
