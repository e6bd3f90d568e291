"""Restoring: an archive's directory becomes that of a claim, and the archive again when the claim goes.

The archive's record first says for which volume, while there is nothing yet at that volume's place. So whoever goes on
after a crash, or beside another leader, knows that what is there then is the archive's directory, and nobody else's.
Each rename relies on the claim's pending record and on the archive's, as they were read: once one of them has changed,
nothing moves.
"""

from __future__ import annotations

from contextlib import suppress

from msgspec import structs

from provisioner.core.archives import not_for, restored
from provisioner.core.discretion import Words, no_archive, owner_by
from provisioner.core.errors import InvalidRecord
from provisioner.core.records import ArchiveRecord, Record, decode, encode, require_room
from provisioner.core.tenancy import Tenant
from provisioner.ledger import layout, modes, symlinks
from provisioner.ledger.archives import is_free, is_recorded, is_taking, is_there, look, replace_record
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.refusals import unproven
from provisioner.ports.tree import Ownership, PathExists, PathMissing, Proof, Tree

_PARENT = Ownership(mode=0o755)


async def bring_back(
    tree: Tree, ledger: LedgerIndex, volume: str, held: Record, tenant: Tenant, *, fresh: bool
) -> bool:
    """Give an archive's directory to the claim whose record names it, by rename; False when that was done before.

    Mode and owner stay as the data's last user left them. Raises ArchiveUnusable, AlreadyThere.
    """
    record, taken = await look(tree, held.archive)
    if record is None:
        ledger.remove_archive(held.archive)
        raise ArchiveUnusable(await _why_none(tree, ledger, held))
    refusal = not_for(held.archive, record, held, tenant)
    if refusal is not None:
        raise ArchiveUnusable(no_archive(owner_by(held), held.archive, refusal))
    held = await _keep_rule(tree, ledger, volume, held, record)
    if len(held.path) > 1:
        with suppress(PathExists):
            await modes.make_directory(tree, held.path[:-1], _PARENT)
    if fresh or record.taker != volume:
        taken = await _reserve(tree, ledger, volume, held, record, taken)
    try:
        await tree.rename((held.archive,), held.path, proofs=[await _wanted(tree, volume, held), taken])
    except PathMissing as exc:
        if await is_there(tree, held.path):  # by an earlier attempt, or by another leader
            return False
        raise ArchiveUnusable(f"the directory of archive {held.archive!r} is gone from the export") from exc
    except PathExists as exc:
        raise _in_the_way(held) from exc
    return True


async def _keep_rule(tree: Tree, ledger: LedgerIndex, volume: str, held: Record, record: ArchiveRecord) -> Record:
    """Give the claim's record the milder rule, before anything of the archive is touched: a crash repeats it."""
    wanted = restored(held, record)
    if wanted == held:
        return held
    try:
        require_room(volume, wanted)
    except InvalidRecord as exc:
        raise ArchiveUnusable(f"archive {held.archive!r} cannot be given back to this claim: {exc}") from exc
    state = ledger.state(volume)
    await symlinks.replace(tree, layout.of(state, volume), encode(wanted))
    ledger.enter(volume, wanted, state)
    return wanted


async def _wanted(tree: Tree, volume: str, held: Record) -> Proof:
    """The claim's pending record, as the export has it now. Raises Cause.RECORD where it has another one, or none."""
    proof = Proof(layout.of("pending", volume), "")
    with suppress(PathMissing, InvalidRecord):
        proof = Proof(proof.path, await tree.read_symlink(proof.path))
        if decode(proof.text) == held:
            return proof
    raise unproven(proof)


async def _reserve(
    tree: Tree, ledger: LedgerIndex, volume: str, held: Record, record: ArchiveRecord, seen: Proof
) -> Proof:
    """Note in an archive's record for whom it is, where that still is as it was seen; the record from then on.

    Raises ArchiveUnusable, AlreadyThere.
    """
    if await is_recorded(tree, record.volume):
        raise ArchiveUnusable(f"archive {held.archive!r} is not whole yet: volume {record.volume} is being reclaimed")
    if record.taker != volume and await is_taking(tree, record.taker, held.archive):
        raise ArchiveUnusable(f"archive {held.archive!r} goes to another claim: its volume is {record.taker}")
    if not await is_free(tree, held.path):
        if record.taker == volume and await has_moved(tree, held):
            return seen
        raise _in_the_way(held)
    wanted = structs.replace(record, taker=volume)
    await replace_record(tree, ledger, held.archive, wanted, was=seen.text)
    # Read back: of two that write at once, one may have put the other's text there.
    live, proof = await look(tree, held.archive)
    if live != wanted:
        raise ArchiveUnusable(f"archive {held.archive!r} goes to another claim")
    return proof


def _in_the_way(held: Record) -> AlreadyThere:
    return AlreadyThere(
        f"directory {held.directory!r} exists already, and archive {held.archive!r} never replaces anything: move it"
        " away, or choose another name for the claim"
    )


async def _why_none(tree: Tree, ledger: LedgerIndex, held: Record) -> Words | str:
    """Words for an archive that has no record."""
    for volume, record in ledger.records.items():
        if (record.archive, record.namespace) == (held.archive, held.namespace) and volume not in ledger.pending:
            return f"archive {held.archive!r} has been given back to claim {record.namespace}/{record.claim}"
    if await is_free(tree, (held.archive,)):
        whole = f"there is no archive {held.archive!r} on the class's export; `nfs-provisioner archives` lists them"
    else:
        whole = (
            f"archive {held.archive!r} has no record, so nothing says whose data it is: an admin can copy it by hand"
        )
    return no_archive(owner_by(held), held.archive, whole)


async def put_back(tree: Tree, volume: str, held: Record) -> bool:
    """Make an archive again of what was brought back for a claim that is to have no volume; nothing moved is success.

    False, and nothing is touched, where what is at the claim's place may be the archive, and may not.
    """
    if not await is_there(tree, held.path):
        return True
    record, taken = await look(tree, held.archive)
    if record is None or record.taker != volume:
        return not await is_free(tree, (held.archive,))  # as long as the archive is in its own place
    try:
        await tree.rename(held.path, (held.archive,), proofs=[await _wanted(tree, volume, held), taken])
    except PathMissing:
        pass
    except PathExists:
        return False
    return True


async def has_moved(tree: Tree, held: Record) -> bool:
    """Whether what lies at the claim's place may be the archive: there is a directory, and none in the archive's."""
    return await is_there(tree, held.path) and await is_free(tree, (held.archive,))
