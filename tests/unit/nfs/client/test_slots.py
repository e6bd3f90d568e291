"""nfs.client.slots: a fair limit for the calls in flight, and no slot is ever lost."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from provisioner.nfs.client.slots import SUSPECT_SLOTS, Sharing, Slots, SlotsClosed

pytestmark = pytest.mark.timeout(30)


async def test_slots_are_taken_lowest_first() -> None:
    """The lowest free slot is taken, so that the server can drop the high ones."""
    slots = Slots(3)
    assert [await slots.take() for _ in range(3)] == [0, 1, 2]
    slots.give(2)
    slots.give(0)
    assert await slots.take() == 0


async def test_callers_are_served_in_order() -> None:
    """If no slot is free, callers wait and get slots in order of arrival."""
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


async def test_a_cancelled_caller_loses_no_slot() -> None:
    """A slot that was given to a cancelled caller goes to the next one."""
    slots = Slots(1)
    await slots.take()
    first, second = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give(0)
    first.cancel()
    assert await second == 0
    assert first.cancelled()


async def test_a_server_may_want_fewer_slots() -> None:
    """Slots above the server's limit are not used until the server raises the limit."""
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


async def test_closing_wakes_all_callers() -> None:
    """After close, no caller gets a slot, and waiting callers get SlotsClosed."""
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.close()
    with pytest.raises(SlotsClosed):
        await waiting
    with pytest.raises(SlotsClosed):
        await slots.take()


async def taken(slots: Slots, export: str, count: int) -> int:
    """Return how many slots an export gets if it asks for this many."""
    calls = [asyncio.create_task(slots.take(export)) for _ in range(count)]
    await asyncio.sleep(0)
    got = sum(call.done() for call in calls)
    for call in calls[got:]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    return got


@pytest.mark.parametrize(("count", "alone"), [(1, 1), (2, 1), (4, 3), (16, 12), (128, 96)])
async def test_a_busy_export_leaves_slots_to_the_others(count: int, alone: int) -> None:
    """A busy export leaves a quarter of the slots, and at least one, to other exports."""
    sharing = Sharing(exports=2)
    assert await taken(Slots(count, sharing), "busy", 2 * count) == alone


async def test_an_export_without_neighbours_has_all_slots() -> None:
    """An export without neighbours can use all slots."""
    assert await taken(Slots(16), "alone", 20) == 16


async def test_each_of_several_busy_exports_gets_its_turn() -> None:
    """If several exports take all slots they can get, some are left for one more export."""
    slots = Slots(128, Sharing(exports=4))
    for number in range(3):
        assert await taken(slots, f"busy-{number}", 200) >= 1
    assert await taken(slots, "late", 1) == 1


async def test_suspects_have_few_slots_and_never_more_than_half() -> None:
    """A suspect export gets a few slots, and all suspects together at most half."""
    sharing = Sharing(exports=21, suspects={f"dead-{number}" for number in range(20)})
    slots = Slots(128, sharing)
    got = [await taken(slots, dead, 20) for dead in sorted(sharing.suspects)]
    assert max(got) == SUSPECT_SLOTS
    assert sum(got) == 64


async def test_an_export_that_answers_is_served_as_before() -> None:
    """Calls of a suspect export continue once the export is no longer suspect."""
    sharing = Sharing(exports=2, suspects={"dead"})
    slots = Slots(64, sharing)
    assert await taken(slots, "dead", SUSPECT_SLOTS) == SUSPECT_SLOTS
    waiting = asyncio.create_task(slots.take("dead"))
    await asyncio.sleep(0)
    assert not waiting.done()
    sharing.suspects.clear()
    slots.serve()
    assert await waiting == SUSPECT_SLOTS


async def test_an_export_that_answered_elsewhere_is_served_with_its_next_call() -> None:
    """Waiting calls continue with the next call if a reply on another connection cleared their export."""
    sharing = Sharing(exports=2, suspects={"dead"})
    slots = Slots(64, sharing)
    await taken(slots, "dead", SUSPECT_SLOTS)
    waiting = asyncio.create_task(slots.take("dead"))
    await asyncio.sleep(0)
    sharing.suspects.clear()
    assert await slots.take("dead") == SUSPECT_SLOTS + 1
    assert await waiting == SUSPECT_SLOTS


async def test_the_export_that_holds_fewest_is_served_first() -> None:
    """A free slot goes to the export that holds the fewest, not to the first caller."""
    slots = Slots(16, Sharing(exports=2))
    for export in ("many", "many", "few"):
        await slots.take(export)
    slots.limit(2)
    order: list[str] = []

    async def work(export: str) -> None:
        await slots.take(export)
        order.append(export)

    calls = [asyncio.create_task(work(export)) for export in ("many", "few")]
    await asyncio.sleep(0)
    slots.limit(15)
    await asyncio.gather(*calls)
    assert order == ["few", "many"]


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    """A call that gave up waiting leaves nothing behind: an export that hangs can have thousands of them."""
    slots = Slots(1)
    held = await slots.take("busy")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(2000):
        await taken(slots, "dead", 1)
    assert tracemalloc.get_traced_memory()[0] - before < 100_000
    tracemalloc.stop()
    slots.give(held)
