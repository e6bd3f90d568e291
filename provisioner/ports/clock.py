"""The `Clock` port: wall clock, monotonic time and randomness.

This module also has the driver for the system clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Source of time and randomness, which a simulation can replace."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC and timezone-aware.

        It can jump: use it for names and records only.
        """
        ...

    def steady(self) -> datetime:
        """Return the wall clock at process start plus the seconds since: can be wrong, but never jumps."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow, even while the machine is suspended.

        Use it for all durations.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1), for jitter."""
        ...


_COUNTS_SUSPENSION = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the (virtual) machine is suspended, but a Lease still expires in that time."""


class SystemClock:
    """The system clock as a driver of `Clock`."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._began_s = self.monotonic()

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def steady(self) -> datetime:
        """See `Clock`; the clock starts when this object is created."""
        return self._began + timedelta(seconds=self.monotonic() - self._began_s)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.clock_gettime(_COUNTS_SUSPENSION)

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """See `Clock`."""
        return random.random()
