"""List and watch as a state machine: what to ask the API server for next (Kubernetes, "API concepts").

A watch that ends cleanly goes on from its last version. 410 lists again. Everything else waits, longer each time in
a row, and then goes on from the last version; a watch that brings something ends the row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from provisioner.core.backoff import Backoff

RETRY = Backoff(first_s=0.2, limit_s=10.0, jitter=0.5)
_SHORT_S = 1.0
"""A watch that ends sooner and brought nothing is a failure: it must not be asked for again at once."""


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
        return self if brought or lasted_s >= _SHORT_S else replace(self, failures=self.failures + 1)

    def expired(self) -> WatchState:
        """410: the version is gone."""
        return WatchState("", self.failures + 1)

    def failed(self) -> WatchState:
        """The call failed in any other way."""
        return replace(self, failures=self.failures + 1)

    def delay_s(self, chance: float) -> float:
        """How long to wait before the next call."""
        return RETRY.delay_s(self.failures, chance) if self.failures else 0.0
