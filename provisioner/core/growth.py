"""The growth of claims by themselves (`autoGrow`): a claim requests more before its volume is full.

The daemon raises only the request. What follows is an expansion as if a user had raised it, with all of its checks, and
ResourceQuota counts it in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import classes
from provisioner.core.errors import InvalidQuantity, InvalidSettings
from provisioner.core.expansion import is_marked, outgrown
from provisioner.core.fullness import Level, level
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.parameters import AutoGrow
from provisioner.core.quantities import exact, parse_bytes
from provisioner.core.quota import Answer, enforces

_STEP_BYTES = 1 << 20
"""Sizes are rounded up to whole MiB: a request stays readable, and even the smallest volume grows."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A claim that is to request more."""

    was: str
    size: str


def rule_of(storage_class: StorageClass | None) -> AutoGrow | None:
    """Return the rule by which the claims of a class grow; None if they do not grow, or the class cannot be used."""
    if storage_class is None or not storage_class.allow_volume_expansion:
        return None
    try:
        return classes.parameters_of(storage_class).auto_grow
    except InvalidSettings:
        return None


def decide(claim: Claim, volume: Volume, answer: Answer, rule: AutoGrow | None, provisioner: str) -> Growth | None:
    """Return how much more a claim is to request, or None.

    A claim grows only while its volume has just the size that it requests, the server enforces this size for all of
    the content, and the agent has nothing to add. So nothing grows twice for one answer, and not while an expansion is
    under way or cannot be done.
    """
    if rule is None or answer.reason or level(answer) < Level.NEARLY:
        return None
    if claim.metadata.deletion_timestamp or is_marked(claim):
        return None
    reference = volume.spec.claim_ref
    if claim.status.phase != "Bound" or reference is None or reference.uid != claim.uid:
        return None
    if not volume.is_by(provisioner):
        return None
    try:
        sizes = {
            parse_bytes(text) for text in (claim.requested, claim.status.capacity.get("storage", ""), volume.capacity)
        }
    except InvalidQuantity:
        return None
    size_bytes = sizes.pop()
    grown_bytes = grown(size_bytes, rule)
    if sizes or grown_bytes <= size_bytes or not enforces(answer, size_bytes):
        return None
    return Growth(was=claim.requested, size=exact(grown_bytes))


def is_growing(claim: Claim) -> bool:
    """Return True if a claim requests more than it has."""
    return is_marked(claim) or outgrown(claim.status.capacity.get("storage", ""), claim.requested)


def message(plan: Growth) -> str:
    """Return the text of the event about a claim that requests more."""
    return f"requested {plan.size} instead of {plan.was}: the volume uses at least {Level.NEARLY:d} % of its limit"


def grown(size_bytes: int, rule: AutoGrow) -> int:
    """Return the next size of a volume: larger by the rule's part of it, up to the rule's limit.

    Return the same size if the limit leaves no room.
    """
    wanted_bytes = size_bytes + max(1, int(size_bytes * rule.fraction))
    return max(size_bytes, min(-(-wanted_bytes // _STEP_BYTES) * _STEP_BYTES, rule.limit_bytes))
