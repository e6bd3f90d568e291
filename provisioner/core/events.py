"""When an event is worth writing: the first time at once, a repetition seldom, and each object within its bounds.

A claim that cannot be provisioned is looked at again and again; its event is written once and then counted up at
growing intervals (client-go, tools/record, does the same with a token bucket for each object).
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core.backoff import Backoff
from provisioner.core.texts import encodable

_REPEAT = Backoff(first_s=30.0, limit_s=600.0, jitter=0.0)
MESSAGE_LIMIT = 1000
"""Characters; the API server refuses longer notes in its newer events API."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """How often an event was written, and when it may be written again (monotonic seconds)."""

    count: int
    next_s: float


def occurred(previous: Occurrence | None, now_s: float) -> Occurrence | None:
    """The occurrence to write now, or None while it is too early to repeat it."""
    if previous is None:
        return Occurrence(1, now_s + _REPEAT.delay_s(1, 0.0))
    if now_s < previous.next_s:
        return None
    return Occurrence(previous.count + 1, now_s + _REPEAT.delay_s(previous.count + 1, 0.0))


def clip(message: str) -> str:
    """The message, safe to show and within the limit, its end replaced where it is too long."""
    message = encodable(message)
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
