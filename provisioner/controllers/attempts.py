"""Attempts of copies: when a copy that has failed can begin again.

It waits for a growing delay. One that had no room also waits until the export has more space than it had for that
attempt: otherwise each attempt would fill the export for all other volumes. Clones and snapshots share these rules.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.controllers.context import ControllerContext
from provisioner.core import claims
from provisioner.core.backoff import Backoff
from provisioner.core.errors import ProvisionerError
from provisioner.core.reasons import Reason
from provisioner.ledger.copying import Progress
from provisioner.ledger.errors import CopyFailed, InProgress
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause

_AGAIN = Backoff(first_s=2.0, limit_s=300.0, jitter=0.0)
"""Delays between the attempts of a copy that fails."""
_AGAIN_FULL = Backoff(first_s=15.0, limit_s=900.0, jitter=0.0)
"""The same for a copy that has no room on the export."""
_FULL = (Cause.NO_SPACE, Cause.NO_INODES, Cause.QUOTA)


class NoRoomForCopy(ProvisionerError):
    """The export has no more space than an earlier attempt of the copy had, which was not enough."""

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return Reason.NOT_ENOUGH_SPACE


@dataclass(slots=True)
class _Failed:
    """The failures in a row of one copy."""

    count: int = 0
    until_s: float = 0.0
    """When the next attempt can begin."""
    needs_bytes: int = 0
    """The free space that the next attempt needs, as far as the last one shows; 0 if that did not fail for space."""


class Attempts:
    """The copies that have failed in one term of leadership, by the volume or snapshot that they are for."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._failed: dict[str, _Failed] = {}

    def free_bytes(self, export: Export) -> int:
        """Return the free space of an export; 0 if that is unknown."""
        space = self._ctx.health.space(export)
        return space.free_bytes if space is not None else 0

    def require_turn(self, name: str, export: Export, source: str) -> None:
        """Raise InProgress until the delay after a failure is over, and NoRoomForCopy while space is missing.

        `source` is what is copied, for the message.
        """
        failed = self._failed.get(name)
        if failed is None:
            return
        space = self._ctx.health.space(export)
        if space is not None and space.free_bytes < failed.needs_bytes:
            raise NoRoomForCopy(claims.no_room_message(source, export.name, failed.needs_bytes))
        wait_s = failed.until_s - self._ctx.clock.monotonic()
        if wait_s > 0:
            raise InProgress(wait_s)

    def failed(self, name: str, outcome: CopyFailed, progress: Progress, free_bytes: int) -> None:
        """Note a failure: when, and with which free space, the copy can begin again.

        `free_bytes` is the free space of the export when the copy began.
        """
        full = outcome.refusal.cause in _FULL
        failed = self._failed.setdefault(name, _Failed())
        failed.count += 1
        failed.until_s = self._ctx.clock.monotonic() + (_AGAIN_FULL if full else _AGAIN).delay_s(failed.count, 0)
        failed.needs_bytes = 0
        if outcome.refusal.cause is Cause.NO_SPACE:
            # Both are less than the copy needs, unless another client has filled the export, or files share their data.
            failed.needs_bytes = claims.room_for_copy(min(free_bytes, progress.size_bytes))

    def forget(self, name: str) -> None:
        """Forget the failures of a copy that is complete, or no longer needed."""
        self._failed.pop(name, None)
