"""Which pending claims fail, and why: filled by controllers.claims, read by metrics at each scrape."""

from __future__ import annotations

from collections import Counter

from provisioner.core.objects import Claim
from provisioner.telemetry.metrics import Sample


class FailingClaims:
    """The reason of the last failed attempt of each claim that has no volume yet.

    Empty while another replica leads.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, tuple[str, str]] = {}

    def note(self, claim: Claim, reason: str) -> None:
        """Set why the last attempt for a claim failed."""
        self._reasons[claim.uid] = (claim.class_name, reason)

    def drop(self, uid: str) -> None:
        """Remove a claim that has a volume or needs none."""
        self._reasons.pop(uid, None)

    def clear(self) -> None:
        """Remove everything."""
        self._reasons.clear()

    def counts(self) -> Sample:
        """Return the number of claims by class and reason."""
        return dict(Counter(self._reasons.values()))
