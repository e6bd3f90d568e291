"""Slots for calls in flight: numbered, lowest first (RFC 8881 section 2.10.6.1), and shared between exports.

Calls on an export that hangs get no reply, and each keeps its slot. With a plain semaphore, one hung export would soon
hold all slots of the connection, and block the other exports of the same server. Two rules prevent that:

- An export does not get a slot if it would then hold more than HELD_TO_FREE times the number of free slots. A busy
  export gets three quarters of the slots, and the next export that hangs gets three quarters of the rest.
- An export is suspect if its last call got no reply in time. A suspect export can hold SUSPECT_SLOTS, and all suspects
  together half of the slots.

If so many exports hang at the same moment that no slot is left, the connection counts as stuck and is replaced (see
`transport`). The new connection has free slots, and the exports that hang are suspects by then.
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field

HELD_TO_FREE = 3
SUSPECT_SLOTS = 8


class SlotsClosed(Exception):
    """The connection or session of the slots has ended."""


@dataclass(slots=True)
class Sharing:
    """The exports that share the slots of one server, on all of its connections, and which of them are suspect.

    After an export is removed from the suspects, `Slots.serve` lets its waiting calls continue.
    """

    exports: int = 0
    suspects: set[str] = field(default_factory=set)


class Slots:
    """Slots 0 to count-1.

    Of the waiting exports, the one that holds the fewest slots is served first.
    """

    def __init__(self, count: int, sharing: Sharing | None = None) -> None:
        self._sharing = Sharing() if sharing is None else sharing
        self._free = list(range(count))
        self._held_back: list[int] = []
        self._highest = count - 1
        self._holders: dict[int, str] = {}
        self._held: dict[str, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[int], None]] = {}
        self._closed = False

    @property
    def count(self) -> int:
        """How many calls can be in flight."""
        return self._highest + 1

    async def take(self, export: str = "") -> int:
        """Wait for a slot for a call of this export; the caller gives it back. Raises SlotsClosed."""
        if self._closed:
            raise SlotsClosed
        if export not in self._waiting and self._may_take(export):
            return self._take(export)
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(export, {})[waiter] = None
        self.serve()  # A reply on another connection can have cleared a suspect.
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(waiter.result())
            else:
                self._leave(export, waiter)
            raise

    def give(self, slot: int) -> None:
        """Give a slot back."""
        self._held[self._holders.pop(slot)] -= 1
        if slot > self._highest:
            self._held_back.append(slot)
        else:
            heapq.heappush(self._free, slot)
            self.serve()

    def limit(self, highest: int) -> None:
        """Stop using slots above this one; the server can raise and lower this limit at any time."""
        if highest == self._highest:
            return
        self._highest = highest
        slots = sorted(self._free + self._held_back)
        self._free = [slot for slot in slots if slot <= highest]
        self._held_back = [slot for slot in slots if slot > highest]
        self.serve()

    def serve(self) -> None:
        """Give free slots to waiting calls whose export can have one."""
        while self._waiting and self._free:
            ready = [export for export in self._waiting if self._may_take(export)]
            if not ready:
                return
            export = min(ready, key=lambda export: self._held.get(export, 0))
            waiter = next(iter(self._waiting[export]))
            self._leave(export, waiter)
            if not waiter.done():
                waiter.set_result(self._take(export))

    def close(self) -> None:
        """Give out no more slots; callers that wait for a slot get SlotsClosed."""
        self._closed = True
        waiting, self._waiting = self._waiting, {}
        for waiters in waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(SlotsClosed())

    def _take(self, export: str) -> int:
        slot = heapq.heappop(self._free)
        self._holders[slot] = export
        self._held[export] = self._held.get(export, 0) + 1
        return slot

    def _may_take(self, export: str) -> bool:
        free, held = len(self._free), self._held.get(export, 0)
        if not free or self._sharing.exports < 2:
            return bool(free)
        if export in self._sharing.suspects:
            by_suspects = sum(self._held.get(suspect, 0) for suspect in self._sharing.suspects)
            return held < SUSPECT_SLOTS and by_suspects < max(1, self.count // 2)
        return not held or held < HELD_TO_FREE * (free - 1)

    def _leave(self, export: str, waiter: asyncio.Future[int]) -> None:
        """Remove a waiter from the queue."""
        waiters = self._waiting.get(export, {})
        waiters.pop(waiter, None)
        if not waiters:
            self._waiting.pop(export, None)
