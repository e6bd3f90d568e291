"""The trash of an export: directories that are on their way out, each under its volume's name and a time.

A removal first gives its directory another name, and data are brought back by a rename too: of the two, one comes
first and the other one finds nothing. So what has its first name is whole, and what has not is being removed.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

from provisioner.nfs import layout
from provisioner.nfs.endless import TRASH_LIMIT
from provisioner.ports import GoOn, PathExists, PathMissing, Tree


async def names(tree: Tree) -> list[str]:
    """The names in the trash, or as many of them as we hold: the others come when these have gone."""
    return sorted({name.removesuffix(layout.BEGUN) for name in await _listed(tree)})


async def begun(tree: Tree) -> Set[str]:
    """Those of which a part may have been removed already."""
    return {name.removesuffix(layout.BEGUN) for name in await _listed(tree) if name.endswith(layout.BEGUN)}


async def purge(tree: Tree, name: str, *, go_on: GoOn) -> int:
    """Remove one directory in the trash for good; returns how many entries went."""
    removed = (*layout.TRASH, name + layout.BEGUN)
    with suppress(PathMissing, PathExists):  # begun before, or brought back
        await tree.rename((*layout.TRASH, name), removed)
    return await tree.remove_tree(removed, go_on=go_on)


async def _listed(tree: Tree) -> list[str]:
    return [entry.name for entry in await tree.list(layout.TRASH, at_most=TRASH_LIMIT)]
