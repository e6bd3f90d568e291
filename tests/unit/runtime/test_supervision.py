"""runtime.supervision: an unexpected error stops only the work that raised it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from structlog.testing import capture_logs

from provisioner.runtime.fair_share import FairShare, NoSlot
from provisioner.runtime.requeue import Requeue
from provisioner.runtime.supervision import AGAIN, Shield, Supervisor
from provisioner.runtime.workers import work
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Metrics
from tests.support.fakes.clock import LoopClock, simulate


def counted(metrics: Metrics, loop: str) -> float:
    """The number of unexpected errors by the metric."""
    value = metrics.registry.get_sample_value("nfs_provisioner_unexpected_errors_total", {"loop": loop})
    assert value is not None
    return value


def odd_errors() -> list[Exception]:
    """Unexpected errors of several kinds."""
    return [
        RuntimeError("odd"),
        KeyError("odd"),
        UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
        RecursionError(),
        MemoryError(),
        ExceptionGroup("of a group", [ValueError("odd")]),
        TimeoutError(),
    ]


class Work:
    """Raises the errors that it is given, one per run, and then returns."""

    def __init__(self, errors: Iterator[BaseException]) -> None:
        self.errors = errors
        self.runs_s: list[float] = []

    async def __call__(self) -> None:
        self.runs_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        for error in self.errors:
            raise error


def test_a_loop_is_started_again() -> None:
    """Every error of a loop is logged with its traceback and counted, and the loop restarts until it returns."""
    metrics, errors = Metrics(), odd_errors()
    loop = Work(iter(errors))
    with capture_logs() as logs:
        simulate(Supervisor(LoopClock(), metrics).keep("sweep", loop, export="nas:/x"))
    assert len(loop.runs_s) == len(errors) + 1
    assert counted(metrics, "sweep") == len(errors)
    assert [line["exc_info"] for line in logs] == errors
    assert {(line["event"], line["loop"], line["export"]) for line in logs} == {("unexpected_error", "sweep", "nas:/x")}


def test_it_waits_longer_each_time() -> None:
    """A loop that fails at each start restarts with growing delays; after it has run well, soon again."""
    loop = Work(iter(RuntimeError("odd") for _ in range(9)))
    simulate(Supervisor(LoopClock(), Metrics()).keep("sweep", loop))
    pauses_s = [after - before for before, after in zip(loop.runs_s, loop.runs_s[1:], strict=False)]
    assert pauses_s == [AGAIN.delay_s(failures, 0.0) for failures in range(1, 10)]

    async def at_length() -> None:
        began_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(10 * AGAIN.limit_s)
        if len(began_s) < 9:
            raise RuntimeError("odd")

    began_s: list[float] = []
    simulate(Supervisor(LoopClock(), Metrics()).keep("sweep", at_length))
    assert began_s[-1] == 8 * (10 * AGAIN.limit_s + AGAIN.first_s)


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_the_process(end: BaseException) -> None:
    """Exceptions that end the process pass through."""
    metrics = Metrics()
    with pytest.raises(type(end)):
        simulate(Supervisor(LoopClock(), metrics).keep("sweep", Work(iter([end]))))
    assert counted(metrics, "sweep") == 0


def test_a_cancellation_ends_it() -> None:
    """A cancelled loop ends immediately and silently: at work, within a time limit, or during a delay."""

    async def scene(metrics: Metrics, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(Supervisor(LoopClock(), metrics).keep("sweep", work))
        await asyncio.sleep(0.5)
        before = counted(metrics, "sweep")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counted(metrics, "sweep") == before

    async def within_a_limit() -> None:
        async with asyncio.timeout(9.0), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(5.0))

    for each in (lambda: asyncio.sleep(1.0), within_a_limit, Work(iter([RuntimeError("odd")]))):
        simulate(scene(Metrics(), each))


def test_a_stop() -> None:
    """Once the daemon stops, a failed loop is not restarted, and a delay does not hold up the stop."""

    async def scene() -> float:
        stopping, loop = asyncio.Event(), Work(iter(RuntimeError("odd") for _ in range(99)))
        keeping = asyncio.create_task(Supervisor(LoopClock(), Metrics()).keep("leader", loop, until=stopping))
        await asyncio.sleep(60.0)
        stopping.set()
        await keeping
        return asyncio.get_running_loop().time()

    assert simulate(scene()) == 60.0


def test_a_cancellation_of_something_else() -> None:
    """A CancelledError from something that a loop awaits is an error like any other: the loop does not vanish."""

    async def waits_for_another() -> None:
        runs.append(None)
        if len(runs) < 3:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    runs: list[None] = []
    metrics = Metrics()
    simulate(Supervisor(LoopClock(), metrics).keep("sweep", waits_for_another))
    assert (len(runs), counted(metrics, "sweep")) == (3, 2)


def test_a_shield_lets_expected_errors_through() -> None:
    """Errors that the caller handles are not reported."""
    reported: list[str] = []
    with pytest.raises(LookupError), Shield("sweep", reported.append, (LookupError,)):
        raise KeyError("x")
    with Shield("sweep", reported.append, (LookupError,)):
        raise RuntimeError("odd")
    assert reported == ["sweep"]


def test_a_report_that_fails() -> None:
    """An error is swallowed even if reporting it fails, as it may without memory."""

    def fails(_: str) -> None:
        raise MemoryError

    with Shield("sweep", fails):
        raise MemoryError


def test_workers() -> None:
    """A key whose work crashes comes up again later, and all workers continue with the other keys."""

    async def scene() -> None:
        queue = WorkQueue(LoopClock(), waited=lambda _: None)
        share = FairShare(2, queue.add)
        odd: dict[str, list[BaseException]] = {f"odd-{i}": [error] for i, error in enumerate(odd_errors())}
        odd["odd-cancelled"] = [asyncio.CancelledError()]
        odd["parked"] = [NoSlot()]
        done: list[str] = []

        async def reconcile(key: str) -> Requeue | None:
            await asyncio.sleep(0)
            if odd.get(key):
                raise odd[key].pop()
            done.append(key)
            return None

        keys = [*odd, *(f"good-{i}" for i in range(9))]
        for key in keys:
            queue.add(key)
        supervisor = Supervisor(LoopClock(), metrics)
        working = asyncio.create_task(work(queue, share, reconcile, workers=2, supervisor=supervisor, loop="claims"))
        await asyncio.sleep(0.5)
        assert sorted(done) == [key for key in sorted(keys) if key.startswith("good")]
        await asyncio.sleep(1.0)
        assert sorted(done) == sorted(set(keys) - {"parked"})
        assert queue.failures("odd-0") == 0
        queue.shut_down()
        await working

    metrics = Metrics()
    simulate(scene())
    assert counted(metrics, "claims") == len(odd_errors()) + 1
