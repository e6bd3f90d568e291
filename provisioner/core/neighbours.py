"""Neighbours: whether a volume needs a directory that is about to be moved for another one."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.core.locations import Location, Path
from provisioner.core.objects import Volume
from provisioner.core.paths import PathIndex


def needs(volume: Volume, locations: Iterable[Location], path: Path) -> bool:
    """Whether a volume that is not being deleted lies at a path below an export, or above or below that path.

    `locations` are all that lead to the export. A volume of the whole export, as admins make one to look around in it,
    does not count.
    """
    source = volume.source
    if source is None or volume.metadata.deletion_timestamp is not None:
        return False
    index = PathIndex()
    for location in locations:
        theirs = location.relative(source.server, source.path)
        if theirs:
            index.add(theirs, volume.name)
    return index.touching(path) is not None


def shared_message(directory: str, holder: str) -> str:
    """The words for a directory that two volumes use: to destroy it for one would destroy it for both."""
    return (
        f"its directory {directory!r}, or one above or below it, is also volume {holder}'s; nothing is touched:"
        " it goes once that volume is deleted; to keep it for that one, delete this volume by hand, its finalizers too"
    )
