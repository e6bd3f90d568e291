"""What each call of the port `Cluster` does to a real API server."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import Metadata, Volume
from provisioner.kube.cluster import open_cluster
from provisioner.ports import (
    AlreadyExists,
    ApiUnavailable,
    Cluster,
    Conflict,
    Event,
    Expired,
    NotFound,
    ObjectRef,
    Page,
    Rejected,
)
from testbed.api import Api
from testbed.cluster import ControlPlane, TokenUser
from tests.integration.kube.network import volume, write_kubeconfig

Observed = Counter[tuple[str, str, int]]


async def create(cluster: Cluster, prefix: str, suffix: str = "", **metadata: Any) -> Volume:
    return await cluster.create_volume(volume(prefix + suffix, labels={"test": prefix}, **metadata))


def claim(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "",
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "selector": {"matchLabels": {"never": "there"}},
        },
    }


# ------------------------------------------------------------------------------------------------ volumes and claims


async def test_a_volume_is_created_once(cluster: Cluster, prefix: str, observed: Observed) -> None:
    """create_volume returns the volume as stored, a second one of that name raises AlreadyExists, both are observed."""
    made = await create(cluster, prefix, annotations={"a": "b"}, finalizers=["example.com/ours"])
    assert made.name == prefix
    assert made.metadata.uid
    assert made.metadata.annotations["a"] == "b"
    with pytest.raises(AlreadyExists):
        await create(cluster, prefix)
    assert observed["create", "persistentvolumes", 201] == 1
    assert observed["create", "persistentvolumes", 409] == 1
    await cluster.patch_volume(prefix, {"metadata": {"finalizers": None}})


async def test_what_is_not_there_is_none(cluster: Cluster, prefix: str, namespace: str) -> None:
    """get_volume, get_claim and get_lease answer None for a name that nobody has."""
    assert await cluster.get_volume(prefix) is None
    assert await cluster.get_claim(namespace, "nobody") is None
    assert await cluster.get_claim("no-such-namespace", "nobody") is None
    assert await cluster.get_lease(namespace, "nobody") is None


async def test_a_patch_merges(cluster: Cluster, prefix: str) -> None:
    """patch_volume changes what it names, removes what it sets to None, and leaves the rest."""
    await create(cluster, prefix, annotations={"keep": "1", "drop": "1"})
    patched = await cluster.patch_volume(
        prefix, {"metadata": {"annotations": {"drop": None, "new": "1"}}, "spec": {"capacity": {"storage": "2Mi"}}}
    )
    assert patched.metadata.annotations == {"keep": "1", "new": "1"}
    assert patched.capacity == "2Mi"
    read = await cluster.get_volume(prefix)
    assert read is not None
    assert (read.metadata.annotations, read.capacity) == (patched.metadata.annotations, "2Mi")


async def test_a_patch_of_an_old_version_conflicts(cluster: Cluster, prefix: str) -> None:
    """patch_volume with a resourceVersion that is old raises Conflict, of a volume that is gone NotFound."""
    made = await create(cluster, prefix)
    await cluster.patch_volume(prefix, {"metadata": {"annotations": {"a": "1"}}})
    with pytest.raises(Conflict):
        await cluster.patch_volume(prefix, {"metadata": {"resourceVersion": made.metadata.resource_version}})
    with pytest.raises(NotFound):
        await cluster.patch_volume(prefix + "-gone", {"metadata": {"annotations": {"a": "1"}}})


async def test_what_the_server_will_never_take_is_rejected(cluster: Cluster, prefix: str) -> None:
    """An invalid object raises Rejected, with a short text that names the fault."""
    body = volume(prefix, labels={"test": prefix})
    body["spec"]["accessModes"] = ["ReadSometimes"]
    with pytest.raises(Rejected, match="accessModes") as caught:
        await cluster.create_volume(body)
    assert len(str(caught.value)) <= 300


async def test_one_finalizer_is_set_among_those_of_others(cluster: Cluster, prefix: str) -> None:
    """set_finalizer puts ours on and takes it off, again and again, by a volume read long ago, and keeps others."""
    made = await create(cluster, prefix, finalizers=["example.com/theirs"])
    await cluster.patch_volume(prefix, {"metadata": {"annotations": {"a": "1"}}})
    for present in (True, True, False, False):
        await cluster.set_finalizer(made, "example.com/ours", present=present)
        read = await cluster.get_volume(prefix)
        assert read is not None
        assert "example.com/theirs" in read.metadata.finalizers
        assert read.metadata.finalizers.count("example.com/ours") == int(present)
    await cluster.set_finalizer(made, "example.com/theirs", present=False)


async def test_a_finalizer_is_never_set_on_another_volume(cluster: Cluster, cluster_api: Api, prefix: str) -> None:
    """A volume of the same name with another uid raises Conflict, one that is gone NotFound, a deleted one Rejected."""
    made = await create(cluster, prefix, finalizers=["example.com/ours"])
    other = Volume(metadata=Metadata(name=prefix, uid="other", resource_version=made.metadata.resource_version))
    for present in (True, False):
        with pytest.raises(Conflict):
            await cluster.set_finalizer(other, "example.com/ours", present=present)
    cluster_api.delete(f"/api/v1/persistentvolumes/{prefix}")
    with pytest.raises(Rejected):
        await cluster.set_finalizer(made, "example.com/more", present=True)
    await cluster.set_finalizer(made, "example.com/ours", present=False)
    await asyncio.to_thread(cluster_api.wait_gone, f"/api/v1/persistentvolumes/{prefix}")
    with pytest.raises(NotFound):
        await cluster.set_finalizer(made, "example.com/ours", present=False)


async def test_only_the_volume_that_was_read_is_deleted(cluster: Cluster, cluster_api: Api, prefix: str) -> None:
    """delete_volume raises Conflict for another uid or an old version, and takes the volume that it was given."""
    made = await create(cluster, prefix, finalizers=["example.com/ours"])
    other = Volume(metadata=Metadata(name=prefix, uid="other", resource_version=made.metadata.resource_version))
    with pytest.raises(Conflict):
        await cluster.delete_volume(other)
    changed = await cluster.patch_volume(prefix, {"metadata": {"annotations": {"a": "1"}}})
    with pytest.raises(Conflict):
        await cluster.delete_volume(made)
    assert (await cluster.get_volume(prefix) or made).metadata.deletion_timestamp is None
    await _delete_latest(cluster, changed)
    deleted = await cluster.get_volume(prefix)
    assert deleted is not None
    assert deleted.metadata.deletion_timestamp
    await cluster.patch_volume(prefix, {"metadata": {"finalizers": None}})
    await asyncio.to_thread(cluster_api.wait_gone, f"/api/v1/persistentvolumes/{prefix}")
    with pytest.raises(NotFound):
        await cluster.delete_volume(deleted)


async def _delete_latest(cluster: Cluster, read: Volume) -> None:
    """Delete while the PV controller may still be writing the volume's phase."""
    while True:
        try:
            return await cluster.delete_volume(read)
        except Conflict:
            read = await cluster.get_volume(read.name) or read


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_volume_without_a_name_never_means_all_of_them(
    cluster: Cluster, prefix: str, observed: Observed, name: str
) -> None:
    """A call on an object without a usable name raises Rejected and asks the server nothing."""
    await create(cluster, prefix)
    before = observed.total()
    for call in (
        cluster.delete_volume(Volume(metadata=Metadata(name=name))),
        cluster.patch_volume(name, {}),
        cluster.get_volume(name),
    ):
        with pytest.raises(Rejected):
            await call
    assert observed.total() == before
    assert await cluster.get_volume(prefix) is not None


async def test_the_status_of_a_claim_is_patched(
    cluster: Cluster, cluster_api: Api, namespace: str, observed: Observed
) -> None:
    """patch_claim_status writes the status, one condition beside others, and an old version raises Conflict."""
    cluster_api.post(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim("data"))
    read = await cluster.get_claim(namespace, "data")
    assert read is not None
    assert read.key == f"{namespace}/data"
    assert read.requested == "1Gi"
    for kind in ("Resizing", "Other"):
        patch = {"conditions": [{"type": kind, "status": "True"}], "allocatedResources": {"storage": "2Gi"}}
        patched = await cluster.patch_claim_status(namespace, "data", {"status": patch})
        assert patched.status.allocated_resources == {"storage": "2Gi"}
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/data"
    assert {c["type"] for c in cluster_api.get(path)["status"]["conditions"]} >= {"Resizing", "Other"}
    with pytest.raises(Conflict):
        await cluster.patch_claim_status(
            namespace, "data", {"metadata": {"resourceVersion": "1"}, "status": {"phase": "Pending"}}
        )
    assert observed["patch", "persistentvolumeclaims/status", 200] == 2


# ------------------------------------------------------------------------------------------------ lists


async def read_all(cluster: Cluster) -> list[Page[Any]]:
    pages = [await cluster.list("volumes")]
    while pages[-1].continue_token:
        pages.append(await cluster.list("volumes", continue_token=pages[-1].continue_token))
    return pages


async def create_many(cluster: Cluster, prefix: str, count: int) -> set[str]:
    suffixes = iter(range(count))

    async def worker() -> None:
        for suffix in suffixes:
            await create(cluster, prefix, f"-{suffix}")

    await asyncio.gather(*(worker() for _ in range(64)))
    return {f"{prefix}-{suffix}" for suffix in range(count)}


async def test_a_long_list_comes_in_pages(cluster: Cluster, prefix: str) -> None:
    """1,200 volumes are listed in pages of 500, each volume once, all at one version."""
    names = await create_many(cluster, prefix, 1200)
    pages = await read_all(cluster)
    assert [len(page.items) for page in pages[:2]] == [500, 500]
    assert len(pages) >= 3
    assert len({page.version for page in pages}) == 1
    found = [item.metadata.name for page in pages for item in page.items]
    assert names <= set(found)
    assert len(found) == len(set(found))


async def test_a_page_that_came_too_late_is_expired(cluster: Cluster, control_plane: ControlPlane, prefix: str) -> None:
    """Once the server forgot the version of a list, its next page raises Expired."""
    await create_many(cluster, prefix, 501)
    page = await cluster.list("volumes")
    assert page.continue_token
    await create(cluster, prefix, "-later")
    # Not in a thread: the testbed binds its servers' lives to the thread that starts them.
    control_plane.expire()
    with pytest.raises(Expired):
        await cluster.list("volumes", continue_token=page.continue_token)


async def test_every_kind_is_listed(cluster: Cluster, cluster_api: Api, namespace: str) -> None:
    """Claims of all namespaces and classes are listed like volumes."""
    cluster_api.post(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim("data"))
    name = f"class-{secrets.token_hex(4)}"
    cluster_api.post(
        "/apis/storage.k8s.io/v1/storageclasses",
        {"metadata": {"name": name}, "provisioner": "example.com/p", "parameters": {"onDelete": "retain"}},
    )
    try:
        claims = await cluster.list("claims")
        classes = await cluster.list("classes")
    finally:
        cluster_api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
    assert (namespace, "data") in {(c.metadata.namespace, c.metadata.name) for c in claims.items}
    assert {"onDelete": "retain"} in [getattr(c, "parameters", None) for c in classes.items]


# ------------------------------------------------------------------------------------------------ events


def about(namespace: str, kind: Any = "PersistentVolumeClaim") -> Event:
    ref = ObjectRef(kind, namespace, "data", "3c1e0b5e-0000-4000-8000-000000000000", "12")
    return Event(ref, "Warning", "ProvisioningFailed", "it does not answer")


async def test_an_event_is_created_and_counted(cluster: Cluster, cluster_api: Api, namespace: str) -> None:
    """The first occurrence creates the event with all that people look for, a repetition sets count and last time."""
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


async def test_an_event_that_expired_is_created_anew(cluster: Cluster, cluster_api: Api, namespace: str) -> None:
    """A repetition of an event that is gone creates it with its count."""
    seen = datetime.now(UTC)
    await cluster.record_event(about(namespace), count=7, name="data.2", first_seen=seen, seen=seen)
    assert cluster_api.get(f"/api/v1/namespaces/{namespace}/events/data.2")["count"] == 7


async def test_an_event_that_is_there_already_is_updated(cluster: Cluster, cluster_api: Api, namespace: str) -> None:
    """A first occurrence that finds the event, as after a restart, updates it and raises nothing."""
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    for at in (seen, seen + timedelta(hours=1)):
        await cluster.record_event(about(namespace), count=1, name="data.3", first_seen=at, seen=at)
    stored = cluster_api.get(f"/api/v1/namespaces/{namespace}/events/data.3")
    assert stored["lastTimestamp"] == "2026-01-01T01:00:00Z"


async def test_events_of_volumes_live_in_default(cluster: Cluster, cluster_api: Api, prefix: str) -> None:
    """What is about an object without a namespace is found in the namespace `default`."""
    seen = datetime.now(UTC)
    await cluster.record_event(about("", "PersistentVolume"), count=1, name=prefix, first_seen=seen, seen=seen)
    stored = cluster_api.get(f"/api/v1/namespaces/default/events/{prefix}")
    assert stored["involvedObject"]["kind"] == "PersistentVolume"


async def test_an_event_in_a_namespace_that_is_gone_is_an_error_of_the_port(cluster: Cluster) -> None:
    """An event that has nowhere to go raises NotFound and nothing else."""
    seen = datetime.now(UTC)
    with pytest.raises(NotFound):
        await cluster.record_event(about("no-such-namespace"), count=1, name="x", first_seen=seen, seen=seen)


# ------------------------------------------------------------------------------------------------ leases


async def test_a_lease_goes_to_who_is_first(cluster: Cluster, namespace: str) -> None:
    """A lease is created once and replaced only by who read its last version; what is written is read back."""
    at = "2026-01-01T00:00:00.000001Z"
    record = LeaseRecord(holder="a", duration_s=15.0, acquired=at, renewed=at)
    made = await cluster.create_lease(namespace, "lease", record)
    assert made.version
    assert (made.holder, made.duration_s, made.acquired, made.renewed) == ("a", 15.0, at, at)
    with pytest.raises(AlreadyExists):
        await cluster.create_lease(namespace, "lease", record)
    taken = await cluster.replace_lease(
        namespace, "lease", LeaseRecord(holder="b", acquired=at, renewed=at, transitions=1, version=made.version)
    )
    with pytest.raises(Conflict):
        await cluster.replace_lease(namespace, "lease", made)
    assert await cluster.get_lease(namespace, "lease") == taken


async def test_a_lease_is_released(cluster: Cluster, namespace: str) -> None:
    """A lease without a holder, as a clean stop leaves it, is stored and read back as such."""
    made = await cluster.create_lease(namespace, "lease", LeaseRecord(holder="a"))
    released = await cluster.replace_lease(namespace, "lease", LeaseRecord(duration_s=0.5, version=made.version))
    assert released.holder == ""
    assert released.duration_s == 1.0


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
    """What RBAC forbids raises Rejected with the server's words, which name the verb and the resource."""
    kubeconfig = str(control_plane.kubeconfig_for(restricted_user))
    async with open_cluster(kubeconfig, provisioner="p", identity="i") as cluster:
        await cluster.ping()
        with pytest.raises(Rejected, match="cannot list resource"):
            await cluster.list("volumes")


async def test_the_name_to_verify_comes_from_the_kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> None:
    """`tls-server-name` decides which name the certificate must have; a wrong one means no connection."""
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
