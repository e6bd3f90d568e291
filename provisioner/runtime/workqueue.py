"""A work queue with one worker per key at a time, and back-off (client-go, workqueue)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from provisioner.ports.clock import Clock
from provisioner.runtime.requeue import Requeue


class WorkQueue:
    """Keys that wait for a worker.

    A key that is added while a worker has it comes up again after that worker's done(). Adding a waiting key again has
    no effect.
    """

    def __init__(self, clock: Clock, *, waited: Callable[[float], None]) -> None:
        """`waited` is called for each key that a worker takes, with the seconds that the key was ready."""
        self._clock = clock
        self._waited = waited
        self._ready: asyncio.Queue[str | None] = asyncio.Queue()
        """The keys for the next free workers, and None once the queue is shut down.

        A key wakes one worker. An asyncio.Event would wake all that are idle, most of them for nothing.
        """
        self._added_s: dict[str, float] = {}
        """When each key became ready. A key is in here while it waits, in `_ready` or for its worker's done()."""
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._shut = False

    def __len__(self) -> int:
        """The number of keys that are ready, or will be when their worker is done.

        Delayed keys do not count.
        """
        return len(self._added_s)

    def add(self, key: str) -> None:
        """Add a key for the next free worker; a delay that it still had is over."""
        self._cancel_timer(key)
        if key in self._added_s:
            return
        self._added_s[key] = self._clock.monotonic()
        if key not in self._working:
            self._make_ready(key)

    def add_after(self, key: str, delay_s: float) -> None:
        """Add a key after a delay; of two delays of a key the shorter one counts."""
        if key in self._added_s:
            return
        due_s = asyncio.get_running_loop().time() + delay_s
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due_s:
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_at(due_s, self.add, key)

    def requeue(self, key: str, requeue: Requeue | None) -> None:
        """Note the outcome of a reconcile.

        None means that the key is done. Otherwise it is added again after the delay of the Requeue.

        A failure makes the next delay longer. Any other outcome clears the count of failures.
        """
        failures = self._failures.pop(key, 0)
        if requeue is None:
            return
        if requeue.is_failure:
            failures += 1
            self._failures[key] = failures
        self.add_after(key, requeue.backoff.delay_s(max(failures, 1), self._clock.random()))

    def failures(self, key: str) -> int:
        """How many times in a row the key has failed."""
        return self._failures.get(key, 0)

    def shut_down(self) -> None:
        """Hand out no more keys, so that each worker ends after the key that it has."""
        self._shut = True
        self._ready.put_nowait(None)

    async def get(self) -> str | None:
        """Wait for the next key, for which the caller must call done().

        Returns None once the queue is shut down.
        """
        key = await self._ready.get()
        if key is None or self._shut:
            self._ready.put_nowait(None)  # for the next worker
            return None
        self._waited(self._clock.monotonic() - self._added_s.pop(key))
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Note that the worker has finished with the key."""
        self._working.discard(key)
        if key in self._added_s:
            self._make_ready(key)

    def close(self) -> None:
        """Cancel all delays."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _make_ready(self, key: str) -> None:
        self._ready.put_nowait(key)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
