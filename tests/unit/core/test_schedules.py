"""core.schedules: when a snapshot is due, and which ones are kept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.core import names, schedules
from provisioner.core.errors import InvalidSettings
from provisioner.core.objects import (
    Metadata,
    Snapshot,
    SnapshotClass,
    SnapshotSource,
    SnapshotSpec,
    SnapshotStatus,
    StorageClass,
)
from provisioner.core.schedules import Plan
from tests.support import samples

CLAIM = samples.claim()
NIGHTLY = "0 3 * * *"


def at(day: int, hour: int = 3) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def snapshot(day: int, *, ready: bool = True, **metadata: object) -> Snapshot:
    """Return a scheduled snapshot of the claim."""
    meta = Metadata(
        name=f"data-{day}",
        namespace=CLAIM.metadata.namespace,
        uid=f"s{day}",
        labels={names.SCHEDULED: CLAIM.uid},
        annotations={names.SCHEDULED_AT: f"2026-01-{day:02}T03:00:00Z"},
    )
    spec = SnapshotSpec(SnapshotSource(persistent_volume_claim_name=CLAIM.metadata.name), "snaps")
    return Snapshot(structs.replace(meta, **metadata), spec, SnapshotStatus(ready_to_use=ready))


@pytest.mark.parametrize(
    ("cron", "now", "due"),
    [
        (NIGHTLY, at(2, 12), at(2)),
        (NIGHTLY, at(2), at(2)),
        (NIGHTLY, at(2, 2), at(1)),
        ("0 3 * * sun", at(9), at(4)),
        ("*/15 * * * *", at(2).replace(minute=17, second=3, microsecond=5), at(2).replace(minute=15)),
    ],
)
def test_what_is_due(cron: str, now: datetime, due: datetime) -> None:
    """The latest time of the schedule that is not in the future is due."""
    assert schedules.last_due(schedules.check(cron), now) == due


@pytest.mark.parametrize(
    "cron",
    ["", "daily", "@daily", "0 3 * *", "0 0 3 * * *", "60 3 * * *", "0 3 30 2 *", "0 3 * * 1#2/3", "0 3 * * mon#6"],
)
def test_what_is_no_schedule(cron: str) -> None:
    """Anything but five fields that are due at some time is refused."""
    with pytest.raises(InvalidSettings, match="is not a schedule"):
        schedules.check(cron)


DUE, BEGAN = at(9), at(1, 0)


def plan(*taken: Snapshot, due: datetime = DUE, keep: int | None = 2, since: datetime = BEGAN) -> Plan:
    return schedules.plan(CLAIM, taken, due=due, since=since, keep=keep)


def test_creation() -> None:
    """A snapshot is created once per time that is due, and not for times before the schedule began."""
    assert plan() == plan(snapshot(8)) == Plan(create=at(9))
    assert plan(snapshot(9)) == plan(snapshot(8), snapshot(9)) == Plan()
    assert plan(snapshot(3)).create == at(9)  # all but the last that were missed are left out
    assert plan(since=at(9, 4)) == Plan()
    assert plan(snapshot(8, annotations={})) == Plan(create=at(9))


def test_what_is_kept() -> None:
    """The oldest ready ones beyond `keep` go, once the newest is ready."""
    known = [snapshot(day) for day in (8, 7, 9, 6)]
    assert [each.uid for each in plan(*known).delete] == ["s6", "s7"]
    assert plan(*known, keep=None).delete == plan(*known, keep=4).delete == ()
    unfinished = snapshot(9, ready=False)
    assert plan(snapshot(8), snapshot(7), snapshot(6), unfinished, due=at(10)) == Plan()
    failed = snapshot(5, ready=False)
    assert [each.uid for each in plan(failed, *known).delete] == ["s6", "s7"]


def test_whose_snapshots_count() -> None:
    """Only scheduled snapshots of exactly this claim count, and none that is being deleted."""
    others = [
        snapshot(9, labels={names.SCHEDULED: "another"}),
        snapshot(9, labels={}),
        snapshot(9, namespace="another"),
        snapshot(9, deletion_timestamp="2026-01-09T04:00:00Z"),
        structs.replace(snapshot(9), spec=SnapshotSpec(SnapshotSource(persistent_volume_claim_name="another"))),
    ]
    assert plan(*others, keep=1) == Plan(create=at(9))


def test_since_when() -> None:
    """A schedule begins with the volume, or with the class if that is younger."""
    volume = samples.volume()
    older = structs.replace(
        volume, metadata=structs.replace(volume.metadata, creation_timestamp="2026-01-02T00:00:00Z")
    )
    storage_class = StorageClass(Metadata(name="nfs", creation_timestamp="2026-01-03T00:00:00Z"))
    assert schedules.begins(older, storage_class) == at(3, 0)
    assert schedules.begins(older, StorageClass()) == at(2, 0)


def test_the_class() -> None:
    """The default class of the driver counts, or its only one; several are ambiguous."""

    def named(name: str, driver: str = "us", **annotations: str) -> SnapshotClass:
        return SnapshotClass(Metadata(name=name, annotations=annotations), driver)

    first, second, foreign = named("first"), named("second"), named("foreign", "other")
    default = structs.replace(named("default"), metadata=Metadata(annotations={names.DEFAULT_SNAPSHOT_CLASS: "true"}))
    assert schedules.class_for({"f": foreign, "1": first}, "us") == first
    assert schedules.class_for({"1": first, "2": second}, "us") is None
    assert schedules.class_for({"1": first, "d": default}, "us") == default
    assert schedules.class_for({"f": foreign}, "us") is None
    assert "us" in schedules.no_class("us")


def test_the_object() -> None:
    """The name says when it was due, is the same for each attempt, and fits for every claim."""
    snapshot_class = SnapshotClass(Metadata(name="snaps"), "us")
    body = schedules.body(CLAIM, snapshot_class, at(9))
    assert body["metadata"] == {
        "namespace": CLAIM.metadata.namespace,
        "name": f"{CLAIM.metadata.name}-202601090300",
        "labels": {names.SCHEDULED: CLAIM.uid},
        "annotations": {names.SCHEDULED_AT: "2026-01-09T03:00:00Z"},
    }
    long = structs.replace(CLAIM, metadata=structs.replace(CLAIM.metadata, name="a" * 199 + "." + "b" * 53))
    made = schedules.body(long, snapshot_class, at(9))["metadata"]
    assert isinstance(made, dict)
    assert made["name"] == f"{'a' * 199}-{CLAIM.uid[:8]}-202601090300"
