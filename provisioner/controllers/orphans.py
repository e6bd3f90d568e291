"""Looking for orphans: finishes what provably may be, and tells of the rest once, when it changes (core.orphans)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.orphan_facts import Known, find_unknown_directories, gather, has_leftovers
from provisioner.controllers.stale_records import end_record
from provisioner.core import names, orphans
from provisioner.core.locations import RelPath
from provisioner.core.orphans import Orphan
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError

log = structlog.get_logger(__name__)

STRAYS_EVERY_S = 600.0
"""Looking for directories that nobody knows takes a listing of each parent of volumes."""
STRAYS_LIMIT = 1000

_NAMES_IN_A_LINE = 20


@dataclass(slots=True)
class _Seen:
    """What the last look at an export found."""

    unknown_directories: Sequence[RelPath] = ()
    strays_s: float = float("-inf")
    told: frozenset[Orphan] = frozenset()


class Orphans:
    """Compares exports with the API. `revisit` is told a claim's uid, `freed` that a record has ended."""

    def __init__(self, ctx: ControllerContext, *, revisit: Callable[[str], None], freed: Callable[[], None]) -> None:
        self._ctx = ctx
        self._revisit = revisit
        self._freed = freed
        self._seen: dict[Export, _Seen] = {}

    def forget(self, export: Export) -> None:
        """The export is looked at no longer."""
        self._seen.pop(export, None)

    async def look(self, export: Export) -> None:
        """Look through one export. Raises ExportError, ClusterError."""
        seen = self._seen.setdefault(export, _Seen())
        ctx = self._ctx
        known = Known(
            cluster=ctx.cluster_id,
            volumes=ctx.cache.volumes,
            waiting={uid for uid, claim in ctx.cache.claims.items() if claim.status.phase == "Pending"},
            holder=ctx.cache.holder,
        )
        await self._sign(export)
        now_s = ctx.clock.monotonic()
        if now_s - seen.strays_s >= STRAYS_EVERY_S:
            await export.find_damage()
            seen.unknown_directories = await find_unknown_directories(export, known, ctx.exports, limit=STRAYS_LIMIT)
            seen.strays_s = now_s
        for name in list(export.unreadable):
            await export.refresh_record(
                name
            )  # somebody may have removed it, or `recover --ledger` have written it again
        evidence = await gather(
            export, known, now=ctx.clock.now(), unknown_directories=seen.unknown_directories, left=self._is_left
        )
        self._tell(export, seen, orphans.find(evidence))

    async def _is_left(self, export: Export, volume: str) -> bool:
        """Whether an orphan remains; a record that has nothing behind it ends here."""
        if await has_leftovers(export, volume):
            record = export.records.get(volume)
            return record is not None and not record.retained and await self._is_gone(volume)
        if volume in export.pending:
            uid = names.claim_uid(volume)
            if uid is not None:
                self._revisit(uid)
        elif await end_record(self._ctx, export, volume):
            self._freed()
        return False

    async def _is_gone(self, volume: str) -> bool:
        """Whether there is no such PersistentVolume: the cache may not know it yet."""
        return await self._ctx.cluster.get_volume(volume) is None

    async def _sign(self, export: Export) -> None:
        """Leave word for other clusters that this one's provisioner is at work."""
        ctx = self._ctx
        try:
            await export.heartbeats.beat(ctx.cluster_id, ctx.clock.now())
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            log.debug("export_not_signed", export=export.name, error=str(exc))  # full, or read-only

    def _tell(self, export: Export, seen: _Seen, found: Sequence[Orphan]) -> None:
        """Gauge each time; a log line when it is not as it was."""
        self._ctx.metrics.orphans.labels(export.name).set(len(found))
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
