"""Workers: take keys from a queue, reconcile each, and put it back for later where that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from provisioner.control.lanes import Lanes, Parked
from provisioner.control.queue import WorkQueue
from provisioner.core.backoff import Backoff

log = structlog.get_logger(__name__)

FAILED = Backoff(first_s=0.5, limit_s=8.0)
"""For what may pass by itself: a server, an API outage. The limit keeps the recovery within 15 s of the cause's end."""
REFUSED = Backoff(first_s=2.0, limit_s=300.0)
"""For what somebody must change; changes of the objects themselves bring the key back at once."""
CRASHED = Backoff(first_s=1.0, limit_s=120.0)

Reconcile = Callable[[str], Awaitable[Backoff | None]]
"""Brings one key to where it should be; returns how to try again, or None when it is done."""


async def work(queue: WorkQueue, lanes: Lanes, reconcile: Reconcile, *, workers: int) -> None:
    """Run so many workers until the queue is shut down and each has finished its key."""
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(queue, lanes, reconcile))


async def _worker(queue: WorkQueue, lanes: Lanes, reconcile: Reconcile) -> None:
    while (key := await queue.get()) is not None:
        try:
            again = await reconcile(key)
            if again is None:
                queue.forget(key)
            else:
                queue.retry(key, again)
        except Parked:
            pass
        except Exception:
            # The one broad catch of a worker: a fault of ours with one key must not end the work on all others.
            log.exception("reconcile_crashed", key=key)
            queue.retry(key, CRASHED)
        finally:
            queue.done(key)
            lanes.wake()
