"""What to do about a VolumeSnapshot and its content (docs/development/copies.md).

The provisioner is both creator and sidecar of the contents of its driver: the stock snapshot-controller creates none
for volumes that are not CSI volumes. Users and admins can change most fields of a content, so none of them is trusted:
the ledger's record decides which data belongs to a content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, structs

from provisioner.core import archives, identity, names, quantities, snapshot_classes, times
from provisioner.core.archives import Moment
from provisioner.core.errors import InvalidRecord, InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, SnapshotContent, Volume
from provisioner.core.records import GID_LIMIT, UID, SnapshotRecord, encode
from provisioner.core.tenancy import Tenant

_NANOSECONDS = 10**9
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION = f"{names.SNAPSHOT_GROUP}/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotView:
    """All facts for a decision about one content, or about the snapshot that needs it; read live."""

    provisioner: str
    cluster: str
    now: str
    """UTC, RFC 3339."""
    content: SnapshotContent | None
    snapshot: Snapshot | None
    """The snapshot with the uid that the content names; None if it is gone."""
    snapshot_class: SnapshotClass | None
    """The class that the snapshot names; see `class_of` for one that names none."""
    claim: Claim | None
    """The claim that the snapshot names."""
    volume: Volume | None
    """The volume of that claim; if the claim is gone, the volume that the content names."""
    stored: SnapshotRecord | None
    """The ledger's record of the complete snapshot."""
    begun: bool
    """Whether a ledger says that its copy has begun, by this leader or an earlier one, and is not complete."""
    shared: bool
    """Whether another content, which is not being deleted, has the same data."""
    all_read: bool
    """Whether the ledgers of all exports were read: until then, a snapshot without a record can have one."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """No action."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """No action yet: a change of a watched object brings the content back."""

    why: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The snapshot cannot be served: its content's status and an event say why."""

    message: str


@dataclass(frozen=True, slots=True)
class Take:
    """Create the content if there is none, and copy the volume, unless the ledger has the snapshot."""

    record: SnapshotRecord
    export: Location | None = None
    """The export that keeps it; None for that of the volume."""


@dataclass(frozen=True, slots=True)
class Serve:
    """The snapshot is complete: create the content if there is none, and complete its status."""

    handle: str
    record: SnapshotRecord


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The snapshot is gone before its copy was complete: discard the copy, and delete the content if there is one."""


@dataclass(frozen=True, slots=True)
class Release:
    """The content goes: discard the copy, remove the data if `data`, then remove the finalizer or the content."""

    data: bool
    retained: bool = False
    """Whether the data is only marked as deleted, and removed after its retention."""


Decision = Ignore | Wait | Fail | Take | Serve | Withdraw | Release


def class_of(snapshot: Snapshot, classes: Mapping[str, SnapshotClass], driver: str) -> SnapshotClass | None:
    """Return the class that a snapshot names; if it names none, the default class of the driver, if that is one.

    The snapshot-controller looks for a default class for CSI volumes only.
    """
    if not snapshot.lacks_class:
        return classes.get(snapshot.spec.volume_snapshot_class_name or "")
    defaults = [each for each in classes.values() if each.driver == driver and is_default(each)]
    return defaults[0] if len(defaults) == 1 else None


def is_default(snapshot_class: SnapshotClass) -> bool:
    """Return True if a class is marked as the default class of its driver."""
    return snapshot_class.metadata.annotations.get(names.DEFAULT_SNAPSHOT_CLASS) == "true"


def handle_of(content: SnapshotContent) -> str:
    """Return the handle of the snapshot that belongs to a content, by fields that cannot change; empty for none.

    `status.snapshotHandle` can change, and counts for nothing.
    """
    handle = content.spec.source.snapshot_handle
    if handle:
        return handle
    uid = content.spec.volume_snapshot_ref.uid
    return uid if content.name == names.content_name(uid) else ""


def decide(view: SnapshotView) -> Decision:
    """Decide what to do about a content, or about the snapshot that needs one."""
    content = view.content
    if content is None:
        return _without_content(view)
    if content.spec.driver != view.provisioner:
        return Ignore("the content is another driver's")
    if content.metadata.deletion_timestamp:
        return _deleted(view, content)
    if view.stored is not None:
        return _complete(view, content, view.stored)
    if content.spec.source.snapshot_handle or _is_lost(view, content):
        if not view.all_read:
            return Wait("not all exports were read")
        return Fail(
            f"no ledger has a snapshot {handle_of(content)!r}: check snapshotHandle, and that its export is used"
        )
    if not handle_of(content):
        return Fail("the content was not created by the provisioner: use a VolumeSnapshot of a claim")
    if view.snapshot is None:
        return Withdraw() if view.all_read else Wait("not all exports were read")
    if view.snapshot.metadata.deletion_timestamp and not view.begun:
        return Wait("the snapshot is being deleted")
    # What has begun goes on: a claim that restores from the snapshot holds up its deletion.
    return _taken(view, view.snapshot)


def _deleted(view: SnapshotView, content: SnapshotContent) -> Decision:
    """Act on a deletion only if the snapshot-controller asked for it, or if the content has no snapshot."""
    if names.CONTENT_FINALIZER not in content.metadata.finalizers:
        return Ignore("the content is released")
    asked = content.metadata.annotations.get(names.SNAPSHOT_BEING_DELETED) == "yes"
    is_bound = bool(content.spec.volume_snapshot_ref.uid)
    # Also with Retain: what was begun has to end first, or a rename that comes late completes it for no content.
    matters = content.spec.deletion_policy == "Delete" or not _was_complete(content)
    if matters and view.stored is None and not view.all_read:
        return Wait("not all exports were read")
    if not asked and is_bound and (view.snapshot is not None or view.stored is not None):
        return _in_use(view, content)
    if content.spec.deletion_policy == "Delete" and view.stored is None and _was_complete(content):
        return Fail(
            f"no ledger has the data of snapshot {handle_of(content)}, which is to be deleted: check that its export is"
            " used; to give the data up, set deletionPolicy of the content to Retain"
        )
    return _release(view, content)


def _in_use(view: SnapshotView, content: SnapshotContent) -> Decision:
    """Go on with a content that was deleted by hand under its snapshot, until it is ready.

    Otherwise a copy that an earlier leader has begun would stay unfinished, and the reclaim of its source would wait.
    """
    snapshot, is_ready = view.snapshot, content.status is not None and content.status.ready_to_use
    is_ours = handle_of(content) and not content.spec.source.snapshot_handle
    if is_ours and not is_ready and snapshot is not None:
        if view.stored is not None:
            return _complete(view, content, view.stored)
        if view.begun or not (snapshot.metadata.deletion_timestamp or _is_lost(view, content)):
            return _taken(view, snapshot)
    return Wait("the content is in use: delete its VolumeSnapshot")


def _release(view: SnapshotView, content: SnapshotContent) -> Release:
    stored = view.stored
    own = stored is not None and stored.cluster == view.cluster
    data = own and content.spec.deletion_policy == "Delete" and not view.shared
    return Release(data=data, retained=data and stored is not None and bool(stored.retention))


def _was_complete(content: SnapshotContent) -> bool:
    """Return True if a content was served, and the removal of its data has not begun; see GIVEN_UP."""
    return content.status is not None and bool(content.status.snapshot_handle)


def _is_lost(view: SnapshotView, content: SnapshotContent) -> bool:
    """Return True if a content was served, and no ledger has its data.

    Then the volume is not copied again: the snapshot would silently have newer data than its time says.
    """
    status = content.status
    was_served = status is not None and (status.ready_to_use or bool(status.snapshot_handle))
    return was_served and view.stored is None and not view.begun


def _complete(view: SnapshotView, content: SnapshotContent, stored: SnapshotRecord) -> Decision:
    handle, source, reference = handle_of(content), content.spec.source, content.spec.volume_snapshot_ref
    if not source.snapshot_handle and (source.volume_handle, reference.namespace, reference.name) != (
        stored.volume,
        stored.namespace,
        stored.snapshot,
    ):
        return Fail(
            f"the content does not match the ledger's record of snapshot {stored.key} of volume {stored.volume}"
        )
    if (
        not source.snapshot_handle
        and view.snapshot is None
        and names.CONTENT_FINALIZER not in content.metadata.finalizers
    ):
        # The snapshot was deleted before the snapshot-controller saw its content, which it never deletes then.
        return _release(view, content)
    status = content.status
    if status is not None and status.ready_to_use and status.error is None and status.snapshot_handle == handle:
        return Ignore("the snapshot is complete")
    return Serve(handle, stored)


def _without_content(view: SnapshotView) -> Decision:
    snapshot, snapshot_class = view.snapshot, view.snapshot_class
    if snapshot is None:
        return Withdraw()
    if snapshot.metadata.deletion_timestamp:
        return Withdraw() if view.stored is None else Ignore("the snapshot is being deleted")
    if not snapshot.spec.source.persistent_volume_claim_name:
        return Ignore("the snapshot names its content")
    if snapshot_class is None and (view.stored is not None or not snapshot.lacks_class):
        return Ignore("the snapshot's class does not exist")
    if snapshot_class is not None and snapshot_class.driver != view.provisioner:
        return Ignore("the snapshot's class is another driver's")
    if view.stored is not None:
        same = (view.stored.namespace, view.stored.snapshot) == (snapshot.metadata.namespace, snapshot.metadata.name)
        return Serve(snapshot.uid, view.stored) if same else Fail("the ledger has another snapshot of this uid")
    return _taken(view, snapshot)


def _taken(view: SnapshotView, snapshot: Snapshot) -> Decision:
    """Plan the copy of a snapshot's volume."""
    content, claim, volume, snapshot_class = view.content, view.claim, view.volume, view.snapshot_class
    name = f"{snapshot.metadata.namespace}/{snapshot.spec.source.persistent_volume_claim_name}"
    if claim is None and content is None:
        return Wait(f"claim {name} does not exist")
    if claim is not None and claim.status.phase == "Pending":
        return Wait(f"claim {name} is not bound to its volume yet")
    if content is None and snapshot.lacks_class and (volume is None or not volume.is_by(view.provisioner)):
        return Ignore("the snapshot names no class, and its claim has no volume of this provisioner")
    if volume is None or not _is_of(volume, claim, name):
        return Fail(f"claim {name} is not bound to a volume: use a claim that is")
    if not volume.is_by(view.provisioner) or volume.spec.nfs is None:
        return Fail(f"claim {name} has a volume of another provisioner: use a VolumeSnapshotClass of its driver")
    if content is not None and content.spec.source.volume_handle != volume.name:
        return Fail(f"the content names volume {content.spec.source.volume_handle}, not that of claim {name}")
    if content is None and snapshot_class is None:
        return Fail(
            f"no VolumeSnapshotClass of driver {view.provisioner} is the default, or several are: set"
            f" spec.volumeSnapshotClassName, or annotate one class with {names.DEFAULT_SNAPSHOT_CLASS}"
        )
    try:
        parameters = snapshot_classes.parse(snapshot_class.parameters if snapshot_class is not None else {})
    except InvalidSettings as exc:
        return Fail(f"VolumeSnapshotClass {_class_name(view, snapshot)}: {exc}")
    record = SnapshotRecord(
        namespace=snapshot.metadata.namespace,
        snapshot=snapshot.metadata.name,
        claim=snapshot.spec.source.persistent_volume_claim_name,
        volume=volume.name,
        class_name=_class_name(view, snapshot),
        capacity=volume.capacity,
        created=view.now,
        cluster=view.cluster,
        retention=parameters.retention,
    )
    try:
        encode(structs.replace(record, gid=GID_LIMIT, namespace_uid=UID))
    except InvalidRecord as exc:
        return Fail(str(exc))
    return Take(record, parameters.export)


def _class_name(view: SnapshotView, snapshot: Snapshot) -> str:
    """Return the name of a snapshot's class, which its content has if the snapshot does not name it yet."""
    of_content = view.content.spec.volume_snapshot_class_name if view.content is not None else None
    of_class = view.snapshot_class.name if view.snapshot_class is not None else None
    return snapshot.spec.volume_snapshot_class_name or of_content or of_class or ""


def _is_of(volume: Volume, claim: Claim | None, name: str) -> bool:
    """Return True if a volume is the claim's; if the claim is gone, whether it was that of a claim of this name."""
    reference = volume.spec.claim_ref
    if claim is not None:
        return identity.is_bound(volume, claim)
    return reference is not None and f"{reference.namespace}/{reference.name}" == name


def is_over(record: SnapshotRecord, deleted: str, moment: Moment) -> bool:
    """Return True if the retention of a snapshot is over that was deleted at a time."""
    return archives.is_over(archives.end_of(deleted, record.retention), moment)


# ------------------------------------------------------------------------------------------- restoring


def is_handle(text: str) -> bool:
    """Return True if a text can be the handle of a snapshot: a uid."""
    return _UID.fullmatch(text) is not None


def not_for(handle: str, stored: SnapshotRecord | None, namespace: str, cluster: str) -> str:
    """Return why a claim of a namespace cannot get a snapshot by its handle, or empty."""
    if stored is None or stored.namespace != namespace:
        return f"no ledger has a snapshot {handle} of namespace {namespace}: `nfs-provisioner snapshots` lists all"
    if stored.cluster != cluster:
        return (
            f"snapshot {handle} is of another cluster that shares the export: `nfs-provisioner recover` brings it here"
        )
    return ""


def not_of(handle: str, stored: SnapshotRecord, tenant: Tenant) -> str:
    """Return why a snapshot is not that of the namespace as it is now, or empty."""
    if tenant.owns(stored):
        return ""
    return (
        f"snapshot {handle} cannot be restored: {tenant.why_not(stored.namespace)}. An admin can allow it for this"
        " namespace with a class that has formerNamespace: accept"
    )


def unusable(content: SnapshotContent | None, snapshot: Snapshot, stored: SnapshotRecord | None, driver: str) -> str:
    """Return why a snapshot cannot become a volume, or empty."""
    if content is None or content.spec.driver != driver:
        return f"snapshot {snapshot.key} is another driver's: use a StorageClass of its provisioner"
    reference = content.spec.volume_snapshot_ref
    named = (reference.namespace, reference.name, reference.uid)
    if named != (snapshot.metadata.namespace, snapshot.metadata.name, snapshot.uid):
        return f"snapshot {snapshot.key} and its content do not name each other: create the snapshot again"
    if stored is None:
        return f"no ledger has the data of snapshot {snapshot.key}: check that its export is used"
    return ""


# ------------------------------------------------------------------------------------------- objects


def content_body(snapshot: Snapshot, snapshot_class: SnapshotClass, volume_name: str) -> dict[str, object]:
    """Return the VolumeSnapshotContent of a snapshot."""
    return {
        "apiVersion": _VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": names.content_name(snapshot.uid)},
        "spec": {
            "driver": snapshot_class.driver,
            "deletionPolicy": snapshot_class.deletion_policy,
            "volumeSnapshotClassName": snapshot_class.name,
            "sourceVolumeMode": "Filesystem",
            "source": {"volumeHandle": volume_name},
            "volumeSnapshotRef": {
                "apiVersion": _VERSION,
                "kind": "VolumeSnapshot",
                "namespace": snapshot.metadata.namespace,
                "name": snapshot.metadata.name,
                "uid": snapshot.uid,
            },
        },
    }


BEGUN = {"status": {"readyToUse": False}}
"""The status of a content while its data is copied: with it, the snapshot-controller's own error disappears."""


GIVEN_UP = {"status": {"snapshotHandle": None, "readyToUse": False}}
"""The status of a content right before its data is removed: from then on it can go although no ledger has the data."""


def complete_status(handle: str, record: SnapshotRecord) -> dict[str, object]:
    """Return the status of a complete content.

    `creationTime` is set only here: tools take it for the end of the copy.
    """
    created = times.parse(record.created)
    return {
        "status": {
            "snapshotHandle": handle,
            "creationTime": int(created.timestamp()) * _NANOSECONDS if created is not None else None,
            "restoreSize": quantities.total_bytes([record.capacity]),
            "readyToUse": True,
            "error": None,
        }
    }


def failed_status(message: str, now: str) -> dict[str, object]:
    """Return the status of a content that cannot be served."""
    return {"status": {"readyToUse": False, "error": {"message": message, "time": now}}}


# ------------------------------------------------------------------------------------------- listing


class SnapshotRow(Struct, frozen=True):
    """One snapshot; the fields are the columns of the table."""

    handle: str
    export: str
    namespace: str
    snapshot: str
    claim: str
    volume: str
    snapshot_class: str
    capacity: str
    """The size of the volume that it was taken of."""
    taken: str
    """UTC, RFC 3339."""
    own: bool
    """Whether it was taken in this cluster."""
    deleted: str
    """When it was deleted, if its data is kept for its retention: UTC, RFC 3339."""
    kept_until: str
    """When the data of a deleted snapshot is removed: UTC, RFC 3339."""


def listed(handle: str, record: SnapshotRecord, *, export: str, cluster: str, deleted: str = "") -> SnapshotRow:
    """Return the row of a snapshot, as seen from one cluster."""
    until = archives.end_of(deleted, record.retention)
    return SnapshotRow(
        handle=handle,
        export=export,
        namespace=record.namespace,
        snapshot=record.snapshot,
        claim=record.claim,
        volume=record.volume,
        snapshot_class=record.class_name,
        capacity=record.capacity,
        taken=record.created,
        own=record.cluster == cluster,
        deleted=deleted,
        kept_until=times.text(until) if until is not None else "",
    )


def in_order(rows: Iterable[SnapshotRow]) -> list[SnapshotRow]:
    """Sort by namespace and claim, the newest of each first."""
    youngest_first = sorted(rows, key=lambda each: (each.taken, each.handle), reverse=True)
    return sorted(youngest_first, key=lambda each: (each.namespace, each.claim))


def manifests(rows: Sequence[SnapshotRow], driver: str) -> dict[str, object]:
    """Return objects that bring snapshots back into a cluster, as contents that exist already (pre-provisioned)."""
    items: list[dict[str, Any]] = []
    for each in rows:
        items += [restored_content(each.handle, each, driver), restored_snapshot(each.handle, each)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def restored_content(handle: str, of: SnapshotRow | SnapshotRecord, driver: str) -> dict[str, Any]:
    """Return the content that brings a snapshot back."""
    reference = {"namespace": of.namespace, "name": of.snapshot}
    return {
        "apiVersion": _VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": names.restored_content_name(handle)},
        "spec": {
            "driver": driver,
            "deletionPolicy": "Retain",
            "sourceVolumeMode": "Filesystem",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"apiVersion": _VERSION, "kind": "VolumeSnapshot", **reference},
        },
    }


def restored_snapshot(handle: str, of: SnapshotRow | SnapshotRecord) -> dict[str, Any]:
    """Return the VolumeSnapshot for the content that brings a snapshot back."""
    return {
        "apiVersion": _VERSION,
        "kind": "VolumeSnapshot",
        "metadata": {"namespace": of.namespace, "name": of.snapshot},
        "spec": {"source": {"volumeSnapshotContentName": names.restored_content_name(handle)}},
    }
