"""Periodic snapshots: when one of a volume is due, and which ones are no longer kept.

A schedule is a cron expression of five fields, in UTC. Only the latest time that is over counts: a snapshot that was
due during an outage is made once, after it. A scheduled snapshot carries a label with the uid of its claim, and an
annotation with the time at which it was due. Without the label it is the user's own, and is never deleted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from provisioner.core import names, times
from provisioner.core.errors import InvalidSettings
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, StorageClass, Volume
from provisioner.core.snapshots import is_default

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do about the scheduled snapshots of one claim."""

    create: datetime | None = None
    """When the snapshot was due that is to be created; None for no snapshot."""
    delete: Sequence[Snapshot] = ()


def check(cron: str) -> str:
    """Return a cron expression that can be used. Raises InvalidSettings."""
    if len(cron.split()) != 5:
        raise InvalidSettings(
            f"{cron!r} is not a schedule of five fields such as 0 3 * * * (minute hour day month weekday)"
        )
    try:
        last_due(cron, _SOME_DAY)
    except (CronSimError, AssertionError, TypeError, ValueError, StopIteration) as exc:
        raise InvalidSettings(f"{cron!r} is not a schedule such as 0 3 * * * (UTC): {exc or 'never due'}") from exc
    return cron


def last_due(cron: str, now: datetime) -> datetime:
    """Return the latest time of a schedule that is not after `now`."""
    return next(CronSim(cron, now.replace(microsecond=0) + timedelta(seconds=1), reverse=True))


def plan(
    claim: Claim,
    taken: Iterable[Snapshot],
    *,
    due: datetime,
    since: datetime,
    keep: int | None,
) -> Plan:
    """Decide about one claim. `taken` are its scheduled snapshots.

    What was due before `since` was no duty yet. While a snapshot is not ready, no further one is created, and none is
    deleted.
    """
    known = sorted((each for each in taken if is_of(each, claim) and not each.metadata.deletion_timestamp), key=_order)
    if known and not known[-1].status.ready_to_use:
        return Plan()
    ready = tuple(each for each in known if each.status.ready_to_use)
    surplus = ready[: max(0, len(ready) - keep)] if keep is not None else ()
    wanted = due > max([since, *map(scheduled_at, known)])
    return Plan(create=due if wanted else None, delete=surplus)


def is_of(snapshot: Snapshot, claim: Claim) -> bool:
    """Return True if a snapshot was scheduled for a claim. The label alone can be anyone's."""
    where = snapshot.metadata.namespace, snapshot.spec.source.persistent_volume_claim_name
    named = snapshot.metadata.labels.get(names.SCHEDULED) == claim.uid
    return named and where == (claim.metadata.namespace, claim.metadata.name)


def scheduled_at(snapshot: Snapshot) -> datetime:
    """Return when a scheduled snapshot was due; the first time of all if its annotation cannot be read."""
    return times.parse(snapshot.metadata.annotations.get(names.SCHEDULED_AT, "")) or _NEVER


def _order(snapshot: Snapshot) -> tuple[datetime, str]:
    return scheduled_at(snapshot), snapshot.metadata.creation_timestamp


def begins(volume: Volume, storage_class: StorageClass) -> datetime:
    """Return since when a volume has its schedule: what was due before is not made."""
    created = (volume.metadata.creation_timestamp, storage_class.metadata.creation_timestamp)
    return max(times.parse(each) or _NEVER for each in created)


def class_for(classes: Mapping[str, SnapshotClass], driver: str) -> SnapshotClass | None:
    """Return the class of scheduled snapshots: the default class of the driver, or its only one; None for neither."""
    own = [each for each in classes.values() if each.driver == driver]
    defaults = [each for each in own if is_default(each)]
    candidates = defaults or own
    return candidates[0] if len(candidates) == 1 else None


def body(claim: Claim, snapshot_class: SnapshotClass, due: datetime) -> dict[str, object]:
    """Return the VolumeSnapshot of a claim that was due at a time. Every attempt gives it the same name."""
    name = claim.metadata.name
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME].rstrip('-.')}-{claim.uid[:8]}"
    return {
        "apiVersion": f"{names.SNAPSHOT_GROUP}/v1",
        "kind": "VolumeSnapshot",
        "metadata": {
            "namespace": claim.metadata.namespace,
            "name": f"{name}-{due:%Y%m%d%H%M}",
            "labels": {names.SCHEDULED: claim.uid},
            "annotations": {names.SCHEDULED_AT: times.text(due)},
        },
        "spec": {
            "volumeSnapshotClassName": snapshot_class.name,
            "source": {"persistentVolumeClaimName": claim.metadata.name},
        },
    }


NOT_ENABLED = "its class has a schedule for snapshots, which are not enabled: set the chart value snapshots.enabled"
NO_CRDS = (
    "its class has a schedule for snapshots, and the cluster lacks the CRDs of VolumeSnapshots: install them and the"
    " snapshot-controller of external-snapshotter"
)


def no_class(driver: str) -> str:
    """Return the message for a schedule without a VolumeSnapshotClass."""
    return (
        f"its class has a schedule for snapshots, and driver {driver} has no VolumeSnapshotClass, or several of which"
        f" not exactly one is the default: create one, or annotate one with {names.DEFAULT_SNAPSHOT_CLASS}"
    )
