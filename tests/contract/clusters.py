"""Sites for the contract of `Cluster`: the port, and other users of the same API server."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest

from provisioner.core import names
from provisioner.core.objects import Claim
from provisioner.kube.cluster import Limits, open_cluster
from provisioner.ports.cluster import Cluster
from testbed.api import Api
from testbed.cluster import ControlPlane
from tests.support.fakes.cluster import Body, MemoryCluster
from tests.support.fakes.controllers import Controllers

PROVISIONER = "example.com/contract"
_WATCH_S = 4
"""The API server sends a bookmark two seconds before it ends a watch."""


class ClusterSite(Protocol):
    """An API server with its own namespace and class per test."""

    cluster: Cluster
    namespace: str
    prefix: str
    """What the test's volumes begin with and carry as the label `test`."""
    class_name: str
    """A class of `PROVISIONER`."""

    async def create_claim(self, body: Body) -> Claim:
        """Create a claim in the namespace, as a user."""
        ...

    async def delete_claim(self, name: str) -> None:
        """Delete a claim, as a user."""
        ...

    async def delete_volume(self, name: str) -> None:
        """Delete a volume, as an admin."""
        ...

    async def conditions(self, claim: str) -> set[str]:
        """Return the types of a claim's conditions."""
        ...

    async def event(self, namespace: str, name: str) -> Mapping[str, object]:
        """Return count, type, reason and message of an event."""
        ...

    async def expire(self) -> None:
        """Make the server forget all history."""
        ...


Factory = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[ClusterSite]]


class MemorySite:
    """The fake cluster with fake controllers."""

    def __init__(self) -> None:
        self.memory = MemoryCluster(watch_s=2.5)
        self.cluster: Cluster = self.memory
        self.namespace = "test"
        self.prefix = "v-test"
        self.class_name = "class-test"
        self.memory.namespaces.add(self.namespace)
        self.memory.create("classes", _class(self.class_name))

    async def create_claim(self, body: Body) -> Claim:
        """See `ClusterSite`."""
        metadata = {**body["metadata"], "namespace": self.namespace}
        self.memory.create("claims", {**body, "metadata": metadata})
        claim = self.memory.claim(f"{self.namespace}/{metadata['name']}")
        assert claim is not None
        return claim

    async def delete_claim(self, name: str) -> None:
        """See `ClusterSite`."""
        self.memory.delete("claims", f"{self.namespace}/{name}")

    async def delete_volume(self, name: str) -> None:
        """See `ClusterSite`."""
        self.memory.delete("volumes", name)

    async def conditions(self, claim: str) -> set[str]:
        """See `ClusterSite`."""
        body = self.memory.body("claims", f"{self.namespace}/{claim}")
        assert body is not None
        return {condition["type"] for condition in body["status"].get("conditions", ())}

    async def event(self, namespace: str, name: str) -> Mapping[str, object]:
        """See `ClusterSite`."""
        recorded = self.memory.events[namespace, name]
        return {
            "count": recorded.count,
            "type": recorded.event.type,
            "reason": recorded.event.reason,
            "message": recorded.event.message,
            "firstTimestamp": recorded.first_seen.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lastTimestamp": recorded.seen.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    async def expire(self) -> None:
        """See `ClusterSite`."""
        self.memory.expire()


class RealSite:
    """The driver on the real control plane."""

    def __init__(self, control_plane: ControlPlane, cluster: Cluster) -> None:
        self._plane = control_plane
        self.api: Api = control_plane.api
        self.cluster = cluster
        own = secrets.token_hex(4)
        self.namespace, self.prefix, self.class_name = f"test-{own}", f"v-{own}", f"class-{own}"

    def begin(self) -> None:
        """Create the objects of the test."""
        self.api.post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.api.post("/apis/storage.k8s.io/v1/storageclasses", _class(self.class_name))

    def end(self) -> None:
        """Delete the objects of the test, without waiting for the namespace."""
        self.api.delete(f"/api/v1/persistentvolumes?labelSelector=test={self.prefix}")
        self.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{self.class_name}")
        self.api.delete(f"/api/v1/namespaces/{self.namespace}")

    async def create_claim(self, body: Body) -> Claim:
        """See `ClusterSite`."""
        await asyncio.to_thread(self.api.post, self._claims(), body)
        claim = await self.cluster.get_claim(self.namespace, body["metadata"]["name"])
        assert claim is not None
        return claim

    async def delete_claim(self, name: str) -> None:
        """See `ClusterSite`."""
        await asyncio.to_thread(self.api.delete, self._claims(name))

    async def delete_volume(self, name: str) -> None:
        """See `ClusterSite`."""
        await asyncio.to_thread(self.api.delete, f"/api/v1/persistentvolumes/{name}")

    async def conditions(self, claim: str) -> set[str]:
        """See `ClusterSite`."""
        stored = await asyncio.to_thread(self.api.get, self._claims(claim))
        return {condition["type"] for condition in stored["status"].get("conditions", ())}

    async def event(self, namespace: str, name: str) -> Mapping[str, object]:
        """See `ClusterSite`."""
        return await asyncio.to_thread(self.api.get, f"/api/v1/namespaces/{namespace}/events/{name}")

    async def expire(self) -> None:
        """See `ClusterSite`. Not in a thread: servers of the testbed end with the thread that starts them."""
        self._plane.expire()

    def _claims(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims" + (f"/{name}" if name else "")


def _class(name: str) -> Body:
    parameters = {"onDelete": "retain"}
    return {
        "metadata": {"name": name},
        "provisioner": PROVISIONER,
        "parameters": parameters,
        "allowVolumeExpansion": True,
    }


def volume_body(name: str, test: str, **metadata: Any) -> Body:
    """Return a volume that no controller binds or deletes."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"test": test}, **metadata},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "of-the-tests",
            "nfs": {"server": "nas.example", "path": f"/exports/{name}"},
        },
    }


def volume_for(site: ClusterSite, claim: Claim, *finalizers: str) -> Body:
    """Return a volume as a provisioner creates it for a claim."""
    body = volume_body(f"{site.prefix}-{claim.metadata.name}", site.prefix, finalizers=list(finalizers))
    body["metadata"]["annotations"] = {names.PROVISIONED_BY: PROVISIONER}
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": claim.uid}
    body["spec"] |= {
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": claim.class_name,
        "claimRef": {**reference, "namespace": site.namespace, "name": claim.metadata.name},
    }
    return body


@contextlib.asynccontextmanager
async def memory(_request: pytest.FixtureRequest) -> AsyncIterator[ClusterSite]:
    """The fake."""
    site = MemorySite()
    controllers = asyncio.create_task(Controllers(site.memory).run())
    try:
        yield site
    finally:
        controllers.cancel()


@contextlib.asynccontextmanager
async def real(request: pytest.FixtureRequest) -> AsyncIterator[ClusterSite]:
    """The driver."""
    control_plane: ControlPlane = request.getfixturevalue("control_plane")
    async with open_cluster(
        str(control_plane.kubeconfig),
        provisioner=PROVISIONER,
        identity="replica-1",
        limits=Limits(watch_s=(_WATCH_S, _WATCH_S), page_items=500),
    ) as cluster:
        site = RealSite(control_plane, cluster)
        await asyncio.to_thread(site.begin)
        try:
            yield site
        finally:
            await asyncio.to_thread(site.end)
