"""Time limit of one operation, and the changing calls that the server has not answered yet."""

from __future__ import annotations

import asyncio
from typing import Protocol

from provisioner.core.backoff import Backoff
from provisioner.ports.tree import ExportError

_BACKOFF = Backoff(first_s=0.02, limit_s=1.0, jitter=0)


class Sent(Protocol):
    """A call that was sent to the server."""

    @property
    def settled(self) -> bool:
        """Whether the server has answered the call or can no longer answer it."""
        ...


class Deadline:
    """Deadline of an operation (`at_s`, in the event loop's time), and the changing calls that it has sent.

    `export` is the export that the calls are for; the slots of a server are shared fairly between its exports.
    """

    __slots__ = ("_changes", "_pauses", "at_s", "export")

    def __init__(self, at_s: float, export: str = "") -> None:
        self.at_s = at_s
        self.export = export
        self._changes: list[Sent] = []
        self._pauses = 0

    def note(self, change: Sent) -> None:
        """Remember a call that can change something on the server."""
        self._changes.append(change)

    @property
    def unsettled(self) -> list[Sent]:
        """The changing calls whose outcome is unknown."""
        return [change for change in self._changes if not change.settled]

    async def pause(self, reason: ExportError) -> None:
        """Wait before the next try; raises `reason` if the deadline leaves no time for it."""
        self._pauses += 1
        pause_s = _BACKOFF.delay_s(self._pauses, 0)
        if asyncio.get_running_loop().time() + pause_s >= self.at_s:
            raise reason
        await asyncio.sleep(pause_s)
