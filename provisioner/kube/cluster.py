"""The `Cluster` port on a real API server: the path, verb and body of each method.

Both sides limit the time of a watch: the server ends it after 45 to 60 s, which costs one request per minute, and the
client gives up if nothing arrives for a little longer than that. So a half-open connection is noticed within about a
minute. Without the limit, a watch through a load balancer that dropped the connection silently would hang indefinitely.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from provisioner.core import names
from provisioner.core.checks import Permission
from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import Claim, Metadata, Namespace, Snapshot, SnapshotContent, Volume
from provisioner.core.pods import Pod
from provisioner.core.texts import encodable
from provisioner.kube import codec, errors, events, leases, pods, reviews
from provisioner.kube.connection import (
    JSON,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Call,
    Connection,
    Observe,
    Verb,
    open_connection,
)
from provisioner.ports.cluster import (
    AlreadyExists,
    AnyItem,
    ApiUnavailable,
    Event,
    Kind,
    NotFound,
    Page,
    Rejected,
    WatchEvent,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of calls, and the page size of lists."""

    call_s: float = 15.0
    watch_s: tuple[int, int] = (45, 60)
    """A watch ends after a random number of seconds in this range, so that not all replicas reconnect together."""
    watch_grace_s: float = 5.0
    """How long after its end a watch can stay silent before its connection counts as broken."""
    page_items: int = 2000
    """With pages of 500, the API server takes four times as long for a list; larger ones save no more time."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """The API resource of a kind; `path` lists it in all namespaces."""

    name: str
    path: str
    codec: codec.Codec[Any]


_SNAPSHOTS = f"/apis/{names.SNAPSHOT_GROUP}/v1"
_RESOURCES: dict[Kind, _Resource] = {
    "claims": _Resource("persistentvolumeclaims", "/api/v1/persistentvolumeclaims", codec.CLAIMS),
    "volumes": _Resource("persistentvolumes", "/api/v1/persistentvolumes", codec.VOLUMES),
    "classes": _Resource("storageclasses", "/apis/storage.k8s.io/v1/storageclasses", codec.CLASSES),
    "snapshots": _Resource("volumesnapshots", f"{_SNAPSHOTS}/volumesnapshots", codec.SNAPSHOTS),
    "snapshot_contents": _Resource(
        "volumesnapshotcontents", f"{_SNAPSHOTS}/volumesnapshotcontents", codec.SNAPSHOT_CONTENTS
    ),
    "snapshot_classes": _Resource(
        "volumesnapshotclasses", f"{_SNAPSHOTS}/volumesnapshotclasses", codec.SNAPSHOT_CLASSES
    ),
}


class KubeCluster:
    """Driver of the port `Cluster`; `open_cluster` creates it."""

    def __init__(
        self,
        connection: Connection,
        *,
        provisioner: str,
        identity: str,
        limits: Limits,
        on_undecodable: codec.OnUndecodable,
    ) -> None:
        """Use an open connection. `provisioner` and `identity` are the source that events name."""
        self._connection = connection
        self._provisioner = provisioner
        self._identity = identity
        self._limits = limits
        self._on_undecodable = on_undecodable

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        """See Cluster.list."""
        resource = _RESOURCES[kind]
        query = {"limit": str(self._limits.page_items)} | ({"continue": continue_token} if continue_token else {})
        call = self._call("list", resource.name, resource.path, query=query)
        return await self._ask(call, lambda body: resource.codec.page(body, self._on_undecodable))

    async def version(self, kind: Kind) -> str:
        """See Cluster.version. A page with one item has the version of the whole list."""
        resource = _RESOURCES[kind]
        call = self._call("list", resource.name, resource.path, query={"limit": "1"})
        page = await self._ask(call, lambda body: resource.codec.page(body, self._on_undecodable))
        return page.version

    async def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        """See Cluster.watch. A caller that stops early must close it (contextlib.aclosing), or the connection leaks."""
        resource = _RESOURCES[kind]
        ends_s = random.randint(*self._limits.watch_s)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(ends_s),
        }
        call = self._call("watch", resource.name, resource.path, query=query)
        asked = str(call)
        splitter = codec.LineSplitter()
        async with aclosing(self._connection.stream(call, silence_s=ends_s + self._limits.watch_grace_s)) as chunks:
            async for chunk in chunks:
                try:
                    lines = splitter.feed(chunk)
                except codec.DECODE_ERRORS as exc:
                    raise errors.undecodable(asked, exc) from exc
                for line in lines:
                    try:
                        event = resource.codec.event(asked, line, self._on_undecodable)
                    except codec.DECODE_ERRORS as exc:
                        raise errors.undecodable(asked, exc) from exc
                    if event is not None:
                        yield event
        if splitter.pending:
            raise ApiUnavailable(f"{asked}: the watch ended in the middle of a line")

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        """See Cluster.get_claim."""
        path = _claim_path(namespace, name)
        try:
            return await self._ask(self._call("get", "persistentvolumeclaims", path), codec.CLAIMS.item)
        except NotFound:
            return None

    async def get_volume(self, name: str) -> Volume | None:
        """See Cluster.get_volume."""
        try:
            return await self._ask(self._call("get", "persistentvolumes", _volume_path(name)), codec.VOLUMES.item)
        except NotFound:
            return None

    async def get_namespace(self, name: str) -> Namespace | None:
        """See Cluster.get_namespace."""
        path = f"/api/v1/namespaces/{_quote(name)}"
        try:
            return await self._ask(self._call("get", "namespaces", path), codec.namespace)
        except NotFound:
            return None

    async def create_volume(self, body: Mapping[str, object]) -> Volume:
        """See Cluster.create_volume."""
        path = _RESOURCES["volumes"].path
        return await self._ask(self._call("create", "persistentvolumes", path, body=body), codec.VOLUMES.item)

    async def patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        """See Cluster.patch_volume."""
        call = self._call("patch", "persistentvolumes", _volume_path(name), body=patch, content_type=MERGE_PATCH)
        return await self._ask(call, codec.VOLUMES.item)

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        """See Cluster.set_finalizer. Raises Rejected when it would add one to a volume that is being deleted.

        A strategic merge patch changes one entry of the list on the server and needs no version. The uid in the patch
        is a precondition (Kubernetes, Update API Objects in Place Using kubectl patch); the garbage collector uses the
        same.
        """
        entry = "finalizers" if present else "$deleteFromPrimitiveList/finalizers"
        patch = {"metadata": {"uid": volume.metadata.uid, entry: [finalizer]}}
        path = _volume_path(volume.name)
        call = self._call("patch", "persistentvolumes", path, body=patch, content_type=STRATEGIC_PATCH)
        await self._connection.request(call)

    async def delete_volume(self, volume: Volume) -> None:
        """See Cluster.delete_volume. The answer, the object or a Status, has nothing that the watch does not report."""
        metadata = volume.metadata
        preconditions = {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._connection.request(self._call("delete", "persistentvolumes", _volume_path(volume.name), body=body))

    async def request_size(self, claim: Claim, size: str) -> Claim:
        """See Cluster.request_size."""
        return await self._patch_claim(claim, {"spec": {"resources": {"requests": {"storage": size}}}})

    async def patch_claim_status(self, namespace: str, name: str, patch: Mapping[str, object]) -> Claim:
        """See Cluster.patch_claim_status."""
        path = f"{_claim_path(namespace, name)}/status"
        call = self._call("patch", "persistentvolumeclaims/status", path, body=patch, content_type=STRATEGIC_PATCH)
        return await self._ask(call, codec.CLAIMS.item)

    async def get_snapshot(self, namespace: str, name: str) -> Snapshot | None:
        """See Cluster.get_snapshot."""
        try:
            call = self._call("get", "volumesnapshots", _snapshot_path(namespace, name))
            return await self._ask(call, codec.SNAPSHOTS.item)
        except NotFound:
            return None

    async def create_snapshot(self, body: Mapping[str, Any]) -> Snapshot:
        """See Cluster.create_snapshot."""
        path = f"{_SNAPSHOTS}/namespaces/{_quote(body['metadata']['namespace'])}/volumesnapshots"
        return await self._ask(self._call("create", "volumesnapshots", path, body=body), codec.SNAPSHOTS.item)

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        """See Cluster.delete_snapshot."""
        meta = snapshot.metadata
        path = _snapshot_path(meta.namespace, meta.name)
        await self._connection.request(self._call("delete", "volumesnapshots", path, body=_exactly(meta)))

    async def name_snapshot_class(self, snapshot: Snapshot, class_name: str) -> Snapshot:
        """See Cluster.name_snapshot_class.

        The version is no precondition: the snapshot-controller changes the object all the time.
        """
        meta = snapshot.metadata
        body = {"metadata": {"uid": meta.uid}, "spec": {"volumeSnapshotClassName": class_name}}
        path = _snapshot_path(meta.namespace, meta.name)
        call = self._call("patch", "volumesnapshots", path, body=body, content_type=MERGE_PATCH)
        return await self._ask(call, codec.SNAPSHOTS.item)

    async def get_snapshot_content(self, name: str) -> SnapshotContent | None:
        """See Cluster.get_snapshot_content."""
        call = self._call("get", "volumesnapshotcontents", _content_path(name))
        try:
            return await self._ask(call, codec.SNAPSHOT_CONTENTS.item)
        except NotFound:
            return None

    async def create_snapshot_content(self, body: Mapping[str, object]) -> SnapshotContent:
        """See Cluster.create_snapshot_content."""
        call = self._call("create", "volumesnapshotcontents", _RESOURCES["snapshot_contents"].path, body=body)
        return await self._ask(call, codec.SNAPSHOT_CONTENTS.item)

    async def patch_snapshot_status(self, name: str, patch: Mapping[str, object]) -> SnapshotContent:
        """See Cluster.patch_snapshot_status."""
        path = f"{_content_path(name)}/status"
        call = self._call("patch", "volumesnapshotcontents/status", path, body=patch, content_type=MERGE_PATCH)
        return await self._ask(call, codec.SNAPSHOT_CONTENTS.item)

    async def release_snapshot_content(self, content: SnapshotContent, finalizer: str) -> None:
        """See Cluster.release_snapshot_content.

        A custom resource has no strategic merge patch: the patch replaces the list, and the version is a precondition.
        """
        meta = content.metadata
        left = [each for each in meta.finalizers if each != finalizer]
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": left}}
        path = _content_path(content.name)
        call = self._call("patch", "volumesnapshotcontents", path, body=patch, content_type=MERGE_PATCH)
        await self._connection.request(call)

    async def delete_snapshot_content(self, content: SnapshotContent) -> None:
        """See Cluster.delete_snapshot_content."""
        path, body = _content_path(content.name), _exactly(content.metadata)
        await self._connection.request(self._call("delete", "volumesnapshotcontents", path, body=body))

    async def record_event(self, event: Event, *, count: int, name: str, first_seen: datetime, seen: datetime) -> None:
        """See Cluster.record_event. Events expire, after an hour by default: a repetition can need to create one."""
        collection = f"/api/v1/namespaces/{_quote(events.namespace(event))}/events"

        def create() -> Call:
            body = events.body(
                event,
                name=name,
                count=count,
                first_seen=first_seen,
                seen=seen,
                provisioner=self._provisioner,
                identity=self._identity,
            )
            return self._call("create", "events", collection, body=body)

        def repeat() -> Call:
            repetition = events.repetition(count=count, seen=seen)
            path = f"{collection}/{_quote(name)}"
            return self._call("patch", "events", path, body=repetition, content_type=MERGE_PATCH)

        first, fallback = (create, repeat) if count == 1 else (repeat, create)
        try:
            await self._connection.request(first())
        except (AlreadyExists, NotFound):
            await self._connection.request(fallback())

    # ------------------------------------------------------------------------------------------- for commands only
    # Not part of the port: the daemon's ServiceAccount has none of these rights.

    async def list_events(self, namespace: str, uid: str) -> Sequence[events.RecordedEvent]:
        """Return the events about one object, a hundred at most."""
        path = f"/api/v1/namespaces/{_quote(namespace)}/events"
        return await self._ask(self._call("list", "events", path, query=events.query(uid)), events.decode)

    async def list_pods(self, namespace: str | None = None, name: str = "") -> Sequence[Pod]:
        """Return the pods of a namespace, or of all; with `name`, only those of that name."""
        path = f"/api/v1/namespaces/{_quote(namespace)}/pods" if namespace else "/api/v1/pods"
        query = {"limit": str(self._limits.page_items)} | ({"fieldSelector": f"metadata.name={name}"} if name else {})
        found: list[Pod] = []
        token = ""
        while True:
            call = self._call("list", "pods", path, query=query | ({"continue": token} if token else {}))
            page, token = await self._ask(call, pods.decode)
            found += page
            if not token:
                return found

    async def get_volume_manifest(self, name: str) -> dict[str, Any]:
        """Return the whole object of a volume. Raises NotFound."""
        call = self._call("get", "persistentvolumes", _volume_path(name))
        return await self._ask(call, lambda body: msgspec.json.decode(body, type=dict[str, Any]))

    async def create_claim(self, namespace: str, body: Mapping[str, object]) -> Claim:
        """Create a claim. Raises AlreadyExists."""
        call = self._call("create", "persistentvolumeclaims", _claims_path(namespace), body=body)
        return await self._ask(call, codec.CLAIMS.item)

    async def annotate_claim(self, claim: Claim, annotations: Mapping[str, str]) -> Claim:
        """Add annotations to exactly the claim that was read. Raises Conflict if it has changed, NotFound."""
        return await self._patch_claim(claim, {"metadata": {"annotations": annotations}})

    async def _patch_claim(self, claim: Claim, patch: Mapping[str, Mapping[str, object]]) -> Claim:
        """Apply a JSON merge patch to exactly the claim that was read."""
        meta = claim.metadata
        preconditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **preconditions}}
        path = _claim_path(meta.namespace, meta.name)
        call = self._call("patch", "persistentvolumeclaims", path, body=body, content_type=MERGE_PATCH)
        return await self._ask(call, codec.CLAIMS.item)

    # ------------------------------------------------------------------------------------------- Lease and server

    async def get_lease(self, namespace: str, name: str) -> LeaseRecord | None:
        """See Cluster.get_lease."""
        path = f"{_leases_path(namespace)}/{_quote(name)}"
        try:
            return await self._ask(self._call("get", "leases", path), leases.decode)
        except NotFound:
            return None

    async def create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """See Cluster.create_lease."""
        body = leases.body(namespace, name, lease)
        return await self._ask(self._call("create", "leases", _leases_path(namespace), body=body), leases.decode)

    async def replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """See Cluster.replace_lease."""
        body = leases.body(namespace, name, lease)
        path = f"{_leases_path(namespace)}/{_quote(name)}"
        return await self._ask(self._call("update", "leases", path, body=body), leases.decode)

    async def is_allowed(self, permission: Permission) -> bool:
        """See Cluster.is_allowed."""
        call = self._call("create", reviews.RESOURCE, reviews.PATH, body=reviews.body(permission))
        return await self._ask(call, reviews.decode)

    async def cluster_uid(self) -> str:
        """See Cluster.cluster_uid."""
        return await self._ask(self._call("get", "namespaces", "/api/v1/namespaces/kube-system"), codec.uid)

    async def ping(self) -> None:
        """See Cluster.ping."""
        await self._connection.request(self._call("get", "readyz", "/readyz"))

    def server_time(self) -> datetime | None:
        """See Cluster.server_time."""
        return self._connection.server_time()

    def _call(
        self,
        verb: Verb,
        resource: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        content_type: str = JSON,
    ) -> Call:
        """Build a call with the time limit. Raises Rejected for a body that is not Unicode, which no retry can fix."""
        try:
            data = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as exc:
            raise Rejected(f"{verb} {path}: a text in it is not Unicode") from exc
        text = urlencode(query) if query else ""
        return Call(verb, resource, path, self._limits.call_s, query=text, body=data, content_type=content_type)

    async def _ask(self, call: Call, decode: Callable[[bytes], T]) -> T:
        body = await self._connection.request(call)
        try:
            return decode(body)
        except codec.DECODE_ERRORS as exc:
            raise errors.undecodable(str(call), exc) from exc


def _claims_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{_quote(namespace)}/persistentvolumeclaims"


def _claim_path(namespace: str, name: str) -> str:
    return f"{_claims_path(namespace)}/{_quote(name)}"


def _volume_path(name: str) -> str:
    return f"/api/v1/persistentvolumes/{_quote(name)}"


def _exactly(meta: Metadata) -> dict[str, object]:
    """Return options by which only the object that was read is deleted."""
    preconditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}


def _snapshot_path(namespace: str, name: str) -> str:
    return f"{_SNAPSHOTS}/namespaces/{_quote(namespace)}/volumesnapshots/{_quote(name)}"


def _content_path(name: str) -> str:
    return f"{_SNAPSHOTS}/volumesnapshotcontents/{_quote(name)}"


def _leases_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{_quote(namespace)}/leases"


def _quote(name: str) -> str:
    """Quote a name as one segment of a path. Raises Rejected for a name that would change which object the path names.

    Without this check, deleting a volume with an empty name would delete the whole collection.
    """
    if name in ("", ".", "..") or encodable(name) != name:
        raise Rejected(f"{name!r} is not the name of an object")
    return quote(name, safe="")


@asynccontextmanager
async def open_cluster(
    kubeconfig: str | None,
    *,
    provisioner: str,
    identity: str,
    observe: Observe = lambda verb, resource, code: None,
    on_undecodable: codec.OnUndecodable = lambda kind, name, reason: None,
    limits: Limits | None = None,
    connections: int = 128,
    context: str | None = None,
) -> AsyncIterator[KubeCluster]:
    """Connect to the cluster of a kubeconfig, or the cluster that this pod runs in. Makes no call yet.

    `context` is a context of the kubeconfig; without it, the current one counts.

    `connections` limits the pool: up to six watches, each worker and the Lease need one each. Raises InvalidSettings.
    """
    async with open_connection(kubeconfig, context=context, observe=observe, connections=connections) as connection:
        yield KubeCluster(
            connection,
            provisioner=provisioner,
            identity=identity,
            limits=limits or Limits(),
            on_undecodable=on_undecodable,
        )
