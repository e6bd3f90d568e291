"""Expansion of an in-tree NFS volume, step by step, as external-resizer does it (kubernetes-contract, "Expansion").

Nothing enforces a size on an NFS directory, so the work itself is a change of numbers; the steps are kept so that a
crash between any two of them is resumed, and that `kubectl describe` tells the usual story.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import quantities
from provisioner.core.errors import InvalidQuantity
from provisioner.core.objects import Claim, Volume

_RESIZE_CONDITIONS = ("Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError")


@dataclass(frozen=True, slots=True)
class Expansion:
    """The three writes of one expansion; one that is done already is None."""

    size: str
    mark: dict[str, object] | None
    grow: dict[str, object] | None
    finish: dict[str, object]


def decide(claim: Claim, volume: Volume | None, provisioner: str) -> Expansion | None:
    """The expansion that a claim asks for, or None.

    The class's allowVolumeExpansion is not looked at: the API server has, and the class may be gone by now.
    """
    size = claim.requested
    if volume is None or not volume.is_by(provisioner) or claim.status.phase != "Bound":
        return None
    if volume.spec.claim_ref is None or volume.spec.claim_ref.uid != claim.uid or claim.metadata.deletion_timestamp:
        return None
    try:
        if not quantities.is_less(claim.status.capacity.get("storage", size), size):
            return None
        grown = not quantities.is_less(volume.capacity, size)
    except InvalidQuantity:
        return None
    marked = claim.status.allocated_resources.get("storage") == size
    return Expansion(
        size=size,
        mark=None if marked else _mark(claim, size),
        grow=None if grown else {"spec": {"capacity": {"storage": size}}},
        finish=_finish(claim, size),
    )


def _mark(claim: Claim, size: str) -> dict[str, object]:
    return {
        "status": {
            "conditions": [*_other_conditions(claim), {"type": "Resizing", "status": "True"}],
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
        }
    }


def _finish(claim: Claim, size: str) -> dict[str, object]:
    return {
        "status": {
            "capacity": {"storage": size},
            "conditions": _other_conditions(claim) or None,
            "allocatedResources": {"storage": size},
            "allocatedResourceStatuses": None,
        }
    }


def _other_conditions(claim: Claim) -> list[dict[str, str]]:
    kept = (condition for condition in claim.status.conditions if condition.type not in _RESIZE_CONDITIONS)
    return [{"type": condition.type, "status": condition.status} for condition in kept]
