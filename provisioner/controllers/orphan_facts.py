"""The evidence for orphans of one export: gathered here for the daemon's look and for the command's (core.orphans)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from provisioner.core import orphans
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Volume
from provisioner.core.orphans import ExportFacts
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.tree import Cause, ExportError

_IN_THE_WAY = (Cause.SYMLINK, Cause.DENIED, Cause.RECORD)
"""Errors about one directory: something is there, and it is no directory that could be looked into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The cluster, as far as orphans depend on it."""

    cluster: str
    volumes: Mapping[str, Volume]
    """By name."""
    waiting: Set[str]
    """The uids of the claims that may still get a volume."""
    holder: Callable[[Location, RelPath], object | None]
    """A volume that has a directory of an export, or one above or below it."""


IsLeft = Callable[[Export, str], Awaitable[bool]]
"""Whether a volume's record without a PersistentVolume has something at its path."""


async def has_leftovers(export: Export, volume: str) -> bool:
    """Whether there is something at the path in a volume's record; an attempt's directory must hold something.

    A symlink in its place, or a directory without permission, counts: one odd path must not hide the other orphans.
    Raises ExportError for what is wrong with the whole export.
    """
    try:
        if volume in export.pending:
            return await export.has_leftovers(volume)
        return not await export.directory_missing(volume)
    except ExportError as exc:
        if exc.cause not in _IN_THE_WAY:
            raise
        return True


async def gather(
    export: Export, known: Known, *, now: datetime, unknown_directories: Sequence[RelPath], left: IsLeft = has_leftovers
) -> ExportFacts:
    """Everything that decides which orphans an export has. Raises ExportError, and what `left` raises."""
    doubtful = orphans.doubtful(
        export.records, export.pending, cluster=known.cluster, volumes=known.volumes, waiting=known.waiting
    )
    found = {volume for volume in doubtful if await left(export, volume)}
    others = any(record.cluster != known.cluster for record in export.records.values())
    return ExportFacts(
        export=export.name,
        cluster=known.cluster,
        records=export.records,
        pending=export.pending,
        unreadable=export.unreadable,
        signs=await export.heartbeats.last_seen() if others else {},
        now=now,
        volumes=known.volumes,
        holder=lambda path: known.holder(export.location, path),
        left=found,
        unknown_directories=unknown_directories,
        folds=export.folds,
    )


async def find_unknown_directories(
    export: Export, known: Known, exports: ExportRegistry, *, limit: int
) -> list[RelPath]:
    """Directories on an export that belong to no record, no volume and no other export. Raises ExportError."""
    same = exports.places.same
    others = [location for other in exports for location in same(other.location)]
    owned = orphans.known(
        same(export.location), export.records.values(), known.volumes.values(), others, folds=export.folds
    )
    return await export.unknown_directories(owned, limit=limit)
