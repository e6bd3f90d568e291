"""Exports in exports: one directory of a server may lie in another one, and each have a ledger of its own.

Nobody hands out a directory inside another export's root, and nobody uses an export whose root lies in a directory that
another export has handed out. Each side writes first, its record or its ledger, and looks then: one of two sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from provisioner.core.errors import InvalidRecord
from provisioner.core.folding import fold, fold_path
from provisioner.core.locations import RelPath
from provisioner.core.paths import ARCHIVE_PREFIX, LEDGER, PathIndex, ancestors
from provisioner.core.records import decode
from provisioner.ledger import layout, naming, symlinks
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.foreign import look_at
from provisioner.ports.tree import Cause, ExportError, PathMissing, Tree

_HINT = (
    "the directory above it, {}, is an export too, and this one lies in a directory of its own volumes or of its"
    " provisioner: use a directory that no volume has, or take the volumes of the export above"
)


async def require_no_root_above(tree: Tree, path: RelPath) -> None:
    """Raise PathTaken where a directory on the way to a path is the root of another export, by its ledger."""
    above = list(ancestors(path))
    for root, found in zip(above, await asyncio.gather(*(is_root(tree, each) for each in above)), strict=True):
        if found:
            raise PathTaken(
                f"directory {'/'.join(path)!r} is taken: {'/'.join(root)!r} has a {LEDGER} in it, so it is the root of"
                " another export; choose a pathPattern that leads elsewhere, or take a class of that export"
            )


async def is_root(tree: Tree, directory: RelPath) -> bool:
    """Whether there is a ledger in a directory."""
    try:
        await tree.is_empty((*directory, LEDGER))
    except PathMissing:
        return False
    except ExportError as exc:
        if exc.cause is not Cause.SYMLINK:
            raise
        return False  # no directory, or not on the way to one
    return True


async def taken_from_above(tree: Tree) -> PathIndex:
    """The directories below a root that exports above it have handed out, as far as the server lets us look.

    Raises Cause.INSIDE where the root itself lies in one of them.
    """
    taken = PathIndex(folds=True)  # what it refuses is looked at again
    for name, outer, root in tree.above():
        try:
            id = await _id(outer)
            if id:
                with look_at(name):
                    folds = await naming.folds(outer, id, create=False)
                await _look(name, outer, root, taken, key=fold_path if folds else tuple)
        finally:
            await outer.close()
    return taken


async def _id(outer: Tree) -> str:
    try:
        return await outer.read_symlink(layout.ID)
    except ExportError:  # mostly a directory that the server does not export to us
        return ""


async def _look(name: str, outer: Tree, root: RelPath, taken: PathIndex, *, key: Callable[[RelPath], RelPath]) -> None:
    """`key` makes paths equal that the server takes for one."""
    with look_at(name):
        held, archived = await _held(outer), await _is_archive(outer, root)
    for owner, path in held:
        if key(path) == key(root[: len(path)]):
            # Which volume that is, is for the log: the hint is told to every claim.
            raise ExportError(Cause.INSIDE, f"{owner} has {'/'.join(path)!r} there", hint=_HINT.format(name))
        if key(root) == key(path[: len(root)]):
            taken.add(path[len(root) :], f"{owner} of export {name}")
    if any(fold(each).startswith(LEDGER) for each in root) or archived:
        raise ExportError(Cause.INSIDE, f"{'/'.join(root)!r} is not for volumes there", hint=_HINT.format(name))


async def _held(outer: Tree) -> list[tuple[str, RelPath]]:
    held: list[tuple[str, RelPath]] = []
    for state in layout.STATES:
        for volume, target in (await symlinks.read_all(outer, (LEDGER, state))).items():
            with suppress(InvalidRecord):
                held.append((f"volume {volume}", decode(target).path))
    return held


async def _is_archive(outer: Tree, root: RelPath) -> bool:
    if not fold(root[0]).startswith(ARCHIVE_PREFIX):
        return False
    return fold(root[0]) in map(fold, await symlinks.read_all(outer, layout.ARCHIVES))
