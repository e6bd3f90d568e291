"""When to write an event: immediately the first time, and repetitions at growing intervals.

A claim that cannot be provisioned is reconciled again and again. Its event is written once, and its count then raised
at growing intervals (client-go, tools/record, does the same with a token bucket per object).
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core.backoff import Backoff
from provisioner.core.texts import encodable

_REPEAT = Backoff(first_s=30.0, limit_s=600.0, jitter=0.0)
MESSAGE_LIMIT = 1000
"""In characters: the newer events API refuses longer notes."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """How often an event was written, and when it can be written again (monotonic seconds)."""

    count: int
    next_s: float


def occurred(previous: Occurrence | None, now_s: float) -> Occurrence | None:
    """Return the occurrence to write now, or None while it is too early to repeat it."""
    if previous is None:
        return Occurrence(1, now_s + _REPEAT.delay_s(1, 0.0))
    if now_s < previous.next_s:
        return None
    return Occurrence(previous.count + 1, now_s + _REPEAT.delay_s(previous.count + 1, 0.0))


def clip(message: str) -> str:
    """Return the message, safe to show, and shortened if it exceeds the limit."""
    message = encodable(message)
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
