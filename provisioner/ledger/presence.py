"""Which of many directories are there: by one listing of each parent of several, not by a look-up for each."""

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
"""Children of one parent for which that many look-ups cost less than a listing."""


async def missing(tree: Tree, paths: Iterable[RelPath]) -> set[RelPath]:
    """Those of the directories at whose path there is nothing."""
    below: defaultdict[RelPath, list[RelPath]] = defaultdict(list)
    for path in paths:
        below[path[:-1]].append(path)
    parents = [parent for parent, found in below.items() if len(found) > _FEW]
    listed = dict(zip(parents, await map_bounded(partial(_names, tree), parents, limit=_IN_FLIGHT), strict=True))
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
    """Whether there is nothing; what cannot be looked into is there, and a server may compare names otherwise."""
    try:
        await tree.is_empty(path)
    except PathMissing:
        return True
    except ExportError as exc:
        if exc.cause not in _OF_THE_PATH:
            raise
    return False


_OF_THE_PATH = (Cause.SYMLINK, Cause.DENIED)
