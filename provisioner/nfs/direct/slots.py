"""How many calls may be in flight: numbered slots, lowest first (RFC 8881 section 2.10.6.1)."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque


class SlotsClosed(Exception):
    """What the slots belonged to is gone."""


class Slots:
    """Slots 0 to count-1. Whoever waits longest is served first."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._held_back: list[int] = []
        self._highest = count - 1
        self._waiters: deque[asyncio.Future[int]] = deque()
        self._closed = False

    async def take(self) -> int:
        """A slot of our own until it is given back. Raises SlotsClosed."""
        if self._closed:
            raise SlotsClosed
        if self._free:
            return heapq.heappop(self._free)
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(waiter.result())
            raise

    def give(self, slot: int) -> None:
        """Give a slot back."""
        if slot > self._highest:
            self._held_back.append(slot)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        heapq.heappush(self._free, slot)

    def limit(self, highest: int) -> None:
        """Use no slot above this one from now on: the server's wish, which may go up and down."""
        if highest == self._highest:
            return
        self._highest = highest
        slots = sorted(self._free + self._held_back)
        self._free, self._held_back = [], []
        for slot in slots:
            self.give(slot)

    def close(self) -> None:
        """Nobody gets a slot any more; whoever waits for one gets SlotsClosed."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(SlotsClosed())
