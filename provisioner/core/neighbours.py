"""Neighbours: whether a volume needs a directory that is about to be moved for another one."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.core.locations import Location, RelPath, normal_server
from provisioner.core.objects import Volume
from provisioner.core.paths import PathIndex


def needs(volume: Volume, locations: Iterable[Location], path: RelPath, *, folds: bool = False) -> bool:
    """Whether a volume that is not being deleted lies at a path below an export, or above or below that path.

    `locations` are all that lead to the export; with `folds` its server takes names for one that differ in case, or in
    their normal form. A volume of the whole export, as admins make one to look around in it, does not count.
    """
    source = volume.source
    if source is None or volume.metadata.deletion_timestamp is not None:
        return False
    index = PathIndex(folds=folds)
    index.add(tuple(part for part in source.path.split("/") if part), volume.name)
    return any(
        index.touching((*each.components, *path), below=len(each.components)) is not None
        for each in locations
        if each.server == normal_server(source.server)
    )


def shared_message(directory: str, holder: str) -> str:
    """The words for a directory that two volumes use: to destroy it for one would destroy it for both."""
    return (
        f"its directory {directory!r}, or one above or below it, is also volume {holder}'s; nothing is touched:"
        " it goes once that volume is deleted; to keep it for that one, delete this volume by hand, its finalizers too"
    )
