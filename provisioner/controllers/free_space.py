"""The limits `minFree` and `overcommit` of classes, for new and growing volumes."""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import claims, enforcement, quantities
from provisioner.core.claims import Refuse
from provisioner.core.parameters import ClassParameters
from provisioner.ledger.export import Export


def space_conflict(
    ctx: ControllerContext, export: Export, parameters: ClassParameters, size: str, *, volume_name: str
) -> Refuse | None:
    """Refuse a size by the free space of the last probe and the existing volumes.

    Returns None if there is room. `volume_name` is the volume that is created or grows.
    """
    space = ctx.health.space(export)
    if space is None or not parameters.limits_space:
        return None
    volumes = {each.name: each.capacity for each in ctx.cache.on_export(export.location)}
    sizes = enforcement.sizes(volumes, export.records)
    sizes.pop(volume_name, None)
    return claims.space_conflict(
        parameters,
        size,
        export=export.name,
        size_bytes=space.size_bytes,
        free_bytes=space.free_bytes,
        provisioned_bytes=quantities.total_bytes(sizes.values()),
    )
