"""Supervision: an unexpected error stops only the piece of work that raised it.

The error is logged with its traceback and counted, and the work is retried later. Every loop that runs as long as the
process, every step that works on one item of many, and every worker goes through this module.
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
"""Delays before a loop is restarted after an unexpected error."""

Count = Callable[[Loop], None]
Expected = tuple[type[Exception], ...]


class Shield:
    """A context that logs, counts and swallows unexpected errors."""

    def __init__(self, loop: Loop, count: Count, expected: Expected = (), /, **about: object) -> None:
        """`expected` errors pass through to the caller.

        `about` are log fields that name the item of work.
        """
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
    """Whether an error is a failure of the work that raised it, and nothing more.

    The cancellation of the task, and exceptions that end the process, are not.
    """
    # A CancelledError although this task is not being cancelled came out of something that the work awaited. Without
    # this check asyncio would end the task silently.
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(exc, Exception)


class Supervisor:
    """Runs loops, and restarts each after an unexpected error."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics

    def shield(self, loop: Loop, expected: Expected = (), /, **about: object) -> Shield:
        """A context that logs, counts and swallows unexpected errors; see `Shield`."""
        return Shield(loop, self._metrics.unexpected, expected, **about)

    async def keep(
        self,
        loop: Loop,
        work: Callable[[], Awaitable[None]],
        *,
        until: asyncio.Event | None = None,
        **about: object,
    ) -> None:
        """Run work until it returns. After an unexpected error restart it with back-off.

        Once `until` is set it is not restarted.
        """
        until = until or asyncio.Event()
        failures = 0
        while True:
            began_s = self._clock.monotonic()
            with self.shield(loop, **about):
                await work()
                return
            if self._clock.monotonic() - began_s > AGAIN.limit_s:
                failures = 0  # it had worked for a while: the errors are not in a row
            failures += 1
            if await wait_for_event(until, timeout_s=AGAIN.delay_s(failures, self._clock.random())):
                return
