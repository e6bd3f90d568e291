"""What to do about a volume: set its finalizer, reclaim its directory, or refuse to.

There are two steps: `decide` looks at the cache, cheaply and often; `authorize` looks at objects that were read live,
right before anything is destroyed. Every user who can create volumes can write the provisioner's annotations, so the
ledger is authoritative.
Source: kubernetes-contract, "Finalizer and deletion"; design, "The export's ledger".
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import identity, names
from provisioner.core.locations import RelPath
from provisioner.core.neighbours import shared_message
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.reasons import Reason
from provisioner.core.records import OnDelete, Record, milder


@dataclass(frozen=True, slots=True)
class Leave:
    """No action and no event."""

    why: str


@dataclass(frozen=True, slots=True)
class Finalizer:
    """The provisioner's finalizer is missing, or is there without need."""

    present: bool


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Delete the volume, and delete, archive or retain its directory as the rule says."""

    on_delete: OnDelete


@dataclass(frozen=True, slots=True)
class Deny:
    """The volume asks to be reclaimed, and the provisioner refuses: the event says why and what to do."""

    reason: str
    """The machine reason, for logs and metrics (`core.reasons`)."""
    message: str


def decide(volume: Volume, provisioner: str) -> Leave | Finalizer | Reclaim | Deny:
    """Decide what a volume needs, by the cache. Reclaim only means that a live look is needed.

    A volume that was taken over from nfs-subdir gets no finalizer: until it is reclaimed, an admin can go back to that
    provisioner.
    """
    policy, phase = volume.spec.persistent_volume_reclaim_policy, volume.status.phase
    if not volume.is_by(provisioner):
        return Leave("the volume is another provisioner's")
    if volume.spec.csi is not None and phase in _RELEASED and policy == "Delete":
        return Deny(Reason.UNSUPPORTED_DRIVER, _CSI)
    if volume.spec.nfs is None:
        return Leave("the volume is not an NFS volume")
    has_finalizer = names.FINALIZER in volume.metadata.finalizers
    if policy != "Delete":
        return Finalizer(present=False) if has_finalizer else Leave(f"its reclaim policy is {policy}")
    if volume.metadata.deletion_timestamp and not has_finalizer:
        return Leave("its directory is already reclaimed")
    if volume.metadata.deletion_timestamp and phase == "Available":
        return Finalizer(present=False)  # no claim ever releases it: its directory and record stay
    if phase in _RELEASED:
        return Reclaim(_recorded_rule(volume) or "retain")
    if phase == "Bound" and not has_finalizer and volume.is_marked:
        return Finalizer(present=True)
    return Leave(f"it is {phase}")


_RELEASED = ("Released", "Failed")
"""Failed: kube-controller-manager could not reclaim it, as its provisioned-by annotation was missing for a while."""

_CSI = (
    f"volumes of driver {names.CSI_DRIVER_NFS} are not reclaimed by this provisioner: let csi-driver-nfs delete it, or"
    " delete the volume with its finalizers, and then its directory, manually"
)


def _recorded_rule(volume: Volume) -> OnDelete | None:
    match volume.metadata.annotations.get(names.ON_DELETE):
        case "delete" | "archive" | "retain" as rule:
            return rule
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimFacts:
    """The facts read right before a reclaim: volume and claim from the API server, the record from the export."""

    volume: Volume
    claim: Claim | None
    """The claim that now has the name in the volume's claimRef, if any."""
    export: str
    export_id: str
    path: RelPath
    """The volume's directory below the export's root."""
    record: Record | None
    cluster: str = ""
    """The id of this cluster, which distinguishes it from others that share the export."""
    neighbour: str = ""
    """Another volume that uses this directory, or one above or below it, and is not being deleted itself."""


def authorize(facts: ReclaimFacts, provisioner: str) -> Leave | Reclaim | Deny:
    """Decide whether the volume's directory can be reclaimed now, and how. Everything that does not match is a refusal.

    The rule is the one on the volume since its creation, or the ledger's if that is milder: a volume that was forged to
    point at a retained directory must not get that directory deleted.
    """
    volume = facts.volume
    again = decide(volume, provisioner)
    if not isinstance(again, Reclaim):
        return Leave("it has changed since")
    reference = volume.spec.claim_ref
    if reference is None:
        message = "it has no claimRef, so nothing says whose directory this is: restore spec.claimRef"
        return Deny(Reason.MISSING_CLAIM_REF, message)
    if facts.claim is not None and reference.uid in ("", facts.claim.uid):
        return Leave("its claim still exists")
    if not facts.path or any(part in (".", "..") for part in facts.path):
        message = f"its path is not a directory below the export {facts.export}; nothing was deleted"
        return Deny(Reason.INVALID_PATH, message)
    judged = _marked(facts, reference) if volume.is_marked else _taken_over(facts, reference)
    if isinstance(judged, Reclaim) and judged.on_delete != "retain" and facts.neighbour:
        return Deny(Reason.OVERLAPPING_DIRECTORY, shared_message("/".join(facts.path), facts.neighbour))
    return judged


def _marked(facts: ReclaimFacts, reference: ClaimRef) -> Reclaim | Deny:
    volume, export = facts.volume, facts.export
    annotated = _recorded_rule(volume)
    if annotated is None:
        message = f"its annotation {names.ON_DELETE} is not delete, archive or retain; nothing was deleted"
        return Deny(Reason.INVALID_RULE, message)
    if volume.metadata.annotations.get(names.EXPORT_ID) != facts.export_id:
        return Deny(
            Reason.EXPORT_MISMATCH,
            f"it was created on another export than the one that is now {export}, or its annotation {names.EXPORT_ID}"
            " was changed; nothing was deleted: run `nfs-provisioner recover --ledger` to see what to do",
        )
    recorded = _by_the_ledger(facts, reference)
    if isinstance(recorded, Deny):
        return recorded
    return Reclaim(milder(annotated, recorded.on_delete))


def _taken_over(facts: ReclaimFacts, reference: ClaimRef) -> Reclaim | Deny:
    """A volume that was taken over from nfs-subdir has no annotation with its rule: the record has it."""
    recorded = _by_the_ledger(facts, reference)
    if isinstance(recorded, Deny):
        return recorded
    if not recorded.peer:
        message = f"its annotations {', '.join(names.MARKS)} are gone; nothing was deleted: restore them"
        return Deny(Reason.MISSING_ANNOTATION, message)
    return Reclaim(recorded.on_delete)


def _by_the_ledger(facts: ReclaimFacts, reference: ClaimRef) -> Record | Deny:
    """Return the record if it matches the volume that is to be reclaimed."""
    record, export = facts.record, facts.export
    if record is None:
        return Deny(
            Reason.MISSING_RECORD,
            f"the ledger of export {export} has no record of it; nothing was deleted: if the ledger was lost or"
            " damaged, run `nfs-provisioner recover --ledger` to see what to do",
        )
    if record.cluster != facts.cluster:
        return Deny(Reason.FOREIGN_RECORD, _foreign(record, facts))
    if not identity.is_for(record, reference) or record.path != facts.path:
        return Deny(
            Reason.RECORD_MISMATCH,
            f"its record on export {export} does not match this volume's claim or directory; nothing was deleted:"
            f" `nfs-provisioner recover --volume {facts.volume.name}` shows what the record has",
        )
    another = _another_object(record, facts)
    if another:
        return Deny(Reason.RECREATED_VOLUME, another)
    return record


def _foreign(record: Record, facts: ReclaimFacts) -> str:
    """Claims and volumes can be copied into another cluster with their uids.

    The id of a cluster cannot.
    """
    owner = f"cluster {record.cluster}" if record.cluster else "a cluster that the record does not name"
    return (
        f"its record on export {facts.export} belongs to {owner}, not to this cluster; nothing was deleted: if that"
        f" cluster is lost, `nfs-provisioner recover --volume {facts.volume.name}` takes the record over"
    )


def _another_object(record: Record, facts: ReclaimFacts) -> str:
    """Return why the volume may not be the object that the record was written for; empty if it is that object.

    A record of an older version has no uid. Then the volume must not be younger than its record, and its claim's name
    must be free: if volumes and claims came from a backup, the claims exist under their names with new uids.
    """
    volume, on_export = facts.volume, f"its record on export {facts.export}"
    if record.volume_uid:
        why = f"{on_export} is for another PersistentVolume object of this name, with another uid"
        return "" if record.volume_uid == volume.metadata.uid else _created_again(why, volume)
    if identity.is_later(record, volume):
        return _created_again(f"{on_export} is clearly older than this PersistentVolume", volume)
    if facts.claim is not None:
        why = f"{on_export} has no PersistentVolume uid, and another claim now has the name {facts.claim.key}"
        return _created_again(why, volume)
    return ""


def _created_again(why: str, volume: Volume) -> str:
    return (
        f"{why}: it may have been created again, for example from a backup; nothing was deleted: to give the directory"
        f" to this volume, run `nfs-provisioner recover --volume {volume.name}`"
    )


def nowhere(obstacle: str) -> Deny:
    """Refuse to reclaim a volume on no known export.

    `obstacle` is a mount option that is in the way.
    """
    if obstacle:
        message = f"its mountOptions keep the provisioner from its server; nothing was deleted: {obstacle}"
        return Deny(Reason.INVALID_MOUNT_OPTION, message)
    return Deny(
        Reason.UNKNOWN_EXPORT,
        "it lies on no export that --export or a StorageClass names; nothing was deleted: name its export with --export"
        " or in a StorageClass",
    )


def moved(volume_name: str, old: str, new: str) -> Deny:
    """Refuse to reclaim a volume whose server only it names, and whose record is on another export."""
    return Deny(
        Reason.EXPORT_MOVED,
        f"it names export {old}, which does not work and which no setting or class names any more; its record is on"
        f" export {new}. If that is the same server under another name: delete this PersistentVolume with its"
        f" finalizers and run `nfs-provisioner recover --volume {volume_name} --apply`, which creates it there; see"
        ' "Move to another NFS server" in the documentation',
    )


def cloned_message(claim: str) -> str:
    """Return the message for a volume that is not reclaimed yet, because its data is being copied."""
    return (
        f"claim {claim} is being cloned from it: it is reclaimed once the copy is complete; to reclaim it now, delete"
        " that claim"
    )


def snapshot_message(snapshot: str) -> str:
    """Return the message for a volume that is not reclaimed yet, because a snapshot of it is being taken."""
    return (
        f"snapshot {snapshot} of it is being taken: it is reclaimed once the snapshot is complete; to reclaim it now,"
        " delete that snapshot"
    )


def missing_message(rule: OnDelete, directory: str, export: str) -> str:
    """Return the message for a volume that was reclaimed although its directory was missing."""
    done = "its record is kept" if rule == "retain" else f"there was nothing to {rule}"
    return (
        f"directory {directory!r} did not exist on export {export}: {done}. If it is a file system of its own that the"
        " server has not mounted, the data is still in there; otherwise the directory was removed or moved manually"
    )
