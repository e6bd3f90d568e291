"""Wait for a condition of a real system, with a failure that says what was seen instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.api import ApiError

T = TypeVar("T")


class NotInTime(AssertionError):
    """A condition did not become true in time; the text names it and what was last seen."""


def eventually(
    condition: Callable[[], T | None], what: str, *, timeout_s: float = 30.0, explain: Callable[[], str] = str
) -> T:
    """Call `condition` until it returns a true value, and return that value.

    An ApiError or OSError of the condition counts as "not yet". Raises NotInTime with the last value or error and the
    text of `explain`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        seen: object
        try:
            answer = condition()
            if answer:
                return answer
            seen = answer
        except (ApiError, OSError) as exc:
            seen = exc
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {timeout_s:.0f} s: {what}\nlast seen: {seen!r}\n{explain()}")
        time.sleep(0.1)
