"""ports.aio, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from provisioner.ports.aio import map_bounded, wait_for_event
from tests.support.fakes.clock import simulate


def test_results_come_in_order_and_few_run_at_a_time() -> None:
    """Results have the order of the items, and no more than the limit is worked on at a time."""
    running = most = 0

    async def work(delay_s: float) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(delay_s)
        running -= 1
        return delay_s

    delays_s = [3.0, 1.0, 2.0, 1.0]
    assert simulate(map_bounded(work, delays_s, limit=2)) == delays_s
    assert most == 2


def test_the_first_error_is_raised_as_it_is_and_ends_the_rest() -> None:
    """The first error is raised without a group around it, and the other items are cancelled."""
    ended: list[float] = []

    async def work(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if delay_s == 1.0:
            raise ValueError("odd")
        ended.append(delay_s)

    with pytest.raises(ValueError, match="odd"):
        simulate(map_bounded(work, [1.0, 2.0], limit=2))
    assert ended == []


def test_items_are_taken_only_when_their_work_begins() -> None:
    """An error of the iterator is raised as it is, and ends the work on the items before it."""
    ended: list[int] = []

    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("odd")

    async def work(item: int) -> None:
        await asyncio.sleep(1.0)
        ended.append(item)

    with pytest.raises(ValueError, match="odd"):
        simulate(map_bounded(work, items(), limit=2))
    assert ended == [0, 1]
    assert simulate(map_bounded(work, iter(()), limit=2)) == []


def test_waiting_for_an_event() -> None:
    """The wait ends when the event is set, or when the time is over, and says which."""

    async def scene() -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        assert not await wait_for_event(event, timeout_s=5.0)
        assert loop.time() == 5.0
        loop.call_later(1.0, event.set)
        assert await wait_for_event(event, timeout_s=5.0)
        assert loop.time() == 6.0
        assert await wait_for_event(event, timeout_s=0.0)

    simulate(scene())
