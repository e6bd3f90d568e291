"""Unused exports: an export that no setting, class or volume names any more is forgotten.

Otherwise the daemon would probe a server whose class is gone, and alert, until a restart, and each forged volume with
the annotations of this provisioner could add another server.
"""

from __future__ import annotations

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import classes, snapshot_classes
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.ledger.export import Export

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_IDLE_S = 300.0
"""An export is forgotten after it was unused for this time: no reclaim and no purge is under way then."""


class UnusedExports:
    """Compares the exports with what names them, once per minute."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx

    async def run(self) -> None:
        """Look periodically until cancelled; not before all classes and volumes are cached."""
        while True:
            if not self._ctx.cache.missing:
                await self._look()
            await self._ctx.clock.sleep(_EVERY_S)

    async def _look(self) -> None:
        self._ctx.health.keep_named(self._named())
        for export in list(self._ctx.exports):
            if not self._is_needed(export):
                with self._ctx.supervisor.shield("exports", export=export.name):
                    await self._forget(export)

    def _named(self) -> set[Location]:
        """The locations of the default export, and of the exports of the classes for volumes and for snapshots."""
        ctx = self._ctx
        default = ctx.exports.default
        named = {default} if default is not None else set()
        for each in ctx.cache.classes.values():
            if each.provisioner != ctx.provisioner:
                continue
            try:
                where = classes.export_of(each, None)
            except InvalidSettings:
                continue  # no claim of the class is ever provisioned
            if where is not None:
                named.add(where)
        return named.union(snapshot_classes.exports_of(ctx.cache.snapshot_classes.values(), ctx.provisioner))

    def _is_needed(self, export: Export) -> bool:
        ctx = self._ctx
        return ctx.cache.has_volumes(export.location) or ctx.health.is_needed(export, idle_s=_IDLE_S)

    async def _forget(self, export: Export) -> None:
        self._ctx.exports.forget(export)
        await self._ctx.health.forget(export)
        log.info("export_forgotten", export=export.name)
