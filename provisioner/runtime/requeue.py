"""Requeue: the outcome of a reconcile that is not done (controller-runtime, reconcile.Result)."""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Requeue:
    """Look at the key again after a delay. A reconcile that is done returns None instead."""

    backoff: Backoff
    """How the delay grows with each failure in a row."""
    is_failure: bool = True
    """Whether the try counts as a failure of the key."""

    @classmethod
    def after(cls, delay_s: float) -> Requeue:
        """Look again after a fixed time, which is no failure.

        The work on the key is still running elsewhere.
        """
        return cls(Backoff(first_s=delay_s, limit_s=delay_s, jitter=0.0), is_failure=False)


FAILED = Requeue(Backoff(first_s=0.5, limit_s=8.0))
"""For causes that may pass by themselves: a server, an API outage. The limit keeps the recovery within 15 s of that."""
REFUSED = Requeue(Backoff(first_s=2.0, limit_s=300.0))
"""For causes that an admin or user must change; a change of the objects themselves queues the key immediately."""
AWAITING_CHANGE = Requeue(Backoff(first_s=1.0, limit_s=60.0))
"""For causes that end with a change that the daemon watches: a fallback in case it missed that."""
LOCKED = Requeue(Backoff(first_s=0.1, limit_s=2.0))
"""For a key whose volume another worker holds."""
ENFORCING = Requeue(Backoff(first_s=0.05, limit_s=8.0))
"""For a size that the quota agent on the server is about to enforce: most agents answer within milliseconds."""
CRASHED = Requeue(Backoff(first_s=1.0, limit_s=120.0))
"""After an unexpected error."""
