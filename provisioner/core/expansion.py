"""Expansion of an in-tree NFS volume, step by step.

As external-resizer does it (kubernetes-contract, "Expansion of an in-tree NFS volume").

Nothing enforces a size on an NFS directory, so the expansion itself only changes numbers. The steps are kept so that a
crash between two of them is resumed, and so that `kubectl describe` shows the usual conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import quantities
from provisioner.core.errors import InvalidQuantity
from provisioner.core.objects import Claim, Volume

_RESIZE_CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


@dataclass(frozen=True, slots=True)
class Expansion:
    """The three writes of one expansion; a write that is already done is None.

    Writes of the claim's status are strategic merge patches: they leave other controllers' conditions alone.
    """

    size: str
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
        return Expansion(capacity, None, None, _finish(capacity)) if is_marked(claim) else None
    marked = is_marked(claim) and claim.status.allocated_resources.get("storage") == size
    return Expansion(
        size=size,
        mark=None if marked else _mark(size, now),
        grow=None if grown else {"spec": {"capacity": {"storage": size}}},
        finish=_finish(size),
    )


def is_marked(claim: Claim) -> bool:
    """Return True if the claim says that an expansion is in progress."""
    return "storage" in claim.status.allocated_resource_statuses


def failed(message: str, now: str) -> dict[str, object]:
    """Return the status patch for a refused expansion."""
    error = {"type": "ControllerResizeError", "status": "True", "message": message, "lastTransitionTime": now}
    return {"status": {"conditions": [error]}}


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


def outgrown(recorded: str, size: str) -> bool:
    """Return True if a volume is larger than its record says.

    Return False if the sizes cannot be compared.
    """
    try:
        return quantities.is_less(recorded, size)
    except InvalidQuantity:
        return False
