"""One attempt at an operation: until when it may take, and which of its changes the server has not answered yet."""

from __future__ import annotations

import asyncio
from typing import Protocol

from provisioner.core.backoff import Backoff
from provisioner.ports.tree import ExportError

_BACKOFF = Backoff(first_s=0.02, limit_s=1.0, jitter=0)


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

    __slots__ = ("_changes", "_pauses", "at_s", "export")

    def __init__(self, at_s: float, export: str = "") -> None:
        self.at_s = at_s
        self.export = export
        self._changes: list[Sent] = []
        self._pauses = 0

    def note(self, change: Sent) -> None:
        """Remember a call that may change something."""
        self._changes.append(change)

    @property
    def unsettled(self) -> list[Sent]:
        """The changes whose outcome nobody knows yet."""
        return [change for change in self._changes if not change.settled]

    async def pause(self, reason: ExportError) -> None:
        """Wait a little before the server is asked again; raises the reason when the deadline leaves no time for it."""
        self._pauses += 1
        pause_s = _BACKOFF.delay_s(self._pauses, 0)
        if asyncio.get_running_loop().time() + pause_s >= self.at_s:
            raise reason
        await asyncio.sleep(pause_s)
