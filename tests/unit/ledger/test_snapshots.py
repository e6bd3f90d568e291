"""ledger.snapshots: a snapshot appears and disappears as a whole, wherever its copy is interrupted."""

from __future__ import annotations

import pytest
from msgspec import structs

from provisioner.core import names
from provisioner.core.backoff import Backoff
from provisioner.core.records import SnapshotRecord, encode
from provisioner.ledger import copying, layout
from provisioner.ledger.copying import Progress
from provisioner.ledger.export import Export
from provisioner.ports.tree import ExportError, Ownership
from tests.support.fakes.tree import Directory, File, MemoryTree
from tests.support.ledger_faults import FAULTS, Fault, interrupted, ledger, opened, record

SOURCE, HANDLE = "pvc-1", "uid-of-the-snapshot"
BEGUN = SnapshotRecord("shop", "nightly", "data", SOURCE, "nfs", "1Gi", "2026-01-01T00:00:00Z", "c1")
LATER = "2026-01-01T00:00:07Z"
COMPLETE = structs.replace(BEGUN, created=LATER)

every_fault = pytest.mark.parametrize("fault", FAULTS, ids=str)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of the copy engine wait for no time."""
    monkeypatch.setattr(copying, "_AGAIN", Backoff(first_s=0.0, limit_s=0.0))


async def fresh() -> MemoryTree:
    """Return an export with a settled volume that has data."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(SOURCE, record("source", SOURCE), Ownership(mode=0o770))
    await export.settle(SOURCE, "uid")
    source = tree.look(("source",))
    assert isinstance(source, Directory)
    source.entries["a"] = File(b"data")
    return tree


async def taken(export: Export) -> SnapshotRecord:
    """Do all that a controller does for a snapshot."""
    known = await export.snapshots.refresh(HANDLE)
    if known is not None:
        await export.snapshots.end(HANDLE)
        return known
    await export.snapshots.begin(HANDLE, BEGUN)
    copy = await export.snapshot_of(export, ("source",), HANDLE, Progress(), allows=lambda: True)
    return await export.snapshots.place(HANDLE, copy, LATER)


def data(tree: MemoryTree) -> object:
    """Return the file in the snapshot."""
    return tree.look((*layout.snapshot(HANDLE), "tree", "a"))


async def test_a_snapshot() -> None:
    """A snapshot has the data of its volume and a record, which the next start reads."""
    tree = await fresh()
    export = await opened(tree)
    assert await taken(export) == COMPLETE
    assert data(tree) == File(b"data")
    assert export.snapshots.begun == {}
    assert ledger(tree, "copies") == []
    assert await export.snapshots.is_there(HANDLE)
    again = await opened(tree)
    assert again.snapshots.complete == export.snapshots.complete == {HANDLE: COMPLETE}


async def test_a_removed_snapshot() -> None:
    """A snapshot that is removed is in the trash, with its record; removing it again is a success."""
    tree = await fresh()
    export = await opened(tree)
    await taken(export)
    for _ in range(2):
        await export.snapshots.remove(HANDLE)
        assert export.snapshots.complete == {}
        assert ledger(tree, "snapshots") == []
        assert ledger(tree, "trash") == [layout.COPY + names.snapshot_source(HANDLE)]
    assert await export.snapshots.refresh(HANDLE) is None
    assert not await export.snapshots.is_there(HANDLE)


@every_fault
async def test_interrupted_snapshots(fault: Fault) -> None:
    """Whatever call of a snapshot is interrupted, the next attempt has the whole snapshot, and no other copy stays."""
    for tree, export in await interrupted(fault, fresh, taken):
        assert structs.replace(await taken(export), created="") == structs.replace(BEGUN, created="")
        assert data(tree) == File(b"data")
        assert ledger(tree, "snapshots") == [HANDLE]
        assert ledger(tree, "copies") == []
        assert (await opened(tree)).snapshots.complete == export.snapshots.complete


KEPT = structs.replace(BEGUN, retention="1h")


async def test_a_retention() -> None:
    """A deleted snapshot that is kept has a mark with the first time, which the next start reads."""
    tree = await fresh()
    export = await opened(tree)
    await taken(export)
    for at in (LATER, "2027-01-01T00:00:00Z"):
        await export.snapshots.mark_deleted(HANDLE, at)
    again = await opened(tree)
    assert again.snapshots.deleted == export.snapshots.deleted == {HANDLE: LATER}
    assert again.snapshots.complete == {HANDLE: COMPLETE}
    await export.snapshots.expire(HANDLE)
    assert (export.snapshots.complete, export.snapshots.deleted) == ({}, {})
    assert ledger(tree, "snapshots") == []
    assert ledger(tree, "trash") == [layout.COPY + names.snapshot_source(HANDLE)]


async def test_a_snapshot_that_is_in_use_again() -> None:
    """A snapshot whose mark was removed does not expire, also for a leader that still knows the mark."""
    tree = await fresh()
    former, leader = await opened(tree), await opened(tree)
    await taken(former)
    await former.snapshots.mark_deleted(HANDLE, LATER)
    for _ in range(2):
        await leader.snapshots.unmark(HANDLE)
    with pytest.raises(ExportError):
        await former.snapshots.expire(HANDLE)
    assert data(tree) == File(b"data")


@every_fault
async def test_interrupted_expiry(fault: Fault) -> None:
    """Whatever call of an expiry is interrupted, the next attempt leaves neither data nor mark."""

    async def prepared() -> MemoryTree:
        tree = await fresh()
        export = await opened(tree)
        await taken(export)
        await export.snapshots.mark_deleted(HANDLE, LATER)
        return tree

    for tree, export in await interrupted(fault, prepared, lambda export: export.snapshots.expire(HANDLE)):
        if HANDLE in export.snapshots.complete:
            await export.snapshots.expire(HANDLE)
        elif HANDLE in export.snapshots.deleted:
            await export.snapshots.unmark(HANDLE)
        assert ledger(tree, "snapshots") == []


@every_fault
async def test_interrupted_removals(fault: Fault) -> None:
    """Whatever call of a removal is interrupted, the next attempt leaves nothing."""

    async def prepared() -> MemoryTree:
        tree = await fresh()
        await taken(await opened(tree))
        return tree

    for tree, export in await interrupted(fault, prepared, lambda export: export.snapshots.remove(HANDLE)):
        await export.snapshots.remove(HANDLE)
        assert ledger(tree, "snapshots") == []


async def test_a_snapshot_that_another_leader_ended() -> None:
    """A copy that another leader has ended becomes no snapshot."""
    tree = await fresh()
    export = await opened(tree)
    await export.snapshots.begin(HANDLE, BEGUN)
    copy = await export.snapshot_of(export, ("source",), HANDLE, Progress(), allows=lambda: True)
    await tree.remove_symlink(layout.begun_snapshot(HANDLE))
    with pytest.raises(ExportError):
        await export.snapshots.place(HANDLE, copy, LATER)
    assert ledger(tree, "snapshots") == []


async def test_a_record_that_is_replaced() -> None:
    """A record is replaced in one step, unless it is another one by then; the others are not touched."""
    tree = await fresh()
    export, other = await opened(tree), await opened(tree)
    await taken(export)
    await other.snapshots.read()
    recovered = structs.replace(COMPLETE, cluster="c2")
    await export.snapshots.replace_record(HANDLE, recovered)
    assert export.snapshots.complete == (await opened(tree)).snapshots.complete == {HANDLE: recovered}
    with pytest.raises(ExportError):
        await other.snapshots.replace_record(HANDLE, structs.replace(COMPLETE, cluster="c3"))
    assert await other.snapshots.refresh(HANDLE) == recovered
    assert data(tree) == File(b"data")


async def test_two_leaders() -> None:
    """A snapshot that another leader has completed is complete."""
    tree = await fresh()
    former, leader = await opened(tree), await opened(tree)
    await former.snapshots.begin(HANDLE, BEGUN)
    copy = await former.snapshot_of(former, ("source",), HANDLE, Progress(), allows=lambda: True)
    assert await taken(leader) == COMPLETE
    assert await former.snapshots.place(HANDLE, copy, "2026-02-02T00:00:00Z") == COMPLETE
    assert data(tree) == File(b"data")


async def test_copies_of_snapshots() -> None:
    """A copy for a snapshot is needed as long as the snapshot has begun, and only then."""
    tree = await fresh()
    export = await opened(tree)
    await export.snapshots.begin(HANDLE, BEGUN)
    await export.snapshot_of(export, ("source",), HANDLE, Progress(), allows=lambda: True)
    assert await export.discard_unneeded_copies() == 0
    await tree.remove_symlink(layout.begun_snapshot(HANDLE))
    assert await export.discard_unneeded_copies() == 1
    assert ledger(tree, "copies") == []


async def test_what_is_no_snapshot() -> None:
    """Records that cannot be read are no snapshots, and nor is anything else in the directory."""
    tree = await fresh()
    for name, text in (("x", encode(BEGUN)), ("y.begun", "odd"), ("z.begun", encode(BEGUN))):
        await tree.make_symlink((*layout.SNAPSHOTS, name), text)
    await tree.make_directory(layout.snapshot("odd"), Ownership())
    await tree.make_symlink((*layout.snapshot("odd"), layout.RECORD), "odd")
    await tree.make_directory(layout.snapshot("bare"), Ownership())
    export = await opened(tree)
    assert export.snapshots.complete == {}
    assert export.snapshots.begun == {"z": BEGUN}


async def test_a_ledger_without_snapshots() -> None:
    """A ledger that an older version created has no snapshots."""
    tree = await fresh()
    export = await opened(tree)
    await tree.remove_directory(layout.SNAPSHOTS)
    await export.snapshots.read()
    assert export.snapshots.complete == {}
