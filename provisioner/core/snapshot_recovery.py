"""Recovery of snapshots: which snapshots of a lost cluster come back, and as which objects.

Each becomes a VolumeSnapshotContent for data that exists already, with the policy Retain, and a VolumeSnapshot that
names it. The record becomes one of this cluster last, so that an interrupted recovery can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from provisioner.core.objects import Snapshot
from provisioner.core.records import SnapshotRecord
from provisioner.core.recovery import Place, Present
from provisioner.core.snapshots import restored_content, restored_snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRemains:
    """What an export still has of one snapshot."""

    place: Place
    handle: str
    record: SnapshotRecord
    deleted: str = ""
    """When it was deleted, if its data is kept for its retention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStep:
    """One snapshot, and what to do about it: create the objects, then write the record."""

    remains: SnapshotRemains
    content: Mapping[str, Any] | None = None
    snapshot: Mapping[str, Any] | None = None
    record: SnapshotRecord | None = None
    """None if the record stays as it is: the next recovery looks at the snapshot again."""
    why: str = ""
    """Why something is left out."""

    @property
    def is_skipped(self) -> bool:
        """Return True if there is nothing to do."""
        return self.content is None and self.record is None


def of_cluster(found: Iterable[SnapshotRemains], present: Present, lost: str | None) -> list[SnapshotRemains]:
    """Return the snapshots of a lost cluster, the newest first."""
    theirs = [each for each in found if each.record.cluster == lost and lost != present.cluster]
    return sorted(theirs, key=lambda each: (each.record.created, each.handle), reverse=True)


def plan(
    found: Iterable[SnapshotRemains], present: Present, existing: Mapping[str, Snapshot], *, trouble: str = ""
) -> list[SnapshotStep]:
    """Decide what to do about each, in the order of their names. `found` has the newest first.

    `existing` are the VolumeSnapshots of the same names, by `namespace/name`. `trouble` is why the cluster cannot have
    any.
    """
    taken: set[str] = set()
    steps = []
    for each in found:
        step = SnapshotStep(remains=each, why=trouble) if trouble else _decide(each, present, existing, taken)
        if step.content is not None:
            taken.add(each.record.key)
        steps.append(step)
    return sorted(steps, key=lambda step: (step.remains.record.key, step.remains.handle))


def _decide(each: SnapshotRemains, present: Present, existing: Mapping[str, Snapshot], taken: set[str]) -> SnapshotStep:
    record, handle = each.record, each.handle
    own = structs.replace(record, cluster=present.cluster, namespace_uid=present.namespace_uid(record.namespace))
    if each.deleted:
        return SnapshotStep(remains=each, record=own, why="it was deleted, and expires in this cluster")
    if record.key in taken:
        return SnapshotStep(remains=each, why="a newer snapshot of the lost cluster has its name")
    content, snapshot = restored_content(handle, record, present.provisioner), restored_snapshot(handle, record)
    there = existing.get(record.key)
    if there is not None and there.spec.source.volume_snapshot_content_name != content["metadata"]["name"]:
        return SnapshotStep(remains=each, why="another VolumeSnapshot of that name exists")
    if present.cluster and record.namespace not in present.namespaces:
        why = f"namespace {record.namespace} does not exist: create it, and run the command again"
        return SnapshotStep(remains=each, content=content, why=why)
    return SnapshotStep(remains=each, content=content, snapshot=snapshot, record=own)
