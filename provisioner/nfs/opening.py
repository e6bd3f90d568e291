"""Opening an export: its id, the directories of its ledger, made where they are missing, and all that is in them."""

from __future__ import annotations

import uuid
from contextlib import suppress

from provisioner.core.locations import Path
from provisioner.core.paths import LEDGER
from provisioner.nfs import layout, modes, symlinks
from provisioner.nfs.layout import STATES
from provisioner.nfs.ledger import Ledger
from provisioner.ports import Cause, ExportError, PathExists, PathMissing, Tree


async def find(tree: Tree, *, known: str, create: bool) -> tuple[str, str]:
    """The export's id. Where there is none, a ledger is made if that is wanted; raises Cause.NO_LEDGER if not.

    The second text is the server's answer where it refused to close what was made of the ledger to others.
    `known` is the id that we have seen before: raises Cause.CHANGED where that has gone, or is another one.
    """
    found = await _read(tree, layout.ID)
    if known and found != known:
        raise ExportError(Cause.CHANGED, f"its id was {known} and is {found}" if found else "its ledger is gone")
    if not found and not create:
        raise ExportError(Cause.NO_LEDGER)
    refusals = [] if found else [await _make_private(tree, (LEDGER,))]
    if create:
        refusals += await _make_directories(tree)
    refusal = next(filter(None, refusals), "")
    if found:
        return found, refusal
    with suppress(PathExists):  # another replica was faster
        # The id last: an export that has one has a whole ledger.
        await tree.make_symlink(layout.ID, uuid.uuid4().hex)
    return await tree.read_symlink(layout.ID), refusal


async def has_ledger(tree: Tree) -> bool:
    """Whether there is a whole ledger: its id is written last."""
    return bool(await _read(tree, layout.ID))


async def since(tree: Tree) -> str:
    """Since when a provisioner has kept the ledger; empty where none has signed yet."""
    return await _read(tree, layout.SINCE)


async def _read(tree: Tree, symlink: Path) -> str:
    with suppress(PathMissing):
        return await tree.read_symlink(symlink)
    return ""


async def _make_directories(tree: Tree) -> list[str]:
    """Make those of the ledger's directories that are missing, in a new ledger or after a clean-up by hand."""
    there = {entry.name for entry in await tree.list((LEDGER,))}
    return [await _make_private(tree, path) for path in layout.directories()[1:] if path[-1] not in there]


async def _make_private(tree: Tree, path: Path) -> str:
    """Make a directory of the ledger; the server's answer where it refuses to close that to others."""
    try:
        return await modes.make_directory(tree, path, layout.PRIVATE)
    except PathExists:
        return await modes.set_access(tree, path, layout.PRIVATE)


async def read(tree: Tree, *, mend: bool, folds: bool = False) -> Ledger:
    """All that is in the ledger. What one replica settled while another one tried anew is settled.

    With `mend` what is left of the other one's attempt is removed.
    """
    ledger = Ledger(folds=folds)
    pending, settled = [await symlinks.read_all(tree, (LEDGER, state)) for state in STATES]
    for volume in pending.keys() & settled.keys():
        del pending[volume]
        if mend:
            await symlinks.remove(tree, layout.of("pending", volume))
    ledger.read(pending, "pending")
    ledger.read(settled, "volumes")
    ledger.read_archives(await symlinks.read_all(tree, layout.ARCHIVES))
    return ledger
