"""Takeover: writes records for volumes that a predecessor created.

Predecessors used the same provisioner name, as nfs-subdir-external-provisioner does. The rules are in core.takeover.
Volumes are taken over at the start, when one is first seen, and at the latest before a reclaim. Only the ledger is
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import takeover
from provisioner.core.locations import RelPath
from provisioner.core.objects import Volume
from provisioner.core.reasons import Reason
from provisioner.core.takeover import Enter, Find, Refuse
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ClusterError
from provisioner.ports.tree import ExportError

log = structlog.get_logger(__name__)

_IN_PARALLEL = 8
"""Records written in parallel on one export: there may be ten thousand, and each waits for a disk."""
_AGAIN_S = 30.0
_UNDECIDED = ("", "Pending", "Available")
"""Phases of a volume that may be bound in the next moment."""


class Takeover:
    """Tracks which volumes still need a record, and writes their records."""

    def __init__(self, ctx: ControllerContext, *, entered: Callable[[str], None]) -> None:
        """`entered` is called with the name of a volume that got its record after having been refused one."""
        self._ctx = ctx
        self._entered = entered
        self._waiting: set[str] = set()
        self._due = asyncio.Event()
        self._refused: dict[str, Refuse] = {}

    @contextmanager
    def subscribed(self) -> Iterator[None]:
        """While the context is open, look at volumes that appear or change.

        The refused ones are looked at again when any volume is deleted.
        """
        ctx = self._ctx
        with (
            ctx.health.listening(self._export_ready),
            ctx.cache.volumes.subscribed(
                on_added=lambda volume: self._look_at([volume]),
                on_updated=self._volume_changed,
                on_deleted=self._volume_deleted,
            ),
        ):
            yield

    def _volume_changed(self, before: Volume, volume: Volume) -> None:
        if volume.name in self._refused or before.status.phase != volume.status.phase:
            self._look_at([volume])

    def _volume_deleted(self, volume: Volume) -> None:
        # The refused volumes may have been refused because of this one.
        self._refused.pop(volume.name, None)
        volumes = self._ctx.cache.volumes
        self._look_at(volumes[name] for name in self._refused if name in volumes)

    def _export_ready(self, export: Export) -> None:
        """Look at all volumes: an export is ready, so its ledger has been read."""
        self._look_at(self._ctx.cache.volumes.values())

    def _look_at(self, volumes: Iterable[Volume]) -> None:
        peers = (volume for volume in volumes if takeover.is_of_nfs_subdir(volume, self._ctx.provisioner))
        self._waiting |= {volume.name for volume in peers if volume.status.phase not in _UNDECIDED}
        if self._waiting:
            self._due.set()

    async def run(self) -> None:
        """Write records until cancelled."""
        driven = sum(volume.spec.csi is not None for volume in self._ctx.cache.volumes.values())
        if driven:
            log.info("csi_volumes_left_alone", count=driven)
        while True:
            await self._due.wait()
            self._due.clear()
            names, self._waiting = self._waiting, set()
            done = False
            with self._ctx.supervisor.shield("takeover"):
                done = await self._enter_all(names)
            if not done:
                await self._ctx.clock.sleep(_AGAIN_S)
                self._waiting |= names
                self._due.set()

    async def enter(self, volume: Volume, export: Export, path: RelPath) -> Refuse | None:
        """Make sure that a predecessor's volume, read live, has a record.

        Returns the refusal if it is refused one. Raises ExportError, ClusterError.
        """
        if not takeover.is_of_nfs_subdir(volume, self._ctx.provisioner) or volume.name in export.records:
            return None
        await self._enter(export, [(volume, path)])
        return self._refused.get(volume.name)

    # ------------------------------------------------------------------------------------------- entering

    async def _enter_all(self, names: Iterable[str]) -> bool:
        """Enter the volumes without a record, all exports in parallel.

        Returns whether all could be tried.
        """
        found: dict[Export, list[tuple[Volume, RelPath]]] = {}
        for name in names:
            volume = self._ctx.cache.volumes.get(name)
            located = self._ctx.exports.locate(volume) if volume is not None else None
            if volume is not None and located is not None and name not in located[0].records:
                found.setdefault(located[0], []).append((volume, located[1]))
        done = await asyncio.gather(*(self._enter_on(export, volumes) for export, volumes in found.items()))
        return all(done)

    async def _enter_on(self, export: Export, volumes: list[tuple[Volume, RelPath]]) -> bool:
        ctx = self._ctx
        ctx.health.add(export, named=False)
        try:
            export = await ctx.health.require_ready(export)
        except ExportError:
            return True  # the volumes come up again when it is ready
        shares = (volumes[start::_IN_PARALLEL] for start in range(_IN_PARALLEL))
        done = await asyncio.gather(*(self._enter_share(export, share) for share in shares if share))
        return all(done)

    async def _enter_share(self, export: Export, volumes: list[tuple[Volume, RelPath]]) -> bool:
        with self._ctx.supervisor.shield("takeover", export=export.name, count=len(volumes)):
            try:
                await self._enter(export, volumes)
            except (ExportError, ClusterError) as exc:
                log.warning("volumes_not_taken_over", export=export.name, count=len(volumes), error=str(exc))
            else:
                return True
        return False

    async def _enter(self, export: Export, volumes: list[tuple[Volume, RelPath]]) -> None:
        wanted: dict[str, Enter] = {}
        for cached, path in volumes:
            # A volume without a bound claim is judged by when it was created, which the cache does not keep.
            volume = cached if cached.status.phase == "Bound" else await self._ctx.cluster.get_volume(cached.name)
            if volume is None:
                continue
            match takeover.decide(self._find(volume, export, path)):
                case Enter() as enter:
                    wanted[volume.name] = enter
                case Refuse() as refusal:
                    self._refuse(volume.name, refusal)
        taken = await export.take_over({name: enter.record for name, enter in wanted.items()}) if wanted else {}
        for name, enter in wanted.items():
            if name in taken:
                self._refuse(name, Refuse(Reason.OVERLAPPING_DIRECTORY, f"{taken[name]}; nothing was changed"))
            else:
                self._succeeded(name, export, enter)

    def _find(self, volume: Volume, export: Export, path: RelPath) -> Find:
        ctx, cache = self._ctx, self._ctx.cache
        return Find(
            volume=volume,
            path=path,
            storage_class=cache.classes.get(volume.spec.storage_class_name),
            holder=cache.holder(export.location, path, other_than=volume.name),
            provisioner=ctx.provisioner,
            cluster=ctx.cluster_id,
            now=ctx.stamp(),
            since=export.since,
        )

    def _succeeded(self, name: str, export: Export, enter: Enter) -> None:
        record = enter.record
        log.info(
            "volume_taken_over",
            volume=name,
            claim=f"{record.namespace}/{record.claim}",
            export=export.name,
            directory=record.directory,
            on_delete=record.on_delete,
            why=enter.note or None,
            **{"class": record.class_name},
        )
        if self._refused.pop(name, None) is not None:
            self._entered(name)

    def _refuse(self, name: str, refusal: Refuse) -> None:
        """Report a refusal once: the volume is looked at again whenever another volume is deleted."""
        if self._refused.get(name) != refusal:
            self._ctx.metrics.failures.labels("takeover", refusal.reason).inc()
            log.warning("volume_not_taken_over", volume=name, reason=refusal.reason, why=refusal.message)
        self._refused[name] = refusal
