"""A guard for tests, which refuses calls while a test sets a cause."""

from __future__ import annotations

from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Proof


class Gate:
    """A `Guard` that a test opens and shuts."""

    def __init__(self) -> None:
        self.shut: Cause | None = None

    async def require(self, export: Export) -> None:
        """See `Guard`."""
        if self.shut is not None:
            raise ExportError(self.shut)

    def proof(self, export: Export) -> Proof | None:
        """See `Guard`; none, so that each step asks."""
        return None

    def allows(self, export: Export) -> bool:
        """See `Guard`."""
        return self.shut is None
