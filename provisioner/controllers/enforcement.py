"""What is missing until the quota agent of an export enforces the size of a volume."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import enforcement
from provisioner.core.enforcement import Shortfall
from provisioner.core.records import Record
from provisioner.ledger.export import Export

PATIENCE = 5
"""After so many looks at a claim that waits for the agent, about a second and a half, an event says so."""


async def shortfall(ctx: ControllerContext, export: Export, volume_name: str, record: Record) -> Shortfall | None:
    """Read answer and heartbeat, and return what is missing; None if the size is enforced. Raises ExportError."""
    async with ctx.health.fail_fast(export):
        heartbeat = await export.answers.heartbeat()
        answer = await export.answers.read(volume_name) if heartbeat is not None and heartbeat.enforces else None
    return enforcement.shortfall(record, answer, heartbeat, export=export.name, now=ctx.clock.now())
