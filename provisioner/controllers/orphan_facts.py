"""Facts about orphans on one export.

One gather for the daemon and for the command (rules: core.orphans).
"""

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
"""Errors about one directory: something is there, but it is not a directory that can be listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The facts about the cluster that orphans depend on."""

    cluster: str
    volumes: Mapping[str, Volume]
    """By name."""
    waiting: Set[str]
    """The uids of the claims that can still get a volume."""
    holder: Callable[[Location, RelPath], object | None]
    """Finds a volume that uses a directory of an export, or one above or below it."""


IsLeft = Callable[[Export, str], Awaitable[bool]]
"""Whether there is something at the path of a record without a PersistentVolume, by volume name."""


async def has_leftovers(export: Export, volume_name: str) -> bool:
    """Return True if there is something at the path in a volume's record.

    An attempt's directory must not be empty.

    A symlink in its place, or a directory without permission, counts: one odd path must not hide the other orphans.
    Raises ExportError if the whole export fails.
    """
    try:
        if volume_name in export.pending:
            return await export.has_leftovers(volume_name)
        return not await export.directory_missing(volume_name)
    except ExportError as exc:
        if exc.cause not in _IN_THE_WAY:
            raise
        return True


async def gather(
    export: Export, known: Known, *, now: datetime, unknown_directories: Sequence[RelPath], left: IsLeft = has_leftovers
) -> ExportFacts:
    """Gather all facts that decide which orphans an export has.

    Raises ExportError, and the errors of `left`.
    """
    doubtful = orphans.doubtful(
        export.records, export.pending, cluster=known.cluster, volumes=known.volumes, waiting=known.waiting
    )
    found = {name for name in doubtful if await left(export, name)}
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
    """Directories on an export that belong to no record, no volume and no other export.

    Raises ExportError.
    """
    same = exports.places.same
    others = [location for other in exports for location in same(other.location)]
    owned = orphans.known(
        same(export.location), export.records.values(), known.volumes.values(), others, folds=export.folds
    )
    return await export.unknown_directories(owned, limit=limit)
