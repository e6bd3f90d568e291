"""Finds out which of many directories are missing.

One listing per parent replaces one look-up per directory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from provisioner.core.locations import RelPath
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import Cause, ExportError, PathMissing, Tree

_IN_FLIGHT = 16
"""Calls on one export at a time."""
_FEW = 4
"""Up to this many children of one parent, look-ups cost less than a listing."""

_OF_THE_PATH = (Cause.SYMLINK, Cause.DENIED)
"""Causes that concern one path and say nothing about the export."""


async def missing(tree: Tree, paths: Iterable[RelPath]) -> set[RelPath]:
    """Return the paths at which there is nothing."""
    below: defaultdict[RelPath, list[RelPath]] = defaultdict(list)
    for path in paths:
        below[path[:-1]].append(path)
    parents = [parent for parent, found in below.items() if len(found) > _FEW]
    listed = dict(zip(parents, await map_bounded(partial(_names, tree), parents, limit=_IN_FLIGHT), strict=True))
    # A listing only shortens the list: what it lacks is looked up, since the server can compare names differently.
    suspects = [path for parent, found in below.items() for path in found if path[-1] not in listed.get(parent, ())]
    gone = await map_bounded(partial(_is_gone, tree), suspects, limit=_IN_FLIGHT)
    return {path for path, directory_missing in zip(suspects, gone, strict=True) if directory_missing}


async def _names(tree: Tree, path: RelPath) -> frozenset[str]:
    with suppress(PathMissing):
        try:
            return frozenset(entry.name for entry in await tree.list(path))
        except ExportError as exc:
            if exc.cause not in _OF_THE_PATH:
                raise
    return frozenset()


async def _is_gone(tree: Tree, path: RelPath) -> bool:
    """Return True if there is nothing at a path; something that cannot be read is there."""
    try:
        await tree.is_empty(path)
    except PathMissing:
        return True
    except ExportError as exc:
        if exc.cause not in _OF_THE_PATH:
            raise
    return False
