"""runtime.workqueue, in simulated time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.backoff import Backoff
from provisioner.runtime.requeue import Requeue
from provisioner.runtime.workqueue import WorkQueue
from tests.support.fakes.clock import LoopClock, simulate

FAILED = Requeue(Backoff(first_s=1.0, limit_s=8.0, jitter=0.0))


def queue(waited: list[float] | None = None) -> WorkQueue:
    return WorkQueue(LoopClock(), waited=(waited if waited is not None else []).append)


def test_first_in_first_out() -> None:
    """Keys come up in the order in which they were added; a key added twice comes up once."""

    async def scene() -> None:
        work = queue()
        for key in ("a", "b", "a"):
            work.add(key)
        assert len(work) == 2
        assert [await work.get(), await work.get()] == ["a", "b"]
        assert len(work) == 0

    simulate(scene())


def test_one_worker_per_key() -> None:
    """A key that is added while a worker has it comes up again after that worker is done, not before."""

    async def scene() -> None:
        work = queue()
        work.add("a")
        assert await work.get() == "a"
        work.add("a")
        second = asyncio.create_task(work.get())
        await asyncio.sleep(100)
        assert not second.done()
        work.done("a")
        assert await second == "a"
        work.done("a")
        assert len(work) == 0

    simulate(scene())


def test_later() -> None:
    """A delayed key comes up at its time, and counts as waiting only from then on."""
    waited: list[float] = []

    async def scene() -> None:
        work = queue(waited)
        work.add_after("a", 5.0)
        assert len(work) == 0
        assert await work.get() == "a"
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)

    simulate(scene())
    assert waited == [pytest.approx(0.0)]


@pytest.mark.parametrize(("first_s", "second_s"), [(5.0, 2.0), (2.0, 5.0)])
def test_the_shorter_wait_counts(first_s: float, second_s: float) -> None:
    """Of two delays of a key the shorter one counts, and the key comes up once."""

    async def scene() -> None:
        work = queue()
        work.add_after("a", first_s)
        work.add_after("a", second_s)
        assert await work.get() == "a"
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        work.done("a")
        await asyncio.sleep(100)
        assert len(work) == 0

    simulate(scene())


def test_add_ends_a_wait() -> None:
    """Adding a key ends its delay, and it comes up once; a ready key has no delay."""

    async def scene() -> None:
        work = queue()
        work.add_after("a", 5.0)
        work.add("a")
        work.add_after("a", 1.0)
        assert await work.get() == "a"
        work.done("a")
        await asyncio.sleep(100)
        assert len(work) == 0

    simulate(scene())


def test_requeue() -> None:
    """A key that failed comes up again, later with each failure in a row; any other outcome clears the count."""

    async def scene() -> None:
        work, loop = queue(), asyncio.get_running_loop()

        async def delay_s(outcome: Requeue) -> float:
            began_s = loop.time()
            work.requeue("a", outcome)
            assert await work.get() == "a"
            work.done("a")
            return loop.time() - began_s

        assert [await delay_s(FAILED) for _ in range(5)] == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0])
        assert work.failures("a") == 5
        work.requeue("a", None)
        assert work.failures("a") == 0
        assert await delay_s(FAILED) == pytest.approx(1.0)

    simulate(scene())


def test_what_is_still_running_is_no_failure() -> None:
    """A key whose work is still running comes up again after the given time, and has not failed."""

    async def scene() -> None:
        work, loop = queue(), asyncio.get_running_loop()
        for _ in range(3):
            began_s = loop.time()
            work.requeue("a", Requeue.after(30.0))
            assert await work.get() == "a"
            work.done("a")
            assert loop.time() - began_s == pytest.approx(30.0)
            assert work.failures("a") == 0

    simulate(scene())


def test_how_long_keys_waited() -> None:
    """The queue reports how long each key waited for a worker."""
    waited: list[float] = []

    async def scene() -> None:
        work = queue(waited)
        work.add("a")
        await asyncio.sleep(3)
        await work.get()

    simulate(scene())
    assert waited == [pytest.approx(3.0)]


def test_shut_down() -> None:
    """After the shutdown every get() returns None, those that wait and later ones."""

    async def scene() -> None:
        work = queue()
        waiting = [asyncio.create_task(work.get()) for _ in range(3)]
        await asyncio.sleep(1)
        work.shut_down()
        work.add("a")
        assert await asyncio.gather(*waiting) == [None, None, None]
        assert await work.get() is None

    simulate(scene())


def test_close() -> None:
    """Closing a queue cancels all delays."""

    async def scene() -> None:
        work = queue()
        work.add_after("a", 1.0)
        work.close()
        await asyncio.sleep(100)
        assert len(work) == 0

    simulate(scene())


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "later", "retry", "rest"]), st.sampled_from("abc"), st.integers(0, 3)),
    max_size=60,
)


@given(STEPS, st.integers(1, 3))
def test_no_key_is_lost_or_doubled(steps: list[tuple[str, str, int]], workers: int) -> None:
    """In any order of steps no key has two workers, and each key comes up after it was added."""

    async def scene() -> None:
        work, busy = queue(), set[str]()
        wanted, looked = dict[str, float](), dict[str, float]()
        loop = asyncio.get_running_loop()

        async def worker() -> None:
            while (key := await work.get()) is not None:
                assert key not in busy
                busy.add(key)
                looked[key] = loop.time()
                await asyncio.sleep(0.5)
                busy.remove(key)
                work.done(key)

        tasks = [asyncio.create_task(worker()) for _ in range(workers)]
        for step, key, number in steps:
            match step:
                case "add":
                    work.add(key)
                    wanted[key] = loop.time()
                case "later":
                    work.add_after(key, number)
                    wanted[key] = loop.time()
                case "retry":
                    work.requeue(key, FAILED)
                    wanted[key] = loop.time()
                case "rest":
                    await asyncio.sleep(number / 4)
        await asyncio.sleep(200)
        assert all(looked[key] >= when_s for key, when_s in wanted.items())
        assert (len(work), busy) == (0, set())
        work.shut_down()
        await asyncio.gather(*tasks)

    simulate(scene())
