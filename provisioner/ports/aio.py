"""Shared asyncio helpers: a bounded parallel map, and waiting for an event or a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_bounded(work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, limit: int) -> list[Result]:
    """Return the results of `work` for all items, in their order.

    At most `limit` items are worked on at a time. An item is taken from `items` only when its work begins, so a long
    iterator is never read ahead.

    The first error, of `work` or of `items`, cancels the rest, and is raised as it is, not as a group.
    """
    numbered = enumerate(items)
    results: dict[int, Result] = {}

    async def take_items() -> None:
        for number, item in numbered:
            results[number] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(take_items())
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from exc
    return [results[number] for number in range(len(results))]


async def wait_for_event(event: asyncio.Event, *, timeout_s: float) -> bool:
    """Wait until an event is set, for at most `timeout_s` seconds.

    Returns whether it was set in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
