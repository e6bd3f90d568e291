"""core.snapshot_recovery: which snapshots of a lost cluster come back, and as which objects."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from provisioner.core import snapshots
from provisioner.core.objects import Metadata, Snapshot, SnapshotSource, SnapshotSpec
from provisioner.core.records import SnapshotRecord
from provisioner.core.recovery import Present
from provisioner.core.snapshot_recovery import SnapshotRemains, SnapshotStep, of_cluster, plan
from tests.support import samples
from tests.unit.core.test_recovery import PLACE

OLD, NEW = "old", "new"
RECORD = SnapshotRecord("shop", "nightly", "data", "pvc-1", "snaps", "1Gi", "2026-01-01T00:00:00Z", OLD)
PRESENT = Present(provisioner=samples.US, cluster=NEW, namespaces={"shop": "uid-of-shop"})


def remains(handle: str = "h1", record: SnapshotRecord = RECORD, deleted: str = "") -> SnapshotRemains:
    return SnapshotRemains(place=PLACE, handle=handle, record=record, deleted=deleted)


def one(each: SnapshotRemains, present: Present = PRESENT, *existing: Snapshot) -> SnapshotStep:
    (step,) = plan([each], present, {snapshot.key: snapshot for snapshot in existing})
    return step


def test_whose() -> None:
    """Only snapshots of the lost cluster are recovered, the newest first."""
    newer = structs.replace(RECORD, created="2026-01-02T00:00:00Z")
    found = [remains(), remains("h2", newer), remains("h3", structs.replace(RECORD, cluster=NEW))]
    assert [each.handle for each in of_cluster(found, PRESENT, OLD)] == ["h2", "h1"]
    assert of_cluster(found, PRESENT, None) == of_cluster(found, PRESENT, NEW) == []


def test_a_snapshot() -> None:
    """It gets a content that Retains, a VolumeSnapshot that names it, and a record of this cluster and namespace."""
    step = one(remains())
    assert step.content == snapshots.restored_content("h1", RECORD, samples.US)
    assert step.content["spec"]["deletionPolicy"] == "Retain"
    assert step.content["spec"]["source"] == {"snapshotHandle": "h1"}
    assert step.snapshot == snapshots.restored_snapshot("h1", RECORD)
    assert step.record == structs.replace(RECORD, cluster=NEW, namespace_uid="uid-of-shop")
    assert (step.why, step.is_skipped) == ("", False)
    offline = one(remains(), Present(provisioner=samples.US))
    assert offline.snapshot is not None


def test_a_namespace_that_is_missing() -> None:
    """Without its namespace, a snapshot gets its content alone, and the next recovery looks at it again."""
    step = one(remains(), replace(PRESENT, namespaces={}))
    assert (step.content is None, step.snapshot, step.record) == (False, None, None)
    assert "namespace shop does not exist" in step.why


def test_names_that_are_taken() -> None:
    """Another VolumeSnapshot of the name is left alone; of two snapshots, the newer comes back."""
    metadata, source = Metadata(name="nightly", namespace="shop"), SnapshotSource(persistent_volume_claim_name="data")
    assert one(remains(), PRESENT, Snapshot(metadata, SnapshotSpec(source))).is_skipped
    again = SnapshotSpec(SnapshotSource(volume_snapshot_content_name="restored-h1"))
    assert one(remains(), PRESENT, Snapshot(metadata, again)).snapshot is not None
    older = structs.replace(RECORD, created="2025-01-01T00:00:00Z")
    first, second = plan([remains("h2"), remains("h1", older)], PRESENT, {})
    assert (first.is_skipped, second.is_skipped) == (True, False)
    assert "newer" in first.why


def test_a_deleted_snapshot() -> None:
    """A snapshot that was deleted gets no object; by its record it expires in this cluster."""
    step = one(remains(deleted="2026-01-02T00:00:00Z"))
    assert (step.content, step.snapshot, step.is_skipped) == (None, None, False)
    assert step.record is not None
    assert step.record.cluster == NEW


def test_a_cluster_without_snapshots() -> None:
    """A cluster that cannot have VolumeSnapshots gets none, with the reason."""
    (step,) = plan([remains()], PRESENT, {}, trouble="no CRDs")
    assert (step.is_skipped, step.why) == (True, "no CRDs")
