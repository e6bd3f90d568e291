"""Restoring an archive into a claim, and giving it back if the claim is deleted.

The steps, in this order:

1. The caller has written the claim's pending record, which names the archive.
2. The claim's record gets the milder of its own rule and the archive's, and the archive's group.
3. The archive's record gets the *taker*: the claim's volume. There is nothing at the claim's path yet. So after a
   crash, or beside another leader, what lies there later can only be the archive's directory.
4. The rename. It relies on both records as they were read: once one of them has changed, nothing moves.
5. The caller settles the claim's record, then ends the archive's.
"""

from __future__ import annotations

from contextlib import suppress

from msgspec import structs

from provisioner.core.archives import not_for, restored
from provisioner.core.discretion import Words, no_archive, owner_by
from provisioner.core.errors import InvalidRecord
from provisioner.core.records import ArchiveRecord, Record, decode, encode, require_room
from provisioner.core.tenancy import Tenant
from provisioner.ledger import groups, layout, modes, symlinks
from provisioner.ledger.archives import is_free, is_recorded, is_taking, is_there, look, replace_record
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.refusals import unproven
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof, Tree


async def bring_back(
    tree: Tree, index: LedgerIndex, volume_name: str, held: Record, tenant: Tenant, *, fresh: bool
) -> bool:
    """Do steps 2 to 4 for the archive that a claim's record names.

    Returns False if that was done before. Mode and owner stay as the data's last user left them. Raises
    ArchiveUnusable, AlreadyThere.
    """
    try:
        return await _bring_back(tree, index, volume_name, held, tenant, fresh=fresh)
    except ExportError as exc:
        if exc.cause is Cause.RECORD:
            record, _ = await look(tree, held.archive)
            if record is not None and record.taker not in ("", volume_name):
                raise _another_takes(held, record) from exc
        raise


async def _bring_back(
    tree: Tree, index: LedgerIndex, volume_name: str, held: Record, tenant: Tenant, *, fresh: bool
) -> bool:
    record, taken = await look(tree, held.archive)
    if record is None:
        index.remove_archive(held.archive)
        raise ArchiveUnusable(await _why_none(tree, index, held))
    refusal = not_for(held.archive, record, held, tenant)
    if refusal is not None:
        raise ArchiveUnusable(no_archive(owner_by(held), held.archive, refusal))
    held = await _keep_rule(tree, index, volume_name, held, record)
    await groups.hold(tree, index, held.gid, groups.holder_of(volume_name, held))
    if len(held.path) > 1:
        with suppress(PathExists):
            await modes.make_directory(tree, held.path[:-1], modes.PARENT)
    if fresh or record.taker != volume_name:
        taken = await _reserve(tree, index, volume_name, held, record, taken)
    try:
        await tree.rename((held.archive,), held.path, proofs=[await _wanted(tree, volume_name, held), taken])
    except PathMissing as exc:
        if await is_there(tree, held.path):
            return False  # an earlier attempt, or another leader, moved it
        raise ArchiveUnusable(f"the directory of archive {held.archive!r} is gone from the export") from exc
    except PathExists as exc:
        raise _in_the_way(held) from exc
    return True


async def _keep_rule(tree: Tree, index: LedgerIndex, volume_name: str, held: Record, record: ArchiveRecord) -> Record:
    """Write the milder rule and the archive's group into the claim's record.

    Nothing of the archive has moved yet, so a retry after a crash repeats it.
    """
    wanted = restored(held, record)
    if wanted == held:
        return held
    try:
        require_room(volume_name, wanted)
    except InvalidRecord as exc:
        raise ArchiveUnusable(f"archive {held.archive!r} cannot be restored into this claim: {exc}") from exc
    state = index.state(volume_name)
    await symlinks.replace(tree, layout.of(state, volume_name), encode(wanted))
    index.enter(volume_name, wanted, state)
    return wanted


async def _wanted(tree: Tree, volume_name: str, held: Record) -> Proof:
    """Return the claim's pending record as proof.

    Raises Cause.RECORD if the export has another one, or none.
    """
    proof = Proof(layout.of("pending", volume_name), "")
    with suppress(PathMissing, InvalidRecord):
        proof = Proof(proof.path, await tree.read_symlink(proof.path))
        if decode(proof.text) == held:
            return proof
    raise unproven(proof)


async def _reserve(
    tree: Tree, index: LedgerIndex, volume_name: str, held: Record, record: ArchiveRecord, seen: Proof
) -> Proof:
    """Write the taker into an archive's record, if that still has the text of `seen`.

    Returns the new record as proof. Raises ArchiveUnusable, AlreadyThere.
    """
    if await is_recorded(tree, record.volume):
        raise ArchiveUnusable(
            f"archive {held.archive!r} is not complete yet: volume {record.volume} is still being reclaimed"
        )
    if record.taker != volume_name and await is_taking(tree, record.taker, held.archive):
        raise _another_takes(held, record)
    if not await is_free(tree, held.path):
        if record.taker == volume_name and await has_moved(tree, held):
            return seen
        raise _in_the_way(held)
    wanted = structs.replace(record, taker=volume_name)
    await replace_record(tree, index, held.archive, wanted, was=seen.text)
    # Read it back: of two processes that write at the same time, the text of either one can be there.
    live, proof = await look(tree, held.archive)
    if live != wanted:
        raise ArchiveUnusable(f"archive {held.archive!r} goes to another claim")
    return proof


def _another_takes(held: Record, record: ArchiveRecord) -> ArchiveUnusable:
    return ArchiveUnusable(f"archive {held.archive!r} goes to another claim, as volume {record.taker}")


def _in_the_way(held: Record) -> AlreadyThere:
    return AlreadyThere(
        f"directory {held.directory!r} already exists, and archive {held.archive!r} never replaces anything: move it"
        " away, or choose another name for the claim"
    )


async def _why_none(tree: Tree, index: LedgerIndex, held: Record) -> Words | str:
    """Return the words for an archive that has no record."""
    for volume_name, record in index.records.items():
        if (record.archive, record.namespace) == (held.archive, held.namespace) and volume_name not in index.pending:
            return f"archive {held.archive!r} was restored into claim {record.namespace}/{record.claim} already"
    if await is_free(tree, (held.archive,)):
        log = f"there is no archive {held.archive!r} on the class's export; `nfs-provisioner archives` lists them"
    else:
        log = f"archive {held.archive!r} has no record, so nothing says whose data it holds: an admin can copy the data"
    return no_archive(owner_by(held), held.archive, log)


async def put_back(tree: Tree, volume_name: str, held: Record) -> bool:
    """Rename a restored directory back to its archive. Success if nothing was moved.

    Returns False, and touches nothing, if the directory at the claim's path can be the archive's or another one's.
    """
    if not await is_there(tree, held.path):
        return True
    record, taken = await look(tree, held.archive)
    if record is None or record.taker != volume_name:
        # Nothing was moved for this claim, as long as there is something in the archive's own place.
        return not await is_free(tree, (held.archive,))
    try:
        await tree.rename(held.path, (held.archive,), proofs=[await _wanted(tree, volume_name, held), taken])
    except PathMissing:
        pass
    except PathExists:
        return False
    return True


async def leave_group(tree: Tree, index: LedgerIndex, held: Record) -> None:
    """Give the group of an archive back to it, before the claim's record ends."""
    record, _ = await look(tree, held.archive)
    if record is not None:
        await groups.hold(tree, index, record.was.gid, groups.holder_of(record.volume, record.was))


async def has_moved(tree: Tree, held: Record) -> bool:
    """Return True if the directory at the claim's path can be the archive's.

    That is so if there is one, and nothing at the archive's path.
    """
    return await is_there(tree, held.path) and await is_free(tree, (held.archive,))
