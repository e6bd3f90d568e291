"""System calls that can hang, in a bounded pool of threads and with a time limit for each caller.

A call on a hung mount cannot be interrupted. So the caller gets an error after its time limit, while the thread stays
in its call and keeps its slot until the kernel returns. At most `threads` calls can hang; further callers wait for a
slot until their own time limit. All bookkeeping happens on the event loop, so it needs no lock.
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
    """The caller no longer waits; raised inside the job before its next system call."""


class ThreadCall(Generic[Result]):
    """One job in a thread, and its outcome for the caller."""

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
        """Raise GivenUp if the caller no longer waits.

        Called before each system call that changes something.
        """
        if self._given_up:
            raise GivenUp

    def give_up(self) -> None:
        """Stop the job at its next step."""
        self._given_up = True

    def execute(self) -> None:
        """Run the job; called in the thread."""
        try:
            self.step()
            self.result = self.job(self)
        except Exception as exc:  # noqa: BLE001 - passed on to the caller, which handles it
            self.error = exc

    def settle(self) -> None:
        """Give the outcome to the caller if it still waits; called on the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class ThreadPool:
    """A pool of at most `threads` threads, started on demand; for use by one event loop."""

    def __init__(self, name: str, *, threads: int, timeout_s: float) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(threads)
        # Daemon threads with their own queue: concurrent.futures joins its threads at exit, so a hung thread would keep
        # the process from exiting.
        self._queue: queue.SimpleQueue[ThreadCall[Any] | None] = queue.SimpleQueue()
        self._started = 0
        self._running = 0
        self._abandoned: set[ThreadCall[Any]] = set()
        self._closed = False

    async def run(self, job: Callable[[ThreadCall[Result]], Result], *, changes: tuple[RelPath, ...] = ()) -> Result:
        """Run the job in a thread; `changes` are the paths that it changes.

        Raises what the job raises, Cause.UNREACHABLE after the time limit (the job can still take effect), and
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
        """Stop the threads, each after its current call, without waiting for them."""
        self._closed = True
        for _ in range(self._started):
            self._queue.put(None)

    async def _hand_over(self, job: Callable[[ThreadCall[Result]], Result], changes: tuple[RelPath, ...]) -> Result:
        """Queue the job for a thread.

        The caller holds a slot, and the thread's return releases it.
        """
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
            # The caller was cancelled, but the thread has not returned.
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
        """Release the slot of a call that has returned; called on the event loop."""
        self._running -= 1
        self._abandoned.discard(call)
        self._slots.release()
        call.settle()


def _work(calls: queue.SimpleQueue[ThreadCall[Any] | None], returned: Callable[[ThreadCall[Any]], None]) -> None:
    """Run calls from the queue until it yields None; the body of each thread."""
    while (call := calls.get()) is not None:
        call.execute()
        try:
            call.loop.call_soon_threadsafe(returned, call)
        except RuntimeError:
            return  # The event loop was closed during the call, so no caller is left.
        del call  # Otherwise the result would stay in memory while the thread waits for the next call.
