"""Archive expiry: moves archives whose retention is over into the trash.

core.archives decides when that is, by several clocks. Right before a move, the daemon asks the API server for the
cluster's id. That proves that it is still the same cluster, and the answer carries the server's current time. Records
of archives whose directory was removed are deleted as well, once nothing can need them any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.neighbours import neighbour
from provisioner.controllers.returned import Returned
from provisioner.core import archives
from provisioner.core.archives import Moment
from provisioner.core.objects import Volume
from provisioner.core.records import ArchiveRecord
from provisioner.ledger.export import Export
from provisioner.ports.aio import wait_for_event
from provisioner.ports.cluster import ClusterError
from provisioner.ports.tree import Cause, ExportError

log = structlog.get_logger(__name__)

_AT_LEAST_S = 1.0
_AT_MOST_S = 60.0
"""Between two looks at an export's archives. The deletion of a volume, which may now be an archive, brings a look."""
_AGREEMENT = timedelta(minutes=1)


class ArchiveExpiry:
    """Expires the archives of each export that `keep` runs for."""

    def __init__(self, ctx: ControllerContext, returned: Returned, *, discarded: Callable[[Export], None]) -> None:
        """Archives whose volume exists again are kept, as `returned` finds.

        `discarded` is called when an archive went into the trash of an export.
        """
        self._ctx = ctx
        self._returned = returned
        self._discarded = discarded
        self._wakeups: dict[Export, asyncio.Event] = {}
        self._agreed = True
        self._in_use: dict[tuple[Export, str], str] = {}
        """The volume that uses the directory of each archive that is due; empty for none."""

    def volume_deleted(self, volume: Volume) -> None:
        """A volume is gone, so its archive may be due."""
        located = self._ctx.exports.locate(volume)
        if located is not None:
            self.look(located[0])

    def look(self, export: Export) -> None:
        """Look at an export's archives now: one of them may be due."""
        if export in self._wakeups:
            self._wakeups[export].set()

    async def keep(self, export: Export) -> None:
        """Expire an export's archives until cancelled."""
        wakeup = self._wakeups[export] = asyncio.Event()
        try:
            await self._keep(export, wakeup)
        finally:
            self._wakeups.pop(export, None)

    async def _keep(self, export: Export, wakeup: asyncio.Event) -> None:
        swept_s = float("-inf")
        while True:
            wakeup.clear()
            pause_s, now_s = _AT_MOST_S, self._ctx.clock.monotonic()
            try:
                pause_s = await self._end_due(export)
                if now_s - swept_s >= _AT_MOST_S:
                    await self._end_lost(export)
                    swept_s = now_s
            except (ExportError, ClusterError) as exc:
                log.debug("retention_failed", export=export.name, error=str(exc))
            await self._ctx.clock.sleep(_AT_LEAST_S)
            await wait_for_event(wakeup, timeout_s=pause_s - _AT_LEAST_S)

    async def _end_due(self, export: Export) -> float:
        """Expire the archives that are due; return the seconds until the next look."""
        limited = {name: record for name, record in self._of_this_cluster(export) if record.was.retention}
        if not limited:
            return _AT_MOST_S
        moment = self._ctx.moment()
        self._compare_clocks(moment)
        waits_s = {name: archives.due_in_s(record, moment) for name, record in limited.items()}
        due = [name for name, wait_s in waits_s.items() if wait_s is not None and wait_s <= 0]
        if due and await self._ctx.cluster.cluster_uid() == self._ctx.cluster_id:
            for name in due:
                # An archive that cannot be moved must not hold back the others.
                with self._ctx.supervisor.shield("retention", (ExportError,), export=export.name, archive=name):
                    await self._expire(export, name)
        next_s = min((wait_s for wait_s in waits_s.values() if wait_s is not None and wait_s > 0), default=_AT_MOST_S)
        return min(max(next_s, _AT_LEAST_S), _AT_MOST_S)

    def _of_this_cluster(self, export: Export) -> Iterable[tuple[str, ArchiveRecord]]:
        """The archives of this cluster; other clusters judge theirs."""
        cluster = self._ctx.cluster_id
        return ((name, record) for name, record in export.archived.items() if record.was.cluster == cluster)

    async def _expire(self, export: Export, archive: str) -> None:
        record, moment = export.archived.get(archive), self._ctx.moment()
        if record is None or not archives.is_due(record, moment) or await self._is_in_use(export, archive):
            return
        if await self._returned.keeps(export, record.volume, name=archive, where=f"archive {archive}"):
            return
        await self._ctx.guard.require(export)
        try:
            expired = await export.expire(archive, moment.latest)
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            log.warning("archive_not_expired", export=export.name, archive=archive, error=str(exc), hint=exc.advice)
            return
        if not expired:
            log.debug("archive_still_needed", export=export.name, archive=archive)
            return
        self._discarded(export)
        was = record.was
        log.info(
            "archive_expired",
            export=export.name,
            archive=archive,
            volume=record.volume,
            claim=f"{was.namespace}/{was.claim}",
            directory=was.directory,
            archived=record.archived,
            retention=was.retention,
            **{"class": was.class_name},
        )

    async def _is_in_use(self, export: Export, archive: str) -> bool:
        """Whether a volume uses the archive's directory, as an admin may have created one.

        Logged when that changes.
        """
        holder = await neighbour(self._ctx, export, (archive,))
        if holder and self._in_use.get((export, archive)) != holder:
            why = f"volume {holder} uses its directory"
            log.warning("archive_not_expired", export=export.name, archive=archive, error=why, hint="delete the volume")
        self._in_use[export, archive] = holder
        return bool(holder)

    async def _end_lost(self, export: Export) -> None:
        archived = [name for name, _ in self._of_this_cluster(export)]
        for archive in set(archived) - set(await export.archives()) if archived else ():
            if await export.end_archive(archive):
                log.warning("archive_gone", export=export.name, archive=archive, why="its directory was removed")

    def _compare_clocks(self, moment: Moment) -> None:
        """Log a warning when the clocks disagree: archives are kept longer then."""
        earliest = moment.earliest
        agree = earliest is None or moment.latest - earliest <= _AGREEMENT
        if not agree and self._agreed:
            clocks = {"wall": moment.wall, "since_start": moment.steady, "api_server": moment.server}
            hint = (
                "archives are kept until all clocks agree that their time is over: set the clocks, then restart the pod"
            )
            log.warning("clocks_disagree", hint=hint, **{name: str(at) for name, at in clocks.items()})
        self._agreed = agree
