"""The sweep: the periodic tasks of each export that is ready.

The sweep itself destroys nothing. The claim controller removes the empty directory of a claim that never got a volume
(rmdir). A record is removed once its volume and its directory are both gone. The trash holds only directories that were
moved there to be purged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import structlog

from provisioner.controllers.archive_expiry import ArchiveExpiry
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.expansion import note_sizes
from provisioner.controllers.instances import Instances
from provisioner.controllers.missing_data import MissingData
from provisioner.controllers.orphans import Orphans
from provisioner.controllers.returned import Returned
from provisioner.controllers.trash import Purge
from provisioner.controllers.usage import VolumeUsage
from provisioner.core import enforcement
from provisioner.core.backoff import Backoff
from provisioner.core.objects import Volume
from provisioner.core.returned import volume_of
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ClusterError
from provisioner.ports.tree import ExportError

log = structlog.get_logger(__name__)

_EVERY_S = 60.0
_AGAIN = Backoff(first_s=2.0, limit_s=_EVERY_S)
"""Delays after a look that failed."""


class Sweep:
    """Runs the periodic tasks of each export from when it is ready."""

    def __init__(
        self,
        ctx: ControllerContext,
        instances: Instances,
        *,
        revisit: Callable[[str], None],
        freed: Callable[[], None],
        groups_freed: Callable[[Export, int], None],
    ) -> None:
        """`revisit` is called with the uid of a claim to reconcile, `freed` when a record was removed.

        `groups_freed` is called with an export and the number of groups that are free again.
        """
        self._ctx = ctx
        self._groups_freed = groups_freed
        self._instances = instances
        self._orphans = Orphans(ctx, revisit=revisit, freed=freed)
        self._missing_data = MissingData(ctx)
        self._usage = VolumeUsage(ctx)
        self._returned = Returned(ctx)
        self._purge = Purge(ctx.clock, ctx.metrics, self._keeps, ctx.guard, self._tidy)
        self._archive_expiry = ArchiveExpiry(ctx, self._returned, discarded=self.trash_added)
        self._tidied: set[Export] = set()
        """Exports on which copies that nothing needs were looked for in this term."""
        self._kept: dict[Export, list[asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """Look after each export that is ready, until it is forgotten, while the context is open."""
        with self._ctx.health.listening(self.export_ready, forgotten=self._export_forgotten):
            yield

    def trash_added(self, export: Export) -> None:
        """Purge an export's trash soon: a directory was moved there."""
        self._purge.look(export)

    def deleted(self, volume: Volume) -> None:
        """Note that the API server has just deleted a volume."""
        self._returned.deleted(volume)

    def _volume_deleted(self, volume: Volume) -> None:
        """Look again at archives and trash that were kept for a volume: it is gone, and so is its usage."""
        self._usage.volume_deleted(volume)
        self._archive_expiry.volume_deleted(volume)
        self._purge.freed(volume.name)

    async def _keeps(self, export: Export, name: str) -> bool:
        """Whether an entry in the trash must stay because its volume exists."""
        return await self._returned.keeps(export, volume_of(name), name=name, where=f"the trash (entry {name})")

    async def _tidy(self, export: Export, in_trash: list[str]) -> None:
        """Free the group ids of volumes that are gone, and whose directories are purged.

        Once per term, discard the copies that nothing needs.
        """
        ctx = self._ctx
        if export not in self._tidied and ctx.guard.allows(export):
            discarded = await export.discard_unneeded_copies()
            self._tidied.add(export)
            if discarded:
                log.info("copies_discarded", export=export.name, count=discarded)
                self._purge.look(export)
        freed = await export.tidy_groups(ctx.cluster_id, in_trash=in_trash, exists=ctx.cache.volumes.__contains__)
        if freed:
            log.info("groups_freed", export=export.name, count=freed)
            self._groups_freed(export, freed)

    def resumed(self, export: Export) -> None:
        """Look again at archives and trash of an export.

        What had to wait there can be destroyed now.
        """
        self._purge.look(export)
        self._archive_expiry.look(export)

    def export_ready(self, export: Export) -> None:
        """Start the tasks of an export that is ready, unless they run already."""
        self._purge.look(export)
        if self._group is None:
            self._kept.setdefault(export, [])
        elif export not in self._kept:
            self._kept[export] = self._start(self._group, export)

    def _export_forgotten(self, export: Export) -> None:
        """Stop the tasks of an export that nothing names any more."""
        for task in self._kept.pop(export, ()):
            task.cancel()
        self._tidied.discard(export)
        self._orphans.forget(export)
        self._missing_data.forget(export)
        self._usage.forget(export)
        self._instances.forget(export)

    async def run(self) -> None:
        """Run the tasks of all exports in parallel until cancelled.

        Those of an export start when it is first ready.
        """
        try:
            with self._ctx.cache.volumes.subscribed(on_deleted=self._volume_deleted):
                async with asyncio.TaskGroup() as self._group:
                    self._kept = {export: self._start(self._group, export) for export in self._kept}
                    await asyncio.Event().wait()
        finally:
            self._group = None
            self._usage.clear()
            self._ctx.metrics.forget_sweep()

    def _start(self, group: asyncio.TaskGroup, export: Export) -> list[asyncio.Task[None]]:
        keep = self._ctx.supervisor.keep
        return [
            group.create_task(keep("instances", partial(self._instances.keep, export), export=export.name)),
            group.create_task(keep("sweep", partial(self._look_at, export), export=export.name)),
            group.create_task(keep("usage", partial(self._usage.keep, export), export=export.name)),
            group.create_task(keep("purge", partial(self._purge.keep, export), export=export.name)),
            group.create_task(keep("retention", partial(self._archive_expiry.keep, export), export=export.name)),
        ]

    async def _look_at(self, export: Export) -> None:
        failures = 0
        while True:
            if self._purge.is_busy(export):
                self._ctx.health.touch(export)
            try:
                await self._orphans.look(export)
                await note_sizes(export, self._ctx)
                requested_bytes = enforcement.requested_bytes(export.records.values())
                self._ctx.metrics.export_requested.labels(export.name).set(requested_bytes)
                self._ctx.metrics.archives.labels(export.name).set(len(await export.archives()))
                await self._missing_data.look(export)
            except (ExportError, ClusterError) as exc:
                failures += 1
                log.debug("sweep_failed", export=export.name, error=str(exc))
                await self._ctx.clock.sleep(_AGAIN.delay_s(failures, self._ctx.clock.random()))
            else:
                failures = 0
                await self._ctx.clock.sleep(_EVERY_S)
