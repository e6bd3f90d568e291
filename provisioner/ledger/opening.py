"""Opening an export: its id, the directories of its ledger, made where they are missing, and all that is in them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Set
from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger import layout, modes, symlinks
from provisioner.ledger.index import LedgerIndex
from provisioner.ledger.layout import STATES
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Tree


async def find(tree: Tree, *, known: str, carried: Set[str], create: bool) -> tuple[str, str]:
    """The export's id. Where there is none, a ledger is made if that is wanted; raises Cause.NO_LEDGER if not.

    The second text is the server's answer where it refused to close what was made of the ledger to others.
    `known` is the id that we have seen before, `carried` are those that volumes on the export carry: raises
    Cause.CHANGED where the known one has gone, or is another one, and where no volume carries the one that is there.
    """
    found = await _read(tree, layout.ID)
    expected = {known} if known else carried
    if expected and found not in expected:
        was = ", ".join(sorted(expected))
        raise ExportError(Cause.CHANGED, f"its id was {was} and is {found}" if found else "its ledger is gone")
    if not found and not create:
        raise ExportError(Cause.NO_LEDGER)
    refusal = await _make_ledger(tree, found) if create else ""
    if found:
        return found, refusal
    with suppress(PathExists):  # another replica was faster
        # The id last: an export that has one has a whole ledger.
        await tree.make_symlink(layout.ID, uuid.uuid4().hex)
    return await tree.read_symlink(layout.ID), refusal


async def _make_ledger(tree: Tree, id: str) -> str:
    """Make what is missing of a ledger, but for its id; the server's answer where it does not close it to others."""
    refusals = [] if id else [await _make_private(tree, (LEDGER,))]
    refusals += await _make_directories(tree)
    return next(filter(None, refusals), "")


async def restore_directories(tree: Tree) -> str:
    """Make what is missing of a ledger that was lost, but for its id; returns the id that is there, if any."""
    found = await _read(tree, layout.ID)
    await _make_ledger(tree, found)
    return found


async def restore_id(tree: Tree, id: str, *, instead_of: str, began: Iterable[str]) -> None:
    """Write the id that an export had, last of all, and since when there has been a ledger at the latest.

    Raises Cause.CHANGED where it has got another one meanwhile.
    """
    since = min(began, default="")
    if since:
        with suppress(PathExists):
            await tree.make_symlink(layout.SINCE, since)
    found = await _read(tree, layout.ID)
    if found == id:
        return
    if found != instead_of:
        raise ExportError(Cause.CHANGED, f"its id was {instead_of or 'gone'} and is {found or 'gone'}")
    if found:
        await symlinks.replace(tree, layout.ID, id)
        return
    with suppress(PathExists):
        await tree.make_symlink(layout.ID, id)
    if await _read(tree, layout.ID) != id:
        raise ExportError(Cause.CHANGED, "somebody has begun another ledger meanwhile")


async def probe(tree: Tree, id: str) -> None:
    """Raise Cause.CHANGED unless the ledger is there, with this id and all of its directories."""
    found, entries = await asyncio.gather(_read(tree, layout.ID), _entries(tree))
    if found != id:
        raise ExportError(Cause.CHANGED, f"its id was {id} and is {found}" if found else "its ledger is gone")
    missing = [path[-1] for path in layout.directories()[1:] if path[-1] not in entries]
    if missing:
        raise ExportError(Cause.CHANGED, f"its ledger lacks {', '.join(missing)}")


async def _entries(tree: Tree) -> Set[str]:
    with suppress(PathMissing):
        return {entry.name for entry in await tree.list((LEDGER,))}
    return set()


async def has_ledger(tree: Tree) -> bool:
    """Whether there is a whole ledger: its id is written last."""
    return bool(await _read(tree, layout.ID))


async def since(tree: Tree) -> str:
    """Since when a provisioner has kept the ledger; empty where none has signed yet."""
    return await _read(tree, layout.SINCE)


async def _read(tree: Tree, symlink: RelPath) -> str:
    with suppress(PathMissing):
        return await tree.read_symlink(symlink)
    return ""


async def _make_directories(tree: Tree) -> list[str]:
    """Make those of the ledger's directories that are missing, in a new ledger or after a clean-up by hand."""
    there = await _entries(tree)
    return [await _make_private(tree, path) for path in layout.directories()[1:] if path[-1] not in there]


async def _make_private(tree: Tree, path: RelPath) -> str:
    """Make a directory of the ledger; the server's answer where it refuses to close that to others."""
    try:
        return await modes.make_directory(tree, path, layout.PRIVATE)
    except PathExists:
        return await modes.set_access(tree, path, layout.PRIVATE)


async def read(tree: Tree, *, mend: bool, folds: bool = False) -> LedgerIndex:
    """All that is in the ledger. What one replica settled while another one tried anew is settled.

    With `mend` what is left of the other one's attempt is removed.
    """
    ledger = LedgerIndex(folds=folds)
    pending, settled = [await symlinks.read_all(tree, (LEDGER, state)) for state in STATES]
    for volume in pending.keys() & settled.keys():
        del pending[volume]
        if mend:
            await symlinks.remove(tree, layout.of("pending", volume))
    ledger.read(pending, "pending")
    ledger.read(settled, "volumes")
    ledger.read_archives(await symlinks.read_all(tree, layout.ARCHIVES))
    return ledger
