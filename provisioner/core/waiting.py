"""Pending claims as `claims` lists them: which ones wait for this provisioner, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from provisioner.core import health
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, StorageClass

_NOT_ASSIGNED = "Kubernetes has not assigned it to the provisioner yet"
_SILENT = "the provisioner has reported nothing about it: `nfs-provisioner check` says whether a daemon runs"


class ClaimRow(Struct, frozen=True):
    """One claim; the fields are the columns of the table."""

    namespace: str
    claim: str
    storage_class: str
    requested: str
    """The requested size."""
    phase: str
    created: str
    """UTC, RFC 3339."""
    claim_uid: str
    why: str
    """The last warning about the claim, or what the provisioner's rules say; empty for a claim that is not Pending."""


def is_served(claim: Claim, classes: Mapping[str, StorageClass], provisioner: str) -> bool:
    """Return True if the claim's class is the provisioner's, or Kubernetes has assigned the claim to it."""
    storage_class = classes.get(claim.class_name)
    return claim.is_for(provisioner) or (storage_class is not None and storage_class.provisioner == provisioner)


def why(
    claim: Claim,
    storage_class: StorageClass | None,
    provisioner: str,
    default_export: Location | None,
    *,
    warning: str,
) -> str:
    """Return why a claim is Pending: its last warning, or what the daemon's own rules say."""
    if warning:
        return warning
    if claim.metadata.deletion_timestamp:
        return "it is being deleted"
    if not claim.is_for(provisioner):
        waits = storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"
        name = storage_class.name if storage_class is not None else ""
        return f"it waits for its first pod, as StorageClass {name} says" if waits else _NOT_ASSIGNED
    return health.expected_reason(claim, storage_class, provisioner, default_export, {}) or _SILENT


def listed(claim: Claim, reason: str) -> ClaimRow:
    """Return the row of a claim."""
    return ClaimRow(
        namespace=claim.metadata.namespace,
        claim=claim.metadata.name,
        storage_class=claim.class_name,
        requested=claim.requested,
        phase=claim.status.phase,
        created=claim.metadata.creation_timestamp,
        claim_uid=claim.uid,
        why=reason if claim.status.phase == "Pending" else "",
    )


def in_order(rows: Iterable[ClaimRow]) -> list[ClaimRow]:
    """Sort by namespace and name."""
    return sorted(rows, key=lambda row: (row.namespace, row.claim))
