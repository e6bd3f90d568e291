"""Leadership: whether this process is the one that acts in its cluster.

Checked before anything is destroyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Leadership(Protocol):
    """The state of the election, as this process sees it."""

    @property
    def instance(self) -> str:
        """A name of this process that no other process has, now or in the past."""
        ...

    @property
    def term(self) -> int:
        """How often the lease had changed hands when this process got it.

        It grows with each leader.
        """
        ...

    def holds(self) -> bool:
        """Whether no other process can lead, by the local clock.

        That clock keeps counting while the machine is suspended.
        """
        ...

    async def confirm(self) -> bool | None:
        """Ask the cluster whether this process leads; None if there is no election.

        Raises ClusterError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """The leadership without an election: the admin runs only one process."""

    instance: str
    term: int = 0

    def holds(self) -> bool:
        """See `Leadership`."""
        return True

    async def confirm(self) -> bool | None:
        """See `Leadership`."""
        return None
