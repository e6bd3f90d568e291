"""List and watch as a state machine: what to request from the API server next (Kubernetes, "API concepts").

A watch that ends cleanly continues from its last version. After 410, or a version below the known one (core.versions),
the next request is a list. After any other failure the watch waits, longer each time in a row, and then continues from
the last version; a watch that delivers an event ends the row. After several failures in a row the API server was down:
its state may have been restored from a backup and have passed the known version since, so it is listed again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from provisioner.core.backoff import Backoff

RETRY = Backoff(first_s=0.2, limit_s=10.0, jitter=0.5)
_SHORT_S = 1.0
"""A watch that ends sooner without an event is a failure: it must not be requested again immediately."""
_OUTAGE = 4
"""This many failures in a row, about three seconds, are an outage: restoring etcd takes longer."""
RELIST_S = 3 * 3600.0
"""How often to list again although the watches work: so an error of a watch does not last for days."""


@dataclass(frozen=True, slots=True)
class WatchState:
    """`version` is where to watch from, empty to list first.

    `failures` counts failures in a row.
    """

    version: str = ""
    failures: int = 0

    def listed(self, version: str) -> WatchState:
        """A list was received completely."""
        return WatchState(version, self.failures)

    def received(self, version: str) -> WatchState:
        """An event or a bookmark was received."""
        return WatchState(version or self.version)

    def ended(self, lasted_s: float, *, brought: bool = False) -> WatchState:
        """The server ended the watch without an error, as for slow watchers and after its time limit."""
        return self if brought or is_established(lasted_s) else self.failed()

    def expired(self) -> WatchState:
        """The version is gone (410), or it went back."""
        return WatchState("", self.failures + 1)

    def failed(self) -> WatchState:
        """The call failed in any other way."""
        failures = self.failures + 1
        return WatchState(self.version if failures < _OUTAGE else "", failures)

    def stale(self) -> WatchState:
        """The cache is out of date: the next call is a list, without a delay."""
        return replace(self, version="")

    def delay_s(self, chance: float) -> float:
        """Return how long to wait before the next call."""
        return RETRY.delay_s(self.failures, chance) if self.failures else 0.0


def is_established(lasted_s: float) -> bool:
    """Return True if a watch that lasted this long was accepted by the server."""
    return lasted_s >= _SHORT_S


def relist_after_s(chance: float) -> float:
    """Return when to list again; spread, so that replicas do not list at the same time."""
    return RELIST_S * (0.75 + 0.5 * chance)
