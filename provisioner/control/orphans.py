"""Looking for orphans: finishes what provably may be, and tells of the rest once, when it changes (core.orphans)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from provisioner.control.records import end_record
from provisioner.control.surroundings import Surroundings
from provisioner.core import names, orphans
from provisioner.core.locations import Path
from provisioner.core.orphans import Evidence, Orphan
from provisioner.ports import Cause, Export, ExportError

log = structlog.get_logger(__name__)

STRAYS_EVERY_S = 600.0
"""Looking for directories that nobody knows takes a listing of each parent of volumes."""
STRAYS_LIMIT = 1000

_NAMES_IN_A_LINE = 20


@dataclass(slots=True)
class _Seen:
    """What the last look at an export found."""

    strays: Sequence[Path] = ()
    strays_s: float = float("-inf")
    told: frozenset[Orphan] = frozenset()


class Orphans:
    """Compares exports with the API. `revisit` is told a claim's uid, `freed` that a record has ended."""

    def __init__(self, around: Surroundings, *, revisit: Callable[[str], None], freed: Callable[[], None]) -> None:
        self._around = around
        self._revisit = revisit
        self._freed = freed
        self._seen: dict[Export, _Seen] = {}

    async def look(self, export: Export) -> None:
        """Look through one export. Raises ExportError, ClusterError."""
        seen = self._seen.setdefault(export, _Seen())
        around = self._around
        left = await self._finish(export)
        signs = await self._signs(export)
        now_s = around.clock.monotonic()
        if now_s - seen.strays_s >= STRAYS_EVERY_S:
            seen.strays = await self._strays(export)
            seen.strays_s = now_s
        found = orphans.find(
            Evidence(
                export=export.name,
                cluster=around.cluster_id,
                records=export.records,
                pending=export.pending,
                unreadable=export.unreadable,
                signs=signs,
                now=around.clock.now(),
                volumes=around.store.volumes,
                holder=lambda path: around.store.holder(export.location, path),
                left=left,
                strays=seen.strays,
            )
        )
        self._tell(export, seen, found)

    async def _finish(self, export: Export) -> set[str]:
        """End the records that have nothing behind them; the volumes whose directories are in the way of that."""
        waiting = {uid for uid, claim in self._around.store.claims.items() if claim.status.phase == "Pending"}
        doubtful = orphans.doubtful(
            export.records,
            export.pending,
            cluster=self._around.cluster_id,
            volumes=self._around.store.volumes,
            waiting=waiting,
        )
        return {volume for volume in doubtful if await self._is_left(export, volume)}

    async def _is_left(self, export: Export, volume: str) -> bool:
        try:
            if volume in export.pending:
                return await self._is_left_over(export, volume)
            if await end_record(self._around, export, volume):
                self._freed()
                return False
        except ExportError as exc:
            if exc.cause not in (Cause.SYMLINK, Cause.DENIED, Cause.RECORD):
                raise
            return True  # there is something, and no directory of ours
        record = export.records.get(volume)
        return record is not None and not record.retained and await self._is_gone(volume)

    async def _is_left_over(self, export: Export, volume: str) -> bool:
        """Whether an attempt has left more than the claim's controller may take away."""
        if await export.is_left(volume):
            return await self._is_gone(volume)
        uid = names.claim_uid(volume)
        if uid is not None:
            self._revisit(uid)
        return False

    async def _is_gone(self, volume: str) -> bool:
        """Whether there is no such PersistentVolume: the cache may not know it yet."""
        return await self._around.cluster.get_volume(volume) is None

    async def _signs(self, export: Export) -> Mapping[str, str]:
        """When the other clusters' provisioners were here, where there are any; ours leaves word of itself."""
        around = self._around
        try:
            await export.sign(around.cluster_id, around.clock.now())
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            log.debug("export_not_signed", export=export.name, error=str(exc))  # full, or read-only
        others = any(record.cluster != around.cluster_id for record in export.records.values())
        return await export.clusters() if others else {}

    async def _strays(self, export: Export) -> list[Path]:
        around = self._around
        known = orphans.known(
            export.location,
            export.records.values(),
            around.store.volumes.values(),
            [other.location for other in around.exports],
        )
        return await export.strays(known, limit=STRAYS_LIMIT)

    def _tell(self, export: Export, seen: _Seen, found: Sequence[Orphan]) -> None:
        """Gauge each time; a log line when it is not as it was."""
        self._around.metrics.orphans.labels(export.name).set(len(found))
        before, seen.told = seen.told, frozenset(found)
        if seen.told == before:
            return
        if not found:
            log.info("orphans_gone", export=export.name)
            return
        recorded = [each.volume for each in found if each.directory and each.volume]
        log.warning(
            "orphans",
            export=export.name,
            count=len(found),
            kinds=dict(Counter(each.kind for each in found)),
            volumes=recorded[:_NAMES_IN_A_LINE],
            unknown=[each.directory for each in found if not each.volume][:_NAMES_IN_A_LINE],
            unreadable=[each.volume for each in found if not each.directory][:_NAMES_IN_A_LINE],
            hint="nothing of it is touched; `orphans` says what each one is and what to do about it",
        )
