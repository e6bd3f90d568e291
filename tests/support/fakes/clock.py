"""Time for tests: a clock that moves on command, and an event loop whose timers need no waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Result = TypeVar("Result")


class ManualClock:
    """A `Clock` that moves only with advance() and sleep(), and returns given random numbers."""

    def __init__(self, *, chance: float = 0.0) -> None:
        self.chance = chance
        self._passed_s = 0.0

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self._passed_s += seconds

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._passed_s)

    def steady(self) -> datetime:
        """See `Clock`."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._passed_s

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        self.advance(seconds)
        await asyncio.sleep(0)

    def random(self) -> float:
        """See `Clock`."""
        return self.chance


class LoopClock(ManualClock):
    """A `Clock` with the running loop's time; with simulate(), time passes only while all tasks wait."""

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """See `Clock`."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)


class _SkippingSelector(selectors.SelectSelector):
    """Advances the loop's time instead of sleeping until the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now, and advance the time by the timeout."""
        if timeout is None:
            raise RuntimeError("all tasks wait, but not for a timer: this would never end")
        self.passed_s += max(timeout, 0.0)
        return super().select(0)


class _SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the seconds since the simulation began."""
        return self._skipping.passed_s


def simulate(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in simulated time: waiting takes no real time, and each run is the same."""
    with asyncio.Runner(loop_factory=_SimulatedLoop) as runner:
        return runner.run(coroutine)
