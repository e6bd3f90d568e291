"""Slots: so many calls in flight and no more, fairly, and none is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from provisioner.nfs.direct.slots import Slots, SlotsClosed

pytestmark = pytest.mark.timeout(30)


async def test_slots_are_taken_lowest_first() -> None:
    """The lowest free slot is taken, so that a server may forget the high ones."""
    slots = Slots(3)
    assert [await slots.take() for _ in range(3)] == [0, 1, 2]
    slots.give(2)
    slots.give(0)
    assert await slots.take() == 0


async def test_whoever_waits_longest_is_served_first() -> None:
    """With no slot free callers wait, and get theirs in the order in which they came."""
    slots = Slots(1)
    await slots.take()
    order: list[int] = []

    async def work(number: int) -> None:
        slot = await slots.take()
        order.append(number)
        slots.give(slot)

    waiting = [asyncio.create_task(work(number)) for number in range(5)]
    await asyncio.sleep(0)
    slots.give(0)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]


async def test_a_cancelled_caller_takes_no_slot_along() -> None:
    """A slot that was just given to somebody who is cancelled goes to the next."""
    slots = Slots(1)
    await slots.take()
    first, second = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give(0)
    first.cancel()
    assert await second == 0
    assert first.cancelled()


async def test_a_server_may_want_fewer_slots() -> None:
    """Slots above the server's limit are not used until it is raised again."""
    slots = Slots(4)
    held = await slots.take()
    slots.limit(1)
    assert await slots.take() == 1
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.limit(3)
    assert await waiting == 2
    slots.give(held)


async def test_closing_wakes_everybody() -> None:
    """Once closed nobody gets a slot, and whoever waits is told."""
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.close()
    with pytest.raises(SlotsClosed):
        await waiting
    with pytest.raises(SlotsClosed):
        await slots.take()
