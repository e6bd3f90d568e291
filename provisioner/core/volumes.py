"""What to do about a volume: its finalizer, and whether its directory may go.

Two looks: `decide` on what the cache says, cheap and often; `authorize` on what was read live, right before anything
is destroyed. Anyone who may create volumes can write our annotation, so the ledger has the last word.
Source: kubernetes-contract, "Finalizer and deletion"; design, "The export's ledger".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from provisioner.core import identity, names
from provisioner.core.locations import RelPath
from provisioner.core.neighbours import shared_message
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.records import OnDelete, Record, milder


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing to do, and nobody to tell."""

    why: str


@dataclass(frozen=True, slots=True)
class Finalizer:
    """Our finalizer is missing, or is there without need."""

    present: bool


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The volume is to go, and its directory as the rule says."""

    on_delete: OnDelete


@dataclass(frozen=True, slots=True)
class Deny:
    """The volume asks to be reclaimed, and we do not: the event says why and what to do."""

    message: str


def decide(volume: Volume, provisioner: str) -> Leave | Finalizer | Reclaim | Deny:
    """What a volume needs, by the cache. Reclaim here means no more than: worth a live look.

    A peer's volume that we took over gets no finalizer: until it is reclaimed, the way back to the peer stays open.
    """
    policy, phase = volume.spec.persistent_volume_reclaim_policy, volume.status.phase
    if not volume.is_by(provisioner):
        return Leave("the volume is not ours")
    if volume.spec.csi is not None and phase in _RELEASED and policy == "Delete":
        return Deny(_CSI)
    if volume.spec.nfs is None:
        return Leave("the volume is not one of NFS")
    ours = names.FINALIZER in volume.metadata.finalizers
    if policy != "Delete":
        return Finalizer(present=False) if ours else Leave(f"its reclaim policy is {policy}")
    if volume.metadata.deletion_timestamp and not ours:
        return Leave("its directory has been dealt with")
    if volume.metadata.deletion_timestamp and phase == "Available":
        return Finalizer(present=False)  # no claim has it, so that nobody releases it: its directory and record stay
    if phase in _RELEASED:
        return Reclaim(_recorded_rule(volume) or "retain")
    if phase == "Bound" and not ours and volume.is_marked:
        return Finalizer(present=True)
    return Leave(f"it is {phase}")


_RELEASED = ("Released", "Failed")
"""Failed: kube-controller-manager could not reclaim it, since it did not say that it was ours for a while."""

_CSI = (
    f"volumes of driver {names.CSI_DRIVER_NFS} are left alone: have csi-driver-nfs delete it,"
    " or delete the volume by hand, its finalizers too, and then its directory"
)


def _recorded_rule(volume: Volume) -> OnDelete | None:
    text = volume.metadata.annotations.get(names.ON_DELETE)
    return next((rule for rule in get_args(OnDelete) if rule == text), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimFacts:
    """What was read right before a reclaim: volume and claim from the API server, the record from the export."""

    volume: Volume
    claim: Claim | None
    """The claim that has the name in the volume's claimRef now, if any."""
    export: str
    export_id: str
    path: RelPath
    """The volume's directory below the export's root."""
    record: Record | None
    cluster: str = ""
    """What tells this cluster from others that share the export."""
    neighbour: str = ""
    """Another volume that uses this directory, or one above or below it, and is not itself being deleted."""


def authorize(evidence: ReclaimFacts, provisioner: str) -> Leave | Reclaim | Deny:
    """Whether the volume's directory may go now, and how. Everything that does not agree is a refusal.

    The rule is the one recorded on the volume at creation; where the ledger's copy is milder, the milder one holds: a
    volume forged to point at a retained directory must not get more than its record gives.
    """
    volume = evidence.volume
    again = decide(volume, provisioner)
    if not isinstance(again, Reclaim):
        return Leave("it has changed meanwhile")
    reference = volume.spec.claim_ref
    if reference is None:
        return Deny("it has no claimRef: nothing says whose directory this is")
    if evidence.claim is not None and reference.uid in ("", evidence.claim.uid):
        return Leave("its claim still exists")
    if not evidence.path or any(part in (".", "..") for part in evidence.path):
        return Deny(f"its path is not a directory below the export {evidence.export}; nothing is touched")
    judged = _marked(evidence, reference) if volume.is_marked else _taken_over(evidence, reference)
    if isinstance(judged, Reclaim) and judged.on_delete != "retain" and evidence.neighbour:
        return Deny(shared_message("/".join(evidence.path), evidence.neighbour))
    return judged


def _marked(evidence: ReclaimFacts, reference: ClaimRef) -> Reclaim | Deny:
    volume, export = evidence.volume, evidence.export
    annotated = _recorded_rule(volume)
    if annotated is None:
        return Deny(f"its annotation {names.ON_DELETE} does not say delete, archive or retain; nothing is touched")
    if volume.metadata.annotations.get(names.EXPORT_ID) != evidence.export_id:
        return Deny(
            f"it was made on another export than the one that is now {export}, or its annotation {names.EXPORT_ID} was"
            " changed; nothing is touched: `nfs-provisioner recover --ledger` says what to do"
        )
    recorded = _by_the_ledger(evidence, reference)
    if isinstance(recorded, Deny):
        return recorded
    return Reclaim(milder(annotated, recorded.on_delete))


def _taken_over(evidence: ReclaimFacts, reference: ClaimRef) -> Reclaim | Deny:
    """A peer's volume says nothing of its rule: the record does."""
    recorded = _by_the_ledger(evidence, reference)
    if isinstance(recorded, Deny):
        return recorded
    if not recorded.peer:
        return Deny(f"its annotations {', '.join(names.MARKS)} are gone: put them back; nothing is touched")
    return Reclaim(recorded.on_delete)


def _by_the_ledger(evidence: ReclaimFacts, reference: ClaimRef) -> Record | Deny:
    """The record, when it agrees with what is to be reclaimed."""
    record, export = evidence.record, evidence.export
    if record is None:
        return Deny(
            f"the ledger of export {export} has no record of it; nothing is touched: if its ledger was lost or damaged,"
            " `nfs-provisioner recover --ledger` says what to do"
        )
    if record.cluster != evidence.cluster:
        return Deny(_foreign(record, evidence))
    if not identity.is_for(record, reference) or record.path != evidence.path:
        return Deny(f"the ledger of export {export} says otherwise of its claim or its directory; nothing is touched")
    another = _another_object(record, evidence)
    if another:
        return Deny(another)
    return record


def _foreign(record: Record, evidence: ReclaimFacts) -> str:
    """Claims and volumes can be copied into another cluster, with their uids; a cluster's own id cannot."""
    owner = f"cluster {record.cluster}" if record.cluster else "a cluster that the record does not name"
    return (
        f"its record on export {evidence.export} belongs to {owner}, not to this cluster; nothing is touched:"
        f" if that cluster is lost, `nfs-provisioner recover --volume {evidence.volume.name}` takes the record over"
    )


def _another_object(record: Record, evidence: ReclaimFacts) -> str:
    """Why the volume is not, or may not be, the object that the record was made for; empty where it is.

    A record of an older version has no uid. Then the volume must not be younger than its record, and its claim's name
    must be free: where volumes and claims come from a backup, the claims are there under their names, with new uids.
    """
    volume, on_export = evidence.volume, f"its record on export {evidence.export}"
    if record.volume_uid:
        why = f"{on_export} is for another PersistentVolume object of this name, with another uid"
        return "" if record.volume_uid == volume.metadata.uid else _created_again(why, volume)
    if identity.is_later(record, volume):
        return _created_again(f"{on_export} is clearly older than this PersistentVolume", volume)
    if evidence.claim is not None:
        why = f"{on_export} has no PersistentVolume uid, and another claim has the name {evidence.claim.key} now"
        return _created_again(why, volume)
    return ""


def _created_again(why: str, volume: Volume) -> str:
    return (
        f"{why}: it was perhaps created again, for instance from a backup; nothing is touched: to give the directory to"
        f" this volume, run `nfs-provisioner recover --volume {volume.name}`"
    )


def nowhere_message(obstacle: str) -> str:
    """The words for a volume that lies on no export that is served; `obstacle` is what its mount options say."""
    if obstacle:
        return f"its mountOptions keep the provisioner from its server: {obstacle}; nothing is touched"
    return "it lies on no export that --export or a class of ours names; nothing is touched"


def moved_message(volume: str, old: str, new: str) -> str:
    """The words for a volume that names a server of which nothing else does, and that has its record elsewhere."""
    return (
        f"it names export {old}, which does not work and which no setting or class names any more; its record is on"
        f" export {new}. If that is the same server under another name: delete this PersistentVolume with its"
        f" finalizers and run `nfs-provisioner recover --volume {volume} --apply`, which makes it there; the docs say"
        " what comes next (Operations, When something breaks, The server moves to another address)"
    )


def missing_message(rule: OnDelete, directory: str, export: str) -> str:
    """The words for a volume that was reclaimed though its directory was not there."""
    done = "its record is kept" if rule == "retain" else f"there was nothing to {rule}"
    return (
        f"directory {directory!r} was not there on export {export}: {done}. If it is a file system of its own that the"
        " server has not mounted now, its data are still in that; else it was removed or moved by hand"
    )
