"""Directories on an export that no record or volume knows.

Only directories on the way to known ones are listed, so the cost depends on the number of volumes and not on their
content.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from provisioner.core.locations import RelPath
from provisioner.core.paths import ARCHIVE_PREFIX, PathIndex
from provisioner.core.reserved import is_hidden_at_root, is_servers
from provisioner.ports import endless
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import Cause, ExportError, PathMissing, Tree

_IN_FLIGHT = 16
"""Calls that one search has under way."""


async def unknown_directories(tree: Tree, known: PathIndex, *, limit: int) -> list[RelPath]:
    """Return at most `limit` unknown directories that hold something.

    An unknown directory is neither known, nor above or below a known one. An empty directory does not count: it
    is a parent whose volumes are gone. Costs one call per directory on the way to a known one, and one per unknown
    directory.
    """
    found: list[RelPath] = []
    on_the_way: Sequence[RelPath] = [()]
    seen = 0

    async def directories(path: RelPath) -> list[RelPath]:
        nonlocal seen
        below = await _directories(tree, path, known)
        seen += len(below)
        if seen > endless.LISTING_LIMIT:
            raise endless.too_many(endless.named(path), endless.LISTING_LIMIT)
        return below

    # One level of the tree per round, starting at the root.
    while on_the_way:
        listings = await map_bounded(directories, on_the_way, limit=_IN_FLIGHT)
        below = [path for listing in listings for path in listing if not known.owners(path)]
        on_the_way = [path for path in below if known.leads_on(path)]
        suspects = sorted(path for path in below if not known.leads_on(path))
        for start in range(0, len(suspects), _IN_FLIGHT):
            if len(found) >= limit:
                break
            some = suspects[start : start + _IN_FLIGHT]
            holding = await map_bounded(partial(_holds_something, tree), some, limit=_IN_FLIGHT)
            found += [path for path, holds in zip(some, holding, strict=True) if holds]
    return sorted(found)[:limit]


async def _directories(tree: Tree, path: RelPath, known: PathIndex) -> list[RelPath]:
    """Return the directories in a directory that lead to a known one or can be unknown."""
    try:
        entries = await tree.list(path)
    except ExportError as exc:
        if not _is_of_the_path(exc):
            raise
        return []
    paths = [(*path, entry.name) for entry in entries if entry.type == "directory"]
    return [one for one in paths if known.leads_on(one) or not _is_expected(one)]


def _is_expected(path: RelPath) -> bool:
    """Return True for the ledger, archives, and what the server itself puts there."""
    name = path[-1]
    if len(path) > 1:
        return is_servers(name)
    return is_hidden_at_root(name) or name.startswith(ARCHIVE_PREFIX)


async def _holds_something(tree: Tree, path: RelPath) -> bool:
    try:
        return not await tree.is_empty(path)
    except ExportError as exc:
        if not _is_of_the_path(exc):
            raise
        return exc.cause is Cause.DENIED  # a directory that the daemon cannot read has an owner, so it is not empty


def _is_of_the_path(exc: ExportError) -> bool:
    """Return True if an error concerns one directory only: it is gone, is no directory, or cannot be read."""
    return isinstance(exc, PathMissing) or exc.cause in (Cause.SYMLINK, Cause.DENIED)
