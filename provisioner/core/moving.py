"""Moves volumes from one address of an export to another: which volumes can move, and how they look afterwards.

A PersistentVolume cannot change its server. So it is deleted and created again with the new one, and its claim, which
keeps its uid, is bound to it again. Data is never touched: the new address must lead to the same export, or to a copy
of it with its ledger, and to the directory of each volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct, structs

from provisioner.core import identity, names
from provisioner.core.checks import Permission
from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.core.pods import Pod
from provisioner.core.records import NO_OBJECT, Record
from provisioner.core.recovery import Contents

PODS_FLAG = "--even-if-pods-run"

Result = Literal["", "moved", "stays", "failed"]


class NotMoved(ProvisionerError):
    """Nothing proves that both addresses lead to the same export; the text says what to do."""


class MoveRow(Struct, frozen=True):
    """One volume; the fields are the columns of the table."""

    volume: str
    namespace: str
    claim: str
    directory: str
    result: Result
    """Empty: it would be moved."""
    why: str
    """Why it stays, or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one address showed: the id of its ledger, or why there is none."""

    location: Location
    id: str = ""
    trouble: str = ""


def prove(old: Sighting, new: Sighting, carried: Iterable[str]) -> str:
    """Return how it is proved that both addresses lead to one ledger; `carried` are the ids on volumes.

    Raises NotMoved.
    """
    if not new.id:
        raise NotMoved(
            f"export {new.location} has no ledger that can be read: {new.trouble}; export it, and if it is a copy, copy"
            " the whole export with its .provisioner"
        )
    if old.id and old.id != new.id:
        raise NotMoved(
            f"export {new.location} has the ledger {new.id}, and {old.location} has {old.id}: they are two exports; if"
            " the data moves, copy the whole export with its .provisioner, or correct the address"
        )
    if old.id:
        return (
            f"both addresses have the ledger {new.id}: if {new.location} is a copy, stop the daemon, and stop exporting"
            f" {old.location}, before you move volumes"
        )
    if new.id not in set(carried):
        raise NotMoved(
            f"nothing proves that {new.location} is the export {old.location}: the old address does not answer"
            f" ({old.trouble}), and no volume on it carries the id {new.id}"
        )
    return f"{old.location} does not answer ({old.trouble}); {new.location} has the ledger {new.id}, as its volumes say"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts about one volume on the old address."""

    volume: Volume
    path: RelPath
    """Its directory below the old address."""
    claim: Claim | None
    """The claim that now has the name in its claimRef."""
    record: Record | None
    """Its record in the ledger of the new address."""
    contents: Contents
    """The state of its directory at the new address."""
    pods: Sequence[Pod]
    """The pods that use its claim and have not ended."""
    export_id: str
    """The id of the new address."""
    cluster: str
    provisioner: str


def why_not(facts: Facts, *, with_pods: bool) -> str:
    """Return why a volume stays where it is; empty if it can be moved."""
    return next(filter(None, (_binding(facts), _ledger(facts), _directory(facts), _pods(facts, with_pods))), "")


def _binding(facts: Facts) -> str:
    volume, claim = facts.volume, facts.claim
    reference = volume.spec.claim_ref
    if volume.metadata.deletion_timestamp is not None:
        return "it is being deleted"
    if volume.spec.nfs is None:
        return "it is not an in-tree NFS volume: its driver has to move it"
    if reference is None:
        return "no claim has it: delete it, and create it with the new server"
    if claim is None or not identity.is_bound(volume, claim):
        return f"it is {volume.status.phase} and not bound to an existing claim: reclaim or recover it first"
    return "its claim is being deleted" if claim.metadata.deletion_timestamp is not None else ""


def _ledger(facts: Facts) -> str:
    """Check the record of a volume of the provisioner; other volumes have none."""
    volume, record = facts.volume, facts.record
    if volume.is_marked and volume.metadata.annotations.get(names.EXPORT_ID) != facts.export_id:
        return "its annotation names another export's ledger"
    if record is None:
        lost = volume.is_marked and volume.is_by(facts.provisioner)
        return "the new ledger has no record of it: copy the ledger again, or see `recover --ledger`" if lost else ""
    reference = volume.spec.claim_ref
    same = reference is not None and identity.is_for(record, reference) and record.path == facts.path
    same_object = record.volume_uid in ("", NO_OBJECT, volume.metadata.uid)
    if record.cluster != facts.cluster or not same or not same_object or record.retained:
        return "its record in the new ledger is of another volume, claim or cluster: see `recover --ledger`"
    return ""


def _directory(facts: Facts) -> str:
    whole = not facts.path and facts.volume.is_by(facts.provisioner)  # an admin can create a volume of the whole export
    if whole or any(part in (".", "..") for part in facts.path):
        return "its path is not a directory below the export"
    return f"directory {'/'.join(facts.path)} does not exist at the new address" if facts.contents == "gone" else ""


def _pods(facts: Facts, with_pods: bool) -> str:
    return "" if with_pods else in_use(facts.pods)


def in_use(pods: Sequence[Pod]) -> str:
    """Return why a volume stays that pods use; empty if there is none."""
    return f"pods use it, stop them first: {', '.join(sorted(pod.key for pod in pods))}" if pods else ""


def unsettled(record: Record, mount_options: Sequence[str] | None) -> Record:
    """Return the record while no PersistentVolume object is known, as `recover` writes it."""
    options = record.mount_options if mount_options is None else ",".join(mount_options)
    return structs.replace(record, volume_uid=NO_OBJECT, mount_options=options)


def permissions() -> list[Permission]:
    """Return the permissions that a move needs, besides reading."""
    return [Permission(verb=verb, resource="persistentvolumes") for verb in ("create", "delete", "patch")]


def row(volume: Volume, path: RelPath, result: Result, why: str = "") -> MoveRow:
    """Return the row of a volume."""
    reference = volume.spec.claim_ref
    return MoveRow(
        volume=volume.name,
        namespace=reference.namespace if reference is not None else "",
        claim=reference.name if reference is not None else "",
        directory="/".join(path),
        result=result,
        why=why,
    )


# ---------------------------------------------------------------------------------------------------- the new volume


def manifest(
    was: Mapping[str, Any], new: Location, path: RelPath, mount_options: Sequence[str] | None
) -> dict[str, Any]:
    """Return the volume as it is created at the new address, from the whole object that the API server has.

    It has the reclaim policy Retain and no finalizer until its claim is bound to it. `mount_options` replace those that
    it has; None keeps them.
    """
    meta, spec = was["metadata"], dict(was["spec"])
    spec["nfs"] = {**spec["nfs"], "server": new.server, "path": new.below(path)}
    spec["persistentVolumeReclaimPolicy"] = "Retain"
    spec["claimRef"] = {key: value for key, value in spec["claimRef"].items() if key != "resourceVersion"}
    if mount_options is not None:
        spec["mountOptions"] = list(mount_options)
    kept = {key: meta[key] for key in ("name", "labels", "annotations") if meta.get(key)}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": kept, "spec": spec}


PROTECTION = "kubernetes.io/pv-protection"
"""The finalizer that Kubernetes itself adds to every volume."""


def policy_of(was: Mapping[str, Any]) -> str:
    """Return the reclaim policy that the volume had."""
    policy: str = was["spec"].get("persistentVolumeReclaimPolicy", "Retain")
    return policy


def finalizers_of(was: Mapping[str, Any]) -> list[str]:
    """Return the finalizers that the volume gets back; those of this provisioner only with the policy Delete."""
    found: list[str] = was["metadata"].get("finalizers") or []
    return [each for each in found if each != PROTECTION]
