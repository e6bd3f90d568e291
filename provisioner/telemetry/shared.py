"""A value that is computed once for all callers that ask for it at about the same time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Computes a value on demand, and keeps it, or the error, for `fresh_s`.

    With `share`, it is kept only as long as needed to spend at most that share of the time on computing it: a cheap
    value is computed again soon.
    """

    def __init__(self, make: Callable[[], Awaitable[T]], *, fresh_s: float, share: float = 0.0) -> None:
        self._make = make
        self._fresh_s = fresh_s
        self._share = share
        self._task: asyncio.Task[T] | None = None
        self._until_s = -math.inf

    @property
    def is_fresh(self) -> bool:
        """Whether get() returns a kept value, or one that is being computed."""
        return asyncio.get_running_loop().time() < self._until_s

    async def get(self) -> T:
        """Return the value. Raises the error of computing it; a cancelled caller does not cancel the others."""
        task = self._task
        if task is None or not self.is_fresh:
            self._until_s = math.inf
            task = self._task = asyncio.create_task(self._made())
        return await asyncio.shield(task)

    async def _made(self) -> T:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            return await self._make()
        finally:
            took_s = loop.time() - began_s
            kept_s = took_s / self._share if self._share else self._fresh_s
            self._until_s = loop.time() + min(kept_s, self._fresh_s)
