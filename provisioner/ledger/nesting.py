"""Exports in exports: checks for roots that lie in each other.

A directory of a server can lie in another one, and each can be an export with its own ledger. No directory inside
another export's root is handed out. No export is used if its root lies in a directory that another export has handed
out. Each side writes first, its record or its ledger, and looks then: of two, at least one sees the other.
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
    "the other export is {}, and this one lies in a directory of its volumes or of its provisioner: use a directory"
    " that belongs to no volume, or use the other export"
)


async def require_no_root_above(tree: Tree, path: RelPath) -> None:
    """Raise PathTaken if a directory on the way to a path is another export's root.

    Such a directory has a ledger in it.
    """
    above = list(ancestors(path))
    for root, found in zip(above, await asyncio.gather(*(is_root(tree, each) for each in above)), strict=True):
        if found:
            raise PathTaken(
                f"directory {'/'.join(path)!r} overlaps with the root of another export ({'/'.join(root)!r} has a"
                f" {LEDGER} in it): use a pathPattern that leads elsewhere, or a StorageClass of that export"
            )


async def is_root(tree: Tree, directory: RelPath) -> bool:
    """Return True if there is a ledger in a directory."""
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
    """Return the directories below the root that exports above it have handed out.

    Only as far as the server shows the directories above. Raises Cause.INSIDE if the root itself lies in one of them.
    """
    taken = PathIndex(folds=True)  # to be safe: it can only refuse too much
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
    except ExportError:  # mostly a directory that the server does not export to this client
        return ""


async def _look(name: str, outer: Tree, root: RelPath, taken: PathIndex, *, key: Callable[[RelPath], RelPath]) -> None:
    """Add to `taken` what one export above has handed out below `root`.

    `key` gives equal values for paths that the server treats as equal.
    """
    with look_at(name):
        held, archived = await _held(outer), await _is_archive(outer, root)
    for owner, path in held:
        if key(path) == key(root[: len(path)]):
            # The volume's name goes into the detail, which is for the log: every claim reads the hint.
            raise ExportError(Cause.INSIDE, f"{owner} has {'/'.join(path)!r} there", hint=_HINT.format(name))
        if key(root) == key(path[: len(root)]):
            taken.add(path[len(root) :], f"{owner} of export {name}")
    if any(fold(each).startswith(LEDGER) for each in root) or archived:
        raise ExportError(Cause.INSIDE, f"{'/'.join(root)!r} is not for volumes there", hint=_HINT.format(name))


async def _held(outer: Tree) -> list[tuple[str, RelPath]]:
    held: list[tuple[str, RelPath]] = []
    for state in layout.STATES:
        for volume_name, target in (await symlinks.read_all(outer, (LEDGER, state))).items():
            with suppress(InvalidRecord):
                held.append((f"volume {volume_name}", decode(target).path))
    return held


async def _is_archive(outer: Tree, root: RelPath) -> bool:
    if not fold(root[0]).startswith(ARCHIVE_PREFIX):
        return False
    return fold(root[0]) in map(fold, await symlinks.read_all(outer, layout.ARCHIVES))
