"""System calls that may hang, in a bounded pool of threads, with a time limit for whoever waits.

A call on a hung mount cannot be interrupted. So the caller is let go after its time limit and the thread stays in its
call, with its slot, until the kernel lets it return: at most `threads` calls hang, and further callers wait for a slot
until their own time is up. All bookkeeping is done on the event loop, so that it needs no lock.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from provisioner.core.locations import RelPath
from provisioner.ports.tree import Cause, ExportError

Result = TypeVar("Result")


class GivenUp(Exception):
    """The caller has given up; raised inside the job, before its next system call."""


class ThreadCall(Generic[Result]):
    """One job on its way through a thread."""

    __slots__ = ("_given_up", "changes", "error", "future", "job", "loop", "result")

    def __init__(self, job: Callable[[ThreadCall[Result]], Result], changes: tuple[RelPath, ...]) -> None:
        self.job = job
        self.changes = changes
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Result] = self.loop.create_future()
        self.result: Result
        self.error: Exception | None = None
        self._given_up = False

    def step(self) -> None:
        """Raise GivenUp when nobody waits any more: a job calls this before each system call that changes something."""
        if self._given_up:
            raise GivenUp

    def give_up(self) -> None:
        """Make the next step the last."""
        self._given_up = True

    def execute(self) -> None:
        """Do the job, in the thread."""
        try:
            self.step()
            self.result = self.job(self)
        except Exception as exc:  # noqa: BLE001 - not handled here: it crosses over to the caller, whatever it is
            self.error = exc

    def settle(self) -> None:
        """Hand over what came out, on the event loop, to whoever still waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class ThreadPool:
    """A pool of at most `threads` threads, each started when it is first needed; one event loop uses it."""

    def __init__(self, name: str, *, threads: int, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(threads)
        # Daemons with a queue of our own: concurrent.futures joins its threads at exit, and a hung one would keep the
        # process from ending.
        self._queue: queue.SimpleQueue[ThreadCall[Any] | None] = queue.SimpleQueue()
        self._started = 0
        self._running = 0
        self._abandoned: set[ThreadCall[Any]] = set()
        self._closed = False

    async def run(self, job: Callable[[ThreadCall[Result]], Result], *, changes: tuple[RelPath, ...] = ()) -> Result:
        """Do the job in a thread. `changes` names the paths that it changes.

        Raises what the job raises, Cause.UNREACHABLE when the time limit passes (the job may still take effect) and
        Cause.BUSY while an abandoned job that changes one of these paths has not returned.
        """
        self._refuse_busy(changes)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
                return await self._hand_over(job, changes)
        except TimeoutError as exc:
            raise ExportError(Cause.UNREACHABLE, f"no answer within {self._timeout_s:g} s") from exc

    def close(self) -> None:
        """Let the threads end, each when its call returns; waits for none of them."""
        self._closed = True
        for _ in range(self._started):
            self._queue.put(None)

    async def _hand_over(self, job: Callable[[ThreadCall[Result]], Result], changes: tuple[RelPath, ...]) -> Result:
        """Give the job to a thread; the slot is ours and goes back when the thread returns."""
        try:
            self._refuse_busy(changes)
            if self._closed:
                raise ExportError(Cause.OTHER, "the export is closed")
            if self._running == self._started:
                self._start_thread()
        except BaseException:
            self._slots.release()
            raise
        call = ThreadCall(job, changes)
        self._running += 1
        self._queue.put(call)
        try:
            return await call.future
        finally:
            # Cancelled, and the thread has not returned.
            if call.future.cancelled():
                call.give_up()
                self._abandoned.add(call)

    def _refuse_busy(self, changes: tuple[RelPath, ...]) -> None:
        for call in self._abandoned:
            for path in changes:
                if path in call.changes:
                    raise ExportError(Cause.BUSY, "/".join(path))

    def _start_thread(self) -> None:
        name = f"{self._name}-{self._started}"
        threading.Thread(target=_work, args=(self._queue, self._returned), name=name, daemon=True).start()
        self._started += 1

    def _returned(self, call: ThreadCall[Any]) -> None:
        """A thread has come back with a call; on the event loop."""
        self._running -= 1
        self._abandoned.discard(call)
        self._slots.release()
        call.settle()


def _work(calls: queue.SimpleQueue[ThreadCall[Any] | None], returned: Callable[[ThreadCall[Any]], None]) -> None:
    """What a thread does until it is told to end."""
    while (call := calls.get()) is not None:
        call.execute()
        try:
            call.loop.call_soon_threadsafe(returned, call)
        except RuntimeError:
            return  # The event loop was closed while we hung: nobody is left to tell.
        del call  # Waiting for the next one must not keep the last one's results alive.
