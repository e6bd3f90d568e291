"""Neighbours: volumes that need a directory which is about to be moved or deleted for another volume."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.core.directories import DirectoryIndex
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Volume


def needs(volume: Volume, locations: Iterable[Location], path: RelPath, *, folds: bool = False) -> bool:
    """Return True if a volume that is not being deleted uses a directory of an export, or one above or below it.

    `locations` are all that lead to the export; with `folds` its server treats names as equal that differ in case or in
    Unicode normal form. A volume of the whole export does not count: admins create such volumes to look around in it.
    """
    source = volume.source
    if source is None or volume.metadata.deletion_timestamp is not None:
        return False
    index = DirectoryIndex()
    index.add(source.server, source.path, volume.name)
    return index.holder(locations, path, folds=folds) is not None


def shared_message(directory: str, holder: str) -> str:
    """Return the message for a directory that two volumes use: deleting it for one would delete it for both."""
    return (
        f"its directory {directory!r} overlaps with that of volume {holder}; nothing was deleted: it is reclaimed once"
        " that volume is deleted; to keep it for that one, delete this volume with its finalizers manually"
    )
