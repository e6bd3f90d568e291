"""Opening an export: its id, the directories of its ledger, made where they are missing, and all that is in them."""

from __future__ import annotations

import uuid
from contextlib import suppress

from provisioner.core.locations import Path
from provisioner.core.paths import LEDGER
from provisioner.nfs import layout, symlinks
from provisioner.nfs.layout import STATES
from provisioner.nfs.ledger import Ledger
from provisioner.ports import Cause, ExportError, PathExists, PathMissing, Tree


async def find(tree: Tree, *, known: str, create: bool) -> str:
    """The export's id. Where there is none, a ledger is made if that is wanted; raises Cause.NO_LEDGER if not.

    `known` is the id that we have seen before: raises Cause.CHANGED where that has gone, or is another one.
    """
    found = await _read_id(tree)
    if known and found != known:
        raise ExportError(Cause.CHANGED, f"its id was {known} and is {found}" if found else "its ledger is gone")
    if not found and not create:
        raise ExportError(Cause.NO_LEDGER)
    if not found:
        await _make_private(tree, (LEDGER,))
    if create:
        await _make_directories(tree)
    if found:
        return found
    with suppress(PathExists):  # another replica was faster
        # The id last: an export that has one has a whole ledger.
        await tree.make_symlink(layout.ID, uuid.uuid4().hex)
    return await tree.read_symlink(layout.ID)


async def _read_id(tree: Tree) -> str:
    with suppress(PathMissing):
        return await tree.read_symlink(layout.ID)
    return ""


async def _make_directories(tree: Tree) -> None:
    """Those of the ledger's directories that are missing: it is young, or somebody has tidied up."""
    there = {entry.name for entry in await tree.list((LEDGER,))}
    for path in layout.directories()[1:]:
        if path[-1] not in there:
            await _make_private(tree, path)


async def _make_private(tree: Tree, path: Path) -> None:
    try:
        await tree.make_directory(path, layout.PRIVATE)
    except PathExists:
        await tree.set_access(path, layout.PRIVATE)


async def read(tree: Tree, *, mend: bool) -> Ledger:
    """All that is in the ledger. What one replica settled while another one tried anew is settled.

    With `mend` what is left of the other one's attempt is removed.
    """
    ledger = Ledger()
    pending, settled = [await symlinks.read_all(tree, (LEDGER, state)) for state in STATES]
    for volume in pending.keys() & settled.keys():
        del pending[volume]
        if mend:
            await symlinks.remove(tree, layout.of("pending", volume))
    ledger.read(pending, "pending")
    ledger.read(settled, "volumes")
    ledger.read_archives(await symlinks.read_all(tree, layout.ARCHIVES))
    return ledger
