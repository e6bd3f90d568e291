"""How long to wait before the next attempt: doubling, with jitter, up to a limit (client-go, wait.Backoff)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Delays that double from `first_s` to `limit_s`, spread by `jitter` so that waiters do not return together."""

    first_s: float = 0.5
    limit_s: float = 300.0
    jitter: float = 0.25

    def delay_s(self, failures: int, chance: float) -> float:
        """Return the wait after the n-th failure in a row (from 1).

        `chance` is a random number in [0, 1).
        """
        doubled = self.first_s * 2.0 ** min(failures - 1, 62)
        return min(doubled, self.limit_s) * (1 - self.jitter * chance)


def is_logged(failures: int) -> bool:
    """Return True if the n-th failure in a row is logged: 1, 2, 4, 8 …, so that an hour has only a few lines."""
    return failures & (failures - 1) == 0
