"""controllers.failing_claims: pending claims by class and reason."""

from __future__ import annotations

from msgspec import structs

from provisioner.controllers.failing_claims import FailingClaims
from provisioner.core.objects import Claim
from tests.support import samples


def claim(uid: str, storage_class: str) -> Claim:
    made = samples.claim(uid=uid)
    return structs.replace(made, spec=structs.replace(made.spec, storage_class_name=storage_class))


def test_each_claim_counts_once() -> None:
    """A claim counts by its last reason, until it has a volume or needs none; nothing outlives a term."""
    failing = FailingClaims()
    failing.note(claim("1", "nfs"), "Unreachable")
    failing.note(claim("1", "nfs"), "MissingLabel")
    failing.note(claim("2", "nfs"), "MissingLabel")
    failing.note(claim("3", "other"), "Unreachable")
    assert failing.counts() == {("nfs", "MissingLabel"): 2, ("other", "Unreachable"): 1}
    for uid in ("1", "3", "unknown"):
        failing.drop(uid)
    assert failing.counts() == {("nfs", "MissingLabel"): 1}
    failing.clear()
    assert failing.counts() == {}
