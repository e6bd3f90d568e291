"""Neighbours: other volumes that use a directory, or one above or below it.

They may have any creator. The cache yields candidates, and each is read live, so that no decision rests on outdated
data.
"""

from __future__ import annotations

from provisioner.controllers.context import ControllerContext
from provisioner.core import neighbours
from provisioner.core.locations import RelPath
from provisioner.ledger.export import Export


async def neighbour(ctx: ControllerContext, export: Export, path: RelPath, *, other_than: str = "") -> str:
    """The name of a volume that uses the directory and is not being deleted.

    Returns an empty string if there is none. Raises ClusterError.
    """
    passed: set[str] = set()
    locations = ctx.exports.places.same(export.location)
    while True:
        found = ctx.cache.holder(export.location, path, other_than=other_than, passed=passed)
        if found is None:
            return ""
        live = await ctx.cluster.get_volume(found.name)
        if live is not None and neighbours.needs(live, locations, path, folds=export.folds):
            return live.name
        passed.add(found.name)
