"""Whether an export has room for what a claim asks for, by its class's `minFree` and `overcommit`."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import claims, quantities
from provisioner.core.claims import Refuse
from provisioner.core.parameters import ClassParameters
from provisioner.ledger.export import Export


def space_conflict(
    ctx: ControllerContext, export: Export, parameters: ClassParameters, size: str, *, volume: str
) -> Refuse | None:
    """Why a volume must not have that size, by what the last probe found and by the volumes that are there."""
    space = ctx.health.space(export)
    if space is None or not parameters.limits_space:
        return None
    others = (each for each in ctx.cache.on_export(export.location) if each.name != volume)
    return claims.space_conflict(
        parameters,
        size,
        export=export.name,
        size_bytes=space.size_bytes,
        free_bytes=space.free_bytes,
        provisioned_bytes=quantities.total_bytes(each.capacity for each in others),
    )
