"""An event loop for simulations: time passes only while all tasks wait, and ready callbacks run in a random order.

Each task is a thread of its own. Callbacks of one thread run in their order; which thread runs next is random. So the
order does not depend on the iteration order of sets of tasks, and one seed always gives one run.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_thread: ContextVar[int] = ContextVar("_thread", default=0)
_MOST_CALLBACKS = 100_000
"""More callbacks than this at one point in time are an endless loop."""


class _Ready:
    """Ready callbacks by thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[asyncio.Handle, Callable[[], object]]]] = {}
        self._threads: list[int] = []

    def __len__(self) -> int:
        return len(self._threads)

    def add(self, thread: int, handle: asyncio.Handle, run: Callable[[], object]) -> None:
        waiting = self._waiting.get(thread)
        if waiting is None:
            self._waiting[thread] = deque(((handle, run),))
            insort(self._threads, thread)
        else:
            waiting.append((handle, run))

    def run_one(self, chance: random.Random) -> None:
        thread = self._threads[chance.randrange(len(self._threads))] if len(self._threads) > 1 else self._threads[0]
        waiting = self._waiting[thread]
        handle, run = waiting.popleft()
        if not waiting:
            del self._waiting[thread]
            del self._threads[bisect_left(self._threads, thread)]
        if not handle.cancelled():
            run()


class SeededLoop(asyncio.BaseEventLoop):
    """An event loop without I/O, whose order comes from `chance`."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._ready_threads = _Ready()
        self._timers: list[tuple[float, int, int, asyncio.TimerHandle, Callable[[], object]]] = []
        self._numbers = 0
        self._now_s = 0.0
        self._stopped = False

    def time(self) -> float:
        """Seconds since the simulation began."""
        return self._now_s

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """Create a task, which is a thread of its own for the order of callbacks."""
        own = copy_context() if context is None else context
        self._numbers += 1
        own.run(_thread.set, self._numbers)
        return super().create_task(coro, name=None if name is None else str(name), context=own)

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a callback ready, after those of the same thread."""
        own = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, own)
        self._ready_threads.add(own.get(_thread, 0), handle, lambda: own.run(callback, *args))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a callback ready after a delay."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a callback ready at a time; the seed decides the order of equal times."""
        own = copy_context() if context is None else context
        timer = asyncio.TimerHandle(when, callback, args, self, own)
        self._numbers += 1
        entry = (when, self._numbers, own.get(_thread, 0), timer, lambda: own.run(callback, *args))
        heapq.heappush(self._timers, entry)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by asyncio; a cancelled timer is skipped when it is due."""

    def stop(self) -> None:
        """End run_forever after the current callback."""
        self._stopped = True

    def run_forever(self) -> None:
        """Run ready callbacks, else let time pass. Raises RuntimeError if time stands still, or no timer is left."""
        self._stopped = False
        asyncio._set_running_loop(self)
        callbacks = 0
        try:
            while not self._stopped:
                callbacks += 1
                if not self._ready_threads:
                    self._let_time_pass()
                    callbacks = 0
                if callbacks > _MOST_CALLBACKS:
                    raise RuntimeError("time stands still: an endless loop")
                self._ready_threads.run_one(self._chance)
        finally:
            asyncio._set_running_loop(None)

    def _let_time_pass(self) -> None:
        while self._timers and self._timers[0][3].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise RuntimeError("all tasks wait, and for no timer: this would never end")
        self._now_s = max(self._now_s, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now_s:
            _, _, thread, timer, run = heapq.heappop(self._timers)
            self._ready_threads.add(thread, timer, run)


def run(main: Coroutine[Any, Any, Result], chance: random.Random) -> Result:
    """Run a coroutine in simulated time, in an order from `chance`; then cancel all remaining tasks."""
    loop = SeededLoop(chance)
    try:
        try:
            return loop.run_until_complete(main)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(_ended(left))
    finally:
        loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
