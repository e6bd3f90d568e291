"""What `check` says of snapshots: whether the cluster can have them, and whether the snapshot-controller is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from provisioner.core import schedules, snapshot_classes, times
from provisioner.core.checks import Finding
from provisioner.core.errors import InvalidSettings
from provisioner.core.objects import Snapshot, SnapshotClass
from provisioner.core.scope import count
from provisioner.core.snapshots import is_default

_PROMPT = timedelta(minutes=1)
"""The snapshot-controller adds its finalizer to a new VolumeSnapshot within this time."""
_INSTALL = "install the CRDs and the snapshot-controller of external-snapshotter: docs/how-to/snapshots.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What the cluster has for snapshots."""

    driver: str
    enabled: bool
    scheduled: Sequence[str]
    """The StorageClasses that have a schedule."""
    classes: Sequence[SnapshotClass] | None
    """The VolumeSnapshotClasses of all drivers; None without their CRD."""
    snapshots: Sequence[Snapshot]
    """All VolumeSnapshots."""
    now: datetime


def judge(facts: SnapshotFacts) -> list[Finding]:
    """Return the findings about snapshots; none if they are not enabled and no class has a schedule."""
    scheduled = f"; schedule in {', '.join(facts.scheduled)}" if facts.scheduled else ""
    if not facts.enabled:
        if not facts.scheduled:
            return []
        result = f"not enabled{scheduled}"
        return [_finding(result, "set the chart value snapshots.enabled, or start the daemon with --snapshots")]
    if facts.classes is None:
        return [_finding(f"the cluster lacks the CRDs of VolumeSnapshots{scheduled}", _INSTALL, fails=bool(scheduled))]
    own = [each for each in facts.classes if each.driver == facts.driver]
    return [_of_classes(facts, own, scheduled), *_of_parameters(own)]


def _of_classes(facts: SnapshotFacts, own: Sequence[SnapshotClass], scheduled: str) -> Finding:
    if not own:
        result = f"no VolumeSnapshotClass has driver {facts.driver}{scheduled}"
        advice = f"create a VolumeSnapshotClass with driver: {facts.driver}, or set snapshots.class.create"
        return _finding(result, advice, fails=bool(scheduled))
    listed = ", ".join(sorted(f"{each.name} (default)" if is_default(each) else each.name for each in own))
    if scheduled and schedules.class_for({each.name: each for each in own}, facts.driver) is None:
        result = f"of the VolumeSnapshotClasses {listed} not exactly one is the default{scheduled}"
        return _finding(result, 'mark one with snapshot.storage.kubernetes.io/is-default-class: "true"')
    unseen = [each for each in facts.snapshots if _is_unseen(each, {known.name for known in own}, facts.now)]
    result = f"CRDs present; VolumeSnapshotClass {listed}{scheduled}"
    if unseen:
        some = f"{count(len(unseen), 'VolumeSnapshot')}, such as {unseen[0].key}"
        result = f"{result}; the snapshot-controller has not seen {some}"
        return _finding(result, "check that the snapshot-controller runs; " + _INSTALL, fails=False)
    seen = any(each.metadata.finalizers for each in facts.snapshots)
    return _finding(f"{result}; the snapshot-controller {'is at work' if seen else 'has had nothing to do'}")


def _is_unseen(snapshot: Snapshot, classes: set[str], now: datetime) -> bool:
    """Return True if the snapshot-controller should have put its finalizer on a VolumeSnapshot, and has not."""
    created = times.parse(snapshot.metadata.creation_timestamp)
    is_own = snapshot.spec.volume_snapshot_class_name in classes and not snapshot.metadata.deletion_timestamp
    return is_own and not snapshot.metadata.finalizers and created is not None and now - created > _PROMPT


def _of_parameters(own: Sequence[SnapshotClass]) -> list[Finding]:
    found = []
    for each in own:
        try:
            snapshot_classes.parse(each.parameters)
        except InvalidSettings as exc:
            advice = "delete the class and create it again, corrected; its snapshots stay as they are"
            found.append(_finding(f"VolumeSnapshotClass {each.name}: {exc}", advice))
    return found


def _finding(result: str, advice: str = "", *, fails: bool = True) -> Finding:
    """Return a finding: without advice all is well, and with it something fails, or only needs attention."""
    warning = bool(advice) and not fails
    return Finding(kind="snapshots", name="", ok=not advice or warning, result=result, advice=advice, warning=warning)
