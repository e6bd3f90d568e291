"""Contract of the `Cluster` port for VolumeSnapshots: the driver on a real API server and the fake behave the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import names, schedules, snapshots
from provisioner.core.objects import Claim, Metadata, Snapshot, SnapshotClass, SnapshotContent
from provisioner.core.records import SnapshotRecord
from provisioner.kube.cluster import open_cluster
from provisioner.ports.cluster import (
    OPTIONAL_KINDS,
    AlreadyExists,
    Cluster,
    Conflict,
    Event,
    Kind,
    KindMissing,
    NotFound,
    ObjectRef,
)
from testbed import snapshots as testbed
from testbed.cluster import ControlPlane
from tests.contract.clusters import PROVISIONER
from tests.support.fakes.cluster import MemoryCluster

CLASS = SnapshotClass(Metadata(name="snaps"), PROVISIONER, "Delete")
NOW = datetime(2026, 1, 9, 3, tzinfo=UTC)
GROUP = "/apis/snapshot.storage.k8s.io/v1"


@dataclass(frozen=True)
class Site:
    """An API server with the CRDs and the namespace `test`."""

    cluster: Cluster
    user: MemoryCluster | ControlPlane

    async def take(self, name: str) -> Snapshot:
        """Create a VolumeSnapshot, as a user."""
        body: dict[str, Any] = {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": "test"},
            "spec": {"volumeSnapshotClassName": "snaps", "source": {"persistentVolumeClaimName": "data"}},
        }
        if isinstance(self.user, MemoryCluster):
            self.user.create("snapshots", body)
        else:
            await asyncio.to_thread(self.user.api.post, f"{GROUP}/namespaces/test/volumesnapshots", body)
        snapshot = await self.cluster.get_snapshot("test", name)
        assert snapshot is not None
        return snapshot

    async def protect(self, content: SnapshotContent) -> SnapshotContent:
        """Add the finalizer, as the snapshot-controller does."""
        finalizers = {"finalizers": [names.CONTENT_FINALIZER, "example.com/other"]}
        if isinstance(self.user, MemoryCluster):
            self.user.change("snapshot_contents", content.name, lambda body: body["metadata"].update(finalizers))
        else:
            path = f"{GROUP}/volumesnapshotcontents/{content.name}"
            await asyncio.to_thread(self.user.api.patch, path, {"metadata": finalizers})
        return await self.content(content.name)

    async def content(self, name: str) -> SnapshotContent:
        """Return a content that exists."""
        content = await self.cluster.get_snapshot_content(name)
        assert content is not None
        return content

    async def create(self, name: str) -> tuple[Snapshot, SnapshotContent]:
        """Create a snapshot and its content."""
        snapshot = await self.take(name)
        body = snapshots.content_body(snapshot, CLASS, "pvc-1")
        return snapshot, await self.cluster.create_snapshot_content(body)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without the CRDs."""
    if testbed.missing():
        pytest.skip(testbed.missing())
    with ControlPlane(tmp_path_factory.mktemp("snapshots")) as plane:
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": "test"}})
        yield plane


@pytest.fixture(scope="module")
def plane(bare: ControlPlane) -> ControlPlane:
    """The same with the CRDs."""
    testbed.create_crds(bare)
    return bare


@pytest.mark.parametrize("kind", sorted(OPTIONAL_KINDS))
async def test_a_cluster_without_the_crds(bare: ControlPlane, kind: Kind) -> None:
    """A kind whose CRD is missing differs from an outage; this test comes before the CRDs are created."""
    async with open_cluster(str(bare.kubeconfig), provisioner=PROVISIONER, identity="a") as cluster:
        with pytest.raises(KindMissing):
            await cluster.list(kind)
        with pytest.raises(KindMissing):
            await cluster.version(kind)
        with pytest.raises(KindMissing):
            await cluster.create_snapshot(schedules.body(Claim(Metadata(name="data", namespace="test")), CLASS, NOW))


@pytest.fixture(params=["memory", "real"])
async def at(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    if request.param == "memory":
        memory = MemoryCluster()
        memory.namespaces.add("test")
        yield Site(memory, memory)
        return
    plane: ControlPlane = request.getfixturevalue("plane")
    async with open_cluster(str(plane.kubeconfig), provisioner=PROVISIONER, identity="a") as cluster:
        yield Site(cluster, plane)


async def test_a_content(at: Site) -> None:
    """A content is created once, with what was sent, and listed; a missing object is None."""
    snapshot, content = await at.create("created")
    assert await at.content(names.content_name(snapshot.uid)) == content
    assert snapshots.handle_of(content) == snapshot.uid
    assert content.spec.source.volume_handle == "pvc-1"
    assert content.status is None
    with pytest.raises(AlreadyExists):
        await at.cluster.create_snapshot_content(snapshots.content_body(snapshot, CLASS, "pvc-1"))
    assert content in (await at.cluster.list("snapshot_contents")).items
    assert snapshot in (await at.cluster.list("snapshots")).items
    assert await at.cluster.get_snapshot("test", "missing") is None
    assert await at.cluster.get_snapshot_content("missing") is None


async def test_a_scheduled_snapshot(at: Site) -> None:
    """A snapshot is created once, with its label and annotation, and only the one that was read is deleted."""
    claim = Claim(Metadata(name="data", namespace="test", uid="5a5a"))
    body = schedules.body(claim, CLASS, NOW)
    created = await at.cluster.create_snapshot(body)
    assert created.metadata.labels == {names.SCHEDULED: "5a5a"}
    assert schedules.is_of(created, claim)
    assert schedules.scheduled_at(created) == NOW
    with pytest.raises(AlreadyExists):
        await at.cluster.create_snapshot(body)
    changed = await at.cluster.name_snapshot_class(created, "other")
    with pytest.raises(Conflict):
        await at.cluster.delete_snapshot(created)
    await at.cluster.delete_snapshot(changed)
    assert await at.cluster.get_snapshot("test", created.metadata.name) is None
    with pytest.raises(NotFound):
        await at.cluster.delete_snapshot(changed)


async def test_a_class(at: Site) -> None:
    """A snapshot gets a class; another snapshot of the name gets none."""
    snapshot = await at.take("classified")
    assert (await at.cluster.name_snapshot_class(snapshot, "other")).spec.volume_snapshot_class_name == "other"
    assert (await at.cluster.name_snapshot_class(snapshot, "snaps")).spec.volume_snapshot_class_name == "snaps"
    former = structs.replace(snapshot, metadata=structs.replace(snapshot.metadata, uid="former"))
    with pytest.raises(Conflict):
        await at.cluster.name_snapshot_class(former, "other")
    gone = structs.replace(snapshot, metadata=structs.replace(snapshot.metadata, name="missing"))
    with pytest.raises(NotFound):
        await at.cluster.name_snapshot_class(gone, "other")


async def test_a_status(at: Site) -> None:
    """The status is patched: begun, failed, complete without the error, and given up without the handle."""
    snapshot, content = await at.create("patched")
    patch = at.cluster.patch_snapshot_status
    begun = (await patch(content.name, snapshots.BEGUN)).status
    assert begun is not None
    assert not begun.ready_to_use
    failed = (await patch(content.name, snapshots.failed_status("why", "2026-01-01T00:00:00Z"))).status
    assert failed is not None
    assert failed.error is not None
    assert failed.error.message == "why"
    record = SnapshotRecord("test", "x", "data", "pvc-1", "snaps", "1Gi", "2026-01-01T00:00:00Z")
    done = (await patch(content.name, snapshots.complete_status(snapshot.uid, record))).status
    assert done is not None
    assert (done.ready_to_use, done.error, done.snapshot_handle) == (True, None, snapshot.uid)
    left = (await patch(content.name, snapshots.GIVEN_UP)).status
    assert left is not None
    assert (left.ready_to_use, left.snapshot_handle) == (False, "")
    with pytest.raises(NotFound):
        await patch("missing", snapshots.BEGUN)


async def test_a_finalizer(at: Site) -> None:
    """One finalizer is removed, and only from the content that was read."""
    _, content = await at.create("protected")
    protected = await at.protect(content)
    with pytest.raises(Conflict):
        await at.cluster.release_snapshot_content(content, names.CONTENT_FINALIZER)
    await at.cluster.release_snapshot_content(protected, names.CONTENT_FINALIZER)
    assert (await at.content(content.name)).metadata.finalizers == ("example.com/other",)


async def test_a_deletion(at: Site) -> None:
    """Only the content that was read is deleted; a protected one stays until it is released."""
    _, content = await at.create("deleted")
    protected = await at.protect(content)
    with pytest.raises(Conflict):
        await at.cluster.delete_snapshot_content(content)
    await at.cluster.delete_snapshot_content(protected)
    leaving = await at.content(content.name)
    assert leaving.metadata.deletion_timestamp
    await at.cluster.release_snapshot_content(leaving, names.CONTENT_FINALIZER)
    await at.cluster.release_snapshot_content(await at.content(content.name), "example.com/other")
    assert await at.cluster.get_snapshot_content(content.name) is None
    with pytest.raises(NotFound):
        await at.cluster.delete_snapshot_content(leaving)


async def test_an_event(at: Site) -> None:
    """An event of a snapshot is in the snapshot's namespace."""
    snapshot = await at.take("reported")
    about = ObjectRef("VolumeSnapshot", "test", "reported", snapshot.uid)
    now = datetime.now(UTC)
    event = Event(about, "Warning", names.SNAPSHOT_FAILED, "why")
    await at.cluster.record_event(event, count=1, name="reported.1", first_seen=now, seen=now)
