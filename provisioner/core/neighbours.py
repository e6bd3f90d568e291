"""Neighbours: whether a volume needs a directory that is about to be moved for another one."""

from __future__ import annotations

from provisioner.core.locations import Location, Path
from provisioner.core.objects import Volume


def needs(volume: Volume, export: Location, path: Path) -> bool:
    """Whether a volume that is not being deleted lies at a path below an export, or above or below that path.

    A volume of the whole export, as admins make one to look around in it, does not count.
    """
    source = volume.source
    theirs = export.relative(source.server, source.path) if source is not None else None
    if not theirs or volume.metadata.deletion_timestamp is not None:
        return False
    depth = min(len(theirs), len(path))
    return theirs[:depth] == path[:depth]


def shared_message(directory: str, holder: str) -> str:
    """The words for a directory that two volumes use: to destroy it for one would destroy it for both."""
    return (
        f"its directory {directory!r}, or one above or below it, is also volume {holder}'s; nothing is touched:"
        " it goes once that volume is deleted; to keep it for that one, delete this volume by hand, its finalizers too"
    )
