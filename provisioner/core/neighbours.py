"""Neighbours: whether a volume needs a directory that is about to be moved for another one."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.core.directories import DirectoryIndex
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Volume


def needs(volume: Volume, locations: Iterable[Location], path: RelPath, *, folds: bool = False) -> bool:
    """Whether a volume that is not being deleted lies at a path below an export, or above or below that path.

    `locations` are all that lead to the export; with `folds` its server takes names for one that differ in case, or in
    their normal form. A volume of the whole export, as admins make one to look around in it, does not count.
    """
    source = volume.source
    if source is None or volume.metadata.deletion_timestamp is not None:
        return False
    index = DirectoryIndex()
    index.add(source.server, source.path, volume.name)
    return index.holder(locations, path, folds=folds) is not None


def shared_message(directory: str, holder: str) -> str:
    """The words for a directory that two volumes use: to destroy it for one would destroy it for both."""
    return (
        f"its directory {directory!r}, or one above or below it, is also volume {holder}'s; nothing is touched:"
        " it goes once that volume is deleted; to keep it for that one, delete this volume by hand, its finalizers too"
    )
