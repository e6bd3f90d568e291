"""Orphans: finishes those that provably can be finished, and reports the rest.

core.orphans decides what is an orphan. The report is repeated only when it changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.orphan_facts import Known, find_unknown_directories, gather, has_leftovers
from provisioner.controllers.record_upkeep import end_record
from provisioner.core import names, orphans
from provisioner.core.locations import RelPath
from provisioner.core.orphans import Orphan
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError

log = structlog.get_logger(__name__)

UNKNOWN_EVERY_S = 600.0
"""Between two searches for unknown directories: each lists all parents of volumes."""
UNKNOWN_LIMIT = 1000

_NAMES_PER_LINE = 20


@dataclass(slots=True)
class _Seen:
    """The results of the last look at one export."""

    unknown_directories: Sequence[RelPath] = ()
    unknown_s: float = float("-inf")
    reported: frozenset[Orphan] = frozenset()


class Orphans:
    """Compares exports with the API."""

    def __init__(self, ctx: ControllerContext, *, revisit: Callable[[str], None], freed: Callable[[], None]) -> None:
        """`revisit` is called with the uid of a claim to reconcile, `freed` when a record was removed."""
        self._ctx = ctx
        self._revisit = revisit
        self._freed = freed
        self._seen: dict[Export, _Seen] = {}

    def forget(self, export: Export) -> None:
        """Stop looking at an export."""
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
        await self._heartbeat(export)
        now_s = ctx.clock.monotonic()
        if now_s - seen.unknown_s >= UNKNOWN_EVERY_S:
            await export.find_damage()
            seen.unknown_directories = await find_unknown_directories(export, known, ctx.exports, limit=UNKNOWN_LIMIT)
            seen.unknown_s = now_s
        for name in list(export.unreadable):
            # An admin may have removed it, or `recover --ledger` have written it again.
            await export.refresh_record(name)
        facts = await gather(
            export, known, now=ctx.clock.now(), unknown_directories=seen.unknown_directories, left=self._is_left
        )
        self._report(export, seen, orphans.find(facts))

    async def _is_left(self, export: Export, volume_name: str) -> bool:
        """Whether a record remains an orphan.

        One without a directory or leftovers is finished or removed here.
        """
        is_copy = volume_name in export.pending and bool(export.records[volume_name].clone_of)
        if not is_copy and await has_leftovers(export, volume_name):
            record = export.records.get(volume_name)
            return record is not None and not record.retained and await self._is_gone(volume_name)
        if volume_name in export.pending:
            uid = names.claim_uid(volume_name)
            if uid is not None:
                self._revisit(uid)
        elif await end_record(self._ctx, export, volume_name):
            self._freed()
        return False

    async def _is_gone(self, volume_name: str) -> bool:
        """Whether there is no such PersistentVolume, read live: the cache may not know it yet."""
        return await self._ctx.cluster.get_volume(volume_name) is None

    async def _heartbeat(self, export: Export) -> None:
        """Write the heartbeat that shows other clusters that this provisioner is at work."""
        ctx = self._ctx
        try:
            await export.heartbeats.beat(ctx.cluster_id, ctx.clock.now())
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            log.debug("export_not_signed", export=export.name, error=str(exc))  # full, or read-only

    def _report(self, export: Export, seen: _Seen, found: Sequence[Orphan]) -> None:
        """Set the gauge each time; log only changes."""
        self._ctx.metrics.orphans.labels(export.name).set(len(found))
        before, seen.reported = seen.reported, frozenset(found)
        if seen.reported == before:
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
            volumes=recorded[:_NAMES_PER_LINE],
            unknown=[each.directory for each in found if not each.volume][:_NAMES_PER_LINE],
            unreadable=[each.volume for each in found if not each.directory][:_NAMES_PER_LINE],
            hint="nothing was changed: `nfs-provisioner orphans` explains each entry, and what to do about it",
        )
