"""The trash of an export: directories that are on their way out, each under one name, its volume's.

A removal first gives its directory another name, and data are brought back by a rename too: of the two, one comes
first and the other one finds nothing. So what has its first name is whole, and what has not is being removed.

A leader that was held up may send its rename when another one has done the same long ago, and a new claim has the path.
A server that verifies what the rename relies on refuses it. With any other the name in the trash has to stay taken for
some minutes after the purge, by a directory that is not empty: no rename replaces such a one.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.core.returned import volume_of
from provisioner.ledger import layout
from provisioner.ledger.archives import is_there
from provisioner.ports.endless import TRASH_LIMIT
from provisioner.ports.tree import (
    Cause,
    Entry,
    ExportError,
    OnProgress,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Tree,
)


async def names(tree: Tree) -> list[str]:
    """The names in the trash, or as many of them as we hold: the others come when these have gone."""
    return sorted({name.removesuffix(layout.BEGUN) for name in await _listed(tree)})


async def begun(tree: Tree) -> Set[str]:
    """Those of which a part may have been removed already, or all of it."""
    listed = await _listed(tree)
    found = {name.removesuffix(layout.BEGUN) for name in listed if name.endswith(layout.BEGUN)}
    if not tree.verifies:
        found |= {name for name in listed if volume_of(name) == name and await _is_purged(tree, name)}
    return found


async def _is_purged(tree: Tree, name: str) -> bool:
    """Whether a name is only kept taken."""
    with suppress(PathMissing):
        return await tree.list((*layout.TRASH, name), at_most=2) == [Entry(layout.TOMBSTONE, "directory")]
    return False


async def move(tree: Tree, volume: str, path: RelPath, proof: Proof, *, aside: RelPath) -> bool:
    """Move a volume's directory into the trash, where an earlier attempt has not; False where there is none.

    An earlier directory of a volume of this name, which may be kept there as long as the volume exists, goes `aside`.
    """
    target = layout.trashed(volume)
    try:
        try:
            await tree.rename(path, target, proofs=[proof])
        except PathExists:
            await _make_room(tree, volume, aside)
            await tree.rename(path, target, proofs=[proof])
    except PathMissing:
        if not await is_there(tree, target):
            return any(volume_of(name) == volume for name in await names(tree))
    if not tree.verifies:
        # Before anybody else can want the volume's path: of an empty directory the name is not taken.
        await _keep_taken(tree, target)
    return True


async def _make_room(tree: Tree, volume: str, aside: RelPath) -> None:
    """Give another name to what was discarded as this volume before; what only keeps the name taken stays."""
    if not tree.verifies and await _is_purged(tree, volume):
        hint = "an earlier directory of this volume is on its way out: its name is free some minutes after the purge"
        raise ExportError(Cause.OTHER, f"volume {volume} is in the trash already", hint=hint)
    with suppress(PathMissing):  # brought back, or its removal has begun
        await tree.rename(layout.trashed(volume), aside)


async def purge(tree: Tree, name: str, *, on_progress: OnProgress | None, taken: bool) -> int:
    """Remove one directory in the trash for good; returns how many entries went. With `taken` its name stays so."""
    removed = (*layout.TRASH, name + layout.BEGUN)
    with suppress(PathMissing, PathExists):  # begun before, or brought back
        await tree.rename((*layout.TRASH, name), removed)
    if taken:
        await _keep_taken(tree, (*layout.TRASH, name))
    return await tree.remove_tree(removed, on_progress=on_progress)


async def _keep_taken(tree: Tree, target: RelPath) -> None:
    """Have a directory there that holds something.

    A server that is full refuses it: deleting must not depend on that, and data keep the name taken as well.
    """
    try:
        await tree.make_directory((*target, layout.TOMBSTONE), Ownership(mode=0o700))
    except PathExists:
        pass
    except ExportError as exc:
        if exc.cause is Cause.UNREACHABLE:
            raise


async def _listed(tree: Tree) -> list[str]:
    return [entry.name for entry in await tree.list(layout.TRASH, at_most=TRASH_LIMIT)]
