"""A fair share of the workers per export.

An export that hangs must not hold back the claims of others. So an export may use twice as many workers as are free at
that moment (the dynamic threshold of Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches", 1998). The first export to hang gets two thirds of the workers, the second two thirds of the rest, and one is
always left for the next. A key beyond the share is parked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHARE = 2


class NoSlot(Exception):
    """The export of the key uses up its share of the workers.

    The key is parked, and resumed when there is a slot.
    """


class FairShare:
    """Counts the workers that each export uses, and parks keys until there is a slot for them."""

    def __init__(self, workers: int, resume: Callable[[str], None]) -> None:
        """`resume` is called with a parked key for which there is a slot now."""
        self._free = workers
        self._resume = resume
        self._used: Counter[str] = Counter()
        self._parked: dict[str, deque[str]] = {}

    @contextmanager
    def slot(self, export_name: str, key: str) -> Iterator[None]:
        """Use a worker for an export while the context is open.

        Raises NoSlot, and parks the key, if none is left.
        """
        self.require_slot(export_name, key)
        self._free -= 1
        self._used[export_name] += 1
        try:
            yield
        finally:
            self._free += 1
            self._used[export_name] -= 1
            if not self._used[export_name]:
                del self._used[export_name]  # the export may never come up again

    def require_slot(self, export_name: str, key: str) -> None:
        """Raise NoSlot, and park the key, if no worker is left for an export now."""
        if not self._has_slot(export_name):
            self._parked.setdefault(export_name, deque()).append(key)
            raise NoSlot

    def wake(self) -> None:
        """Resume one parked key of each export that has a slot.

        Call it after every key, whether that one used a slot or not. A resumed key may turn out to need no slot; the
        call after it then resumes the next one.
        """
        for export_name in [name for name in self._parked if self._has_slot(name)]:
            parked = self._parked[export_name]
            self._resume(parked.popleft())
            if not parked:
                del self._parked[export_name]

    def _has_slot(self, export_name: str) -> bool:
        return self._used[export_name] < _SHARE * self._free
