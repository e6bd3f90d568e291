"""Unlocated volumes: volumes of this provisioner that lie on no known export.

They are logged, counted and protected.

Their server may be a known one by another name, for instance if a migration wrote an address instead of a name. While
this is unknown, no claim gets a directory of the same absolute path, or one above or below it, on any server.
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
"""Time until exports that only volumes name have been opened, or have failed."""
_EVERY_S = 60.0
_LOG_LIMIT = 100
"""Volumes that get a log line of their own per term of leadership."""
_BATCH = 200
"""Volumes that are checked before other tasks get their turn."""
_HINT = (
    "if its server is that of a known export by another name, add an --export with that name; else name its export in a"
    " StorageClass or with --export, or delete the volume"
)


class UnlocatedVolumes:
    """Looks for unlocated volumes every minute."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._logged: set[str] = set()

    async def run(self) -> None:
        """Look periodically until cancelled."""
        try:
            await self._ctx.clock.sleep(_FIRST_S)
            while True:
                await self._look()
                await self._ctx.clock.sleep(_EVERY_S)
        finally:
            self._ctx.metrics.unknown_export_volumes.set(0)

    async def _look(self) -> None:
        found: list[Volume] = []
        for number, volume in enumerate(list(self._ctx.cache.volumes.values())):
            if number % _BATCH == 0:
                await asyncio.sleep(0)
            if is_unlocated(self._ctx, volume):
                found.append(volume)
        self._ctx.metrics.unknown_export_volumes.set(len(found))
        for volume in found:
            if volume.name not in self._logged:
                self._log(volume)

    def _log(self, volume: Volume) -> None:
        self._logged.add(volume.name)
        source = volume.spec.nfs
        if len(self._logged) <= _LOG_LIMIT and source is not None:
            why = self._ctx.exports.obstacle(volume) or None
            log.warning(
                "volume_on_unknown_export",
                volume=volume.name,
                server=source.server,
                path=source.path,
                why=why,
                hint=_HINT,
            )
        elif len(self._logged) == _LOG_LIMIT + 1:
            log.warning(
                "volumes_on_unknown_exports", hint="there are more: run `nfs-provisioner check` to list their exports"
            )


def is_unlocated(ctx: ControllerContext, volume: Volume) -> bool:
    """Whether a volume of this provisioner lies on no known export.

    Known exports are those that a setting or a class names, or that were opened.
    """
    if not volume.is_by(ctx.provisioner) or volume.spec.nfs is None:
        return False
    located = ctx.exports.locate(volume)
    return located is None or not ctx.health.is_known(located[0])


def refuse_unlocated(ctx: ControllerContext, plan: Provision, export: Export) -> None:
    """Raise PathTaken if an unlocated volume has the plan's absolute path, or one above or below."""
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
