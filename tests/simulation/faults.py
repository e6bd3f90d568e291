"""Faults of calls on the ports. Calls are numbered over all processes, so that a plan can choose one.

- A crash ends the process before or after the call takes effect.
- An error or a refusal is a call without effect. The caller may or may not know that it had none.
- A lost answer is a call that takes effect and is reported as failed.
- An unexpected error is one that no port raises, as a bug in the product would; before or after the effect.
"""

from __future__ import annotations

import asyncio
import enum
import random
from dataclasses import dataclass
from typing import Literal, Protocol

from provisioner.ports.cluster import ApiUnavailable, Rejected
from provisioner.ports.tree import Cause, ExportError

Port = Literal["cluster", "tree"]


class Unexpected(RuntimeError):
    """An error that no port raises."""


class Fault(enum.Enum):
    """The fault of one call."""

    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    ERROR = "error"
    REFUSAL = "refusal"
    LOST_ANSWER = "lost answer"
    UNEXPECTED = "unexpected error"
    UNEXPECTED_AFTER = "unexpected error after"

    @property
    def before(self) -> bool:
        """Whether the call has no effect."""
        return self not in (Fault.CRASH_AFTER, Fault.LOST_ANSWER, Fault.UNEXPECTED_AFTER)

    @property
    def crash(self) -> bool:
        """Whether the process dies."""
        return self in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)

    def error(self, port: Port, call: str) -> Exception:
        """The error that the caller gets."""
        if self in (Fault.UNEXPECTED, Fault.UNEXPECTED_AFTER):
            return Unexpected(call)
        if self is Fault.REFUSAL:
            return Rejected(f"{call}: no") if port == "cluster" else ExportError(Cause.DENIED, call)
        return ApiUnavailable(f"{call}: no answer") if port == "cluster" else ExportError(Cause.UNREACHABLE, call)


class Plan(Protocol):
    """Which calls fail, and how long each takes."""

    def fault(self, number: int) -> Fault | None:
        """The fault of a call; None for none."""
        ...

    async def pause(self, call: str = "") -> None:
        """Wait as long as a call takes on its way there; called again for its way back."""
        ...

    def late_s(self) -> float | None:
        """Seconds after which a call still takes effect although its process died during it; None for never."""
        ...


@dataclass(frozen=True, slots=True)
class Nothing:
    """No faults."""

    call_s: float = 0.0
    """Seconds that a call takes each way. With 0 no time passes while work is retried until a watch delivers."""

    def fault(self, number: int) -> Fault | None:
        """See `Plan`."""
        return None

    async def pause(self, call: str = "") -> None:
        """See `Plan`."""
        if self.call_s:
            await asyncio.sleep(self.call_s)

    def late_s(self) -> float | None:
        """See `Plan`."""
        return None


@dataclass(frozen=True, slots=True)
class At:
    """One fault, at one call."""

    number: int
    kind: Fault

    def fault(self, number: int) -> Fault | None:
        """See `Plan`."""
        return self.kind if number == self.number else None

    async def pause(self, call: str = "") -> None:
        """See `Plan`."""

    def late_s(self) -> float | None:
        """See `Plan`."""
        return None

    def __str__(self) -> str:
        return f"{self.kind.value} at call {self.number}"


_WEIGHTS = {
    Fault.CRASH_BEFORE: 1,
    Fault.CRASH_AFTER: 1,
    Fault.ERROR: 3,
    Fault.REFUSAL: 1,
    Fault.LOST_ANSWER: 3,
    Fault.UNEXPECTED: 1,
    Fault.UNEXPECTED_AFTER: 1,
}


class Chance:
    """Random faults and delays; set `rate` to 0 to stop the faults."""

    def __init__(self, chance: random.Random, *, rate: float, slow: bool = True) -> None:
        self._chance = chance
        self.rate = rate
        self._slow = chance.choice((0.0, 0.02, 0.1)) if slow else 0.0
        """How often a call takes seconds."""
        self._held = chance.choice((0.0, 0.1, 0.3))
        """How often a rename takes even longer, while others are at work."""

    def fault(self, number: int) -> Fault | None:
        """See `Plan`."""
        if not self.rate or self._chance.random() >= self.rate:
            return None
        return self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]

    async def pause(self, call: str = "") -> None:
        """See `Plan`."""
        drawn = self._chance.random()
        if call == "rename" and drawn < self._held:
            await asyncio.sleep(self._chance.uniform(0.1, 4.5))
        elif drawn < self._slow:
            await asyncio.sleep(self._chance.uniform(0.1, 3.0))
        elif drawn < 0.5:
            await asyncio.sleep(self._chance.uniform(0.0, 0.02))

    def late_s(self) -> float | None:
        """See `Plan`."""
        return self._chance.choice((None, 0.0, self._chance.uniform(0.0, 60.0)))
