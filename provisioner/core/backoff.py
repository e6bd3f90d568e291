"""How long to wait before the next try: doubling, with jitter, up to a limit (client-go, wait.Backoff)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that double from `first_s` to `limit_s`, spread by `jitter` so that many waiters do not return at once."""

    first_s: float = 0.5
    limit_s: float = 300.0
    jitter: float = 0.25

    def delay_s(self, failures: int, chance: float) -> float:
        """The wait after the n-th failure in a row (from 1); `chance` is a random number in [0, 1)."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 62)
        return min(doubled, self.limit_s) * (1 - self.jitter * chance)


def is_logged(failures: int) -> bool:
    """Whether the n-th failure in a row has a line in the log: 1, 2, 4, 8 …, so that an hour of them has a few."""
    return failures & (failures - 1) == 0
