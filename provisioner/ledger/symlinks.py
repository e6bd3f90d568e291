"""Symlinks that hold text: the form of all records of a ledger.

Read all of a directory, replace one in one step, remove one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.ledger import layout
from provisioner.ports import endless
from provisioner.ports.refusals import unproven
from provisioner.ports.tree import Cause, MakeSymlink, MoveSymlink, PathExists, PathMissing, Proof, Tree

UNREADABLE = (Cause.SYMLINK, Cause.DENIED, Cause.OTHER)
"""What is wrong with one entry that should be a symlink. Any other cause, but a missing path, is about the export."""

_PER_READ = 4096
"""Symlinks that are read before their total size is checked."""


async def read_all(tree: Tree, directory: RelPath) -> dict[str, str]:
    """Return the targets of all symlinks in a directory, by name.

    A directory that does not exist has none.
    """
    return await _joined(batches(tree, directory))


async def read(tree: Tree, directory: RelPath, names: Sequence[str]) -> dict[str, str]:
    """Return the targets of symlinks in a directory, by name, without those that are gone.

    Raises Cause.OTHER if they hold more than endless.TARGETS_LIMIT_BYTES together.
    """
    return await _joined(_batches(tree, directory, names))


async def _joined(parts: AsyncIterator[dict[str, str]]) -> dict[str, str]:
    targets: dict[str, str] = {}
    async for some in parts:
        targets.update(some)
    return targets


async def batches(tree: Tree, directory: RelPath) -> AsyncIterator[dict[str, str]]:
    """Yield what `read_all` returns, in parts, so that the texts of a large ledger are not in memory together."""
    try:
        entries = await tree.list(directory)
    except PathMissing:
        return  # an older version created the ledger
    names = [entry.name for entry in entries if entry.type == "symlink"]
    del entries
    async for some in _batches(tree, directory, names):
        yield some


async def _batches(tree: Tree, directory: RelPath, names: Sequence[str]) -> AsyncIterator[dict[str, str]]:
    held_bytes = 0
    for start in range(0, len(names), _PER_READ):
        some = await tree.read_symlinks(directory, names[start : start + _PER_READ])
        held_bytes += sum(map(len, some.values()))
        if held_bytes > endless.TARGETS_LIMIT_BYTES:
            raise endless.too_long(endless.named(directory))
        yield some


async def replace(tree: Tree, symlink: RelPath, target: str, *, was: str = "") -> None:
    """Create a symlink, or replace its target in one step.

    A reader sees the old text or the new one, never a part. With `was`, replace it only if it still has that
    text; otherwise raise Cause.RECORD.
    """
    draft, move = replacement(symlink, target, was=was)
    try:
        await tree.carry_out(draft, move)
    except PathExists:
        await remove(tree, draft.path)  # of an attempt that was interrupted
        await tree.carry_out(draft, move)


def replacement(symlink: RelPath, target: str, *, was: str = "") -> tuple[MakeSymlink, MoveSymlink]:
    """Return the changes of `replace`: a draft with the new text, and its rename over the symlink."""
    draft = (*layout.DRAFTS, symlink[-1])
    proofs = (Proof(symlink, was),) if was else ()
    return MakeSymlink(draft, target), MoveSymlink(draft, symlink, replace=True, proofs=proofs)


async def require(tree: Tree, proof: Proof) -> None:
    """Raise Cause.RECORD unless a symlink still has its text."""
    text = ""
    with suppress(PathMissing):
        text = await tree.read_symlink(proof.path)
    if text != proof.text:
        raise unproven(proof)


async def remove(tree: Tree, symlink: RelPath) -> None:
    """Remove a symlink. Success if it is gone already."""
    with suppress(PathMissing):
        await tree.remove_symlink(symlink)
