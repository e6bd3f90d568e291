"""One attempt at an operation: until when it may take, and which of its changes the server has not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from provisioner.ports.tree import ExportError

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0


class Sent(Protocol):
    """A call that is on its way."""

    @property
    def settled(self) -> bool:
        """Whether the server has answered it, or can no longer answer it."""
        ...


class Deadline:
    """A deadline (the event loop's time) and the changing calls that were sent before it.

    `export` says whose calls they are, for a fair share of the server's slots.
    """

    __slots__ = ("_changes", "_pauses_s", "deadline", "export")

    def __init__(self, deadline: float, export: str = "") -> None:
        self.deadline = deadline
        self.export = export
        self._changes: list[Sent] = []
        self._pauses_s = _pauses_s()

    def note(self, change: Sent) -> None:
        """Remember a call that may change something."""
        self._changes.append(change)

    @property
    def unsettled(self) -> list[Sent]:
        """The changes whose outcome nobody knows yet."""
        return [change for change in self._changes if not change.settled]

    async def pause(self, reason: ExportError) -> None:
        """Wait a little before the server is asked again; raises the reason when the deadline leaves no time for it."""
        pause_s = next(self._pauses_s)
        if asyncio.get_running_loop().time() + pause_s >= self.deadline:
            raise reason
        await asyncio.sleep(pause_s)


def _pauses_s() -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
