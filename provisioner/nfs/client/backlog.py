"""What a removal has read and not removed yet: its jobs, in an order that bounds them, and the memory that they take.

Removals come first, since they make room, then readings, the newest and so deepest first. While there is room, many
directories are read side by side; beyond that one at a time, so that what is held in excess is one way down the tree.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")
C = TypeVar("C")

TOTAL_BYTES = 8 << 20
"""For all removals of a process together."""
REMOVAL_BYTES = 2 << 20
"""For one of them."""
_SHARE = 4
"""A page of a directory may take this part of the room that is left: deep trees have many pages at a time."""


@dataclass(slots=True)
class MemoryBudget:
    """The memory that all removals share."""

    limit_bytes: int = TOTAL_BYTES
    held_bytes: int = 0


class Backlog(Generic[R, C]):
    """The jobs of one removal: readings `R` and changes `C`. One event loop uses it."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held_bytes = 0
        self._readings: list[R] = []
        self._changes: list[C] = []
        self._under_way = 0
        """Jobs that were taken and are not done."""
        self._being_read = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._empty = asyncio.Event()
        self._empty.set()

    # ------------------------------------------------------------------------------------------- memory

    @property
    def share_bytes(self) -> int:
        """What the next page may take; it may be less than one entry needs."""
        left_bytes = min(self._budget.limit_bytes - self._budget.held_bytes, REMOVAL_BYTES - self._held_bytes)
        return max(0, left_bytes // _SHARE)

    def hold_memory(self, size_bytes: int) -> None:
        """So much more is held."""
        self._held_bytes += size_bytes
        self._budget.held_bytes += size_bytes

    def release_memory(self, size_bytes: int) -> None:
        """So much less is held."""
        self.hold_memory(-size_bytes)

    def close(self) -> None:
        """The removal has ended: nothing of it is held."""
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
        """The next job, of one kind or the other, as soon as there is one that may begin; ended by done()."""
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
        """A job has come to its end; a reading if it was one."""
        self._under_way -= 1
        if reading is not None:
            self._being_read -= 1
        if not (self._under_way or self._readings or self._changes):
            self._empty.set()
        self._wake()

    async def until_empty(self) -> None:
        """Return when no job is left or under way."""
        await self._empty.wait()

    def _may_read(self) -> bool:
        return bool(self._readings) and (self.share_bytes > 0 or not self._being_read)

    def _added(self) -> None:
        self._empty.clear()
        self._wake()

    def _wake(self) -> None:
        """Have one more worker look, if there is something for it."""
        if self._changes or self._may_read():
            while self._waiters:
                waiter = self._waiters.pop()
                if not waiter.done():
                    waiter.set_result(None)
                    return
