"""core.snapshot_health: what `check` says of snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from msgspec import structs

from provisioner.core import names
from provisioner.core.checks import Finding
from provisioner.core.objects import Metadata, Snapshot, SnapshotClass, SnapshotSource, SnapshotSpec
from provisioner.core.snapshot_health import SnapshotFacts, judge

CLASS = SnapshotClass(Metadata(name="snaps"), "us", "Delete")
DEFAULT = structs.replace(CLASS, metadata=Metadata(name="best", annotations={names.DEFAULT_SNAPSHOT_CLASS: "true"}))
OLD = "2026-01-01T00:00:00Z"
FACTS = SnapshotFacts(
    driver="us",
    enabled=True,
    scheduled=(),
    classes=[CLASS, SnapshotClass(Metadata(name="x"), "other")],
    snapshots=(),
    now=datetime(2026, 1, 1, 1, tzinfo=UTC),
)


def taken(*, class_name: str = "snaps", **metadata: object) -> Snapshot:
    meta = Metadata(name="s", namespace="shop", uid="u", creation_timestamp=OLD)
    return Snapshot(structs.replace(meta, **metadata), SnapshotSpec(SnapshotSource("data"), class_name))


def one(facts: SnapshotFacts) -> Finding:
    (finding,) = judge(facts)
    assert finding.kind == "snapshots"
    return finding


def test_not_enabled() -> None:
    """Without snapshots there is no row, unless a class has a schedule: then it fails."""
    facts = replace(FACTS, enabled=False)
    assert judge(facts) == []
    finding = one(replace(facts, scheduled=["nightly"]))
    assert (finding.ok, finding.result) == (False, "not enabled; schedule in nightly")


def test_no_crds() -> None:
    """Missing CRDs are a warning, and a failure if a class has a schedule."""
    finding = one(replace(FACTS, classes=None))
    assert (finding.ok, finding.warning) == (True, True)
    assert "lacks the CRDs" in finding.result
    assert not one(replace(FACTS, classes=None, scheduled=["nightly"])).ok


def test_no_class() -> None:
    """So is a missing VolumeSnapshotClass."""
    finding = one(replace(FACTS, classes=[]))
    assert (finding.ok, finding.warning) == (True, True)
    assert "no VolumeSnapshotClass has driver us" in finding.result
    assert not one(replace(FACTS, classes=[], scheduled=["nightly"])).ok


def test_classes() -> None:
    """The classes are listed; a schedule needs one that is the default, or the only one."""
    finding = one(replace(FACTS, classes=[CLASS, DEFAULT], scheduled=["nightly"]))
    assert (finding.ok, finding.warning) == (True, False)
    assert "VolumeSnapshotClass best (default), snaps; schedule in nightly" in finding.result
    other = structs.replace(CLASS, metadata=Metadata(name="other"))
    assert one(replace(FACTS, classes=[CLASS, other])).ok
    assert not one(replace(FACTS, classes=[CLASS, other], scheduled=["nightly"])).ok


def test_parameters() -> None:
    """A class whose parameters cannot be used fails in a row of its own."""
    _, finding = judge(replace(FACTS, classes=[structs.replace(CLASS, parameters={"keep": "7"})]))
    assert not finding.ok
    assert "VolumeSnapshotClass snaps: parameter keep is unknown" in finding.result


def test_the_snapshot_controller() -> None:
    """It is at work if it has seen snapshots; one that it has not seen for a minute is a warning."""
    assert "has had nothing to do" in one(FACTS).result
    seen = taken(finalizers=("f",))
    fresh, leaving = taken(creation_timestamp="2026-01-01T00:59:30Z"), taken(deletion_timestamp=OLD)
    fine = one(replace(FACTS, snapshots=[seen, fresh, leaving, taken(class_name="x")]))
    assert (fine.warning, "is at work" in fine.result) == (False, True)
    unseen = one(replace(FACTS, snapshots=[seen, taken()]))
    assert (unseen.ok, unseen.warning) == (True, True)
    assert "has not seen 1 VolumeSnapshot, such as shop/s" in unseen.result
