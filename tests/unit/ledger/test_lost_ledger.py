"""ledger.export: a removed, replaced or damaged ledger is not started again, and is rewritten in safe steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from provisioner.core.records import encode
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists
from tests.support.fakes.tree import Directory, MemoryTree, Symlink
from tests.support.ledger_faults import FAULTS, NAS, Fault, ledger, opened, record

V1, V2 = "pvc-1", "pvc-2"
RECORDS = {V1: record("a", V1), V2: record("b/c", V2)}
GARBAGE, NEWER = "garbage", '{"v":2,"dir":"a"}'

Damage = Callable[[MemoryTree], None]


def ledger_of(tree: MemoryTree) -> Directory:
    found = tree.look((".provisioner",))
    assert isinstance(found, Directory)
    return found


def removed(tree: MemoryTree) -> None:
    """All of it is gone."""
    del tree.root.entries[".provisioner"]


def emptied(tree: MemoryTree) -> None:
    """Its directory is empty."""
    ledger_of(tree).entries.clear()


def nameless(tree: MemoryTree) -> None:
    """Its id is gone."""
    del ledger_of(tree).entries["export"]


def replaced(tree: MemoryTree) -> None:
    """It is another ledger, without a record."""
    tree.root.entries[".provisioner"] = Directory(entries={"export": Symlink("new")})


def without_records(tree: MemoryTree) -> None:
    """The directory of the records is gone."""
    del ledger_of(tree).entries["volumes"]


def garbled(tree: MemoryTree) -> None:
    """One record cannot be read."""
    tree.plant_symlink((".provisioner", "volumes", V1), GARBAGE)


DAMAGES = [removed, emptied, nameless, replaced, without_records, garbled]


async def in_use() -> tuple[MemoryTree, str]:
    """Return an export with two volumes, and its id."""
    tree = MemoryTree()
    export = await opened(tree)
    for volume, each in RECORDS.items():
        await export.provision(volume, each, Ownership())
        await export.settle(volume)
        tree.write_file((*each.path, "data"))
    return tree, export.id


@pytest.mark.parametrize("damage", [removed, emptied, nameless, replaced])
@pytest.mark.parametrize("known", [True, False], ids=["while it is used", "at a start"])
async def test_a_lost_ledger_is_not_replaced(damage: Damage, *, known: bool) -> None:
    """While volumes carry the id of a lost or replaced ledger, opening creates nothing and the error says so."""
    tree, id = await in_use()
    export = await opened(tree) if known else Export(NAS, tree)
    damage(tree)
    before = repr(tree.root)
    for _ in range(2):
        if known:
            with pytest.raises(ExportError) as caught:
                await export.probe()
            assert caught.value.cause is Cause.CHANGED
        with pytest.raises(ExportError) as caught:
            await export.open(carried=frozenset() if known else {id})
        assert caught.value.cause is Cause.CHANGED
        assert "recover --ledger" in caught.value.event_message("nas")
    assert repr(tree.root) == before


async def test_a_ledger_without_volumes_is_begun() -> None:
    """A ledger is created if no volume carries an id; one whose id volumes carry is opened."""
    tree = MemoryTree()
    export = Export(NAS, tree)
    await export.open(carried=frozenset())
    await Export(NAS, tree).open(carried={"another", export.id})


@pytest.mark.parametrize("damage", [removed, emptied, without_records])
async def test_a_claim_that_comes_first(damage: Damage) -> None:
    """A claim that finds the ledger lost before the next probe fails with that cause, and creates nothing."""
    tree, _ = await in_use()
    export = await opened(tree)
    damage(tree)
    with pytest.raises(ExportError) as caught:
        await export.provision("pvc-3", record("c", "pvc-3"), Ownership())
    assert caught.value.cause is Cause.CHANGED
    assert "c" not in tree.root.entries


@pytest.mark.parametrize("name", ["volumes", "pending", "trash", "drafts"])
async def test_a_part_of_a_ledger_that_is_gone(name: str) -> None:
    """The next probe notices that a directory of the ledger is missing, and the next open creates it."""
    tree, _ = await in_use()
    export = await opened(tree)
    del ledger_of(tree).entries[name]
    with pytest.raises(ExportError, match=f"lacks {name}") as caught:
        await export.probe()
    assert caught.value.cause is Cause.CHANGED
    await export.open()
    await export.probe()


# ------------------------------------------------------------------------------------------- writing it again


async def restore(tree: MemoryTree, id: str) -> None:
    """Do what `recover --ledger` does on an export, as another process."""
    export = Export(NAS, tree)
    try:
        await export.open(create=False)
    except ExportError as exc:
        if exc.cause is not Cause.NO_LEDGER:
            raise
        await export.read_remains()
    missing = {volume: each for volume, each in RECORDS.items() if volume not in export.records}
    assert await export.restore_ledger(id, missing) == {}


async def is_whole(tree: MemoryTree, id: str) -> None:
    export = Export(NAS, tree)
    await export.open(carried={id})
    assert (export.id, dict(export.records), set(export.pending), set(export.unreadable)) == (id, RECORDS, set(), set())
    assert ledger(tree, "drafts") == []
    for each in RECORDS.values():
        assert tree.look((*each.path, "data")) is not None


@pytest.mark.parametrize("damage", DAMAGES)
async def test_it_is_written_again(damage: Damage) -> None:
    """Records, id and directories are restored, whatever was lost; a second run changes nothing."""
    tree, id = await in_use()
    damage(tree)
    await restore(tree, id)
    await is_whole(tree, id)
    before = repr(tree.root)
    await restore(tree, id)
    assert repr(tree.root) == before


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("damage", DAMAGES)
async def test_it_is_cut_off_anywhere(fault: Fault, damage: Damage) -> None:
    """Wherever it crashes or loses an answer, the id comes last, and the next run completes it."""
    for number in range(1, 1000):
        tree, id = await in_use()
        damage(tree)
        if not await fault.at(number, tree, restore(tree, id)):
            break
        look = await remains(tree)
        if look.id == id and damage in (removed, emptied, replaced):
            assert dict(look.records) == RECORDS
        await restore(tree, id)
        await is_whole(tree, id)
    assert number > 10


async def remains(tree: MemoryTree) -> Export:
    """Return what an export has after a crash."""
    export = Export(NAS, tree)
    try:
        await export.open(create=False)
    except ExportError:
        await export.read_remains()
    return export


async def test_a_daemon_beside_it() -> None:
    """A provisioner that refused the export, and one that had it open, continue by themselves with all records."""
    tree, id = await in_use()
    running, starting = await opened(tree), Export(NAS, tree)
    removed(tree)
    for export in (running, starting):
        with pytest.raises(ExportError):
            await export.open(carried={id})
    await restore(tree, id)
    for export in (running, starting):
        await export.open(carried={id})
        await export.probe()
        assert dict(export.records) == RECORDS


async def test_since_when_there_is_one() -> None:
    """A restored ledger is as old as its oldest volume."""
    tree, id = await in_use()
    removed(tree)
    await restore(tree, id)
    assert (await opened(tree)).since == RECORDS[V1].created


async def test_a_daemon_learns_of_a_record() -> None:
    """A record that could not be read is known again once it is rewritten and refreshed."""
    tree, id = await in_use()
    garbled(tree)
    daemon = await opened(tree)
    assert (set(daemon.unreadable), set(daemon.records)) == ({V1}, {V2})
    assert await daemon.refresh_record(V1) is None
    assert set(daemon.unreadable) == {V1}
    await restore(tree, id)
    assert await daemon.refresh_record(V1) == RECORDS[V1]
    assert (set(daemon.unreadable), set(daemon.records)) == (set(), {V1, V2})
    tree.plant_symlink((".provisioner", "volumes", V2), GARBAGE)
    await daemon.refresh_record(V2)
    assert set(daemon.unreadable) == {V2}
    await tree.remove_symlink((".provisioner", "volumes", V2))
    await daemon.refresh_record(V2)
    assert set(daemon.unreadable) == set()


async def test_damage_that_comes_while_it_is_used() -> None:
    """find_damage() finds records that cannot be read any more, and leaves all others as they are."""
    tree, _ = await in_use()
    daemon = await opened(tree)
    await daemon.find_damage()
    assert (set(daemon.unreadable), dict(daemon.records)) == (set(), RECORDS)
    garbled(tree)
    await daemon.find_damage()
    assert set(daemon.unreadable) == {V1}
    assert daemon.records[V2] == RECORDS[V2]


async def test_what_another_version_wrote_stays() -> None:
    """A record of a newer version is not overwritten, and is reported."""
    tree, id = await in_use()
    tree.plant_symlink((".provisioner", "volumes", V1), NEWER)
    export = await opened(tree)
    assert set(export.foreign) == {V1}
    assert "unreadable" in (await export.restore_ledger(id, {V1: RECORDS[V1]}))[V1]
    assert await tree.read_symlink((".provisioner", "volumes", V1)) == NEWER


async def test_a_directory_that_is_recorded_for_another() -> None:
    """A record is not written if its directory overlaps with another volume's in the ledger."""
    tree, id = await in_use()
    export = await opened(tree)
    assert "overlaps with" in (await export.restore_ledger(id, {"pvc-3": record("b", "pvc-3")}))["pvc-3"]
    assert ledger(tree, "volumes") == [V1, V2]


async def test_a_record_that_is_there_stays() -> None:
    """A record that another process wrote since the last look is not replaced."""
    tree, id = await in_use()
    other = structs.replace(RECORDS[V1], capacity="2Gi")
    export = await opened(tree)
    export._state.index.remove(V1)
    tree.plant_symlink((".provisioner", "volumes", V1), encode(other))
    assert await export.restore_ledger(id, {V1: RECORDS[V1]}) == {}
    assert (await opened(tree)).records[V1] == other


async def test_an_id_that_appears_during_a_recovery() -> None:
    """If another process creates a ledger during a recovery, that ledger stays, and the recovery fails."""
    tree, id = await in_use()
    removed(tree)

    async def begin(call: str, path: tuple[str, ...]) -> None:
        if call == "make_symlink" and path[-1] == "export":
            tree.plant_symlink((".provisioner", "export"), "another")

    tree.before = begin
    with pytest.raises(ExportError) as caught:
        await restore(tree, id)
    assert caught.value.cause is Cause.CHANGED
    assert await tree.read_symlink((".provisioner", "export")) == "another"
    assert not isinstance(caught.value, PathExists)


async def test_an_id_that_changes_during_a_recovery() -> None:
    """An id that has changed since the directories were created is not replaced."""
    tree, id = await in_use()
    replaced(tree)

    async def change(call: str, path: tuple[str, ...]) -> None:
        if call == "make_symlink" and path[-1] == V2:
            tree.plant_symlink((".provisioner", "export"), "another")

    tree.before = change
    with pytest.raises(ExportError) as caught:
        await restore(tree, id)
    assert caught.value.cause is Cause.CHANGED
    assert await tree.read_symlink((".provisioner", "export")) == "another"
