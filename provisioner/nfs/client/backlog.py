"""Jobs of a tree removal: entries that were read but not yet removed, and the memory that they take.

The order of the jobs bounds the memory. Changes come first, because they free memory. Then come readings, the newest
first, which are the deepest. While there is memory left, many directories are read in parallel. After that, one
directory is read at a time, so that the excess is at most one path down the tree.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")
C = TypeVar("C")

TOTAL_BYTES = 8 << 20
"""Limit for all removals of the process together."""
REMOVAL_BYTES = 2 << 20
"""Limit for one removal."""
_SHARE = 4
"""A page of a directory can take 1/_SHARE of the memory left, because deep trees hold many pages at a time."""


@dataclass(slots=True)
class MemoryBudget:
    """Memory limit that all removals share."""

    limit_bytes: int = TOTAL_BYTES
    held_bytes: int = 0


class Backlog(Generic[R, C]):
    """Jobs of one removal: readings `R` and changes `C`. For use by one event loop."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held_bytes = 0
        self._readings: list[R] = []
        self._changes: list[C] = []
        self._under_way = 0
        """Number of jobs that were taken but are not done."""
        self._being_read = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._empty = asyncio.Event()
        self._empty.set()

    # ------------------------------------------------------------------------------------------- memory

    @property
    def share_bytes(self) -> int:
        """Memory that the next page can take; this can be less than one entry needs."""
        left_bytes = min(self._budget.limit_bytes - self._budget.held_bytes, REMOVAL_BYTES - self._held_bytes)
        return max(0, left_bytes // _SHARE)

    def hold_memory(self, size_bytes: int) -> None:
        """Count memory as held."""
        self._held_bytes += size_bytes
        self._budget.held_bytes += size_bytes

    def release_memory(self, size_bytes: int) -> None:
        """Count memory as free again."""
        self.hold_memory(-size_bytes)

    def close(self) -> None:
        """Count all memory of this removal as free, at its end."""
        self.hold_memory(-self._held_bytes)

    # ------------------------------------------------------------------------------------------- jobs

    def read(self, reading: R) -> None:
        """Add a reading."""
        self._readings.append(reading)
        self._added()

    def change(self, change: C) -> None:
        """Add a change."""
        self._changes.append(change)
        self._added()

    async def take(self) -> tuple[R | None, C | None]:
        """Wait for the next job that can begin, and return it as reading or change.

        The caller ends it with done().
        """
        while not (self._changes or self._may_read()):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._under_way += 1
        change, reading = None, None
        if self._changes:
            change = self._changes.pop()
        else:
            self._being_read += 1
            reading = self._readings.pop()
        self._wake()
        return reading, change

    def done(self, reading: R | None) -> None:
        """End a job; `reading` is the job if it was a reading."""
        self._under_way -= 1
        if reading is not None:
            self._being_read -= 1
        if not (self._under_way or self._readings or self._changes):
            self._empty.set()
        self._wake()

    async def until_empty(self) -> None:
        """Wait until no job is left or running."""
        await self._empty.wait()

    def _may_read(self) -> bool:
        return bool(self._readings) and (self.share_bytes > 0 or not self._being_read)

    def _added(self) -> None:
        self._empty.clear()
        self._wake()

    def _wake(self) -> None:
        """Wake one waiting worker if there is a job for it."""
        if self._changes or self._may_read():
            while self._waiters:
                waiter = self._waiters.pop()
                if not waiter.done():
                    waiter.set_result(None)
                    return
