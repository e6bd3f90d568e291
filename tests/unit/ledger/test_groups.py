"""ledger.grouping, ledger.groups: each volume's group is its own, moves with the data, and is free after the purge."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import pytest
from msgspec import structs

from provisioner.core.groups import GidRange
from provisioner.core.paths import LEDGER
from provisioner.core.records import Record, encode
from provisioner.ledger import groups, layout
from provisioner.ledger.errors import AlreadyThere, NoFreeGroup, PathTaken, UnreadableRecord
from provisioner.ledger.export import Export
from provisioner.ports.endless import TRASH_LIMIT
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import Directory, MemoryTree, Symlink, no_fault
from tests.support.ledger_faults import FAULTS, TENANT, Fault, interrupted, ledger, opened, record

V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"
ACCESS = Ownership(mode=0o2770)
RANGE = GidRange(70, 79)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 9, tzinfo=UTC)

every_fault = pytest.mark.parametrize("fault", FAULTS, ids=str)


async def provisioned(export: Export, volume: str, directory: str, *, adopt: str | None = None) -> int:
    """Provision a volume with a group of its own; return its group."""
    held = await export.provision(volume, record(directory, volume), ACCESS, adopt_from=adopt, gid_range=RANGE)
    await export.settle(volume, f"uid-{volume}")
    return held.gid


async def discarded(export: Export, volume: str) -> None:
    await export.move_to_trash(volume)
    await export.forget(volume)


async def archived(export: Export, volume: str) -> str:
    name = await export.archive(volume, NOW)
    assert name is not None
    await export.forget(volume)
    return name


async def restored(export: Export, volume: str, directory: str, archive: str) -> int:
    wanted = structs.replace(record(directory, volume), archive=archive)
    held = await export.provision(volume, wanted, ACCESS, tenant=TENANT, gid_range=RANGE)
    await export.settle(volume, f"uid-{volume}")
    return held.gid


async def purged(export: Export) -> int:
    for name in await export.trash.names():
        await export.trash.purge(name)
    return await tidied(export, await export.trash.names())


async def tidied(export: Export, in_trash: Collection[str] = (), *, existing: Collection[str] = ()) -> int:
    return await export.tidy_groups("", in_trash=in_trash, exists=existing.__contains__)


def entries(tree: MemoryTree) -> dict[int, str]:
    """Return the holders of all ids by the ledger's entries."""
    return {int(name): groups.volume_in(_text(tree, name)) for name in ledger(tree, "groups")}


def _text(tree: MemoryTree, name: str) -> str:
    node = tree.look((LEDGER, "groups", name))
    assert isinstance(node, Symlink)
    return node.target


def group_of(tree: MemoryTree, directory: str) -> tuple[int | None, int | None]:
    """Return mode and group of a directory."""
    node = tree.look(tuple(directory.split("/")))
    assert isinstance(node, Directory)
    return node.mode, node.gid


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "unknown"])
@pytest.mark.parametrize("begins", ["before the write", "after the list"])
async def test_an_entry_that_a_list_does_not_show(begins: str, lost: bool) -> None:
    """An id that is taken while the entries are listed stays known, so that it is freed after its volume has gone."""
    tree = MemoryTree()
    export = await opened(tree)
    index = export._state.index
    written, listed = asyncio.Event(), asyncio.Event()

    async def before(name: str, _path: object) -> None:
        if name == "make_symlink" and begins == "before the write":
            await listed.wait()

    async def after(name: str, _path: object) -> None:
        if name == "list" and begins == "after the list":
            await written.wait()
        if name == "make_symlink" and lost:
            raise ExportError(Cause.UNREACHABLE)

    tree.before, tree.after = before, after
    if begins == "before the write":
        claiming = asyncio.create_task(groups.claim(tree, index, 70, "pvc-1 c"))
        await asyncio.sleep(0)
        await groups.learn(tree, index)
        listed.set()
    else:
        learning = asyncio.create_task(groups.learn(tree, index))
        await asyncio.sleep(0)
        claiming = asyncio.create_task(groups.claim(tree, index, 70, "pvc-1 c"))
        await asyncio.sleep(0)
        written.set()
        await learning
    with suppress(ExportError):
        await claiming
    assert index.groups.holders == {70: "pvc-1 c"}


# ------------------------------------------------------------------------------------------- from the first to the last


async def test_each_volume_has_its_own() -> None:
    """Each volume gets the lowest free id, on its record and its directory; a class without a range gives none."""
    tree = MemoryTree()
    export = await opened(tree)
    assert [await provisioned(export, volume, volume) for volume in (V1, V2)] == [70, 71]
    await export.provision(V3, record("c", V3), Ownership(mode=0o770, gid=7))
    assert [group_of(tree, directory) for directory in (V1, V2, "c")] == [(0o2770, 70), (0o2770, 71), (0o770, 7)]
    assert [export.records[volume].gid for volume in (V1, V2, V3)] == [70, 71, 0]
    assert entries(tree) == {70: V1, 71: V2}


async def test_an_id_is_free_after_the_purge() -> None:
    """While a directory is in the trash its id is in use; after the purge the next volume gets it."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await discarded(export, V1)
    assert await tidied(export, await export.trash.names()) == 0
    assert await tidied(export) == 0  # though the caller does not know of the directory
    assert await provisioned(await opened(tree), V2, "b") == 71
    assert await purged(export) == 1
    assert await purged(export) == 0
    assert await provisioned(export, V3, "c") == 70


async def test_the_trash_of_a_server_that_does_not_verify() -> None:
    """An id is free after the purge, though the name of the purged directory stays taken for a while."""
    tree = MemoryTree()
    tree.verifies = False
    export = await opened(tree)
    await provisioned(export, V1, "a")
    tree.write_file(("a", "data"), b"data")
    await discarded(export, V1)
    assert await tidied(export) == 0
    await export.trash.purge(V1, taken=True)
    assert await export.trash.names() == [V1]
    assert await tidied(export) == 1


async def test_more_in_the_trash_than_can_be_listed() -> None:
    """While the trash has more entries than one look lists, no id is freed."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await discarded(export, V1)
    trash = tree.look((LEDGER, "trash"))
    assert isinstance(trash, Directory)
    del trash.entries[V1]
    trash.entries.update({f"pvc-x{number}": Directory() for number in range(TRASH_LIMIT)})
    assert await tidied(export) == 0
    trash.entries.clear()
    assert await tidied(export) == 1


async def test_at_rest_there_is_no_call() -> None:
    """While all ids are in use, the upkeep of groups makes no call."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    calls: list[str] = []

    async def count(call: str, _path: object) -> None:
        calls.append(call)

    tree.before = count
    assert await tidied(export) == 0
    assert calls == []


async def test_an_archive_keeps_the_group() -> None:
    """An archive keeps the id until its own purge."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    name = await archived(export, V1)
    assert await purged(export) == 0
    assert export.archived[name].was.gid == 70
    assert await provisioned(export, V2, "b") == 71
    assert await export.expire(name, LATER)
    assert await tidied(export, await export.trash.names()) == 0
    assert await purged(export) == 1


async def test_a_restored_archive_keeps_the_group() -> None:
    """The claim that restores an archive gets the archive's group, and holds its id from then on."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    name = await archived(export, V1)
    assert await restored(export, V2, "b", name) == 70
    assert (group_of(tree, "b"), entries(tree)) == ((0o2770, 70), {70: V2})
    await discarded(export, V2)
    assert await tidied(export) == 0
    assert await purged(export) == 1


async def test_an_archive_without_a_group() -> None:
    """Data without a group of its own gets none with a restore, since its files would not have it."""
    export = await opened(MemoryTree())
    await export.provision(V1, record("a", V1), ACCESS)
    await export.settle(V1, "uid")
    assert await restored(export, V2, "b", await archived(export, V1)) == 0


async def test_an_archive_that_is_given_back() -> None:
    """A restore whose claim is deleted gives the id back to the archive."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    name = await archived(export, V1)
    wanted = structs.replace(record("b", V2), archive=name)
    await export.provision(V2, wanted, ACCESS, tenant=TENANT, gid_range=RANGE)
    assert entries(tree) == {70: V2}
    assert await export.undo(V2)
    assert (entries(tree), await purged(export)) == ({70: V1}, 0)
    assert await export.expire(name, LATER)
    assert await purged(export) == 1


@pytest.mark.parametrize("archive_is_there", [True, False])
async def test_an_archive_that_is_gone(archive_is_there: bool) -> None:
    """A restore whose data is gone leaves the id with the archive's record; without one, the id is free."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    name = await archived(export, V1)
    wanted = structs.replace(record("b", V2), archive=name)
    await export.provision(V2, wanted, ACCESS, tenant=TENANT, gid_range=RANGE)
    del tree.root.entries["b"]
    if not archive_is_there:
        await tree.remove_symlink(layout.archive(name))
    assert await export.undo(V2)
    assert entries(tree) == ({70: V1} if archive_is_there else {})
    assert await export.end_archive(name) is archive_is_there
    await purged(export)
    assert entries(tree) == {}


async def test_an_adopted_directory_keeps_the_group() -> None:
    """A claim that adopts a directory gets the group of its data."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await export.retain(V1, NOW)
    assert await purged(export) == 0
    assert await provisioned(export, V2, "a", adopt=V1) == 70
    assert (entries(tree), ledger(tree, "volumes")) == ({70: V2}, [V2])
    assert await purged(export) == 0
    await discarded(export, V2)
    assert await purged(export) == 1


async def test_an_adoption_that_is_undone() -> None:
    """An adoption whose claim is deleted gives the id back to the directory's former volume."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    tree.write_file(("a", "data"), b"data")
    await export.retain(V1, NOW)
    await export.provision(V2, record("a", V2), ACCESS, adopt_from=V1, gid_range=RANGE)
    assert entries(tree) == {70: V2}
    await export._records.withdraw(V2)
    assert (entries(tree), await tidied(export)) == ({70: V1}, 0)
    assert await provisioned(export, V3, "c") == 71


@pytest.mark.parametrize(("exists", "gid"), [(True, 0), (False, 70)])
async def test_an_adopted_directory_without_a_group(exists: bool, gid: int) -> None:
    """Data without a group of its own gets none when it is adopted; a directory that is gone is created with one."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a", V1), Ownership(mode=0o750))
    await export.settle(V1, "uid")
    await export.retain(V1, NOW)
    if not exists:
        await tree.remove_directory(("a",))
    assert await provisioned(export, V2, "a", adopt=V1) == gid
    assert group_of(tree, "a") == ((0o750, 0) if exists else (0o2770, gid))


async def test_an_attempt_of_the_claim_chose_another_group() -> None:
    """A record of an earlier attempt gets the group of the directory that the claim adopts after all."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await export.retain(V1, NOW)
    await tree.make_symlink(layout.of("pending", V2), encode(structs.replace(record("a", V2), gid=75)))
    assert await provisioned(await opened(tree), V2, "a", adopt=V1) == 70


# ------------------------------------------------------------------------------------------- no id left


async def test_no_id_is_free() -> None:
    """When the range is exhausted, the claim is refused with what to change, and leaves nothing."""
    tree = MemoryTree()
    export = await opened(tree)
    one = GidRange(70, 70)
    await provisioned(export, V1, "a")
    with pytest.raises(NoFreeGroup, match=r"gidRange 70-70 is free on export nas:/exports: .*wider gidRange") as error:
        await export.provision(V2, record("b", V2), ACCESS, gid_range=one)
    assert error.value.reason == "NoFreeGroup"
    assert (ledger(tree, "pending"), list(export.records)) == ([], [V1])
    await discarded(export, V1)
    await purged(export)
    assert (await export.provision(V2, record("b", V2), ACCESS, gid_range=one)).gid == 70


async def test_an_entry_that_is_no_symlink() -> None:
    """A directory in place of an entry takes its id, and volumes get the others. An export that fails is an error."""
    tree = MemoryTree()
    export = await opened(tree)
    await tree.make_directory((LEDGER, "groups", "70"), ACCESS)
    assert [await provisioned(export, volume, volume) for volume in (V1, V2)] == [71, 72]
    works = tree.before

    async def fails(call: str, path: tuple[str, ...]) -> None:
        if call == "read_symlink" and path[-2] == "groups":
            raise ExportError(Cause.UNREACHABLE)
        await works(call, path)

    tree.before = fails
    await tree.remove_directory((LEDGER, "groups", "70"))
    await tree.make_symlink((LEDGER, "groups", "70"), "pvc-9 other")
    with pytest.raises(ExportError, match="not responding"):
        await groups.hold(tree, export._state.index, 70, f"{V3} ")


async def test_another_cluster_takes_the_last_id() -> None:
    """A claim that loses the last id to another cluster leaves nothing, and gets it once the other has freed it."""
    tree = MemoryTree()
    first, second = await opened(tree), await opened(tree)
    one = GidRange(70, 70)
    await provisioned(first, V1, "a")
    with pytest.raises(NoFreeGroup):
        await second.provision(V2, record("b", V2), ACCESS, gid_range=one)
    assert (ledger(tree, "pending"), entries(tree)) == ([], {70: V1})
    await first.archive(V1, NOW)
    await first.forget(V1)
    with pytest.raises(NoFreeGroup):
        await second.provision(V2, record("b", V2), ACCESS, gid_range=one)
    (name,) = await first.archives()
    await first.expire(name, LATER)
    await purged(first)
    assert (await second.provision(V2, record("b", V2), ACCESS, gid_range=one)).gid == 70


async def test_stale_knowledge_of_other_clusters() -> None:
    """Ids that only memory still has, of another cluster's volumes and archives that are gone, count as free."""
    tree = MemoryTree()
    first = await opened(tree)
    await provisioned(first, V1, "a")
    await provisioned(first, V2, "b")
    name = await archived(first, V2)
    second = await opened(tree)
    await discarded(first, V1)
    await first.expire(name, LATER)
    assert await purged(first) == 2
    two = GidRange(70, 71)
    assert (await second.provision(V3, record("c", V3), ACCESS, gid_range=two)).gid == 70
    assert entries(tree) == {70: V3}
    assert (set(second.records), dict(second.archived)) == ({V3}, {})


@pytest.mark.parametrize("kind", ["volumes", "archives"])
async def test_a_damaged_record(kind: str) -> None:
    """While a record cannot be read at all, no group is chosen and none is freed: it can name any."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V2, "b")
    await tree.make_symlink((LEDGER, kind, "archived-x" if kind == "archives" else V3), "damaged")
    export = await opened(tree)
    with pytest.raises(UnreadableRecord, match=r"can name any group of gidRange: .*recover --ledger"):
        await export.provision(V1, record("a", V1), ACCESS, gid_range=RANGE)
    assert ledger(tree, "pending") == []
    await discarded(export, V2)
    assert await purged(export) == 0


async def test_a_record_of_a_newer_version() -> None:
    """The group of a record that another version wrote stays in use."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await symlink(tree, layout.of("volumes", V1), '{"v":2,"gid":70,"new":1}')
    await tree.remove_symlink(layout.group(70))
    export = await opened(tree)
    assert await provisioned(export, V2, "b") == 71


async def symlink(tree: MemoryTree, path: tuple[str, ...], target: str) -> None:
    await tree.remove_symlink(path)
    await tree.make_symlink(path, target)


# ------------------------------------------------------------------------------------------- entries that are missing


async def test_a_lost_ledger() -> None:
    """The entries of ids are written again with the records of a lost ledger, and with those that are taken over."""
    tree = MemoryTree()
    export = await opened(tree)
    found = {volume: structs.replace(record(volume, volume), gid=gid) for volume, gid in ((V1, 70), (V2, 0))}
    assert await export.restore_ledger("lost", found) == {}
    assert entries(tree) == {70: V1}
    assert await export.take_over({V3: structs.replace(record("c", V3), gid=70)}) == {}
    assert entries(tree) == {70: V1}  # two volumes of a predecessor can share a group
    await discarded(export, V1)
    assert (await purged(export), entries(tree)) == (0, {70: V3})
    await discarded(export, V3)
    assert await purged(export) == 1


async def test_another_cluster_wanted_the_id() -> None:
    """A record of another cluster that named an id for a moment, before it lost the id, does not keep the id in use."""
    tree = MemoryTree()
    ours, theirs = await opened(tree), await opened(tree)
    await provisioned(ours, V1, "a")
    wanted = structs.replace(record("b", V2), cluster="there", gid=70)
    await tree.make_symlink(layout.of("pending", V2), encode(wanted))
    ours = await opened(tree)
    await discarded(ours, V1)
    assert (await purged(ours), entries(tree)) == (0, {70: V1})  # as long as the record names it
    theirs = await opened(tree)
    await theirs.provision(V2, wanted, ACCESS, gid_range=GidRange(75, 79))
    assert (await tidied(ours), entries(tree)) == (1, {75: V2})


async def test_entries_that_are_missing() -> None:
    """Entries of settled records and archives that are gone from the export come back, and nothing else does."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await provisioned(export, V2, "b")
    await archived(export, V2)
    await provisioned(export, V3, "c")
    await archived(export, V3)
    for gid in (70, 71):
        await tree.remove_symlink(layout.group(gid))
    await tree.make_symlink((LEDGER, "groups", "readme"), "not an id")
    export = await opened(tree)
    await tree.remove_symlink((LEDGER, "groups", "readme"))
    assert await tidied(export) == 0
    assert entries(tree) == {70: V1, 71: V2, 72: V3}
    assert await provisioned(export, "pvc-4", "d") == 73


async def test_an_entry_that_names_another_volume_moves_to_the_trash() -> None:
    """Before a directory goes into the trash, the entry of its id names its volume."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    await symlink(tree, layout.group(70), V2)
    await discarded(export, V1)
    assert entries(tree) == {70: V1}
    await provisioned(export, V3, "c")
    await tree.remove_symlink(layout.group(71))
    await discarded(export, V3)
    assert entries(tree) == {70: V1, 71: V3}


# ------------------------------------------------------------------------------------------- crashes


async def fresh() -> MemoryTree:
    tree = MemoryTree()
    await opened(tree)
    return tree


def after(*steps: Callable[[Export], Awaitable[object]]) -> Callable[[], Awaitable[MemoryTree]]:
    """Return what prepares an export by these steps."""

    async def prepare() -> MemoryTree:
        tree = MemoryTree()
        export = await opened(tree)
        for step in steps:
            await step(export)
        return tree

    return prepare


def provision(volume: str, directory: str, **how: str) -> Callable[[Export], Awaitable[object]]:
    return lambda export: provisioned(export, volume, directory, **how)


@every_fault
async def test_provisioning_is_interrupted(fault: Fault) -> None:
    """Wherever provisioning is interrupted, a retry gives one group, and a second volume gets another one."""
    operation = provision(V1, "a")
    for tree, export in await interrupted(fault, fresh, operation):
        await operation(export)
        gid = export.records[V1].gid
        assert group_of(tree, "a") == (0o2770, gid)
        other = await provisioned(await opened(tree), V2, "b")
        assert other != gid
        await tidied(export)
        assert entries(tree) == {gid: V1, other: V2}


@every_fault
async def test_provisioning_is_interrupted_and_undone(fault: Fault) -> None:
    """Wherever provisioning is interrupted, a claim that is deleted leaves no id in use."""

    async def operation(export: Export) -> None:
        await export.provision(V1, record("a", V1), ACCESS, gid_range=RANGE)

    for tree, export in await interrupted(fault, fresh, operation):
        await export.undo(V1)
        again = await opened(tree)
        assert await again.undo(V1)
        await tidied(again)
        assert (entries(tree), ledger(tree, "drafts")) == ({}, [])


@every_fault
async def test_a_claim_comes_back(fault: Fault) -> None:
    """An entry that an undone attempt left does not count for the claim's next attempt, which gets another id."""
    prepare = after(lambda export: export.provision(V1, record("a", V1), ACCESS, gid_range=RANGE))
    for tree, export in await interrupted(fault, prepare, lambda export: export.undo(V1)):
        await export.undo(V1)
        gid = await provisioned(export, V1, "a")
        await tidied(export)
        assert (entries(tree), group_of(tree, "a")) == ({gid: V1}, (0o2770, gid))


@every_fault
async def test_a_conflict_is_interrupted(fault: Fault) -> None:
    """Wherever an attempt that lost its id to another cluster is interrupted, a retry gives another id."""
    for number in range(1, 100):
        tree = MemoryTree()
        export, other = await opened(tree), await opened(tree)
        await provisioned(other, V2, "b")
        done = not await fault.at(number, tree, provisioned(export, V1, "a"))
        again = export if done or fault.survives else await opened(tree)
        gid = await provisioned(again, V1, "a")
        await tidied(again)
        assert gid != 70
        assert entries(tree) == {70: V2, gid: V1}
        if done:
            return


async def test_the_class_has_no_range_any_more() -> None:
    """An attempt that lost its id continues without a group if the class asks for none any more."""
    tree = MemoryTree()
    await provisioned(await opened(tree), V2, "b")
    await tree.make_symlink(layout.of("pending", V1), encode(structs.replace(record("a", V1), gid=70)))
    export = await opened(tree)
    held = await export.provision(V1, record("a", V1), Ownership(mode=0o750, gid=9))
    assert (held.gid, group_of(tree, "a"), entries(tree)) == (0, (0o750, 9), {70: V2})


async def test_the_class_has_a_range_now() -> None:
    """An attempt that was begun without a group gets one if the class asks for it now."""
    tree = MemoryTree()
    await tree_with_pending(tree)
    export = await opened(tree)
    held = await export.provision(V1, record("a", V1), ACCESS, gid_range=RANGE)
    assert (held.gid, group_of(tree, "a"), entries(tree)) == (70, (0o2770, 70), {70: V1})


async def tree_with_pending(tree: MemoryTree) -> None:
    await (await opened(tree)).provision(V1, record("a", V1), Ownership(mode=0o777))


async def test_a_settled_record_keeps_its_group() -> None:
    """A volume that is settled keeps the group that it has, or none."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a", V1), ACCESS)
    await export.settle(V1, "uid")
    assert (await export.provision(V1, record("a", V1), ACCESS, gid_range=RANGE)).gid == 0


@every_fault
async def test_a_deletion_is_interrupted(fault: Fault) -> None:
    """Wherever a deletion is interrupted, the id stays in use until the purge, and is free after it."""
    for tree, export in await interrupted(fault, after(provision(V1, "a")), lambda export: discarded(export, V1)):
        if await export.refresh_record(V1) is not None:
            await discarded(export, V1)
        assert await provisioned(export, V2, "b") == 71
        await purged(export)
        assert entries(tree) == {71: V2}


@every_fault
async def test_the_purge_is_interrupted(fault: Fault) -> None:
    """Wherever the purge or the upkeep after it is interrupted, the next one frees the id."""
    prepare = after(provision(V1, "a"), lambda export: discarded(export, V1))
    for tree, export in await interrupted(fault, prepare, purged):
        await purged(export)
        assert entries(tree) == {}


@every_fault
async def test_a_restore_is_interrupted(fault: Fault) -> None:
    """Wherever a restore is interrupted, a retry keeps the group."""
    prepare = after(provision(V1, "a"), lambda export: archived(export, V1))

    async def operation(export: Export) -> None:
        await export.refresh_record(V2)
        if V2 not in export.records or V2 in export.pending:
            (name,) = export.archived
            await restored(export, V2, "b", name)
        await export.settle(V2, "uid")

    for tree, export in await interrupted(fault, prepare, operation):
        await operation(export)
        assert await purged(export) == 0
        assert (group_of(tree, "b"), entries(tree)) == ((0o2770, 70), {70: V2})


@every_fault
async def test_a_restore_is_interrupted_and_given_back(fault: Fault) -> None:
    """Wherever a restore is interrupted, a claim that is deleted leaves the id to the archive."""
    prepare = after(provision(V1, "a"), lambda export: archived(export, V1))

    async def operation(export: Export) -> None:
        (name,) = export.archived
        wanted = structs.replace(record("b", V2), archive=name)
        await export.provision(V2, wanted, ACCESS, tenant=TENANT, gid_range=RANGE)

    for tree, export in await interrupted(fault, prepare, operation):
        await export.undo(V2)
        again = await opened(tree)
        assert await again.undo(V2)
        assert await purged(again) == 0
        assert entries(tree) == {70: V1}
        (name,) = again.archived
        assert await again.expire(name, LATER)
        assert await tidied(again) == 0
        assert await purged(again) == 1


@every_fault
async def test_an_adoption_is_interrupted(fault: Fault) -> None:
    """Wherever an adoption is interrupted, a retry keeps the group."""
    prepare = after(provision(V1, "a"), lambda export: export.retain(V1, NOW))

    async def operation(export: Export) -> None:
        if V1 in export.records:
            await provisioned(export, V2, "a", adopt=V1)
        await export.settle(V2, "uid")

    for tree, export in await interrupted(fault, prepare, operation):
        await operation(export)
        assert await purged(export) == 0
        assert (export.records[V2].gid, entries(tree)) == (70, {70: V2})


# ------------------------------------------------------------------------------------------- races


class Jumbled:
    """A tree whose calls let other tasks run first, in a random order by a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.tree = MemoryTree()

    def begin(self) -> None:
        self.tree.before = self.tree.after = self._pause

    def end(self) -> None:
        self.tree.before = self.tree.after = no_fault

    async def _pause(self, _call: str, _path: object) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("clusters", [1, 2, 3])
async def test_many_claims_of_many_clusters(clusters: int) -> None:
    """Of claims of several clusters at the same moment, no two get one group, and the range has no gaps at the end."""
    for seed in range(40):
        jumbled = Jumbled(seed)
        exports = [await opened(jumbled.tree) for _ in range(clusters)]
        jumbled.begin()
        names = [f"pvc-{number}" for number in range(8)]
        claims = (
            provisioned(exports[number % clusters], name, name if number % 3 else f"deep/{name}")
            for number, name in enumerate(names)
        )
        gids = await asyncio.gather(*claims)
        assert len(set(gids)) == len(names), f"seed {seed}"
        held = entries(jumbled.tree)
        assert held == dict(zip(gids, names, strict=True)), f"seed {seed}"


async def test_upkeep_beside_everything_else() -> None:
    """Upkeep of one process, at any moment of what another one does, frees no id that a directory has."""
    for seed in range(120):
        jumbled = Jumbled(seed)
        tree = jumbled.tree
        busy = await opened(tree)
        await provisioned(busy, V1, "a")
        await provisioned(busy, V2, "b")
        name = await archived(busy, V2)
        await busy.retain(V1, NOW)
        watcher = await opened(tree)
        jumbled.begin()
        work = asyncio.gather(
            provisioned(busy, "pvc-5", "a", adopt=V1),
            restored(busy, "pvc-6", "f", name),
            provisioned(busy, "pvc-7", "g"),
        )
        freed = 0
        while not work.done():
            freed += await tidy_without_memory(tree, watcher)
            await asyncio.sleep(0)
        jumbled.end()
        assert list(await work) == [70, 71, 72], f"seed {seed}"
        assert (freed, entries(tree)) == (0, {70: "pvc-5", 71: "pvc-6", 72: "pvc-7"}), f"seed {seed}"
        jumbled.begin()
        over = asyncio.gather(*(discarded(busy, each) for each in ("pvc-5", "pvc-6", "pvc-7")))
        while not over.done():
            assert await tidy_without_memory(tree, watcher) == 0, f"seed {seed}"
            await asyncio.sleep(0)
        jumbled.end()
        await over
        assert await purged(await opened(tree)) == 3


async def tidy_without_memory(tree: MemoryTree, export: Export) -> int:
    """Tidy as a process that knows all entries and no record, so that every id looks unused to it."""
    index = export._state.index
    for volume in list(index.records):
        index.remove(volume)
    for archive in list(index.archives):
        index.remove_archive(archive)
    await groups.learn(tree, index)
    return await tidied(export)


async def test_an_entry_is_removed_only_with_its_text() -> None:
    """Once another volume has an id, a late removal by a process that saw the former holder changes nothing."""
    tree = MemoryTree()
    export = await opened(tree)
    await provisioned(export, V1, "a")
    index = export._state.index  # as another process has read it
    for gid in (70, 71):
        index.groups.enter(gid, "pvc-former ")
        assert not await groups.end(tree, index, gid, "pvc-former ")
    assert entries(tree) == {70: V1} == {gid: groups.volume_in(text) for gid, text in index.groups.holders.items()}

    async def fail(call: str, _path: object) -> None:
        if call == "move_symlink":
            raise ExportError(Cause.UNREACHABLE)

    tree.before = fail
    with pytest.raises(ExportError):
        await groups.end(tree, index, 70, f"{V1} ")


async def test_the_holder_is_gone_between_two_calls() -> None:
    """An entry that is removed right after it was in the way leaves its id to the next look."""
    tree = MemoryTree()
    export, other = await opened(tree), await opened(tree)
    await provisioned(other, V2, "b")

    async def remove(call: str, path: tuple[str, ...]) -> None:
        if call == "read_symlink" and path == layout.group(70):
            await partial(tree.remove_symlink)(path)

    tree.before = remove
    assert await provisioned(export, V1, "a") == 71
    tree.before = no_fault
    await tidied(other)


async def test_a_taken_directory_takes_no_id() -> None:
    """A claim that is refused because its directory is taken leaves no id in use."""
    tree = MemoryTree()
    export, other = await opened(tree), await opened(tree)
    await provisioned(other, V1, "team/a")
    with pytest.raises(PathTaken):
        await provisioned(export, V2, "team/a")
    await tree.make_directory(("c",), Ownership())
    with pytest.raises(AlreadyThere):
        await provisioned(export, V3, "c")
    await tidied(export)
    assert entries(tree) == {70: V1}


async def test_whose_ids_are_freed() -> None:
    """A cluster frees only its own ids, and none of a volume that it has, though the volume's record is lost."""
    tree = MemoryTree()
    export = await opened(tree)
    for volume, cluster in ((V1, "here"), (V2, "there"), (V3, "here")):
        await export.provision(
            volume, structs.replace(record(volume, volume), cluster=cluster), ACCESS, gid_range=RANGE
        )
        await export.settle(volume, "uid")
        await tree.remove_symlink(layout.of("volumes", volume))
    export = await opened(tree)
    assert await export.tidy_groups("here", in_trash=(), exists={V3}.__contains__) == 1
    assert entries(tree) == {71: V2, 72: V3}
    assert await export.tidy_groups("here", in_trash=(V3,), exists=lambda _: False) == 0
    assert await export.tidy_groups("here", in_trash=(), exists=lambda _: False) == 1
    assert entries(tree) == {71: V2}


async def test_the_answer_to_a_new_entry_is_lost() -> None:
    """An entry whose creation had an unknown outcome is freed with the record, whether it was created or not."""
    for effect in (True, False):
        tree = MemoryTree()
        export = await opened(tree)

        async def fail(call: str, path: tuple[str, ...]) -> None:
            if call == "make_symlink" and path == layout.group(70):
                raise ExportError(Cause.UNREACHABLE)

        if effect:
            tree.after = fail
        else:
            tree.before = fail
        with pytest.raises(ExportError):
            await provisioned(export, V1, "a")
        tree.before = tree.after = no_fault
        assert await export.undo(V1)
        assert (entries(tree), dict(export._state.index.groups.holders)) == ({}, {})


class Life:
    """Random work of two clusters that share an export, each with a process that can be started again."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.tree = MemoryTree()
        self.exports: dict[str, Export] = {}
        self.live: dict[str, str] = {}
        """Settled volumes with their clusters."""
        self.archives: dict[str, str] = {}
        self.retained: dict[str, str] = {}
        self.number = 0

    async def start(self, cluster: str) -> None:
        self.exports[cluster] = await opened(self.tree)

    def wanted(self, cluster: str, directory: str, **fields: str) -> tuple[str, Record]:
        self.number += 1
        name = f"pvc-{self.number}"
        return name, structs.replace(record(directory or name, name), cluster=cluster, **fields)

    async def provision(self, cluster: str) -> None:
        name, wanted = self.wanted(cluster, "")
        await self._settled(cluster, name, wanted)

    async def undo(self, cluster: str) -> None:
        name, wanted = self.wanted(cluster, "")
        with suppress(NoFreeGroup):
            await self.exports[cluster].provision(name, wanted, ACCESS, gid_range=RANGE)
        assert await self.exports[cluster].undo(name)

    async def restore(self, cluster: str) -> None:
        for archive in [each for each, of in self.archives.items() if of == cluster][:1]:
            del self.archives[archive]
            await self._settled(cluster, *self.wanted(cluster, "", archive=archive))

    async def adopt(self, cluster: str) -> None:
        for former in [each for each, of in self.retained.items() if of == cluster][:1]:
            del self.retained[former]
            directory = self.exports[cluster].records[former].directory
            await self._settled(cluster, *self.wanted(cluster, directory), adopt=former)

    async def _settled(self, cluster: str, name: str, wanted: Record, *, adopt: str | None = None) -> None:
        export = self.exports[cluster]
        try:
            await export.provision(name, wanted, ACCESS, adopt_from=adopt, tenant=TENANT, gid_range=RANGE)
        except NoFreeGroup:
            return
        await export.settle(name, "uid")
        self.live[name] = cluster

    async def end(self, cluster: str) -> None:
        for name in [each for each, of in self.live.items() if of == cluster][:1]:
            del self.live[name]
            rule = self.chance.choice(("delete", "archive", "retain"))
            if rule == "retain":
                await self.exports[cluster].retain(name, NOW)
                self.retained[name] = cluster
            elif rule == "delete":
                await discarded(self.exports[cluster], name)
            else:
                self.archives[await archived(self.exports[cluster], name)] = cluster

    async def expire(self, cluster: str) -> None:
        for archive in [each for each, of in self.archives.items() if of == cluster][:1]:
            del self.archives[archive]
            assert await self.exports[cluster].expire(archive, LATER)

    async def purge(self, cluster: str) -> None:
        export = self.exports[cluster]
        if self.chance.random() < 0.5:
            for name in await export.trash.names():
                await export.trash.purge(name)
        await self.tidy(cluster)

    async def tidy(self, cluster: str) -> None:
        export = self.exports[cluster]
        mine = {name for name, of in self.live.items() if of == cluster}
        await export.tidy_groups(cluster, in_trash=await export.trash.names(), exists=mine.__contains__)

    def groups(self) -> list[int]:
        """Return the groups of all directories of volumes, wherever they are."""
        trash = self.tree.look((LEDGER, "trash"))
        assert isinstance(trash, Directory)
        nodes = [*self.tree.root.entries.values(), *trash.entries.values()]
        return sorted(node.gid for node in nodes if isinstance(node, Directory) and node.gid)


@pytest.mark.parametrize("seeds", [range(start, start + 25) for start in range(0, 100, 25)], ids=str)
async def test_any_history(seeds: range) -> None:
    """In any history of two clusters, no two directories have one group, and in the end every id is free again."""
    for seed in seeds:
        life = Life(seed)
        for cluster in ("red", "blue"):
            await life.start(cluster)
        deeds = {life.provision: 5, life.end: 5, life.restore: 2, life.adopt: 2, life.undo: 1, life.purge: 2}
        deeds |= {life.expire: 1, life.start: 1, life.tidy: 1}
        for deed in life.chance.choices(list(deeds), list(deeds.values()), k=60):
            await deed(life.chance.choice(("red", "blue")))
            given = life.groups()
            assert len(set(given)) == len(given), f"seed {seed}: {given}"
            assert set(given) <= entries(life.tree).keys(), f"seed {seed}: {given}"
        for cluster in ("red", "blue"):
            await life.start(cluster)
            for name in [name for name, of in {**life.live, **life.retained}.items() if of == cluster]:
                await discarded(life.exports[cluster], name)
            for archive in [archive for archive, of in life.archives.items() if of == cluster]:
                await life.exports[cluster].expire(archive, LATER)
            for name in await life.exports[cluster].trash.names():
                await life.exports[cluster].trash.purge(name)
        life.live.clear()
        for cluster in ("red", "blue"):
            await life.tidy(cluster)
        assert (life.groups(), entries(life.tree)) == ([], {}), f"seed {seed}"
