"""Symlinks that hold text, which a ledger is made of: all of a directory, one replaced in one step, one gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.ledger import layout
from provisioner.ports import endless
from provisioner.ports.refusals import unproven
from provisioner.ports.tree import PathExists, PathMissing, Proof, Tree

_A_READING = 4096
"""Symlinks that are read before it is looked at how much they hold."""


async def read_all(tree: Tree, directory: RelPath) -> dict[str, str]:
    """The targets of all symlinks in a directory, by name; a directory that is not there has none."""
    try:
        entries = await tree.list(directory)
    except PathMissing:
        return {}  # looked at by a newer program than the one that made it
    return await read(tree, directory, [entry.name for entry in entries if entry.type == "symlink"])


async def read(tree: Tree, directory: RelPath, names: Sequence[str]) -> dict[str, str]:
    """The targets of symlinks in a directory, by name, but for those that are gone. Raises Cause.OTHER for too much."""
    targets: dict[str, str] = {}
    held_bytes = 0
    for start in range(0, len(names), _A_READING):
        some = await tree.read_symlinks(directory, names[start : start + _A_READING])
        held_bytes += sum(map(len, some.values()))
        if held_bytes > endless.TARGETS_LIMIT_BYTES:
            raise endless.too_long(endless.named(directory))
        targets.update(some)
    return targets


async def replace(tree: Tree, symlink: RelPath, target: str, *, was: str = "") -> None:
    """Give a symlink another target, or make it: whoever reads sees the one or the other, whole.

    With `was` only while that is its target; else Cause.RECORD.
    """
    draft = (*layout.DRAFTS, symlink[-1])
    try:
        await tree.make_symlink(draft, target)
    except PathExists:  # of an attempt that came no further
        await remove(tree, draft)
        await tree.make_symlink(draft, target)
    await tree.move_symlink(draft, symlink, replace=True, proofs=[Proof(symlink, was)] if was else [])


async def require(tree: Tree, proof: Proof) -> None:
    """Raise Cause.RECORD unless a symlink still has its text."""
    text = ""
    with suppress(PathMissing):
        text = await tree.read_symlink(proof.path)
    if text != proof.text:
        raise unproven(proof)


async def remove(tree: Tree, symlink: RelPath) -> None:
    """Remove a symlink; done already is success."""
    with suppress(PathMissing):
        await tree.remove_symlink(symlink)
