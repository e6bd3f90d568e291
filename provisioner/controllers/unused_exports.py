"""Forgetting: an export that no setting, class or volume names any more is not looked at any longer.

Else a server whose class is gone would be probed, and would alert, until a restart, and each volume that anyone creates
with our annotations could add one more.
"""

from __future__ import annotations

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import classes
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.ledger.export import Export

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_IDLE_S = 300.0
"""An export is forgotten when nothing has used it for so long: no reclaim and no purge is under way then."""


class UnusedExports:
    """Compares the exports with what names them, once a minute."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx

    async def run(self) -> None:
        """Look again and again; not before all classes and volumes are known."""
        while True:
            if not self._ctx.cache.missing:
                await self._look()
            await self._ctx.clock.sleep(_EVERY_S)

    async def _look(self) -> None:
        self._ctx.health.unname_but(self._named())
        for export in list(self._ctx.exports):
            if not self._is_needed(export):
                with self._ctx.supervisor.shield("exports", export=export.name):
                    await self._forget(export)

    def _named(self) -> set[Location]:
        """Where the settings' default export and those of our classes are, whatever the way to them."""
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
        return named

    def _is_needed(self, export: Export) -> bool:
        ctx = self._ctx
        return ctx.cache.has_volumes(export.location) or ctx.health.is_needed(export, idle_s=_IDLE_S)

    async def _forget(self, export: Export) -> None:
        self._ctx.exports.forget(export)
        await self._ctx.health.forget(export)
        log.info("export_forgotten", export=export.name)
