"""The entries of group ids: which volume holds an id, one symlink per id in `.provisioner/groups`.

The server creates a symlink only where there is none. So of all clusters and leaders that want one id, exactly one gets
it, without a look at the records of the others. An entry names the volume that holds the id, or held it last,
and the volume's cluster: only that cluster removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.core.records import Record
from provisioner.ledger import layout, symlinks
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof, Tree

_OF_THE_ENTRY = (Cause.SYMLINK, Cause.DENIED, Cause.OTHER)
"""What is wrong with one entry. Any other cause is about the export."""


def holder_of(volume_name: str, record: Record) -> str:
    """Return the text of an entry for a volume with this record."""
    return f"{volume_name} {record.cluster}"


def volume_in(holder: str) -> str:
    """Return the volume in the text of an entry."""
    return holder.partition(" ")[0]


def is_of(cluster: str, holder: str) -> bool:
    """Return True if the text of an entry names a cluster."""
    return holder.partition(" ")[2] == cluster


async def claim(tree: Tree, index: LedgerIndex, gid: int, holder: str) -> bool:
    """Create the entry of an id. Return False if there is one; the index then has its holder."""
    # Before the write: after an unknown outcome the entry is one to look after. And after it: learn() removes from the
    # index what it did not see, and it can have listed the entries while the write was under way.
    index.groups.enter(gid, holder)
    try:
        await tree.make_symlink(layout.group(gid), holder)
    except PathExists:
        await _read(tree, index, gid)
        return False
    except ExportError:
        index.groups.enter(gid, holder)
        raise
    index.groups.enter(gid, holder)
    return True


async def hold(tree: Tree, index: LedgerIndex, gid: int, holder: str) -> None:
    """Give the entry of an id to a volume whose record names the id; a no-op for 0.

    The id moves on with the data. The former holder must still have its record, or its archive: that protects the id
    until the entry has changed.
    """
    if not gid or await _read(tree, index, gid) == holder:
        return
    if gid in index.groups.holders or not await claim(tree, index, gid, holder):
        await symlinks.replace(tree, layout.group(gid), holder)
        index.groups.enter(gid, holder)


async def _read(tree: Tree, index: LedgerIndex, gid: int) -> str:
    """Return the holder of an id, or empty; the index gets it.

    Anything but a symlink at that place takes the id too, for no volume.
    """
    try:
        holder = await tree.read_symlink(layout.group(gid))
    except PathMissing:
        index.groups.remove(gid)
        return ""
    except ExportError as exc:
        if exc.cause not in _OF_THE_ENTRY:
            raise
        holder = ""
    index.groups.enter(gid, holder)
    return holder


async def pass_on(tree: Tree, index: LedgerIndex, gid: int, former: str, holder: str) -> None:
    """Give the entry of an id to a volume, if it still names the former holder; a no-op if it does not."""
    with _changed():
        await symlinks.replace(tree, layout.group(gid), holder, was=former)
    await _read(tree, index, gid)


@contextmanager
def _changed() -> Iterator[None]:
    """Suppress the error of a call that relies on the text of an entry: the entry has another text, or is gone."""
    try:
        yield
    except ExportError as exc:
        if exc.cause is not Cause.RECORD and not isinstance(exc, PathMissing):
            raise


async def learn(tree: Tree, index: LedgerIndex) -> None:
    """Bring the entries in the index in line with those on the export: other clusters create and remove some."""
    before = dict(index.groups.holders)
    listed = {entry.name for entry in await tree.list(layout.GROUPS) if entry.type == "symlink"}
    # What was entered since can be newer than the list.
    for gid, holder in before.items():
        if str(gid) not in listed and index.groups.holders.get(gid) == holder:
            index.groups.remove(gid)
    known = {str(gid) for gid in index.groups.holders}
    index.read_groups(await symlinks.read(tree, layout.GROUPS, sorted(listed - known)))


async def end(tree: Tree, index: LedgerIndex, gid: int, holder: str) -> bool:
    """Remove the entry of an id, if it still names this holder; return False if it names another one.

    An id is used again, unlike a volume's name. So the entry goes by a rename that relies on its text: once another
    volume has the id, a call that comes late removes nothing, on a server that verifies.
    """
    with _changed():
        proofs = [Proof(layout.group(gid), holder)]
        await tree.move_symlink(layout.group(gid), layout.ENDED_GROUP, replace=True, proofs=proofs)
        await symlinks.remove(tree, layout.ENDED_GROUP)
        index.groups.remove(gid)
        return True
    await _read(tree, index, gid)
    return False
