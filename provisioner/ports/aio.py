"""Shared asyncio helpers: a bounded parallel map, and waiting for an event or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_bounded(work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, limit: int) -> list[Result]:
    """Return the results of `work` for all items, in their order.

    At most `limit` items are worked on at a time.

    The first error cancels the rest, and is raised as it is, not as a group.
    """
    slots = asyncio.Semaphore(limit)

    async def in_slot(item: Item) -> Result:
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_slot(item)) for item in items]
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    return [task.result() for task in tasks]


async def wait_for_event(event: asyncio.Event, *, timeout_s: float) -> bool:
    """Wait until an event is set, for at most `timeout_s` seconds.

    Returns whether it was set in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
