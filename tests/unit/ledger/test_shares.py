"""ledger.shares: copies of an export share its workers equally, and never use more."""

from __future__ import annotations

import asyncio

import pytest

from provisioner.ledger.shares import CopyLimits, Share, Shares
from tests.support.fakes.clock import simulate


class Busy:
    """Calls that hold a worker of a share until they are released."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.running = 0
        self.release = asyncio.Event()

    async def call(self) -> None:
        async with self.share:
            self.running += 1
            try:
                await self.release.wait()
            finally:
                self.running -= 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_equal_shares() -> None:
    """A copy alone has all workers; with each further one that runs, all have equally many."""

    async def scene() -> None:
        shares = Shares(CopyLimits(copies=2, workers=8))
        async with asyncio.TaskGroup() as group, shares.share() as one:
            first = Busy(one)
            calls = [group.create_task(first.call()) for _ in range(20)]
            await settle()
            assert first.running == 8
            async with shares.share() as other:
                second = Busy(other)
                calls += [group.create_task(second.call()) for _ in range(20)]
                await settle()
                assert second.running == 4
                for call in calls[:5]:
                    call.cancel()
                await settle()
                assert first.running == 4
                for call in calls[20:]:
                    call.cancel()
                await settle()
            await settle()
            assert first.running == 8
            first.release.set()
            await settle()
            assert first.running == 0

    simulate(scene())


def test_more_copies_than_workers() -> None:
    """Each copy that runs has one worker at least."""

    async def scene() -> None:
        shares = Shares(CopyLimits(copies=3, workers=1))
        async with shares.share() as one, shares.share() as other, one, other:
            pass

    simulate(scene())


def test_copies_wait_for_their_turn() -> None:
    """No more copies run than the limit says; the others run in the order of asking."""

    async def scene() -> None:
        shares, order = Shares(CopyLimits(copies=1, workers=2)), []

        async def copy(number: int) -> None:
            async with shares.share():
                order.append(number)
                await asyncio.sleep(1)
                order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(copy(number))
        assert order == [0, 0, 1, 1, 2, 2]

    simulate(scene())


def test_a_call_that_is_cancelled() -> None:
    """A cancelled call takes no worker with it: neither one that waits, nor one whose turn has just come."""

    async def scene() -> None:
        share = Share(1)
        async with share:
            waiting = asyncio.create_task(Busy(share).call())
            next_one = asyncio.create_task(Busy(share).call())
            await settle()
            waiting.cancel()
            await settle()
        next_one.cancel()  # its turn has come, and it does not know yet
        for task in (waiting, next_one):
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(1), share:
            pass

    simulate(scene())
