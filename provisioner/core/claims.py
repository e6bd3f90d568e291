"""What to do about a claim: leave it, wait, refuse it, or provision it (kubernetes-contract, "Provisioning").

Each rule is a small function that returns a Decision or None for "not my case"; the first one to speak wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from msgspec import structs

from provisioner.core import discretion, expansion, manifests, mount_options, names, quantities
from provisioner.core.discretion import Owner
from provisioner.core.errors import InvalidPath, InvalidQuantity, InvalidRecord, InvalidSettings
from provisioner.core.locations import Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, ClaimRef, Namespace, StorageClass, Volume
from provisioner.core.parameters import ClassParameters, Ownership, as_written, parse
from provisioner.core.paths import is_archive_name
from provisioner.core.records import RECORD_LIMIT_BYTES, Record, milder, require_room, short_modes
from provisioner.core.templates import Template
from provisioner.core.tenancy import UNKNOWN, Tenant

_LONGEST = RECORD_LIMIT_BYTES + 1
"""Characters of a label or annotation: with a longer one in its directory no record of a claim can be written."""

ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """All that a decision about one claim is made of, gathered at one moment."""

    provisioner: str
    claim: Claim
    storage_class: StorageClass | None
    volume: Volume | None
    """The volume that bears this claim's name, if there is one."""
    default_export: Location | None
    holder: Callable[[Location, RelPath], Volume | None]
    """Which volume has a directory of an export, or one above or below it."""
    now: str
    """UTC, RFC 3339."""
    cluster: str = ""
    """What tells this cluster from others that share an export."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing to do, and nobody to tell."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: a change of something that we watch brings the claim back."""

    why: str
    on_a_path: bool = False
    """Whether it is for a directory that somebody else has."""
    whole: str = ""
    """For the log, where `why` does not tell all."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not as it is: the event says what to change."""

    message: str
    reason: str = names.PROVISIONING_FAILED
    type: Literal["Normal", "Warning"] = "Warning"
    on_a_path: bool = False
    """Whether it is for a directory that somebody else has."""
    whole: str = ""
    """For the log, where the message does not tell all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """Make this directory and this volume."""

    volume: str
    export: Location
    mount_options: MountOptions
    record: Record
    access: Ownership
    adopt: bool
    parameters: ClassParameters
    claim: Claim
    storage_class: StorageClass
    tenant: Tenant = UNKNOWN
    """Who may have what former claims of the same name have left."""


Decision = Ignore | Wait | Refuse | Provision


def decide(view: ClaimView) -> Decision:
    """What to do about a claim; pure, so that the same view always gives the same answer."""
    return _not_ours(view) or _not_yet(view) or _unsupported(view) or _plan(view)


def template_of(claim: Claim, storage_class: StorageClass | None) -> Template | None:
    """The class's pattern where it reads more of a claim that waits than the cache keeps; else None."""
    if storage_class is None or claim.status.phase != "Pending" or claim.spec.volume_name:
        return None
    try:
        template = parse(storage_class.parameters).template
    except InvalidSettings:
        return None
    return template if template.keys("labels") or template.keys("annotations") else None


def completed(cached: Claim, live: Claim, template: Template) -> Claim:
    """The claim with what the pattern reads of it, and no more: the rest may be as large as a tenant likes."""
    labels, annotations = (
        {key: of[key][:_LONGEST] for key in template.keys(source) if key in of}
        for source, of in (("labels", live.metadata.labels), ("annotations", live.metadata.annotations))
    )
    metadata = structs.replace(
        cached.metadata, labels=labels, annotations={**cached.metadata.annotations, **annotations}
    )
    return structs.replace(cached, metadata=metadata)


def _not_ours(view: ClaimView) -> Decision | None:
    claim, storage_class = view.claim, view.storage_class
    if not claim.is_for(view.provisioner):
        return Ignore("the claim is another provisioner's")
    if claim.spec.volume_name or claim.status.phase != "Pending":
        return Ignore("the claim has a volume")
    if claim.metadata.deletion_timestamp:
        return Ignore("the claim is being deleted")
    if view.volume is not None:
        return Ignore("the volume exists; binding it is the cluster's part")
    if not claim.class_name:
        return Ignore("the claim names no class")
    if storage_class is not None and storage_class.provisioner != view.provisioner:
        return Ignore("the claim's class is another provisioner's")
    return None


def _not_yet(view: ClaimView) -> Decision | None:
    if view.storage_class is None:
        return Wait("the claim's class does not exist")
    annotations = view.claim.metadata.annotations
    selected = any(annotations.get(key) for key in names.SELECTED_NODE_ANNOTATIONS)
    if view.storage_class.volume_binding_mode == "WaitForFirstConsumer" and not selected:
        return Wait("no node is selected for the claim")
    return None


def _unsupported(view: ClaimView) -> Decision | None:
    spec = view.claim.spec
    if spec.volume_mode != "Filesystem":
        return Refuse(f"an NFS directory cannot serve volumeMode {spec.volume_mode}: use volumeMode: Filesystem")
    if spec.selector is not None:
        return Refuse("a claim with a label selector cannot be provisioned: remove spec.selector")
    if spec.volume_attributes_class_name:
        return Refuse("an NFS volume never matches a VolumeAttributesClass: remove spec.volumeAttributesClassName")
    return _data_source(view)


def _data_source(view: ClaimView) -> Decision | None:
    source = view.claim.spec.data_source_ref or view.claim.spec.data_source
    if source is None:
        return None
    if view.claim.metadata.annotations.get(names.RESTORE):
        return Refuse(
            f"annotation {names.RESTORE} and spec.dataSource each say where the data is to come from: make the claim"
            " anew with one of them"
        )
    if source.kind == "PersistentVolumeClaim" and not source.api_group:
        return Refuse("clones (dataSource of kind PersistentVolumeClaim) are not supported yet: remove spec.dataSource")
    if source.kind == "VolumeSnapshot":
        return Refuse("snapshots (dataSource of kind VolumeSnapshot) are not supported: remove spec.dataSource")
    return Refuse(
        f"dataSource of kind {source.kind}: an external populator is assumed to fill the volume",
        names.PROVISIONING,
        "Normal",
    )


def _plan(view: ClaimView) -> Decision:
    claim, storage_class = view.claim, view.storage_class
    assert storage_class is not None  # _not_yet has looked
    try:
        if quantities.parse_bytes(claim.requested) <= 0:
            return Refuse(f"the requested size {claim.requested!r} is not above zero")
        parameters = parse(storage_class.parameters)
        options = mount_options.parse(storage_class.mount_options)
        name = names.volume_name(claim.uid)
        path = parameters.template.render(claim, name)
        record = _record(view, storage_class, parameters, path)
    except InvalidSettings as exc:
        return Refuse(f"StorageClass {storage_class.name}: {exc}")
    except InvalidPath as exc:
        written = as_written("pathPattern", storage_class.parameters)
        return Refuse(
            f"{exc}: change the claim's labels or annotations, or the parameter {written} of StorageClass"
            f" {storage_class.name}, where ${{…:-other}} stands in for what is missing"
        )
    except (InvalidRecord, InvalidQuantity) as exc:
        return Refuse(str(exc))
    if record.archive and not is_archive_name(record.archive):
        return Refuse(f"annotation {names.RESTORE}: {record.archive!r} is not the name of an archive (archived-…)")
    export = parameters.export or view.default_export
    if export is None:
        return Refuse(
            f"StorageClass {storage_class.name} names no export, and no default export is configured:"
            " add the parameters server and share"
        )
    adopt = parameters.adopts(storage_class.reclaim_policy)
    return _path_conflict(view, export, path, adopt=adopt) or Provision(
        volume=name,
        export=export,
        mount_options=options,
        record=record,
        access=parameters.access,
        adopt=adopt,
        parameters=parameters,
        claim=claim,
        storage_class=storage_class,
    )


def _record(view: ClaimView, storage_class: StorageClass, parameters: ClassParameters, path: RelPath) -> Record:
    claim = view.claim
    record = Record(
        directory="/".join(path),
        namespace=claim.metadata.namespace,
        claim=claim.metadata.name,
        claim_uid=claim.uid,
        class_name=storage_class.name,
        on_delete=parameters.on_delete,
        capacity=claim.requested,
        created=view.now,
        cluster=view.cluster,
        modes=short_modes(claim.spec.access_modes),
        mount_options=",".join(storage_class.mount_options),
        retention=parameters.retention,
        archive=claim.metadata.annotations.get(names.RESTORE, ""),
    )
    require_room(names.volume_name(claim.uid), record)
    return record


def _path_conflict(view: ClaimView, export: Location, path: RelPath, *, adopt: bool) -> Decision | None:
    holder = view.holder(export, path)
    if holder is None:
        return None
    asker = Owner(view.claim.metadata.namespace, view.cluster)
    owner = discretion.owner_of(holder, view.cluster)
    if is_leaving(holder, view.provisioner):
        # Mostly the same claim, deleted and made again under its name.
        whole, told = discretion.words(
            asker,
            owner,
            f"volume {holder.name}, which has the directory, is being reclaimed",
            "a volume outside this namespace, which has the directory, is being reclaimed",
        )
        return Wait(told, on_a_path=True, whole=whole)
    if _is_reserved(holder, view.claim):
        return Wait(
            f"volume {holder.name} is for this claim, and the cluster binds the two if they fit", on_a_path=True
        )
    if _is_former(holder, view.claim) and _lies_at(holder, export, path):
        return Refuse(former_message("/".join(path), holder.name, view.claim, adopt=adopt), on_a_path=True)
    place = holder.source.path if holder.source else ""
    by = f"volume {holder.name} has {place!r}, and no volume may have another's directory, or one above or below it"
    whole, told = discretion.taken(asker, "/".join(path), owner, by)
    return Refuse(told, on_a_path=True, whole=whole)


def _names(volume: Volume, claim: Claim) -> ClaimRef | None:
    """The claimRef of a volume that is, or was, for a claim of this name."""
    reference = volume.spec.claim_ref
    if reference is None or (reference.namespace, reference.name) != (claim.metadata.namespace, claim.metadata.name):
        return None
    return reference


def _is_reserved(volume: Volume, claim: Claim) -> bool:
    """Whether a volume waits for this claim: an admin, or a command of ours, made or freed it for the claim."""
    reference = _names(volume, claim)
    waits = volume.status.phase in ("Pending", "Available")
    return reference is not None and waits and reference.uid in ("", claim.uid)


def _is_former(volume: Volume, claim: Claim) -> bool:
    """Whether a volume is what a claim of this name had, and is kept."""
    kept = volume.spec.persistent_volume_reclaim_policy == "Retain"
    return kept and volume.status.phase == "Released" and _names(volume, claim) is not None


def _lies_at(volume: Volume, export: Location, path: RelPath) -> bool:
    source = volume.source
    return source is not None and export.relative(source.server, source.path) == path


def in_namespace(plan: Provision, namespace: Namespace | None) -> Provision:
    """A plan with the claim's namespace, as it was read; None is one that could not be."""
    tenant = Tenant.of(namespace, accepts_former=plan.parameters.accepts_former)
    return replace(plan, tenant=tenant, record=structs.replace(plan.record, namespace_uid=tenant.uid))


def is_leaving(volume: Volume, provisioner: str) -> bool:
    """Whether a volume is of ours and on its way out."""
    # A Bound one that somebody deletes stays for as long as its claim: that may be years, and must not pass in silence.
    phase, deleted = volume.status.phase, volume.metadata.deletion_timestamp is not None
    leaving = phase in ("Released", "Failed") or (deleted and phase != "Bound")
    ours = volume.is_by(provisioner) and volume.spec.nfs is not None
    return leaving and ours and volume.spec.persistent_volume_reclaim_policy == "Delete"


def provisioning_message(claim: Claim) -> str:
    """The words for a claim whose volume is being made, and for what on it has no effect."""
    unread = [key for key in names.ACCESS_OF_NFS_SUBDIR if key in claim.metadata.annotations]
    note = f"; without effect: {', '.join(unread)}, as the class's mode, uid and gid count" if unread else ""
    return f'provisioning a volume for claim "{claim.key}"{note}'


def succeeded_message(plan: Provision, record: Record) -> str:
    """The words for a claim that has its volume; `record` is what the ledger has."""
    text = f"Successfully provisioned volume {plan.volume}"
    if not record.archive:
        return text
    kept = record.on_delete != plan.record.on_delete
    rule = f"; its rule stays {record.on_delete}: an archive is never deleted by way of a class" if kept else ""
    return f"{text} from archive {record.archive}{rule}"


def former_message(directory: str, holder: str, claim: Claim, *, adopt: bool) -> str:
    """The words for a directory whose volume was retained when an earlier claim of this name was deleted."""
    patch = '{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}'
    otherwise = (
        f"; or delete the volume with `kubectl delete pv {holder}`, which leaves its data, and this claim gets the"
        " directory"
    )
    return (
        f"directory {directory!r} is that of volume {holder}, which an earlier claim {claim.key} had and which is"
        " Released: its reclaim policy Retain keeps it for an admin's decision. To have this claim bound to it, run"
        f" `kubectl patch pv {holder} -p '{patch}'`{otherwise if adopt else ''}"
    )


def mode_message(directory: str, mode: int, refusal: str) -> str:
    """The words for a directory whose default mode the server refused to set."""
    return (
        f"the server refuses to set the mode {mode:04o} of directory {directory!r} ({refusal}): it keeps the mode that"
        " the server gave it. If pods cannot write there, let the export's root pass on an ACL that lets them; the"
        ' parameter mode: "0" in the class leaves modes to the server without this warning'
    )


def root_conflict(plan: Provision, root: Location) -> Refuse:
    """The words for a directory in which another export has its root."""
    return Refuse(
        f"directory {plan.record.directory!r} is taken: export {root} has its root there, or above or below;"
        " choose a pathPattern that leads elsewhere, or take a class of that export"
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
    """Whether `minFree` or `overcommit` refuse a size; `provisioned_bytes` sums the export's other volumes."""
    if parameters.min_free is not None and free_bytes < parameters.min_free.of(size_bytes):
        return Refuse(f"export {export} has less free than the class's minFree keeps for the volumes that exist")
    requested = quantities.parse_bytes(size)
    if parameters.overcommit is not None and provisioned_bytes + requested > parameters.overcommit * size_bytes:
        return Refuse(f"export {export}: this claim would pass the class's overcommit of {parameters.overcommit:g}")
    return None


def not_ours(volume: Volume, claim: Claim, provisioner: str) -> str:
    """The message for an existing volume that has the name of the claim's, and is not the one in the plan."""
    reference, source = volume.spec.claim_ref, volume.source
    if volume.is_by(provisioner) and reference is not None and reference.uid == claim.uid and source is not None:
        return (
            f"volume {volume.name} was made at the same time, on {source.server}:{source.path}, by another provisioner"
            f" of the name {provisioner}: is there a second installation? Remove one of them, or give each its own"
            " provisioner name"
        )
    return f"a volume {volume.name} that is not this claim's exists already: see who made it, and delete it"


def volume_body(plan: Provision, *, provisioner: str, record: Record, export_id: str) -> dict[str, object]:
    """The PersistentVolume for a plan; `record` is what the ledger has: its rule may be milder, as an archive's is."""
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
    )


def is_unfinished(claim: Claim) -> bool:
    """Whether a claim can need anything of us: a volume, or a larger one."""
    if claim.status.phase == "Pending":
        return not claim.metadata.deletion_timestamp and not claim.spec.volume_name
    resized = claim.requested != claim.status.capacity.get("storage") or expansion.is_marked(claim)
    return claim.status.phase == "Bound" and resized
