"""System calls that can hang, in a bounded pool of threads and with a time limit for each caller.

A call on a hung mount cannot be interrupted. So the caller gets an error after its time limit, while the thread stays
in its call until the kernel returns. At most `threads` calls can hang; further jobs wait for a thread until their own
time limit.

Threads that run side by side fight for the interpreter's lock, and waking one costs more than most calls on a file
system. So one thread takes all jobs as long as none of them waits for longer than PATIENCE_S. One more thread is woken
each time that some do, and for each job that finds all others in slow calls: the slower the file system, the more
threads run. Where jobs come in quick succession, the first thread is woken a moment later, for several of them. A
thread reports what it has done to the event loop, which takes all reports of a moment in one go. One timer has the time
limits of all jobs.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from provisioner.core.locations import RelPath
from provisioner.ports.tree import Cause, ExportError

Result = TypeVar("Result")

PATIENCE_S = 0.01
"""How long a job waits before one more thread is woken: one thread does hundreds of jobs on a fast file system then."""
GATHER_S = 0.003
"""How long jobs that come in quick succession wait for one another before the first thread is woken."""
_APART_S = 0.1
"""How long no job waits for others after one that waited in vain: its caller waits for each of its jobs in turn."""


class GivenUp(Exception):
    """The caller no longer waits; raised inside the job before its next system call."""


class ThreadCall(Generic[Result]):
    """One job in a thread, and its outcome for the caller."""

    __slots__ = ("_given_up", "begun", "changes", "due_s", "error", "future", "job", "queued_s", "result")

    def __init__(
        self,
        job: Callable[[ThreadCall[Result]], Result],
        changes: tuple[RelPath, ...],
        future: asyncio.Future[Result],
        due_s: float,
    ) -> None:
        self.job = job
        self.changes = changes
        self.future = future
        self.due_s = due_s
        """The end of its time limit, in the event loop's time."""
        self.queued_s = time.monotonic()
        self.begun = False
        self.result: Result
        self.error: Exception | None = None
        self._given_up = False

    def step(self) -> None:
        """Raise GivenUp if the caller no longer waits.

        Called before each system call that changes something.
        """
        if self._given_up:
            raise GivenUp

    def give_up(self) -> bool:
        """Stop the job at its next step; return True if it can have begun."""
        # In this order, which is the reverse of execute(): a job that has not begun here never does.
        self._given_up = True
        return self.begun

    def execute(self) -> None:
        """Run the job; called in the thread."""
        self.begun = True
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
    """A pool of at most `threads` threads, started on demand; for use by one event loop.

    A thread calls `rests` before it waits for more jobs.
    """

    def __init__(self, name: str, *, threads: int, timeout_s: float, rests: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._threads = threads
        self._timeout_s = timeout_s
        self._rests = rests
        # Shared with the threads.
        self._jobs: deque[ThreadCall[Any]] = deque()
        self._returned: deque[ThreadCall[Any]] = deque()
        self._reported = False
        """Whether the event loop was woken, and has not taken the reports yet."""
        self._awake = 0
        """Threads that take jobs, or are about to. Changed under the lock only."""
        self._taken_s = 0.0
        """When a thread took a job last, in the time of `ThreadCall.queued_s`."""
        self._lock = threading.Lock()
        # Daemon threads with their own queue: concurrent.futures joins its threads at exit, so a hung thread would keep
        # the process from exiting.
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        # Of the event loop.
        self._started = 0
        self._calls: dict[ThreadCall[Any], None] = {}
        """Jobs whose callers wait, in the order of their time limits."""
        self._abandoned: set[ThreadCall[Any]] = set()
        """Jobs that have begun and have not returned, whose callers gave up."""
        self._limit: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._handed_over_s = self._in_vain_s = 0.0
        """When the latest job came, and when one waited for others in vain, in the time of `ThreadCall.queued_s`."""
        self._closed = False

    async def run(self, job: Callable[[ThreadCall[Result]], Result], *, changes: tuple[RelPath, ...] = ()) -> Result:
        """Run the job in a thread; `changes` are the paths that it changes.

        Raises what the job raises, Cause.UNREACHABLE after the time limit (the job can still take effect), and
        Cause.BUSY while an abandoned job that changes one of these paths has not returned.
        """
        if self._closed:
            raise ExportError(Cause.OTHER, "the export is closed")
        if self._abandoned:
            self._refuse_busy(changes)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        call = ThreadCall(job, changes, future, loop.time() + self._timeout_s)
        self._calls[call] = None
        if self._limit is None:
            self._limit = loop.call_at(call.due_s, self._enforce_limits, loop)
        self._hand_over(call, loop)
        try:
            return await future
        finally:
            if self._calls.pop(call, call) is None:  # cancelled: neither returned nor beyond its time limit
                self._abandon(call)

    def close(self) -> None:
        """Stop the threads, each after its current call, without waiting for them."""
        self._closed = True
        for _ in range(self._started):
            self._wakes.put(False)

    def _refuse_busy(self, changes: tuple[RelPath, ...]) -> None:
        for call in self._abandoned:
            for path in changes:
                if path in call.changes:
                    raise ExportError(Cause.BUSY, "/".join(path))

    # ------------------------------------------------------------------------------------------- threads

    def _hand_over(self, call: ThreadCall[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Queue the job, for the thread that is awake or for one that is woken now or in a moment."""
        before_s, self._handed_over_s = self._handed_over_s, call.queued_s
        gathers = call.queued_s - before_s < GATHER_S and call.queued_s - self._in_vain_s > _APART_S
        with self._lock:
            slow = not self._jobs and call.queued_s - self._taken_s > PATIENCE_S
            gathers = not self._awake and (gathers or self._gathering is not None)
            wakes = not gathers and (not self._awake or (slow and self._awake < self._threads))
            self._jobs.append(call)
            self._awake += wakes
        if wakes:
            self._wake(loop)
        elif gathers:
            if self._gathering is None:
                self._gathering = loop.call_later(GATHER_S, self._end_gathering, loop)
        elif self._patience is None and self._awake < self._threads:
            self._patience = loop.call_later(PATIENCE_S, self._lose_patience, loop, call)

    def _end_gathering(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake a thread for the jobs that have gathered."""
        self._gathering = None
        with self._lock:
            if self._awake or not self._jobs or self._closed:
                return
            self._awake += 1
            gathered, latest = len(self._jobs), self._jobs[-1]
        self._wake(loop)
        if gathered == 1:
            self._in_vain_s = time.monotonic()
        elif self._patience is None and self._threads > 1:
            self._patience = loop.call_later(PATIENCE_S, self._lose_patience, loop, latest)

    def _lose_patience(self, loop: asyncio.AbstractEventLoop, waited: ThreadCall[Any]) -> None:
        """Wake one more thread if this job still waits, and look again later if any job does."""
        self._patience = None
        with self._lock:
            if not self._jobs or self._closed or self._awake >= self._threads:
                return
            more = self._jobs[0].due_s <= waited.due_s  # the jobs are in the order of their time limits
            self._awake += more
            waiting = self._jobs[-1]
        if more:
            self._wake(loop)
        self._patience = loop.call_later(PATIENCE_S, self._lose_patience, loop, waiting)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wakes.put(True)
        if self._awake > self._started:
            name = f"{self._name}-{self._started}"
            threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()
            self._started += 1

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run jobs whenever woken, until the pool is closed; the body of each thread."""
        while self._wakes.get():
            while (call := self._next()) is not None:
                call.execute()
                self._returned.append(call)
                del call  # Otherwise the result would stay in memory while the thread waits for the next call.
                if not self._reported:
                    self._reported = True
                    try:
                        loop.call_soon_threadsafe(self._take_reports)
                    except RuntimeError:  # The event loop was closed during the call, so no caller is left.
                        self._rests()
                        return

    def _next(self) -> ThreadCall[Any] | None:
        """Return the next job, or None if the thread is to rest."""
        self._taken_s = time.monotonic()
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
        self._rests()
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._awake -= 1
            return None

    # ------------------------------------------------------------------------------------------- the event loop

    def _take_reports(self) -> None:
        """Give the outcomes of all jobs that have returned to their callers."""
        self._reported = False  # Before the first is taken: a thread that sees True has appended its call already.
        while self._returned:
            call = self._returned.popleft()
            self._abandoned.discard(call)
            self._calls.pop(call, None)
            call.settle()

    def _enforce_limits(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up the jobs whose time limit has passed, and look again when the next one's does."""
        self._limit, now_s = None, loop.time()
        for call in list(self._calls):
            if call.due_s > now_s:
                self._limit = loop.call_at(call.due_s, self._enforce_limits, loop)
                return
            del self._calls[call]
            self._abandon(call)
            if not call.future.done():
                call.future.set_exception(ExportError(Cause.UNREACHABLE, f"no answer within {self._timeout_s:g} s"))

    def _abandon(self, call: ThreadCall[Any]) -> None:
        """Stop a job, whose caller gives up, before it begins or at its next step.

        Its paths are busy until it returns, also for jobs that wait already.
        """
        with self._lock:
            if call in self._jobs:
                self._jobs.remove(call)
            refused = [job for job in self._jobs if not set(job.changes).isdisjoint(call.changes)] if call.begun else []
            for job in refused:
                self._jobs.remove(job)
        if call.give_up():
            self._abandoned.add(call)
        for job in refused:
            self._calls.pop(job, None)
            if not job.future.done():
                job.future.set_exception(ExportError(Cause.BUSY, "/".join(call.changes[0])))
