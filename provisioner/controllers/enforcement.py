"""What is missing until the quota agent of an export enforces the size of a volume."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import enforcement
from provisioner.core.enforcement import Shortfall
from provisioner.ledger.export import Export


async def shortfall(ctx: ControllerContext, export: Export, volume_name: str, size: str) -> Shortfall | None:
    """Read answer and heartbeat, and return what is missing; None if the size is enforced. Raises ExportError."""
    async with ctx.health.fail_fast(export):
        heartbeat = await export.answers.heartbeat()
        answer = await export.answers.read(volume_name)
    return enforcement.shortfall(size, answer, heartbeat, export=export.name, now=ctx.clock.now())
