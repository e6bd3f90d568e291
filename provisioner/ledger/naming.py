"""Whether a server takes names for one that differ in case, or in the normal form of Unicode: found out at opening."""

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
"""What says nothing about names: it is tried again."""


async def folds(tree: Tree, id: str, *, create: bool) -> bool:
    """Whether the server of an export with this id folds names. With `create` what the probe takes is made."""
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
        return ""  # a server that takes no such name has none that differ in it


async def _make(tree: Tree) -> None:
    try:
        with suppress(PathExists):
            await tree.make_symlink(layout.NAMES, "to see which names the server takes for one")
    except ExportError as exc:
        if exc.cause in _OF_THE_SERVER:
            raise
