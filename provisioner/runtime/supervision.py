"""Supervision: an error that no code expects ends no loop, and stops no other work than that in which it came up.

Such an error is logged with its traceback and counted, and the work is tried again later. Every loop that runs as long
as the process, and every step that works on one item of many, goes through this module; workers do as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

import structlog

from provisioner.core.backoff import Backoff
from provisioner.ports.aio import wait_for_event
from provisioner.ports.clock import Clock
from provisioner.telemetry.metrics import Loop, Metrics

log = structlog.get_logger(__name__)

AGAIN = Backoff(first_s=1.0, limit_s=60.0)
"""How a loop is started again after an unexpected error."""

Count = Callable[[Loop], None]
Expected = tuple[type[Exception], ...]


class Shield:
    """A block whose unexpected errors go no further: each is logged and counted, and the block ends."""

    def __init__(self, loop: Loop, count: Count, expected: Expected = (), /, **about: object) -> None:
        """`expected` are the errors that the caller handles; `about` says in the log which item the work was on."""
        self._loop = loop
        self._count = count
        self._expected = expected
        self._about = about

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> bool:
        if exc is None or isinstance(exc, self._expected) or not is_unexpected(exc):
            return False
        with suppress(Exception):  # there may be no memory left for the report
            self._count(self._loop)
            log.error("unexpected_error", loop=self._loop, exc_info=exc, **self._about)
        return True


def is_unexpected(exc: BaseException) -> bool:
    """Whether an error is no more than a failure of the work in which it came up.

    A cancellation of the task is none, nor is what ends the process. A CancelledError that no cancellation of this task
    explains is one: it came out of something that the work waited for, and asyncio would end the task in silence.
    """
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(exc, Exception)


class Supervisor:
    """Runs loops, and starts each again after an unexpected error."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics

    def shield(self, loop: Loop, expected: Expected = (), /, **about: object) -> Shield:
        """A block whose unexpected errors are logged and counted, and go no further."""
        return Shield(loop, self._metrics.unexpected, expected, **about)

    async def keep(
        self,
        loop: Loop,
        work: Callable[[], Awaitable[None]],
        *,
        until: asyncio.Event | None = None,
        **about: object,
    ) -> None:
        """Run work until it returns; after an unexpected error start it again, later with each failure in a row.

        Once `until` is set it is not started again.
        """
        until = until or asyncio.Event()
        failures = 0
        while True:
            began_s = self._clock.monotonic()
            with self.shield(loop, **about):
                await work()
                return
            if self._clock.monotonic() - began_s > AGAIN.limit_s:
                failures = 0  # it had worked well
            failures += 1
            if await wait_for_event(until, timeout_s=AGAIN.delay_s(failures, self._clock.random())):
                return
