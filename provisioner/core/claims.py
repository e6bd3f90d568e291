"""What to do about a claim: ignore it, wait, refuse it, or provision it (kubernetes-contract, "Provisioning").

Each rule is a small function named after what it finds. It returns a Decision, or None if it does not apply; the first
rule that applies decides. A claim that passes all rules is planned: every step of the plan can still refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import structs

from provisioner.core import classes, discretion, expansion, identity, manifests, names, quantities, snapshots
from provisioner.core.classes import ClassSettings
from provisioner.core.discretion import Owner
from provisioner.core.errors import InvalidPath, InvalidQuantity, InvalidRecord, InvalidSettings
from provisioner.core.locations import Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import (
    Claim,
    ClaimRef,
    DataSource,
    Namespace,
    Snapshot,
    SnapshotContent,
    StorageClass,
    Volume,
)
from provisioner.core.parameters import ClassParameters, Ownership, as_written
from provisioner.core.paths import is_archive_name
from provisioner.core.reasons import Reason
from provisioner.core.records import RECORD_LIMIT_BYTES, Record, SnapshotRecord, milder, require_room, short_modes
from provisioner.core.templates import Template
from provisioner.core.tenancy import UNKNOWN, Tenant

_LEAST_ROOM_BYTES = 1 << 20
"""How much more free space a copy needs, at least, than it had when it had no room."""
_VALUE_LIMIT = RECORD_LIMIT_BYTES + 1
"""Characters of a label or annotation that are kept: a directory with a longer value fits into no record anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneSource:
    """What a claim with another claim, or a snapshot, as its data source asks to be copied; read live."""

    claim: Claim | None = None
    """The claim of that name."""
    volume: Volume | None = None
    """The volume that this claim names."""
    snapshot: Snapshot | None = None
    """The snapshot of that name."""
    content: SnapshotContent | None = None
    """The content that this snapshot names."""
    handle: str = ""
    """The handle of the snapshot that the claim's annotation names."""
    stored: SnapshotRecord | None = None
    """The ledger's record of the content's snapshot."""
    begun: str = ""
    """The source of which a copy has begun, by the pending record: from then on the objects do not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """All facts for a decision about one claim, gathered at one moment."""

    provisioner: str
    claim: Claim
    storage_class: StorageClass | None
    volume: Volume | None
    """The volume that has this claim's volume name, if there is one."""
    default_export: Location | None
    holder: Callable[[Location, RelPath], Volume | None]
    """Return the volume that has a directory of an export, or one above or below it."""
    now: str
    """UTC, RFC 3339."""
    cluster: str = ""
    """The id of this cluster, which distinguishes it from others that share an export."""
    source: CloneSource | None = None
    """Of a claim that asks for a clone or a snapshot that can be had; None for all others."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """No action and no event."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """No action yet: a change of a watched object brings the claim back."""

    why: str
    directory_taken: bool = False
    """Whether the claim waits for a directory that another volume has."""
    log_message: str = ""
    """For the log, if `why` leaves out details that the claim's namespace must not see."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The claim cannot be provisioned as it is: the event says what to change."""

    reason: str
    """The machine reason, for logs and metrics (`core.reasons`)."""
    message: str
    event_reason: str = names.PROVISIONING_FAILED
    type: Literal["Normal", "Warning"] = "Warning"
    directory_taken: bool = False
    """Whether another volume has the claim's directory."""
    log_message: str = ""
    """For the log, if `message` leaves out details that the claim's namespace must not see."""
    passing: bool = False
    """Whether it ends without a change of this claim or its class: look again soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """Create this directory and this volume."""

    volume: str
    export: Location
    mount_options: MountOptions
    record: Record
    access: Ownership
    adopt: bool
    parameters: ClassParameters
    claim: Claim
    storage_class: StorageClass
    source: CloneSource | None = None
    """Of a clone."""
    tenant: Tenant = UNKNOWN
    """The claim's namespace: it decides whether the claim can have what former claims of the same name left behind."""


Decision = Ignore | Wait | Refuse | Provision


def decide(view: ClaimView) -> Decision:
    """Decide what to do about a claim. Pure: the same view always gives the same decision."""
    for rule in _RULES:
        decision = rule(view)
        if decision is not None:
            return decision
    return _plan(view)


def still_holds(plan: Provision, view: ClaimView) -> bool:
    """Return True if a claim that was planned would still be provisioned, by a later view of it.

    Cached objects never change, so the same objects lead to the same plan: then only the volumes are looked at again.
    """
    if view.claim is plan.claim and view.storage_class is plan.storage_class:
        return _path_conflict(view, plan.export, plan.record.path, adopt=plan.adopt) is None
    return isinstance(decide(view), Provision)


def template_of(claim: Claim, storage_class: StorageClass | None) -> Template | None:
    """Return the class's pattern if a pending claim must be read live for it, else None.

    The cache keeps neither labels nor most annotations of a claim.
    """
    if storage_class is None or claim.status.phase != "Pending" or claim.spec.volume_name:
        return None
    try:
        template = classes.parameters_of(storage_class).template
    except InvalidSettings:
        return None
    return template if template.reads else None


def clone_source_of(claim: Claim, storage_class: StorageClass | None, provisioner: str) -> str | None:
    """Return the claim or snapshot that must be looked up for a pending claim: its name, or its handle; else None."""
    if storage_class is None or storage_class.provisioner != provisioner or not is_unfinished(claim):
        return None
    source = claim.data_source
    if claim.status.phase != "Pending":
        return None
    if source is None:
        return snapshot_to_restore(claim) or None
    return source.name if source.is_claim or source.is_snapshot else None


def snapshot_to_restore(claim: Claim) -> str:
    """Return the handle of the snapshot that a pending claim's annotation names; empty for an archive, or for none."""
    named = claim.metadata.annotations.get(names.RESTORE, "")
    return named if snapshots.is_handle(named) else ""


def completed(cached: Claim, live: Claim, template: Template) -> Claim:
    """Return the cached claim with the labels and annotations that the pattern reads.

    All others are left out: they can be as large as a tenant likes.
    """
    labels, annotations = (
        {key: of[key][:_VALUE_LIMIT] for key in template.keys(source) if key in of}
        for source, of in (("labels", live.metadata.labels), ("annotations", live.metadata.annotations))
    )
    metadata = structs.replace(
        cached.metadata, labels=labels, annotations={**cached.metadata.annotations, **annotations}
    )
    return structs.replace(cached, metadata=metadata)


# ------------------------------------------------------------------------------------------- rules: nothing to do


def _is_for_another_provisioner(view: ClaimView) -> Decision | None:
    return None if view.claim.is_for(view.provisioner) else Ignore("the claim is another provisioner's")


def _has_a_volume(view: ClaimView) -> Decision | None:
    claim = view.claim
    has_one = claim.spec.volume_name or claim.status.phase != "Pending"
    return Ignore("the claim has a volume") if has_one else None


def _is_being_deleted(view: ClaimView) -> Decision | None:
    return Ignore("the claim is being deleted") if view.claim.metadata.deletion_timestamp else None


def _is_provisioned(view: ClaimView) -> Decision | None:
    return None if view.volume is None else Ignore("the volume exists; Kubernetes binds it")


def _names_no_class(view: ClaimView) -> Decision | None:
    return None if view.claim.class_name else Ignore("the claim names no class")


def _class_is_another_provisioners(view: ClaimView) -> Decision | None:
    storage_class = view.storage_class
    if storage_class is None or storage_class.provisioner == view.provisioner:
        return None
    return Ignore("the claim's class is another provisioner's")


# ------------------------------------------------------------------------------------------- rules: not yet


def _class_is_missing(view: ClaimView) -> Decision | None:
    return Wait("the claim's class does not exist") if view.storage_class is None else None


def _no_node_is_selected(view: ClaimView) -> Decision | None:
    annotations = view.claim.metadata.annotations
    selected = any(annotations.get(key) for key in names.SELECTED_NODE_ANNOTATIONS)
    if _class_of(view).volume_binding_mode == "WaitForFirstConsumer" and not selected:
        return Wait("no node is selected for the claim")
    return None


# ------------------------------------------------------------------------------------------- rules: not supported


def _volume_mode(view: ClaimView) -> Decision | None:
    mode = view.claim.spec.volume_mode
    if mode == "Filesystem":
        return None
    return Refuse(
        Reason.UNSUPPORTED_VOLUME_MODE, f"NFS volumes do not support volumeMode {mode}: use volumeMode: Filesystem"
    )


def _selector(view: ClaimView) -> Decision | None:
    if view.claim.spec.selector is None:
        return None
    return Refuse(
        Reason.UNSUPPORTED_SELECTOR, "a claim with a label selector cannot be provisioned: remove spec.selector"
    )


def _attributes_class(view: ClaimView) -> Decision | None:
    if not view.claim.spec.volume_attributes_class_name:
        return None
    return Refuse(
        Reason.UNSUPPORTED_ATTRIBUTES_CLASS,
        "NFS volumes do not support a VolumeAttributesClass: remove spec.volumeAttributesClassName",
    )


def _data_source(view: ClaimView) -> Decision | None:
    source = view.claim.data_source
    if source is None:
        return _restore_by_handle(view, snapshot_to_restore(view.claim))
    if view.claim.metadata.annotations.get(names.RESTORE):
        return Refuse(
            Reason.CONFLICTING_DATA_SOURCES,
            f"annotation {names.RESTORE} and spec.dataSource both name a source for the data: recreate the claim with"
            " only one of them",
        )
    if source.is_claim:
        return _clone(view, source)
    if source.is_snapshot:
        return _restore(view, view.source, source)
    return Refuse(
        Reason.EXTERNAL_POPULATOR,
        f"dataSource of kind {source.kind}: an external populator is assumed to fill the volume",
        names.PROVISIONING,
        "Normal",
    )


def _clone(view: ClaimView, source: DataSource) -> Decision | None:
    """Check the conditions of external-provisioner for a clone. A copy that has begun goes on."""
    asked = view.source
    if asked is None:
        return Wait("the source of the clone is not known")
    if asked.begun:
        return None
    claim, named = view.claim, f"source claim {view.claim.metadata.namespace}/{source.name}"
    if source.namespace not in (None, "", claim.metadata.namespace):
        return _unusable("a claim of another namespace cannot be cloned: use a source in this namespace")
    origin, volume = asked.claim, asked.volume
    if origin is None:
        return _unusable(f"{named} does not exist: create it, or delete this claim", passing=True)
    if origin.metadata.deletion_timestamp:
        return _unusable(f"{named} is being deleted: use another source", passing=True)
    if origin.spec.volume_mode != claim.spec.volume_mode:
        return _unusable(f"{named} has volumeMode {origin.spec.volume_mode}: both claims need the same")
    if origin.status.phase != "Bound" or volume is None or not identity.is_bound(volume, origin):
        message = f"waiting for {named}, which is not bound to its volume yet"
        return Refuse(Reason.CLONE_SOURCE_UNUSABLE, message, names.PROVISIONING, "Normal", passing=True)
    if not volume.is_by(view.provisioner) or volume.spec.nfs is None:
        return _unusable(f"{named} has a volume of another provisioner: copy its data with a pod")
    if quantities.is_less(claim.requested, origin.requested):
        return _unusable(f"{named} requests {origin.requested}: request at least as much")
    return None


def _restore(view: ClaimView, asked: CloneSource | None, source: DataSource) -> Decision | None:
    """Check that a snapshot can become the claim's volume. A copy that has begun goes on."""
    if asked is None:
        return Refuse(
            Reason.UNSUPPORTED_DATA_SOURCE,
            "snapshots (dataSource of kind VolumeSnapshot) are not enabled: remove spec.dataSource, or ask an admin to"
            " enable them",
        )
    if asked.begun:
        return None
    claim, named = view.claim, f"snapshot {view.claim.metadata.namespace}/{source.name}"
    if source.namespace not in (None, "", claim.metadata.namespace):
        return _unusable("a snapshot of another namespace cannot be restored: use one in this namespace")
    snapshot = asked.snapshot
    if snapshot is None:
        return _unusable(f"{named} does not exist: create it, or delete this claim", passing=True)
    if not snapshot.status.ready_to_use:
        message = f"waiting for {named}, which is not ready yet"
        return Refuse(Reason.CLONE_SOURCE_UNUSABLE, message, names.PROVISIONING, "Normal", passing=True)
    why = snapshots.unusable(asked.content, snapshot, asked.stored, view.provisioner)
    if why or asked.stored is None:
        return _unusable(why, passing=True)
    if quantities.is_less(claim.requested, asked.stored.capacity):
        return _unusable(f"{named} is of a volume of {asked.stored.capacity}: request at least as much")
    return None


def _restore_by_handle(view: ClaimView, handle: str) -> Decision | None:
    """Check that the snapshot which the claim's annotation names can become its volume. A begun copy goes on."""
    asked = view.source
    if not handle or (asked is not None and asked.begun):
        return None
    stored = asked.stored if asked is not None else None
    why = snapshots.not_for(handle, stored, view.claim.metadata.namespace, view.cluster)
    if why or stored is None:
        return _unusable(why)
    if quantities.is_less(view.claim.requested, stored.capacity):
        return _unusable(f"snapshot {handle} is of a volume of {stored.capacity}: request at least as much")
    return None


def _unusable(message: str, *, passing: bool = False) -> Refuse:
    return Refuse(Reason.CLONE_SOURCE_UNUSABLE, message, passing=passing)


def _size(view: ClaimView) -> Decision | None:
    try:
        size_bytes = quantities.parse_bytes(view.claim.requested)
    except InvalidQuantity as exc:
        return Refuse(Reason.INVALID_SIZE, f"requested size {exc}")
    if size_bytes > 0:
        return None
    return Refuse(Reason.INVALID_SIZE, f"requested size {view.claim.requested!r} is not above zero: request more")


_RULES: tuple[Callable[[ClaimView], Decision | None], ...] = (
    # Nothing to do for this provisioner: these come first, so that no event appears on such a claim, whatever is in it.
    _is_for_another_provisioner,
    _has_a_volume,
    _is_being_deleted,
    _is_provisioned,
    _names_no_class,
    _class_is_another_provisioners,
    # Not yet: a change of the class or of the claim brings the claim back.
    _class_is_missing,
    _no_node_is_selected,
    # Not supported: the claim asks for what an NFS directory cannot be.
    _volume_mode,
    _selector,
    _attributes_class,
    _size,
    _data_source,
)


def _class_of(view: ClaimView) -> StorageClass:
    assert view.storage_class is not None  # _class_is_missing comes before
    return view.storage_class


# ------------------------------------------------------------------------------------------- the plan


class _Refused(Exception):
    """A step of the plan refuses the claim."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def _plan(view: ClaimView) -> Decision:
    """Work out directory, record and export; each step can refuse the claim."""
    storage_class = _class_of(view)
    volume_name = names.volume_name(view.claim.uid)
    try:
        settings = _settings(view)
        path = _directory(view, settings, volume_name)
        record = _record(view, settings, path, volume_name)
        export = _export(storage_class, settings)
    except _Refused as exc:
        return exc.refusal
    adopt = settings.parameters.adopts(storage_class.reclaim_policy)
    return _path_conflict(view, export, path, adopt=adopt) or Provision(
        volume=volume_name,
        export=export,
        mount_options=settings.mount_options,
        record=record,
        access=settings.parameters.access,
        adopt=adopt,
        parameters=settings.parameters,
        claim=view.claim,
        storage_class=storage_class,
        source=view.source,
    )


def _settings(view: ClaimView) -> ClassSettings:
    storage_class = _class_of(view)
    try:
        return classes.settings_of(storage_class, view.default_export)
    except InvalidSettings as exc:
        raise _Refused(Refuse(exc.reason, f"StorageClass {storage_class.name}: {exc}")) from exc


def _directory(view: ClaimView, settings: ClassSettings, volume_name: str) -> RelPath:
    try:
        return settings.parameters.template.render(view.claim, volume_name)
    except InvalidPath as exc:
        storage_class = _class_of(view)
        written = as_written("pathPattern", storage_class.parameters)
        message = (
            f"{exc}: change the claim's labels or annotations, or the parameter {written} of StorageClass"
            f" {storage_class.name}, where ${{…:-other}} sets a fallback for a missing value"
        )
        raise _Refused(Refuse(exc.reason, message)) from exc


def _record(view: ClaimView, settings: ClassSettings, path: RelPath, volume_name: str) -> Record:
    claim, storage_class = view.claim, _class_of(view)
    record = Record(
        directory="/".join(path),
        namespace=claim.metadata.namespace,
        claim=claim.metadata.name,
        claim_uid=claim.uid,
        class_name=storage_class.name,
        on_delete=settings.parameters.on_delete,
        capacity=claim.requested,
        created=view.now,
        cluster=view.cluster,
        modes=short_modes(claim.spec.access_modes),
        mount_options=",".join(storage_class.mount_options),
        retention=settings.parameters.retention,
        archive="" if snapshot_to_restore(claim) else claim.metadata.annotations.get(names.RESTORE, ""),
        clone_of=_cloned(view.source),
        quota=settings.parameters.quota,
    )
    try:
        groups = settings.parameters.groups
        require_room(volume_name, record if groups is None else structs.replace(record, gid=groups.last))
    except InvalidRecord as exc:
        raise _Refused(Refuse(exc.reason, str(exc))) from exc
    if record.archive and not is_archive_name(record.archive):
        message = (
            f"annotation {names.RESTORE}: {record.archive!r} is not the name of an archive (archived-…) or the handle"
            " of a snapshot"
        )
        raise _Refused(Refuse(Reason.INVALID_ARCHIVE_NAME, message))
    return record


def _cloned(source: CloneSource | None) -> str:
    """Return the volume or snapshot of which the claim's volume becomes a copy, or empty."""
    if source is None:
        return ""
    if not source.begun and source.handle:
        return names.snapshot_source(source.handle)
    if not source.begun and source.content is not None:
        return names.snapshot_source(snapshots.handle_of(source.content))
    return source.volume.name if not source.begun and source.volume is not None else source.begun


def _export(storage_class: StorageClass, settings: ClassSettings) -> Location:
    if settings.export is not None:
        return settings.export
    message = (
        f"StorageClass {storage_class.name} names no export, and no default export is configured:"
        " add the parameters server and share"
    )
    raise _Refused(Refuse(Reason.MISSING_EXPORT, message))


def _path_conflict(view: ClaimView, export: Location, path: RelPath, *, adopt: bool) -> Decision | None:
    """Wait for the volume that has the directory, or refuse the claim.

    Return None if the directory is free.
    """
    holder = view.holder(export, path)
    if holder is None:
        return None
    asker = Owner(view.claim.metadata.namespace, view.cluster)
    owner = discretion.owner_of(holder, view.cluster)
    if is_leaving(holder, view.provisioner):
        # Usually the same claim, deleted and recreated under its name.
        log_text, event_text = discretion.words(
            asker,
            owner,
            f"volume {holder.name} has the directory and is being reclaimed",
            "a volume outside this namespace has the directory and is being reclaimed",
        )
        return Wait(event_text, directory_taken=True, log_message=log_text)
    if _is_reserved(holder, view.claim):
        return Wait(
            f"volume {holder.name} is reserved for this claim; Kubernetes binds the two if they match",
            directory_taken=True,
        )
    if _is_former(holder, view.claim) and _lies_at(holder, export, path):
        message = former_message("/".join(path), holder.name, view.claim, adopt=adopt)
        return Refuse(Reason.RETAINED_DIRECTORY, message, directory_taken=True)
    place = f" ({holder.source.path})" if holder.source else ""
    log_text, event_text = discretion.taken(asker, "/".join(path), owner, f"volume {holder.name}{place}")
    return Refuse(Reason.OVERLAPPING_DIRECTORY, event_text, directory_taken=True, log_message=log_text)


def _names(volume: Volume, claim: Claim) -> ClaimRef | None:
    """Return the claimRef of a volume if it names a claim of this namespace and name."""
    reference = volume.spec.claim_ref
    if reference is None or (reference.namespace, reference.name) != (claim.metadata.namespace, claim.metadata.name):
        return None
    return reference


def _is_reserved(volume: Volume, claim: Claim) -> bool:
    """Return True if a volume waits for this claim: an admin or a command created it, or freed it, for the claim."""
    reference = _names(volume, claim)
    waits = volume.status.phase in ("Pending", "Available")
    return reference is not None and waits and reference.uid in ("", claim.uid)


def _is_former(volume: Volume, claim: Claim) -> bool:
    """Return True if a volume belonged to an earlier claim of this name and is retained."""
    retained = volume.spec.persistent_volume_reclaim_policy == "Retain"
    return retained and volume.status.phase == "Released" and _names(volume, claim) is not None


def _lies_at(volume: Volume, export: Location, path: RelPath) -> bool:
    source = volume.source
    return source is not None and export.relative(source.server, source.path) == path


def in_namespace(plan: Provision, namespace: Namespace | None) -> Provision:
    """Return the plan with the claim's namespace in it.

    None stands for a namespace that could not be read.
    """
    tenant = Tenant.of(namespace, accepts_former=plan.parameters.accepts_former)
    return replace(plan, tenant=tenant, record=structs.replace(plan.record, namespace_uid=tenant.uid))


def is_leaving(volume: Volume, provisioner: str) -> bool:
    """Return True if a volume is this provisioner's and is about to be reclaimed."""
    # A Bound volume that is being deleted stays until its claim is deleted. That can take years: the claim that waits
    # for the directory must get a refusal, not silence.
    phase, deleted = volume.status.phase, volume.metadata.deletion_timestamp is not None
    leaving = phase in ("Released", "Failed") or (deleted and phase != "Bound")
    is_own = volume.is_by(provisioner) and volume.spec.nfs is not None
    return leaving and is_own and volume.spec.persistent_volume_reclaim_policy == "Delete"


# ------------------------------------------------------------------------------------------- messages


def unread_annotations(claim: Claim) -> Sequence[str]:
    """Return the annotations of nfs-subdir that the claim has and the provisioner ignores."""
    return [key for key in names.ACCESS_OF_NFS_SUBDIR if key in claim.metadata.annotations]


def provisioning_message(claim: Claim) -> str:
    """Return the message for a claim whose volume is being created.

    It names annotations that are ignored.
    """
    unread = unread_annotations(claim)
    note = f"; ignored annotations: {', '.join(unread)} (set mode, uid and gid in the StorageClass)" if unread else ""
    return f'provisioning a volume for claim "{claim.key}"{note}'


def succeeded_message(plan: Provision, record: Record) -> str:
    """Return the message for a claim that has its volume; `record` is the ledger's."""
    text = f"Successfully provisioned volume {plan.volume}"
    if plan.record.clone_of and plan.claim.data_source is not None:
        kind = "from snapshot" if plan.claim.data_source.is_snapshot else "as a clone of claim"
        return f"{text} {kind} {plan.claim.metadata.namespace}/{plan.claim.data_source.name}"
    if plan.record.clone_of:
        return f"{text} from snapshot {names.snapshot_handle(plan.record.clone_of)}"
    if not record.archive:
        return text
    kept = record.on_delete != plan.record.on_delete
    rule = f"; onDelete stays {record.on_delete}: a class cannot delete data that came from an archive" if kept else ""
    return f"{text} from archive {record.archive}{rule}"


def copying_message(claim: Claim, *, entries: int, size_bytes: int, trouble: str) -> str:
    """Return the message for a claim whose volume is being copied."""
    done = f"{entries:,} entries and {quantities.readable(size_bytes)} so far"
    return f"copying the data of {source_text(claim)}: {done}" + (f"; the export {trouble}" if trouble else "")


def source_text(claim: Claim) -> str:
    """Return what a claim asks to be copied, for messages."""
    source = claim.data_source
    kind = "claim" if source is not None and source.is_claim else "snapshot"
    name = f"{claim.metadata.namespace}/{source.name}" if source is not None else snapshot_to_restore(claim)
    return f"{kind} {name}"


def room_for_copy(size_bytes: int) -> int:
    """Return the free space that a copy needs which had no room when it had this much."""
    return size_bytes + max(size_bytes // 16, _LEAST_ROOM_BYTES)


def no_room_message(source: str, export: str, needed_bytes: int) -> str:
    """Return the message for a copy that begins again once the export has more free space.

    It leaves out the free space, which changes all the time: each new text would be a new event.
    """
    return (
        f"export {export} has no room for a copy of {source}, which had no space left before: it begins again once"
        f" {quantities.readable(needed_bytes)} are free: free up space on the export or enlarge it"
    )


def left_out_message(count: int, some: Sequence[str]) -> str:
    """Return the message for a copy that lacks entries and attributes which no copy can have."""
    listed = ", ".join(map(repr, some)) + (", …" if count > len(some) else "")
    return (
        f"the copy lacks {count:,} entries or attributes: sockets, devices, snapshots of the server, other file systems"
        f" and extended attributes that the server does not accept cannot be copied ({listed})"
    )


def former_message(directory: str, holder: str, claim: Claim, *, adopt: bool) -> str:
    """Return the message for a directory whose volume was retained when an earlier claim of this name was deleted."""
    patch = '{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}'
    otherwise = (
        f"; to give this claim only the directory, run `kubectl delete pv {holder}`, which keeps the data"
        if adopt
        else ""
    )
    return (
        f"directory {directory!r} belongs to volume {holder} of an earlier claim {claim.key}, which is Released and"
        " kept by its reclaim policy Retain: to bind that volume to this claim, run"
        f" `kubectl patch pv {holder} -p '{patch}'`{otherwise}"
    )


def mode_message(directory: str, mode: int, refusal: str) -> str:
    """Return the message for a directory whose default mode the server refused to set."""
    return (
        f"the server refuses to set mode {mode:04o} on directory {directory!r} ({refusal}); it keeps the mode that the"
        " server gave it: if pods cannot write there, set an ACL on the export's root that directories inherit; the"
        ' class parameter mode: "0" leaves modes to the server without this warning'
    )


def root_conflict(plan: Provision, root: Location) -> Refuse:
    """Return the refusal of a directory that overlaps with the root of another export."""
    return Refuse(
        Reason.OVERLAPPING_DIRECTORY,
        f"directory {plan.record.directory!r} overlaps with the root of export {root}: use a pathPattern that leads"
        " elsewhere, or a StorageClass of that export",
    )


def space_conflict(
    parameters: ClassParameters,
    size: str,
    *,
    export: str,
    size_bytes: int,
    free_bytes: int,
    provisioned_bytes: int,
) -> Refuse | None:
    """Return the refusal of a size by `minFree` or `overcommit`, or None.

    `provisioned_bytes` is the sum of the capacities of the export's other volumes.
    """
    if parameters.min_free is not None and free_bytes < (limit_bytes := parameters.min_free.of(size_bytes)):
        # The event leaves out the free space, which changes all the time: each new text would be a new event.
        limit, advice = quantities.readable(limit_bytes), "free up space on it, or use a class with a lower minFree"
        return Refuse(
            Reason.NOT_ENOUGH_SPACE,
            f"export {export} has less free space than the class's minFree ({limit}): {advice}",
            log_message=f"export {export} has {quantities.readable(free_bytes)} free, below the class's minFree"
            f" ({limit}): {advice}",
        )
    requested = quantities.parse_bytes(size)
    if parameters.overcommit is not None and provisioned_bytes + requested > parameters.overcommit * size_bytes:
        return Refuse(
            Reason.OVERCOMMIT_EXCEEDED,
            f"export {export}: the sum of all capacities would exceed the class's overcommit of"
            f" {parameters.overcommit:g}: request less, delete volumes, or use a class with a higher overcommit",
        )
    return None


def another_volume(volume: Volume, claim: Claim, provisioner: str) -> str:
    """Return the message for an existing volume that has the name of the claim's, but is not the planned one."""
    reference, source = volume.spec.claim_ref, volume.source
    if volume.is_by(provisioner) and reference is not None and reference.uid == claim.uid and source is not None:
        return (
            f"another provisioner named {provisioner} created volume {volume.name} at the same time, on"
            f" {source.server}:{source.path}: check for a second installation, and remove one of the two or give each"
            " its own provisioner name"
        )
    return f"volume {volume.name} already exists and is not this claim's: find out who created it, and delete it"


# ------------------------------------------------------------------------------------------- the volume


def volume_body(plan: Provision, *, provisioner: str, record: Record, export_id: str) -> dict[str, object]:
    """Return the PersistentVolume for a plan.

    `record` is the ledger's: its onDelete can be milder than the class's, as that of an archive.
    """
    claim, storage_class = plan.claim, plan.storage_class
    return manifests.volume(
        plan.volume,
        provisioner=provisioner,
        export=plan.export,
        export_id=export_id,
        directory=record.path,
        on_delete=milder(plan.record.on_delete, record.on_delete),
        capacity=claim.requested,
        access_modes=claim.spec.access_modes,
        mount_options=storage_class.mount_options,
        class_name=storage_class.name,
        reclaim_policy=storage_class.reclaim_policy,
        claim_ref={
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.uid,
            "resourceVersion": claim.metadata.resource_version,
        },
        gid=record.gid,
        quota=record.quota,
    )


def is_unfinished(claim: Claim) -> bool:
    """Return True if a claim can need work: a volume, or a larger one."""
    if claim.status.phase == "Pending":
        return not claim.metadata.deletion_timestamp and not claim.spec.volume_name
    resized = claim.requested != claim.status.capacity.get("storage") or expansion.is_marked(claim)
    return claim.status.phase == "Bound" and resized
