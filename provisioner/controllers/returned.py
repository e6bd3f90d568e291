"""Returned volumes: a check whether a volume exists again before its data is destroyed.

The rules are in core.returned.
"""

from __future__ import annotations

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import names, returned
from provisioner.core.objects import Volume
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ClusterError

log = structlog.get_logger(__name__)

_RECLAIM_S = 120.0
"""A volume being reclaimed is deleted soon after its data was moved; until then it is not reported."""
_FRESH_S = 5.0
"""How long the API server's answer to a deletion is as good as a look at the volume."""


class Returned:
    """Keep data whose volume exists. Record an event as long as that lasts, and log it once."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._since_s: dict[tuple[Export, str], float] = {}
        """Since when each archive, or entry in the trash, has been kept."""
        self._logged: set[tuple[Export, str]] = set()
        self._deleted: dict[str, tuple[str, float]] = {}
        """By name, the uid of each volume that this process has just deleted, and when; the oldest first."""

    def deleted(self, volume: Volume) -> None:
        """Note that the API server has just deleted a volume, so that its data need not wait for another look."""
        now_s = self._ctx.clock.monotonic()
        self._deleted.pop(volume.name, None)
        self._deleted[volume.name] = volume.metadata.uid, now_s
        while (oldest := next(iter(self._deleted))) and self._deleted[oldest][1] < now_s - _FRESH_S:
            del self._deleted[oldest]

    async def keeps(self, export: Export, volume_name: str, *, name: str, where: str) -> bool:
        """Return True if the data in an archive or an entry of the trash must stay.

        Also True while it is unknown whether the volume exists. `name` is the archive or the entry, and `where`
        describes it in words.
        """
        key = export, name
        try:
            found = await self._find(volume_name)
        except ClusterError as exc:
            log.debug("volume_not_read", volume=volume_name, error=str(exc))
            return True
        if found is None:
            self._since_s.pop(key, None)
            self._logged.discard(key)
            return False
        now_s = self._ctx.clock.monotonic()
        overdue = now_s - self._since_s.setdefault(key, now_s) >= _RECLAIM_S
        reclaimed = returned.is_being_reclaimed(found) and (not overdue or volume_name in export.records)
        if not reclaimed:
            self._report(found, export, name, where)
        return True

    async def _find(self, name: str) -> Volume | None:
        """The volume if it keeps its data, by the cache or, as that may lag behind, read live.

        A volume that is being deleted stays so. So the answer to a deletion some seconds ago says as much as a read,
        unless the cache has another volume of the name since.
        """
        cached = self._ctx.cache.volumes.get(name)
        uid, at_s = self._deleted.get(name, ("", 0.0))
        just_deleted = bool(uid) and self._ctx.clock.monotonic() <= at_s + _FRESH_S
        if cached is not None and returned.keeps(cached) and not (just_deleted and cached.metadata.uid == uid):
            return cached
        if just_deleted:
            return None
        live = await self._ctx.cluster.get_volume(name)
        return live if live is not None and returned.keeps(live) else None

    def _report(self, volume: Volume, export: Export, name: str, where: str) -> None:
        message = returned.kept_message(volume.name, where, export.name)
        self._ctx.recorder.volume(volume, "Warning", names.DATA_KEPT, message)
        if (export, name) not in self._logged:
            self._logged.add((export, name))
            hint = f"nfs-provisioner recover --volume {volume.name}"
            log.warning(
                "data_kept", volume=volume.name, export=export.name, kept=name, phase=volume.status.phase, hint=hint
            )
