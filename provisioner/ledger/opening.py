"""Opening an export: its id, the directories of its ledger, and all records in it.

The id is written last, so an export that has one has a whole ledger. A ledger that was interrupted while it was being
created has none, and the next open completes it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Set
from contextlib import asynccontextmanager, suppress

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger import layout, modes, symlinks
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Tree


async def find(tree: Tree, *, known: str, carried: Set[str], create: bool) -> tuple[str, str]:
    """Return the export's id, and the server's answer if a new ledger is not private.

    Creates a ledger if there is none and `create` allows it; otherwise raises Cause.NO_LEDGER. `known` is the id that
    this process has seen before, `carried` are the ids that volumes on the export carry. Raises Cause.CHANGED if the
    known id is gone or different, and if no volume carries the id that is there.
    """
    found = await _read(tree, layout.ID)
    # A lost ledger is never replaced by a new one: the volumes on the export would lose their records for good.
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
        await tree.make_symlink(layout.ID, uuid.uuid4().hex)
    # Read it back: of two replicas that create a ledger, both use the id that is there.
    return await tree.read_symlink(layout.ID), refusal


async def _make_ledger(tree: Tree, id: str) -> str:
    """Create what is missing of a ledger, except for its id.

    Returns the server's answer if it refuses to close it to others.
    """
    refusals = [] if id else [await _make_private(tree, (LEDGER,))]
    refusals += await _make_directories(tree)
    return next(filter(None, refusals), "")


async def restore_directories(tree: Tree) -> str:
    """Create what is missing of a lost ledger, except for its id.

    Returns the id that is there, or empty.
    """
    found = await _read(tree, layout.ID)
    await _make_ledger(tree, found)
    return found


async def restore_id(tree: Tree, id: str, *, instead_of: str, began: Iterable[str]) -> None:
    """Write the oldest time in `began` as `since`, then the id that an export had.

    The id is the last step of a recovery. Raises Cause.CHANGED if the id is no longer `instead_of`: another process has
    created a ledger.
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
        raise ExportError(Cause.CHANGED, "another process has created a ledger at the same time")


async def probe(tree: Tree, id: str) -> None:
    """Raise Cause.CHANGED unless the ledger has this id and all directories."""
    found, entries = await asyncio.gather(_read(tree, layout.ID), _entries(tree))
    if found != id:
        raise ExportError(Cause.CHANGED, f"its id was {id} and is {found}" if found else "its ledger is gone")
    missing = [path[-1] for path in layout.directories()[1:] if path[-1] not in entries]
    if missing:
        raise ExportError(Cause.CHANGED, f"its ledger lacks {', '.join(missing)}")


@asynccontextmanager
async def probed_if_missing(tree: Tree, id: str) -> AsyncIterator[None]:
    """Raise Cause.CHANGED if a path turns out to be missing because the ledger is, which is the better error."""
    try:
        yield
    except PathMissing:
        await probe(tree, id)
        raise


async def _entries(tree: Tree) -> Set[str]:
    with suppress(PathMissing):
        return {entry.name for entry in await tree.list((LEDGER,))}
    return set()


async def has_ledger(tree: Tree) -> bool:
    """Return True if there is a whole ledger: its id is written last."""
    return bool(await _read(tree, layout.ID))


async def since(tree: Tree) -> str:
    """Return since when the ledger is kept; empty before the first heartbeat."""
    return await _read(tree, layout.SINCE)


async def _read(tree: Tree, symlink: RelPath) -> str:
    with suppress(PathMissing):
        return await tree.read_symlink(symlink)
    return ""


async def _make_directories(tree: Tree) -> list[str]:
    """Create the ledger's directories that are missing."""
    there = await _entries(tree)
    return [await _make_private(tree, path) for path in layout.directories()[1:] if path[-1] not in there]


async def _make_private(tree: Tree, path: RelPath) -> str:
    """Create a directory of the ledger.

    Returns the server's answer if it refuses to close it to others.
    """
    try:
        return await modes.make_directory(tree, path, layout.PRIVATE)
    except PathExists:
        return await modes.set_access(tree, path, layout.PRIVATE)


async def read(tree: Tree, *, repair: bool, folds: bool = False) -> LedgerIndex:
    """Read all that is in the ledger.

    A volume with two records is settled: one replica settled it while another one retried. `repair` allows the pending
    record to be removed then.
    """
    index = LedgerIndex(folds=folds)
    # Pending first: a record that another replica settles in between is then found among the settled ones.
    pending = await symlinks.read_all(tree, (LEDGER, "pending"))
    both: set[str] = set()
    async for settled in symlinks.batches(tree, (LEDGER, "volumes")):
        both |= pending.keys() & settled.keys()
        index.read(settled, "volumes")
    for volume_name in both:
        del pending[volume_name]
        if repair:
            await symlinks.remove(tree, layout.of("pending", volume_name))
    index.read(pending, "pending")
    index.read_archives(await symlinks.read_all(tree, layout.ARCHIVES))
    index.read_groups(await symlinks.read_all(tree, layout.GROUPS))
    return index
