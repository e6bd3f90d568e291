"""The sweep: finds what a crash left on an export and finishes it where that is provably safe; else it only reports.

It never destroys: an empty directory of a claim that never got a volume goes through the claim controller (rmdir), a
record goes when its volume and its directory are both gone, and the trash is what was put there to be purged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from provisioner.control.records import end_record
from provisioner.control.surroundings import Surroundings
from provisioner.core import names
from provisioner.ports import ClusterError, Export, ExportError

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_PURGES = 4
"""Directories that are purged side by side on one export."""


class Sweep:
    """Looks at each export every minute from when it is usable, and whenever something went into its trash."""

    def __init__(self, around: Surroundings, *, revisit: Callable[[str], None], freed: Callable[[], None]) -> None:
        self._around = around
        self._revisit = revisit
        self._freed = freed
        self._discarded: dict[Export, asyncio.Event] = {}
        self._ready: asyncio.Queue[Export] = asyncio.Queue()

    def discarded(self, export: Export) -> None:
        """Something went into the export's trash."""
        if export in self._discarded:  # else its first look at the trash is still to come
            self._discarded[export].set()

    def export_ready(self, export: Export) -> None:
        """An export is usable, or usable again."""
        self._ready.put_nowait(export)

    async def run(self) -> None:
        """Sweep and purge all exports side by side, each from when it is first usable, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                export = await self._ready.get()
                if export not in self._discarded:
                    self._discarded[export] = asyncio.Event()
                    group.create_task(self._sweep(export))
                    group.create_task(self._purge(export))

    # ------------------------------------------------------------------------------------------- records

    async def _sweep(self, export: Export) -> None:
        while True:
            try:
                await self._look_through(export)
            except (ExportError, ClusterError) as exc:
                log.debug("sweep_failed", export=export.name, error=str(exc))
                await self._around.clock.sleep(2.0)
                continue
            await self._around.clock.sleep(_EVERY_S)

    async def _look_through(self, export: Export) -> None:
        orphans: list[str] = []
        for volume in self._without_volume(export):
            uid = names.claim_uid(volume)
            if volume in export.pending:
                if uid is not None:
                    self._revisit(uid)
            elif await end_record(self._around, export, volume):
                self._freed()
            elif await self._is_orphan(export, volume):
                orphans.append(volume)
        where = export.name
        self._around.metrics.archives.labels(where).set(len(await export.archives()))
        self._around.metrics.orphans.labels(where).set(len(orphans) + len(export.unreadable))
        if orphans or export.unreadable:
            some, unreadable = sorted(orphans)[:20], sorted(export.unreadable)[:20]
            log.warning("orphans", export=where, volumes=some, count=len(orphans), unreadable=unreadable)

    def _without_volume(self, export: Export) -> list[str]:
        """Our cluster's records of which the cache knows no volume; those of other clusters are theirs to judge."""
        ours, known = self._around.cluster_id, self._around.store.volumes
        return [name for name, record in export.records.items() if record.cluster == ours and name not in known]

    async def _is_orphan(self, export: Export, volume: str) -> bool:
        """Whether a directory has no volume, and that is not how its class wanted it."""
        record = export.records.get(volume)
        if record is None or record.on_delete == "retain":
            return False
        return await self._around.cluster.get_volume(volume) is None

    # ------------------------------------------------------------------------------------------- trash

    async def _purge(self, export: Export) -> None:
        wakeup, where = self._discarded[export], export.name
        while True:
            left = 0
            try:
                left = await self._empty(export, await export.trash())
            except ExportError as exc:
                log.debug("purge_failed", export=where, error=str(exc))
            try:
                async with asyncio.timeout(10.0 if left else _EVERY_S):
                    await wakeup.wait()
            except TimeoutError:
                pass
            wakeup.clear()

    async def _empty(self, export: Export, trash: list[str]) -> int:
        """Purge what is in the trash; returns how much of it could not be."""
        where = export.name
        gauge = self._around.metrics.trash_entries.labels(where)
        gauge.set(len(trash))
        places = asyncio.Semaphore(_PURGES)
        failed = 0

        async def purge(name: str) -> None:
            nonlocal failed
            async with places:
                try:
                    entries = await export.purge(name)
                except ExportError as exc:
                    failed += 1
                    log.warning("not_purged", export=where, trash=name, error=str(exc))
                    return
            gauge.dec()
            self._around.metrics.purged.labels(where).inc(entries)
            log.info("purged", export=where, trash=name, entries=entries)

        async with asyncio.TaskGroup() as group:
            for name in trash:
                group.create_task(purge(name))
        return failed
