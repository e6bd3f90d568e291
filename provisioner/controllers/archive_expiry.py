"""Retention: archives whose time is over go into the trash; when that is, core.archives says, by several clocks.

Right before, the API server is asked whether it still is our cluster's: its answer brings the time that it has then.
The record of an archive whose directory somebody took away ends too, once nothing can need it any more.
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
"""Between two looks at an export's archives; a volume that goes may have become an archive, and brings a look."""
_AGREEMENT = timedelta(minutes=1)


class ArchiveExpiry:
    """Ends archives on the exports that it is told to keep to. `discarded` is told when one went into the trash.

    An archive whose volume is there again is kept, as `returned` says.
    """

    def __init__(self, ctx: ControllerContext, returned: Returned, *, discarded: Callable[[Export], None]) -> None:
        self._ctx = ctx
        self._returned = returned
        self._discarded = discarded
        self._wakeups: dict[Export, asyncio.Event] = {}
        self._agreed = True
        self._in_use: dict[tuple[Export, str], str] = {}
        """Archives that are due, and the volume that each is kept for; empty for none."""

    def volume_deleted(self, volume: Volume) -> None:
        """A volume is gone, so its archive may be due."""
        located = self._ctx.exports.locate(volume)
        if located is not None:
            self.look(located[0])

    def look(self, export: Export) -> None:
        """What is due may go now."""
        if export in self._wakeups:
            self._wakeups[export].set()

    async def keep(self, export: Export) -> None:
        """Look after an export's archives, for ever."""
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
        """Expire what is due; the seconds until the next look."""
        limited = {name: record for name, record in self._ours(export) if record.was.retention}
        if not limited:
            return _AT_MOST_S
        moment = self._ctx.moment()
        self._compare(moment)
        waits_s = {name: archives.due_in_s(record, moment) for name, record in limited.items()}
        due = [name for name, wait_s in waits_s.items() if wait_s is not None and wait_s <= 0]
        if due and await self._ctx.cluster.cluster_uid() == self._ctx.cluster_id:
            for name in due:
                # One that cannot go must not keep the others.
                with self._ctx.supervisor.shield("retention", (ExportError,), export=export.name, archive=name):
                    await self._expire(export, name)
        next_s = min((wait_s for wait_s in waits_s.values() if wait_s is not None and wait_s > 0), default=_AT_MOST_S)
        return min(max(next_s, _AT_LEAST_S), _AT_MOST_S)

    def _ours(self, export: Export) -> Iterable[tuple[str, ArchiveRecord]]:
        """The archives of our cluster; those of others are theirs to judge."""
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
            claim=f"{was.namespace}/{was.claim}",
            archived=record.archived,
            retention=was.retention,
        )

    async def _is_in_use(self, export: Export, archive: str) -> bool:
        """Whether a volume needs the archive's directory, as an admin may have made one; said when that changes."""
        holder = await neighbour(self._ctx, export, (archive,))
        if holder and self._in_use.get((export, archive)) != holder:
            why = f"volume {holder} uses its directory"
            log.warning("archive_not_expired", export=export.name, archive=archive, error=why, hint="delete the volume")
        self._in_use[export, archive] = holder
        return bool(holder)

    async def _end_lost(self, export: Export) -> None:
        ours = [name for name, _ in self._ours(export)]
        for archive in set(ours) - set(await export.archives()) if ours else ():
            if await export.end_archive(archive):
                log.warning("archive_gone", export=export.name, archive=archive, why="its directory was taken away")

    def _compare(self, moment: Moment) -> None:
        """Say so when the clocks disagree: archives are kept for longer then."""
        earliest = moment.earliest
        agree = earliest is None or moment.latest - earliest <= _AGREEMENT
        if not agree and self._agreed:
            clocks = {"wall": moment.wall, "since_start": moment.steady, "api_server": moment.server}
            hint = "archives are kept until all of them say that their time is over; set them, then restart us"
            log.warning("clocks_disagree", hint=hint, **{name: str(at) for name, at in clocks.items()})
        self._agreed = agree
