"""Lanes: a share of the workers for each export, so that one that hangs holds back nobody else's claims.

An export may keep twice as many workers busy as are free at that moment (the dynamic threshold of Choudhury and
Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998): the first to hang gets two thirds of
them, the second two thirds of the rest, and there is one left for the next. A key beyond its share is parked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHARE = 2


class NoSlot(Exception):
    """The key's export has its share of workers; the key comes up again by itself."""


class FairShare:
    """Counts the workers in each export's lane, and keeps the keys that wait for a place."""

    def __init__(self, workers: int, resume: Callable[[str], None]) -> None:
        self._free = workers
        self._resume = resume
        self._busy: Counter[str] = Counter()
        self._waiting: dict[str, deque[str]] = {}

    @contextmanager
    def place(self, export: str, key: str) -> Iterator[None]:
        """A place in the export's lane for as long as the key works on it. Raises Parked when there is none."""
        if not self._has_place(export):
            self._waiting.setdefault(export, deque()).append(key)
            raise NoSlot
        self._free -= 1
        self._busy[export] += 1
        try:
            yield
        finally:
            self._free += 1
            self._busy[export] -= 1
            if not self._busy[export]:
                del self._busy[export]  # the export may never be met again

    def wake(self) -> None:
        """Resume one key of each lane that has a place.

        Called after every key, whether it had taken a place or not: the next one is woken also where the last one that
        was turned out to need no place.
        """
        for export in [export for export in self._waiting if self._has_place(export)]:
            waiting = self._waiting[export]
            self._resume(waiting.popleft())
            if not waiting:
                del self._waiting[export]

    def _has_place(self, export: str) -> bool:
        return self._busy[export] < _SHARE * self._free
