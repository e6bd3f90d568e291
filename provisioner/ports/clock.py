"""The `Clock` port: wall clock, monotonic time and randomness; and the system's own clock."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Time and chance, so that a simulation can provide them."""

    def now(self) -> datetime:
        """The wall clock, UTC, aware. It may jump: for names and records only."""
        ...

    def steady(self) -> datetime:
        """The wall clock at the process's start, and the seconds since: it may be wrong, and never jumps."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, also while the machine is suspended: for every decision about durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


_COUNTS_SUSPENSION = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the machine, or the virtual machine, is suspended; a Lease runs out meanwhile."""


class SystemClock:
    """Driver of the port `Clock`."""

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self._began_s = self.monotonic()

    def now(self) -> datetime:
        """The wall clock, UTC, aware."""
        return datetime.now(UTC)

    def steady(self) -> datetime:
        """The wall clock when this was made, and the seconds since."""
        return self._began + timedelta(seconds=self.monotonic() - self._began_s)

    def monotonic(self) -> float:
        """Seconds that only grow, also while the machine is suspended."""
        return time.clock_gettime(_COUNTS_SUSPENSION)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def random(self) -> float:
        """A number in [0, 1)."""
        return random.random()
