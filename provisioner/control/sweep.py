"""The sweep: looks after each export from when it is usable, by parts that each have a room of their own.

It never destroys: an empty directory of a claim that never got a volume goes through the claim controller (rmdir), a
record goes when its volume and its directory are both gone, and the trash is what was put there to be purged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from provisioner.control.expand import note_sizes
from provisioner.control.orphans import Orphans
from provisioner.control.purge import Purge
from provisioner.control.retention import Retention
from provisioner.control.surroundings import Surroundings
from provisioner.core.backoff import Backoff
from provisioner.ports import ClusterError, Export, ExportError

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_AGAIN = Backoff(first_s=2.0, limit_s=_EVERY_S)
"""After a look that failed."""


class Sweep:
    """Looks at each export every minute from when it is usable, and whenever something went into its trash."""

    def __init__(self, around: Surroundings, *, revisit: Callable[[str], None], freed: Callable[[], None]) -> None:
        self._around = around
        self._orphans = Orphans(around, revisit=revisit, freed=freed)
        self._purge = Purge(around.clock, around.metrics)
        self._retention = Retention(around, discarded=self.discarded)
        self._ready: asyncio.Queue[Export] = asyncio.Queue()

    def discarded(self, export: Export) -> None:
        """Something went into the export's trash."""
        self._purge.look(export)

    def export_ready(self, export: Export) -> None:
        """An export is usable, or usable again."""
        self._purge.look(export)
        self._ready.put_nowait(export)

    async def run(self) -> None:
        """Look after all exports side by side, each from when it is first usable, for ever."""
        kept: set[Export] = set()
        try:
            with self._around.store.listening(self._retention.changed):
                async with asyncio.TaskGroup() as group:
                    while True:
                        export = await self._ready.get()
                        if export in kept:
                            continue
                        kept.add(export)
                        for part in (self._look_at, self._purge.keep, self._retention.keep):
                            group.create_task(part(export))
        finally:
            self._around.metrics.forget_sweep()

    async def _look_at(self, export: Export) -> None:
        failures = 0
        while True:
            try:
                await self._orphans.look(export)
                await note_sizes(export, self._around)
                self._around.metrics.archives.labels(export.name).set(len(await export.archives()))
            except (ExportError, ClusterError) as exc:
                failures += 1
                log.debug("sweep_failed", export=export.name, error=str(exc))
                await self._around.clock.sleep(_AGAIN.delay_s(failures, self._around.clock.random()))
            else:
                failures = 0
                await self._around.clock.sleep(_EVERY_S)
