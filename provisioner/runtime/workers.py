"""Workers: take keys from a queue, reconcile them, and requeue those that are not done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from provisioner.runtime.fair_share import FairShare, NoSlot
from provisioner.runtime.requeue import CRASHED, Requeue
from provisioner.runtime.supervision import Supervisor
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Loop

Reconcile = Callable[[str], Awaitable[Requeue | None]]
"""Brings one key to where it should be; returns None when that is done, else when to look at it again."""


async def work(
    queue: WorkQueue, share: FairShare, reconcile: Reconcile, *, workers: int, supervisor: Supervisor, loop: Loop
) -> None:
    """Run this many workers until the queue is shut down and each has finished its key."""
    one = partial(_worker, queue, share, reconcile, supervisor, loop)
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(supervisor.keep(loop, one))


async def _worker(queue: WorkQueue, share: FairShare, reconcile: Reconcile, supervisor: Supervisor, loop: Loop) -> None:
    while (key := await queue.get()) is not None:
        # The outcome if the shield below swallows an unexpected error: a bug that one key meets must not stop the work
        # on all others.
        requeue: Requeue | None = CRASHED
        try:
            with supervisor.shield(loop, (NoSlot,), key=key):
                requeue = await reconcile(key)
            queue.requeue(key, requeue)
        except NoSlot:
            pass  # the fair share keeps the key, and adds it again when there is a slot
        finally:
            queue.done(key)
            share.wake()
