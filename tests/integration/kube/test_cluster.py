"""What only the driver does, against a real API server; tests/contract/test_cluster.py has the contract of the port."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.objects import Metadata, Volume
from provisioner.kube.cluster import open_cluster
from provisioner.ports.cluster import AlreadyExists, ApiUnavailable, Cluster, Event, ObjectRef, Rejected
from testbed.api import Api
from testbed.cluster import ControlPlane, TokenUser
from tests.integration.kube.network import volume, write_kubeconfig

Observed = Counter[tuple[str, str, int]]


async def test_a_call_is_observed(cluster: Cluster, prefix: str, observed: Observed) -> None:
    """Each call is observed with its verb, its resource and the status of its answer."""
    body = volume(prefix, labels={"test": prefix})
    await cluster.create_volume(body)
    with pytest.raises(AlreadyExists):
        await cluster.create_volume(body)
    assert observed["create", "persistentvolumes", 201] == 1
    assert observed["create", "persistentvolumes", 409] == 1


async def test_a_refusal_is_short(cluster: Cluster, prefix: str) -> None:
    """The message of a refusal names the error and is short."""
    body = volume(prefix, labels={"test": prefix})
    body["spec"]["accessModes"] = ["ReadSometimes"]
    with pytest.raises(Rejected, match="accessModes") as caught:
        await cluster.create_volume(body)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_volume_without_a_name_is_not_asked_for(cluster: Cluster, observed: Observed, name: str) -> None:
    """A call on an object without a usable name sends no request."""
    for call in (cluster.delete_volume(Volume(metadata=Metadata(name=name))), cluster.get_volume(name)):
        with pytest.raises(Rejected):
            await call
    assert observed.total() == 0


def about(namespace: str, kind: Any = "PersistentVolumeClaim") -> Event:
    ref = ObjectRef(kind, namespace, "data", "3c1e0b5e-0000-4000-8000-000000000000", "12")
    return Event(ref, "Warning", "ProvisioningFailed", "it does not answer")


async def test_an_event_has_all_that_people_look_for(cluster: Cluster, cluster_api: Api, namespace: str) -> None:
    """An event has its object, source and time where `kubectl describe` and alerts read them."""
    first = datetime(2026, 1, 1, 12, 0, 0, 987654, tzinfo=UTC)
    event = about(namespace)
    await cluster.record_event(event, count=1, name="data.1", first_seen=first, seen=first)
    await cluster.record_event(event, count=2, name="data.1", first_seen=first, seen=first + timedelta(seconds=90))
    stored = cluster_api.get(f"/api/v1/namespaces/{namespace}/events/data.1")
    assert (stored["count"], stored["type"], stored["reason"]) == (2, "Warning", "ProvisioningFailed")
    assert stored["message"] == "it does not answer"
    assert (stored["firstTimestamp"], stored["lastTimestamp"]) == ("2026-01-01T12:00:00Z", "2026-01-01T12:01:30Z")
    assert stored["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": namespace,
        "name": "data",
        "uid": "3c1e0b5e-0000-4000-8000-000000000000",
        "resourceVersion": "12",
    }
    assert stored["source"] == {"component": "cluster.local/nfs-provisioner"}
    assert (stored["reportingComponent"], stored["reportingInstance"]) == ("cluster.local/nfs-provisioner", "replica-1")


async def test_events_of_volumes_live_in_default(cluster: Cluster, cluster_api: Api, prefix: str) -> None:
    """An event about an object without a namespace is in the namespace `default`."""
    seen = datetime.now(UTC)
    await cluster.record_event(about("", "PersistentVolume"), count=1, name=prefix, first_seen=seen, seen=seen)
    stored = cluster_api.get(f"/api/v1/namespaces/default/events/{prefix}")
    assert stored["involvedObject"]["kind"] == "PersistentVolume"


# ------------------------------------------------------------------------------------------------ being there


async def test_a_server_that_is_gone_is_unavailable_until_it_is_back(
    cluster: Cluster, control_plane: ControlPlane, observed: Observed
) -> None:
    """With the API server killed each call raises ApiUnavailable, and the same cluster works again when it is back."""
    await cluster.ping()
    control_plane.api_server.kill()
    for call in (cluster.ping(), cluster.list("claims"), cluster.get_volume("x"), cluster.create_volume(volume("x"))):
        with pytest.raises(ApiUnavailable):
            await call
    assert observed["get", "readyz", 0] == 1
    control_plane.api_server.start()
    await asyncio.to_thread(control_plane.wait_ready)
    await cluster.ping()


async def test_a_user_without_a_role_is_rejected(control_plane: ControlPlane, restricted_user: TokenUser) -> None:
    """A call that RBAC forbids raises Rejected with the server's message, which names the verb and the resource."""
    kubeconfig = str(control_plane.kubeconfig_for(restricted_user))
    async with open_cluster(kubeconfig, provisioner="p", identity="i") as cluster:
        await cluster.ping()
        with pytest.raises(Rejected, match="cannot list resource"):
            await cluster.list("volumes")


async def test_the_name_to_verify_comes_from_the_kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> None:
    """`tls-server-name` decides which name the certificate must have; with a wrong name there is no connection."""
    token = control_plane.kubeconfig.read_text().split('"token": "')[1].split('"')[0]
    for name, works in (("kubernetes.default.svc", True), ("wrong.example", False)):
        extra = {"certificate-authority": str(control_plane.ca_file), "tls-server-name": name}
        path = write_kubeconfig(tmp_path / name, control_plane.url, user={"token": token}, cluster=extra)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            if works:
                await cluster.ping()
            else:
                with pytest.raises(ApiUnavailable, match="certificate"):
                    await cluster.ping()
