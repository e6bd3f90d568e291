"""Shares of the workers of an export: the copies that run on it get equal ones.

A worker is one call on the export, or one chunk of a file with its read and its write. So their number bounds the
memory of copies, the calls that the server has from them, and the threads of a mounted export. A copy whose other
export hangs keeps its own share busy, and no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """How many copies to an export run concurrently, and how many workers they share."""

    copies: int = 4
    workers: int = 32


class Share:
    """The workers of one copy: `async with` takes one, in the order of asking."""

    def __init__(self, count: int) -> None:
        """`count` is how many it can have while no other copy runs."""
        self.count = count
        self._limit = count
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        """Wait for a worker."""
        if self._held < self._limit:
            self._held += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was this one's turn
                self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Give the worker back."""
        self._give_back()

    def resize(self, limit: int) -> None:
        """Change how many workers the copy can have; those above the limit end their call first."""
        self._limit = limit
        self._serve()

    def _give_back(self) -> None:
        self._held -= 1
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._held < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():  # or its caller was cancelled
                self._held += 1
                turn.set_result(None)


class Shares:
    """The workers of an export."""

    def __init__(self, limits: CopyLimits) -> None:
        self._workers = limits.workers
        self._turns = asyncio.Semaphore(limits.copies)
        self._running: list[Share] = []

    @asynccontextmanager
    async def share(self) -> AsyncIterator[Share]:
        """Wait until a copy can run, in the order of asking; it has a share while the context is open."""
        async with self._turns:
            own = Share(self._workers)
            self._running.append(own)
            self._divide()
            try:
                yield own
            finally:
                self._running.remove(own)
                self._divide()

    def _divide(self) -> None:
        for each in self._running:
            each.resize(max(1, self._workers // len(self._running)))
