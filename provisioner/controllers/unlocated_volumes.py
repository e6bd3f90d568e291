"""Volumes of ours that lie on no known export: said one by one, counted, and their directories protected.

Their server may be one of ours by another name: a migration wrote an address for a name, say. As long as nothing tells,
a directory of that absolute path, or one above or below it, is handed out on no server.
"""

from __future__ import annotations

import asyncio

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import discretion
from provisioner.core.claims import Provision
from provisioner.core.objects import Volume
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.export import Export

log = structlog.get_logger(__name__)

_FIRST_S = 15.0
"""Until exports that only volumes name have been opened, or have failed."""
_EVERY_S = 60.0
_SAID_LIMIT = 100
"""Volumes that are said one by one in a term."""
_AT_ONCE = 200
"""Volumes that are looked at before others get their turn."""
_HINT = (
    "if its server is one of the exports' by another name, give that one with --export too; else name its export in a"
    " StorageClass or with --export, or delete the volume"
)


class UnlocatedVolumes:
    """Looks for them each minute."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._said: set[str] = set()

    async def run(self) -> None:
        """Look again and again, for as long as we lead."""
        try:
            await self._ctx.clock.sleep(_FIRST_S)
            while True:
                await self._look()
                await self._ctx.clock.sleep(_EVERY_S)
        finally:
            self._ctx.metrics.homeless.set(0)

    async def _look(self) -> None:
        found: list[Volume] = []
        for number, volume in enumerate(list(self._ctx.cache.volumes.values())):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if is_unlocated(self._ctx, volume):
                found.append(volume)
        self._ctx.metrics.homeless.set(len(found))
        for volume in found:
            if volume.name not in self._said:
                self._say(volume)

    def _say(self, volume: Volume) -> None:
        self._said.add(volume.name)
        source = volume.spec.nfs
        if len(self._said) <= _SAID_LIMIT and source is not None:
            why = self._ctx.exports.obstacle(volume) or None
            log.warning(
                "volume_on_unknown_export",
                volume=volume.name,
                server=source.server,
                path=source.path,
                why=why,
                hint=_HINT,
            )
        elif len(self._said) == _SAID_LIMIT + 1:
            log.warning(
                "volumes_on_unknown_exports", hint="there are more: `nfs-provisioner check` lists their exports"
            )


def is_unlocated(ctx: ControllerContext, volume: Volume) -> bool:
    """Whether a volume under our name lies on no export that a setting or a class names, or that we could open."""
    if not volume.is_by(ctx.provisioner) or volume.spec.nfs is None:
        return False
    located = ctx.exports.locate(volume)
    return located is None or not ctx.health.is_known(located[0])


def refuse_doubtful(ctx: ControllerContext, plan: Provision, export: Export) -> None:
    """Raise PathTaken where a volume without a known export has the plan's absolute path, or one above or below."""
    for volume in ctx.cache.anywhere(export.location, plan.record.path):
        if volume.name != plan.volume and is_unlocated(ctx, volume):
            source = volume.source
            place = f"{source.server}:{source.path}" if source is not None else ""
            directory, owner = plan.record.directory, discretion.owner_of(volume, ctx.cluster_id)
            raise PathTaken(
                discretion.words(
                    discretion.owner_by(plan.record),
                    owner,
                    f"directory {directory!r} may be taken: volume {volume.name} lies on {place}, which no StorageClass"
                    f" and no --export names, and which may be {export.name} by another name of its server: name that"
                    " server in a StorageClass or with --export, or delete the volume",
                    f"directory {directory!r} may be taken by a volume outside this namespace, on a server that no"
                    " StorageClass and no --export names: the provisioner's log has more",
                )
            )
