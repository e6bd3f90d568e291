"""Workers: take keys from a queue, reconcile each, and put it back for later where that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from provisioner.core.backoff import Backoff
from provisioner.runtime.fair_share import FairShare, NoSlot
from provisioner.runtime.supervision import Supervisor
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Loop

FAILED = Backoff(first_s=0.5, limit_s=8.0)
"""For what may pass by itself: a server, an API outage. The limit keeps the recovery within 15 s of the cause's end."""
REFUSED = Backoff(first_s=2.0, limit_s=300.0)
"""For what somebody must change; changes of the objects themselves bring the key back at once."""
CRASHED = Backoff(first_s=1.0, limit_s=120.0)
"""After an unexpected error."""

Reconcile = Callable[[str], Awaitable[Backoff | None]]
"""Brings one key to where it should be; returns how to try again, or None when it is done."""


async def work(
    queue: WorkQueue, lanes: FairShare, reconcile: Reconcile, *, workers: int, supervisor: Supervisor, loop: Loop
) -> None:
    """Run so many workers until the queue is shut down and each has finished its key."""
    one = partial(_worker, queue, lanes, reconcile, supervisor, loop)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(supervisor.keep(loop, one))


async def _worker(queue: WorkQueue, lanes: FairShare, reconcile: Reconcile, supervisor: Supervisor, loop: Loop) -> None:
    while (key := await queue.get()) is not None:
        again: Backoff | None = CRASHED
        try:
            # A fault of ours with one key must not end the work on all others.
            with supervisor.shield(loop, (NoSlot,), key=key):
                again = await reconcile(key)
            if again is None:
                queue.forget(key)
            else:
                queue.retry(key, again)
        except NoSlot:
            pass
        finally:
            queue.done(key)
            lanes.wake()
