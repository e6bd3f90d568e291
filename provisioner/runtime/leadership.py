"""Leadership: whether we are the one who acts in our cluster, as everything asks that destroys something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Leadership(Protocol):
    """What the election says of this process."""

    @property
    def instance(self) -> str:
        """The process among all that ever were: no two have the same."""
        ...

    @property
    def term(self) -> int:
        """How often the lease had changed hands when we got it: each leader's is higher than those before."""
        ...

    def holds(self) -> bool:
        """Whether nobody else may lead, by our own clock, which goes on while the machine is suspended."""
        ...

    async def confirm(self) -> bool | None:
        """Whether the cluster says so too, asked now; None where there is no election. Raises ClusterError."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """Without an election this process is the only one, as its admin has promised."""

    instance: str
    term: int = 0

    def holds(self) -> bool:
        """See `Leadership`."""
        return True

    async def confirm(self) -> bool | None:
        """See `Leadership`."""
        return None
