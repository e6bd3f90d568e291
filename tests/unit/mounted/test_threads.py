"""mounted.threads: jobs are bounded in number, abandoned after their time limit, and tracked until they return."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from provisioner.core.locations import RelPath
from provisioner.mounted.threads import GATHER_S, ThreadCall, ThreadPool
from provisioner.ports.tree import Cause, ExportError, PathMissing

pytestmark = pytest.mark.timeout(60)

PATH = ("a", "b")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """The event that hung jobs wait for; set at the end, so that no thread outlives the test."""
    event = threading.Event()
    yield event
    event.set()


def hang(event: threading.Event) -> Callable[[ThreadCall[bool]], bool]:
    """Return a job that hangs until the event is set."""
    return lambda _call: event.wait()


def five(_call: ThreadCall[int]) -> int:
    """A quick job."""
    return 5


async def run_at_last(calls: ThreadPool, *changes: RelPath) -> None:
    """Run a job as soon as the pool accepts it; the time limit of the test ends the wait."""
    while True:
        try:
            return await calls.run(lambda _call: None, changes=changes)
        except ExportError:
            await asyncio.sleep(0.005)


async def test_results_and_errors_reach_the_caller() -> None:
    """The caller gets the result of the job, or its exception."""
    calls = ThreadPool("test", threads=2, timeout_s=30.0)

    def fail(_call: ThreadCall[None]) -> None:
        raise PathMissing("a")

    assert await calls.run(lambda _call: 5) == 5
    with pytest.raises(PathMissing):
        await calls.run(fail)
    calls.close()


async def test_a_hung_job_releases_its_caller(released: threading.Event) -> None:
    """After the time limit, the caller gets Cause.UNREACHABLE while the job still hangs."""
    calls = ThreadPool("test", threads=2, timeout_s=0.05)
    with pytest.raises(ExportError) as caught:
        await calls.run(hang(released))
    assert caught.value.cause is Cause.UNREACHABLE
    assert not released.is_set()
    calls.close()


async def test_no_more_jobs_hang_than_there_are_threads(released: threading.Event) -> None:
    """If all threads hang, further callers wait for a slot, get UNREACHABLE, and their jobs never start."""
    calls = ThreadPool("test", threads=3, timeout_s=0.1)
    begun: list[int] = []

    def job(_call: ThreadCall[bool]) -> bool:
        begun.append(1)
        return released.wait()

    outcomes = await asyncio.gather(*(calls.run(job) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(outcome, ExportError) for outcome in outcomes)
    released.set()
    await run_at_last(calls)
    assert len(begun) == 3
    calls.close()


async def test_busy_until_the_abandoned_job_returns(released: threading.Event) -> None:
    """A job on a path that an abandoned job changes is Cause.BUSY until that job returns; other paths work."""
    calls = ThreadPool("test", threads=4, timeout_s=0.1)
    with pytest.raises(ExportError):
        await calls.run(hang(released), changes=(("other",), PATH))
    with pytest.raises(ExportError) as caught:
        await calls.run(lambda _call: True, changes=(PATH,))
    assert caught.value.cause is Cause.BUSY
    await run_at_last(calls)
    await run_at_last(calls, ("a",))
    assert not released.is_set()
    released.set()
    await run_at_last(calls, PATH)
    calls.close()


async def test_a_job_stops_before_its_next_step(released: threading.Event) -> None:
    """A job whose caller gave up stops at its next step."""
    calls = ThreadPool("test", threads=1, timeout_s=0.1)
    steps: list[str] = []

    def job(call: ThreadCall[None]) -> None:
        call.step()
        steps.append("first")
        released.wait()
        call.step()
        steps.append("second")

    with pytest.raises(ExportError):
        await calls.run(job, changes=(PATH,))
    released.set()
    await run_at_last(calls, PATH)  # The one thread has returned from the job.
    assert steps == ["first"]
    calls.close()


async def test_a_cancelled_caller_gives_up(released: threading.Event) -> None:
    """If the caller is cancelled, the path is busy until the job returns."""
    calls = ThreadPool("test", threads=2, timeout_s=30.0)
    begun = threading.Event()

    def job(_call: ThreadCall[None]) -> None:
        begun.set()
        released.wait()

    caller = asyncio.create_task(calls.run(job, changes=(PATH,)))
    await asyncio.to_thread(begun.wait)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with pytest.raises(ExportError) as caught:
        await calls.run(lambda _call: None, changes=(PATH,))
    assert caught.value.cause is Cause.BUSY
    calls.close()


async def test_threads_end_after_close(released: threading.Event) -> None:
    """Closing the pool ends idle threads, and hung threads after their call; a closed pool accepts no job."""
    calls = ThreadPool("ending", threads=4, timeout_s=0.1)
    await run_at_last(calls)
    with pytest.raises(ExportError):
        await calls.run(hang(released))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("ending")]
    calls.close()
    with pytest.raises(ExportError):
        await calls.run(lambda _call: None)
    released.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)


async def test_threads_are_started_as_needed() -> None:
    """Sequential jobs use one thread, regardless of the pool size."""
    before = threading.active_count()
    calls = ThreadPool("test", threads=16, timeout_s=30.0)
    for _ in range(50):
        await calls.run(lambda _call: None)
    assert threading.active_count() == before + 1
    calls.close()


async def test_one_thread_does_all_jobs_that_are_quick() -> None:
    """Many jobs at a time use one thread, as long as none of them waits for long."""
    before = threading.active_count()
    calls = ThreadPool("test", threads=16, timeout_s=30.0)
    assert await asyncio.gather(*(calls.run(five) for _ in range(50))) == [5] * 50
    assert threading.active_count() <= before + 2
    calls.close()


async def test_jobs_in_quick_succession_wake_a_thread_together() -> None:
    """A job right behind another one waits a moment for more, all of them run in a row, and a lone one runs soon."""
    rests: list[int] = []
    calls = ThreadPool("test", threads=2, timeout_s=30.0, rests=lambda: rests.append(1))
    await calls.run(five)
    before = len(rests)
    assert await asyncio.gather(*(calls.run(five) for _ in range(20))) == [5] * 20
    assert len(rests) == before + 1
    calls.close()


async def test_jobs_of_a_caller_that_waits_for_each_of_them() -> None:
    """Jobs that come one by one do not wait for others, apart from a few."""
    calls = ThreadPool("test", threads=2, timeout_s=30.0)
    began_s = time.monotonic()
    for _ in range(200):
        await calls.run(five)
    assert time.monotonic() - began_s < 200 * GATHER_S / 2
    calls.close()


async def test_jobs_that_gather_while_the_pool_closes(released: threading.Event) -> None:
    """A pool that closes before its jobs have gathered runs none of them."""
    calls = ThreadPool("test", threads=2, timeout_s=0.05)
    await calls.run(five)
    late = asyncio.gather(*(calls.run(hang(released)) for _ in range(2)), return_exceptions=True)
    await asyncio.sleep(0)
    calls.close()
    assert [type(each) for each in await late] == [ExportError, ExportError]


async def test_jobs_behind_one_that_is_slow(released: threading.Event) -> None:
    """Jobs that wait behind slow ones get other threads soon, long before their time limit."""
    calls = ThreadPool("test", threads=3, timeout_s=60.0)
    slow = [asyncio.create_task(calls.run(hang(released))) for _ in range(2)]
    await asyncio.sleep(0)
    assert await calls.run(lambda _call: "done") == "done"
    assert not any(task.done() for task in slow)
    released.set()
    assert await asyncio.gather(*slow) == [True, True]
    calls.close()


async def test_a_job_that_waits_is_refused_once_its_path_is_busy(released: threading.Event) -> None:
    """A job that already waits gets Cause.BUSY, and never begins, when a job on its path is abandoned."""
    calls = ThreadPool("test", threads=1, timeout_s=30.0)
    begun: list[int] = []
    first = asyncio.create_task(calls.run(hang(released), changes=(PATH,)))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(calls.run(lambda _call: begun.append(1), changes=(("other",), PATH)))
    beside = asyncio.create_task(calls.run(lambda _call: begun.append(2), changes=(("other",),)))
    await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(ExportError) as caught:
        await waiting
    assert caught.value.cause is Cause.BUSY
    released.set()
    await beside
    assert begun == [2]
    calls.close()


async def test_a_thread_rests_when_no_job_is_left() -> None:
    """A thread lets go of what it holds once no job is left."""
    rests = threading.Event()
    calls = ThreadPool("test", threads=2, timeout_s=30.0, rests=rests.set)
    await asyncio.gather(*(calls.run(lambda _call: None) for _ in range(10)))
    await asyncio.to_thread(rests.wait)
    calls.close()


async def test_results_do_not_outlive_their_callers() -> None:
    """A pool keeps nothing of jobs that have returned."""
    calls = ThreadPool("test", threads=2, timeout_s=30.0)

    class Result:
        pass

    result = Result()
    alive = weakref.ref(result)
    held = [result]
    del result
    await calls.run(lambda _call: held.pop())
    await calls.run(lambda _call: None)
    gc.collect()
    assert alive() is None
    calls.close()
