"""Identity: which PersistentVolume object and which claim a record stands for.

A volume's name, claimRef, annotations and path can be restored from a backup, anywhere and at any time. The id of the
cluster and the uids of its objects cannot, since the API server chooses them. So a record names the cluster, the
claim's uid, and, as soon as its creation is known, the uid of the PersistentVolume.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from msgspec import structs

from provisioner.core import names, times
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.records import Record

_CLEARLY = timedelta(hours=1)
"""A volume is created seconds after its record; but clocks differ, and an outage can come in between."""


def is_for(record: Record, reference: ClaimRef) -> bool:
    """Return True if a record is for a claim: same uid, or same namespace and name for a recovered volume."""
    if record.claim_uid:
        return record.claim_uid == reference.uid
    return (record.namespace, record.claim) == (reference.namespace, reference.name)


def is_later(record: Record, volume: Volume) -> bool:
    """Return True if a volume was clearly created after its record: then it is not the first of its name."""
    created, recorded = times.parse(volume.metadata.creation_timestamp), times.parse(record.created)
    return created is not None and recorded is not None and created - recorded > _CLEARLY


def settled_uid(record: Record, volume: Volume) -> str:
    """Return the uid to settle an unfinished record with, by its live volume; empty if nothing proves it.

    A process that crashed between creating the volume and settling the record never learned the uid.
    """
    return "" if is_later(record, volume) and volume.status.phase != "Bound" else volume.metadata.uid


def agrees(record: Record, volume: Volume) -> bool:
    """Return True if the record names exactly this object and its claim."""
    reference = volume.spec.claim_ref
    claim = (record.namespace, record.claim, record.claim_uid)
    return (
        reference is not None
        and claim == (reference.namespace, reference.name, reference.uid)
        and record.volume_uid == volume.metadata.uid
        and not record.retained
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A volume that is or was Bound and does not match its record; everything is read live."""

    volume: Volume
    claim: Claim | None
    """The claim that now has the name in the volume's claimRef, if any."""
    was_bound: bool
    """Whether this volume and the claim in its claimRef were seen to name each other before it was released."""
    recorded: Claim | None
    """The claim that now has the name in the record, if any."""
    export_id: str
    path: RelPath
    """The volume's directory below the export's root."""
    record: Record
    cluster: str
    """This cluster."""
    namespace_uid: str = ""
    """The uid of the namespace in the volume's claimRef, if it was read while that claim existed."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again: the binding is not complete yet, or the claim in the record still exists."""


def followed(binding: Binding) -> Record | Wait | None:
    """Return the record updated to the binding; None if nothing proves that the volume is the record's.

    The recorded claim proves it, even if it is now bound to another object of the volume's name, unless the claim is
    being deleted. For another claim the volume must be the recorded object, and the recorded claim must be gone.
    """
    volume, record = binding.volume, binding.record
    reference = volume.spec.claim_ref
    if reference is None or not _is_of(record, binding):
        return None
    bound = _is_bound(binding, reference)
    if bound is not True:
        return bound
    another_object = record.volume_uid != volume.metadata.uid
    if is_for(record, reference):
        if another_object and record.volume_uid and not _is_alive(binding, reference):
            return None
    elif another_object:
        return None
    elif _has_claim(binding):
        return Wait()
    same_namespace = record.namespace == reference.namespace
    return structs.replace(
        record,
        namespace=reference.namespace,
        claim=reference.name,
        claim_uid=reference.uid,
        volume_uid=volume.metadata.uid,
        namespace_uid=binding.namespace_uid or (record.namespace_uid if same_namespace else ""),
        retained="",
    )


def _is_bound(binding: Binding, reference: ClaimRef) -> Literal[True] | Wait | None:
    """Return True if volume and claim name each other, or did when they were last seen."""
    volume, claim = binding.volume, binding.claim
    if binding.was_bound:
        return True
    if volume.status.phase != "Bound" or claim is None or claim.uid != reference.uid:
        return None
    return True if claim.spec.volume_name == volume.name else Wait()


def _is_alive(binding: Binding, reference: ClaimRef) -> bool:
    """Return True if the claim that has the volume stays: the data must not go with one that is being deleted."""
    claim = binding.claim
    return claim is not None and claim.uid == reference.uid and claim.metadata.deletion_timestamp is None


def _has_claim(binding: Binding) -> bool:
    """Return True if the claim in the record still exists: a populator keeps its own until it hands over the volume."""
    recorded, uid = binding.recorded, binding.record.claim_uid
    return recorded is not None and uid in ("", recorded.uid)


def _is_of(record: Record, binding: Binding) -> bool:
    """Return True if cluster, directory and export match.

    A volume of nfs-subdir does not name its export.
    """
    named = binding.volume.metadata.annotations.get(names.EXPORT_ID)
    same_export = named == binding.export_id or (record.peer and not binding.volume.is_marked)
    return record.cluster == binding.cluster and record.path == binding.path and same_export


def is_bound(volume: Volume, claim: Claim) -> bool:
    """Return True if claim and volume name each other."""
    reference = volume.spec.claim_ref
    named = (claim.metadata.namespace, claim.metadata.name, claim.uid)
    return (
        volume.status.phase == "Bound"
        and claim.spec.volume_name == volume.name
        and reference is not None
        and (reference.namespace, reference.name, reference.uid) == named
    )
