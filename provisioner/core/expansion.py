"""Expansion of an in-tree NFS volume, step by step.

As external-resizer does it (kubernetes-contract, "Expansion of an in-tree NFS volume").

Without a quota nothing enforces a size on an NFS directory, so the expansion itself only changes numbers. With
`quota: required` the record gets the new size between the first step and the second, and the second waits until the
quota agent on the server enforces it. The steps are kept so that a crash between two of them is resumed, and so that
`kubectl describe` shows the usual conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import quantities
from provisioner.core.enforcement import Shortfall
from provisioner.core.errors import InvalidQuantity
from provisioner.core.objects import Claim, Volume

INFEASIBLE = "ControllerResizeInfeasible"
"""The state of an expansion that cannot succeed until an admin changes something. The user can lower the request."""

_RESIZE_CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


@dataclass(frozen=True, slots=True)
class Expansion:
    """The three writes of one expansion; a write that is already done is None.

    Writes of the claim's status are strategic merge patches: they leave other controllers' conditions alone.
    """

    size: str
    recorded: str
    """The size of the record: not less than what the volume has already."""
    is_raise: bool
    """Whether the claim gets more; False if only the mark of an expansion is left, whose request was lowered again."""
    mark: dict[str, object] | None
    grow: dict[str, object] | None
    finish: dict[str, object]


def decide(claim: Claim, volume: Volume | None, provisioner: str, now: str) -> Expansion | None:
    """Return the expansion that a claim asks for, or None; `now` is UTC, RFC 3339.

    The class's allowVolumeExpansion is not checked: the API server has checked it, and the class can be gone already.
    """
    size = claim.requested
    if volume is None or not volume.is_by(provisioner) or claim.status.phase != "Bound":
        return None
    if volume.spec.claim_ref is None or volume.spec.claim_ref.uid != claim.uid or claim.metadata.deletion_timestamp:
        return None
    try:
        wanted = quantities.is_less(claim.status.capacity.get("storage", size), size)
        grown = not quantities.is_less(volume.capacity, size)
    except InvalidQuantity:
        return None
    if not wanted:
        # The user lowered the request again in the middle of the expansion: only the mark remains to be cleared.
        capacity = claim.status.capacity.get("storage", size)
        recorded = _larger(capacity, volume.capacity)
        return Expansion(capacity, recorded, False, None, None, _finish(capacity)) if is_marked(claim) else None
    marked = is_marked(claim) and claim.status.allocated_resources.get("storage") == size
    return Expansion(
        size=size,
        recorded=_larger(size, volume.capacity),
        is_raise=True,
        mark=None if marked else _mark(size, now),
        grow=None if grown else {"spec": {"capacity": {"storage": size}}},
        finish=_finish(size),
    )


def is_marked(claim: Claim) -> bool:
    """Return True if the claim says that an expansion is in progress."""
    return "storage" in claim.status.allocated_resource_statuses


def failed(message: str, now: str) -> dict[str, object]:
    """Return the status patch for a refused expansion."""
    return {"status": {"conditions": [_error(message, now)]}}


def infeasible(message: str, now: str) -> dict[str, object]:
    """Return the status patch for an expansion that waits for an admin."""
    return {
        "status": {"conditions": [_error(message, now)], "allocatedResourceStatuses": {"storage": INFEASIBLE}},
    }


def unrecorded(export: str) -> Shortfall:
    """Return why a size cannot be enforced without a record of the volume."""
    message = f"the ledger of export {export} has no record of the volume: `nfs-provisioner orphans` says what to do"
    return Shortfall(message, needs_admin=True)


def _error(message: str, now: str) -> dict[str, str]:
    return {"type": "ControllerResizeError", "status": "True", "message": message, "lastTransitionTime": now}


def is_infeasible(claim: Claim) -> bool:
    """Return True if the claim already says that its expansion waits for an admin."""
    return claim.status.allocated_resource_statuses.get("storage") == INFEASIBLE


def _mark(size: str, now: str) -> dict[str, object]:
    return {
        "status": {
            "conditions": [{"type": "Resizing", "status": "True", "lastTransitionTime": now}],
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
        }
    }


def _finish(size: str) -> dict[str, object]:
    return {
        "status": {
            "capacity": {"storage": size},
            "conditions": [{"$patch": "delete", "type": condition} for condition in _RESIZE_CONDITIONS],
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": None,
        }
    }


def _larger(left: str, right: str) -> str:
    return right if quantities.is_less(left, right) else left


def differs(recorded: str, size: str) -> bool:
    """Return True if a record has another size than this one, in any units."""
    try:
        return quantities.parse_bytes(recorded) != quantities.parse_bytes(size)
    except InvalidQuantity:
        return True


def outgrown(recorded: str, size: str) -> bool:
    """Return True if a volume is larger than its record says.

    Return False if the sizes cannot be compared.
    """
    try:
        return quantities.is_less(recorded, size)
    except InvalidQuantity:
        return False
