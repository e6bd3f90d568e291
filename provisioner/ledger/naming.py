"""Finds out whether a server folds names.

Such a server treats names as equal that differ in case, or in their Unicode normal form. The test looks up
names that exist in the ledger, written differently. A server that finds them folds names.
"""

from __future__ import annotations

from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger import layout
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Tree

_OTHER_CASE: RelPath = (LEDGER.upper(), layout.ID[-1])
_OTHER_FORM: RelPath = (LEDGER, "names-e\u0301")
"""layout.NAMES in its other normal form."""

_OF_THE_SERVER = (Cause.UNREACHABLE, Cause.CHANGED, Cause.STALE, Cause.NOT_YET)
"""Causes that say nothing about names: the caller retries."""


async def folds(tree: Tree, id: str, *, create: bool) -> bool:
    """Return True if the server of the export with this id folds names.

    `create` allows the symlink with an accent in its name to be created.
    """
    if await _target(tree, _OTHER_CASE) == id:
        return True
    if create and not await _target(tree, layout.NAMES):
        await _make(tree)
    return bool(await _target(tree, _OTHER_FORM))


async def _target(tree: Tree, path: RelPath) -> str:
    try:
        return await tree.read_symlink(path)
    except PathMissing:
        return ""
    except ExportError as exc:
        if exc.cause in _OF_THE_SERVER:
            raise
        return ""  # a server that refuses the name has no names that differ in it


async def _make(tree: Tree) -> None:
    try:
        with suppress(PathExists):
            await tree.make_symlink(layout.NAMES, "to see which names the server takes for one")
    except ExportError as exc:
        if exc.cause in _OF_THE_SERVER:
            raise
