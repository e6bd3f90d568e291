"""List and watch as a state machine: what to ask the API server for next (Kubernetes, "API concepts").

A watch that ends cleanly goes on from its last version. 410 lists again, and so does a version below the one we have
(core.versions). Everything else waits, longer each time in a row, and then goes on from the last version; a watch that
brings something ends the row. After several failures in a row the API server was down, and its state may have been put
back and have passed our version since: then a list is the only safe beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from provisioner.core.backoff import Backoff

RETRY = Backoff(first_s=0.2, limit_s=10.0, jitter=0.5)
_SHORT_S = 1.0
"""A watch that ends sooner and brought nothing is a failure: it must not be asked for again at once."""
_OUTAGE = 4
"""So many failures in a row, some three seconds, are an outage: restoring etcd takes longer."""
RELIST_S = 3 * 3600.0
"""A list is repeated after so long, whatever the watches bring: an error of theirs does not last for days."""


@dataclass(frozen=True, slots=True)
class WatchState:
    """`version` is where to watch from, empty to list first; `failures` counts those in a row."""

    version: str = ""
    failures: int = 0

    def listed(self, version: str) -> WatchState:
        """A list came in whole."""
        return WatchState(version, self.failures)

    def received(self, version: str) -> WatchState:
        """An event or a bookmark came in."""
        return WatchState(version or self.version)

    def ended(self, lasted_s: float, *, brought: bool = False) -> WatchState:
        """The server ended the watch without an error, as it does to slow watchers and after its time limit."""
        return self if brought or is_established(lasted_s) else self.failed()

    def expired(self) -> WatchState:
        """410: the version is gone; or the version went back."""
        return WatchState("", self.failures + 1)

    def failed(self) -> WatchState:
        """The call failed in any other way."""
        failures = self.failures + 1
        return WatchState(self.version if failures < _OUTAGE else "", failures)

    def stale(self) -> WatchState:
        """The cache is out of date: the next call is a list, without a delay."""
        return replace(self, version="")

    def delay_s(self, chance: float) -> float:
        """How long to wait before the next call."""
        return RETRY.delay_s(self.failures, chance) if self.failures else 0.0


def is_established(lasted_s: float) -> bool:
    """Whether a watch that has lasted so long was accepted by the server."""
    return lasted_s >= _SHORT_S


def relist_after_s(chance: float) -> float:
    """When to list again; replicas do not do it all at the same time."""
    return RELIST_S * (0.75 + 0.5 * chance)
