"""Missing data: reports volumes that lack their directory or record (core.lacking)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import lacking, names
from provisioner.core.locations import RelPath
from provisioner.core.objects import Volume
from provisioner.core.orphans import Lack
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry

log = structlog.get_logger(__name__)

_EVERY_S = 600.0
"""Between two full looks at an export: each lists all parents of volumes."""
_LIMIT = 1000
"""Suspects that are read live per look; others wait until these are repaired."""
_EVENTS = 100
"""Volumes that get an event per look: an export may have lost all of its directories."""
_NAMES_PER_LINE = 20
_REASONS: Mapping[Lack, str] = {
    "directory-missing": names.DIRECTORY_MISSING,
    "record-missing": names.RECORD_MISSING,
}

Live = Callable[[str], Awaitable[Volume | None]]
"""Reads a volume from the API server."""


@dataclass(slots=True)
class _Seen:
    """The results of the last looks at one export."""

    looked_s: float = float("-inf")
    suspects: dict[str, Lack] = field(default_factory=dict)
    """Found by the last look only: a volume being created, taken over or reclaimed may lack something for a moment."""
    reported: dict[str, Lack] = field(default_factory=dict)


class MissingData:
    """Looks at each export every ten minutes, and at suspects every minute.

    Reports those that two looks found.
    """

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._seen: dict[Export, _Seen] = {}

    def forget(self, export: Export) -> None:
        """Stop looking at an export."""
        self._seen.pop(export, None)

    async def look(self, export: Export) -> None:
        """Look through one export if that is due. Raises ExportError, ClusterError."""
        seen, ctx = self._seen.setdefault(export, _Seen()), self._ctx
        now_s = ctx.clock.monotonic()
        due = now_s - seen.looked_s >= _EVERY_S
        if due:
            volumes = list(ctx.cache.on_export(export.location))
            seen.looked_s = now_s
        elif seen.suspects:
            volumes = [ctx.cache.volumes[name] for name in seen.suspects if name in ctx.cache.volumes]
        else:
            return
        found = await find(export, volumes, ctx.exports, ctx.provisioner, live=ctx.cluster.get_volume)
        before, seen.suspects = seen.suspects, {volume.name: lack for volume, _, lack in found}
        self._report(export, seen, [each for each in found if before.get(each[0].name) == each[2]])

    def _report(self, export: Export, seen: _Seen, found: list[tuple[Volume, RelPath, Lack]]) -> None:
        """Set gauges and record events each time; log only changes."""
        counts = Counter(lack for _, _, lack in found)
        for lack in lacking.LACKS:
            self._ctx.metrics.lacking.labels(export.name, lack).set(counts[lack])
        for volume, path, lack in found[:_EVENTS]:
            message = lacking.message(export.name, path, volume, lack)
            self._ctx.recorder.volume(volume, "Warning", _REASONS[lack], message)
        before, seen.reported = seen.reported, {volume.name: lack for volume, _, lack in found}
        if seen.reported == before:
            return
        if not found:
            log.info("volumes_whole", export=export.name)
            return
        log.warning(
            "volumes_lacking",
            export=export.name,
            count=len(found),
            kinds=dict(counts),
            volumes=sorted(seen.reported)[:_NAMES_PER_LINE],
            hint="`nfs-provisioner orphans` lists what each volume lacks, and what to do about it",
        )


async def find(
    export: Export, volumes: Iterable[Volume], exports: ExportRegistry, provisioner: str, *, live: Live
) -> list[tuple[Volume, RelPath, Lack]]:
    """The volumes on an export that lack something, their paths, and what they lack.

    Suspects are found by cache and ledger first; then each is read live. Raises ExportError, ClusterError.
    """

    def path_of(volume: Volume) -> RelPath | None:
        located = exports.locate(volume)
        if located is None or located[0] is not export or not lacking.is_in_use(volume, located[1], provisioner):
            return None
        return located[1]

    known = {volume.name: path for volume in volumes if (path := path_of(volume))}
    missing = await export.missing(known.values())
    found = []
    for name, lack in list(lacking.suspects(known, export.records, missing).items())[:_LIMIT]:
        volume = await live(name)
        if volume is None or path_of(volume) != known[name]:
            continue  # it is being deleted, or another volume has its name now
        if lack == "record-missing" and await export.refresh_record(name) is not None:
            continue  # a command has written the record since
        found.append((volume, known[name], lack))
    return found
