"""Late calls of a leader that was held up, after another one has done the same: no other volume's data moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from provisioner.core import times
from provisioner.core.locations import RelPath
from provisioner.core.records import Record
from provisioner.core.returned import volume_of
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable
from provisioner.ledger.export import Export
from provisioner.ledger.layout import TOMBSTONE
from provisioner.ports.tree import Cause, Entry, ExportError, Ownership
from tests.support.fakes.tree import Directory, File, MemoryTree, no_fault
from tests.support.ledger_faults import FAULTS, TENANT, Fault, interrupted, ledger, opened, record

V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"
ACCESS = Ownership(mode=0o770)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = AT + timedelta(days=40)
TRASH = (".provisioner", "trash")

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=str)
verifying = pytest.mark.parametrize("verifies", [True, False], ids=["verifies", "does not"])


async def used(tree: MemoryTree, volume: str = V1, directory: str = "a", data: bytes = b"old") -> Export:
    """Return an export with a volume in use."""
    export = await opened(tree)
    await export.provision(volume, record(directory, volume), ACCESS)
    await export.settle(volume)
    tree.write_file((*directory.split("/"), "data"), data)
    return export


class Held:
    """A call that is held up on its way."""

    def __init__(self, tree: MemoryTree, call: str, operation: Awaitable[object]) -> None:
        self._reached, self._goes_on = asyncio.Event(), asyncio.Event()
        self._tree, self._call = tree, call
        tree.before = self._before
        self._task = asyncio.ensure_future(operation)

    async def _before(self, call: str, _path: RelPath) -> None:
        if call == self._call and not self._reached.is_set():
            self._reached.set()
            await self._goes_on.wait()

    async def reached(self) -> Held:
        """Wait until it is on its way."""
        await asyncio.wait({self._task, asyncio.ensure_future(self._reached.wait())}, return_when="FIRST_COMPLETED")
        assert not self._task.done()
        return self

    async def goes_on(self) -> object:
        """Let it take effect."""
        self._goes_on.set()
        return await self._task


# ---------------------------------------------------------------------------------------------------- deleting


@verifying
@pytest.mark.parametrize("rule", ["delete", "archive"])
async def test_a_rename_that_comes_late(verifies: bool, rule: str) -> None:
    """A late rename leaves the directory of a new claim at that path, and the archive with its record."""
    tree = MemoryTree()
    tree.verifies = verifies
    first = await used(tree)

    async def reclaim(export: Export) -> None:
        await (export.move_to_trash(V1) if rule == "delete" else export.archive(V1, AT))

    late = await Held(tree, "rename", reclaim(first)).reached()
    second = await opened(tree)
    await reclaim(second)
    await second.forget(V1)
    for name in await second.trash.names():
        await second.trash.purge(name, taken=second.trash.may_come_late(name))
    await used(tree, V2, data=b"new")
    with pytest.raises(ExportError):
        await late.goes_on()
    assert tree.look(("a", "data")) == File(b"new")
    assert len(ledger(tree, "archives")) == len(await second.archives()) == (rule == "archive")


@each_fault
@pytest.mark.parametrize("full", [True, False])
async def test_a_name_stays_taken_whatever_happens(fault: Fault, full: bool) -> None:
    """On a server that does not verify, a directory in the trash is not empty before its volume is forgotten."""

    async def prepare() -> MemoryTree:
        tree = MemoryTree()
        tree.verifies = False
        await used(tree)
        if not full:
            await tree.remove_tree(("a",))
            await tree.make_directory(("a",), ACCESS)
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.move_to_trash(V1)):
        assert await export.move_to_trash(V1)
        await export.forget(V1)
        await export.trash.purge(V1, taken=True)
        assert ledger(tree, "trash") == [V1]
        kept = tree.look((*TRASH, V1))
        assert isinstance(kept, Directory)
        assert list(kept.entries) == [TOMBSTONE]
        await export.trash.purge(V1)
        assert ledger(tree, "trash") == []


@pytest.mark.parametrize("verifies", [True, False])
async def test_a_directory_moves_only_while_the_sign_is_as_known(verifies: bool) -> None:
    """The move in one call relies on the sign of the instance too: with another one nothing moves."""
    tree = MemoryTree()
    tree.verifies = verifies
    export = await used(tree)
    await export.heartbeats.sign_instance("uid.instance", "mine", over=True)
    assert not await export.move_as_known(V1, export.heartbeats.proof("uid.instance", "former"))
    assert not await export.move_as_known(V1, export.heartbeats.proof("uid.other", "mine"))
    assert ledger(tree, "trash") == []
    assert await export.move_as_known(V1, export.heartbeats.proof("uid.instance", "mine"))
    assert ledger(tree, "trash") == [V1]
    assert await export.move_to_trash(V1)


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_server_that_is_full(lost: int) -> None:
    """A directory goes into the trash although nothing can be created in it; unknown outcomes are retried."""
    tree = MemoryTree()
    tree.verifies = False
    export = await used(tree)
    causes = [Cause.UNREACHABLE] * lost + [Cause.NO_SPACE]

    async def no_room(call: str, path: RelPath) -> None:
        if call == "make_directory" and path[-1] == TOMBSTONE:
            raise ExportError(causes.pop(0))

    tree.before = no_room
    for _ in range(lost):
        with pytest.raises(ExportError):
            await export.move_to_trash(V1)
    assert await export.move_to_trash(V1) is True
    tree.before = no_fault
    assert tree.look((*TRASH, V1, "data")) is not None
    assert not causes


async def test_a_purge_that_had_begun_keeps_the_name_taken() -> None:
    """The next purge of a directory keeps its name taken where the first one ended before it did so."""
    tree = MemoryTree()
    tree.verifies = False
    export = await used(tree)
    await tree.rename(("a",), (*TRASH, f"{V1}.begun"))
    assert not await export.trash.is_over(V1)
    await export.trash.purge(V1, taken=True)
    assert ledger(tree, "trash") == [V1]
    assert await tree.list((*TRASH, V1)) == [Entry(TOMBSTONE, "directory")]
    assert await export.trash.is_over(V1)
    tree.verifies = True
    assert not await export.trash.is_over(V1)


def emptied(tree: MemoryTree) -> None:
    """Remove the data of a directory in the trash."""
    directory = tree.look((*TRASH, V1))
    assert isinstance(directory, Directory)
    del directory.entries["data"]


@each_fault
async def test_a_name_becomes_free(fault: Fault) -> None:
    """A name under which no data are becomes free by removals of empty directories, also if that is interrupted."""

    async def prepare() -> MemoryTree:
        tree = MemoryTree()
        tree.verifies = False
        await (await used(tree)).move_to_trash(V1)
        emptied(tree)
        return tree

    async def release(export: Export) -> None:
        await export.trash.release(V1)

    for tree, export in await interrupted(fault, prepare, release):
        assert await export.trash.release(V1)
        assert ledger(tree, "trash") == []


@pytest.mark.parametrize("inside", [("late",), (TOMBSTONE, "late")], ids="/".join)
async def test_a_name_that_data_keep(inside: RelPath) -> None:
    """A release removes no data: what a client has written is left to a purge."""
    tree = MemoryTree()
    tree.verifies = False
    export = await used(tree)
    await export.move_to_trash(V1)
    emptied(tree)
    tree.write_file((*TRASH, V1, *inside), b"late")
    assert not await export.trash.release(V1)
    assert tree.look((*TRASH, V1, *inside)) == File(b"late")


async def test_a_volume_whose_former_directory_is_on_its_way_out() -> None:
    """A volume keeps its directory until its name in the trash is free, and the error says so."""
    tree = MemoryTree()
    tree.verifies = False
    export = await used(tree)
    await export.move_to_trash(V1)
    await export.forget(V1)
    await export.trash.purge(V1, taken=True)
    export = await used(tree, data=b"new")
    with pytest.raises(ExportError) as caught:
        await export.move_to_trash(V1)
    assert "some minutes after the purge" in caught.value.event_message("nas")
    assert tree.look(("a", "data")) == File(b"new")
    await export.trash.purge(V1)
    assert await export.move_to_trash(V1)


@each_fault
@verifying
async def test_a_volume_whose_former_directory_is_kept(fault: Fault, verifies: bool) -> None:
    """After etcd went back, both directories of a volume end up in the trash, wherever it is interrupted."""

    async def prepare() -> MemoryTree:
        tree = MemoryTree()
        tree.verifies = verifies
        export = await used(tree)
        await export.move_to_trash(V1)
        await export.forget(V1)
        await used(tree, data=b"new")
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.move_to_trash(V1)):
        assert await export.move_to_trash(V1)
        former, latter = sorted(await export.trash.names(), reverse=True)
        assert volume_of(former) == volume_of(latter) == latter == V1
        assert tree.look((*TRASH, former, "data")) == File(b"old")
        assert tree.look((*TRASH, latter, "data")) == File(b"new")


async def test_names_in_the_trash() -> None:
    """Each name in the trash tells its volume; only a volume's own name can get a late rename."""
    tree = MemoryTree()
    export = await opened(tree)
    stamped = f"pvc-1.x.{times.file_stamp(AT)}"
    assert [volume_of(name) for name in ("pvc-1.x", stamped)] == ["pvc-1.x"] * 2
    assert not export.trash.may_come_late("pvc-1.x")
    tree.verifies = False
    assert export.trash.may_come_late("pvc-1.x")
    assert not export.trash.may_come_late(stamped)


@verifying
async def test_names_whose_removal_has_begun(verifies: bool) -> None:
    """A removal has begun once its directory is renamed, or only what keeps the name taken is left under it."""
    tree = MemoryTree()
    tree.verifies = verifies
    for volume in (V1, V2, V3):
        export = await used(tree, volume, volume)
        await export.move_to_trash(volume)
    await export.trash.purge(V1, taken=export.trash.may_come_late(V1))
    await tree.rename((*TRASH, V2), (*TRASH, f"{V2}.begun"))
    assert await export.trash.begun() == ({V2} if verifies else {V1, V2})
    assert await export.trash.names() == ([V2, V3] if verifies else [V1, V2, V3])


async def test_a_directory_that_leaves_the_trash_during_a_look() -> None:
    """A directory that is recovered out of the trash during a look does not count as one that is being removed."""
    tree = MemoryTree()
    tree.verifies = False
    export = await used(tree)
    await export.move_to_trash(V1)

    async def recover(call: str, path: RelPath) -> None:
        if call == "list" and path == (*TRASH, V1):
            await tree.rename(path, ("a",))

    tree.before = recover
    assert await export.trash.begun() == set()
    assert tree.look(("a", "data")) == File(b"old")


async def test_a_directory_that_an_older_version_discarded() -> None:
    """After a crash of an older version, a directory is found in the trash under its name with a time."""
    tree = MemoryTree()
    export = await used(tree)
    await tree.rename(("a",), (*TRASH, f"{V1}.{times.file_stamp(AT)}"))
    assert await export.move_to_trash(V1)


# ---------------------------------------------------------------------------------------------------- archives


def wanting(directory: str, volume: str, archive: str) -> Record:
    return structs.replace(record(directory, volume), archive=archive)


async def restore(export: Export, volume: str, directory: str, archive: str) -> Record:
    """Restore an archive into a claim of its namespace."""
    return await export.provision(volume, wanting(directory, volume, archive), ACCESS, tenant=TENANT)


async def archived() -> tuple[MemoryTree, str]:
    """Return an export with an archive that can expire."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, structs.replace(record("a", V1), retention="30d"), ACCESS)
    await export.settle(V1)
    tree.write_file(("a", "data"), b"old")
    name = await export.archive(V1, AT)
    await export.forget(V1)
    assert name is not None
    return tree, name


CALLS = ("make_symlink", "read_symlink", "is_empty", "move_symlink", "rename")


@pytest.mark.parametrize("call", CALLS)
async def test_two_leaders_restore_for_one_claim(call: str) -> None:
    """Wherever one leader is held up while the other one restores and settles, the claim gets and keeps the data."""
    tree, name = await archived()
    late = await Held(tree, call, restore(await opened(tree), V2, "b", name)).reached()
    second = await opened(tree)
    await restore(second, V2, "b", name)
    with suppress(ArchiveUnusable, AlreadyThere, ExportError):
        await late.goes_on()
    assert tree.look(("b", "data")) == File(b"old")
    await second.settle(V2)
    assert tree.look(("b", "data")) == File(b"old")
    assert (ledger(tree, "volumes"), ledger(tree, "pending"), ledger(tree, "archives")) == ([V2], [], [])


@pytest.mark.parametrize("call", CALLS)
async def test_two_leaders_restore_for_two_claims(call: str) -> None:
    """One of two claims gets the archive, also by its record, and undoing that claim gives the archive back."""
    tree, name = await archived()
    first, second = await opened(tree), await opened(tree)
    late = await Held(tree, call, restore(first, V2, "b", name)).reached()
    with suppress(ArchiveUnusable, AlreadyThere, ExportError):
        await restore(second, V3, "c", name)
    with suppress(ArchiveUnusable, AlreadyThere, ExportError):
        await late.goes_on()
    places = [place for place in (("a",), ("b",), ("c",), (name,)) if tree.look((*place, "data")) == File(b"old")]
    assert len(places) == 1
    for volume in (V2, V3):
        export = await opened(tree)
        assert await export.undo(volume)
    assert tree.look((name, "data")) == File(b"old")
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [name])


@pytest.mark.parametrize("call", ["read_symlink", "is_empty", "move_symlink", "rename"])
async def test_a_claim_goes_while_its_restore_is_held_up(call: str) -> None:
    """Data that a late call moves for a deleted claim become the archive again, at the latest with the next undo."""
    tree, name = await archived()
    late = await Held(tree, call, restore(await opened(tree), V2, "b", name)).reached()
    assert await (await opened(tree)).undo(V2)
    with suppress(ArchiveUnusable, AlreadyThere, ExportError):
        await late.goes_on()
    await (await opened(tree)).undo(V2)
    assert tree.look((name, "data")) == File(b"old")
    assert tree.look(("b",)) is None


async def test_a_rename_between_the_end_of_a_restore_and_its_record() -> None:
    """If another leader moves the archive right before its claim's record ends, the record is written again."""
    tree, name = await archived()
    first = await opened(tree)
    await restore(first, V2, "b", name)

    async def again(call: str, path: RelPath) -> None:
        if call == "remove_symlink" and path[1] == "pending":
            tree.before = no_fault
            await tree.rename((name,), ("b",))

    tree.before = again
    assert not await first.undo(V2)
    assert ledger(tree, "pending") == [V2]
    assert await (await opened(tree)).undo(V2)
    assert tree.look((name, "data")) == File(b"old")


async def test_expiry_is_held_up_while_a_claim_gets_the_archive() -> None:
    """A late rename of the expiry moves no data that a claim has or can restore, and the record stays."""
    for undone in (False, True):
        tree, name = await archived()
        late = await Held(tree, "rename", (await opened(tree)).expire(name, LATER)).reached()
        second = await opened(tree)
        await restore(second, V2, "b", name)
        if undone:
            await second.undo(V2)
        with pytest.raises(ExportError) as caught:
            await late.goes_on()
        assert caught.value.cause is Cause.RECORD
        assert tree.look((name if undone else "b", "data")) == File(b"old")
        assert ledger(tree, "archives") == [name]


async def test_expiry_of_what_a_claim_has() -> None:
    """On a server that does not verify, an archive that has moved keeps the record of its taker."""
    tree, name = await archived()
    tree.verifies = False
    late = await Held(tree, "rename", (await opened(tree)).expire(name, LATER)).reached()
    second = await opened(tree)
    await restore(second, V2, "b", name)
    assert await late.goes_on() is False
    assert ledger(tree, "archives") == [name]
    assert await second.undo(V2)
    assert tree.look((name, "data")) == File(b"old")


async def test_a_restore_of_what_expiry_has_begun() -> None:
    """A claim for an archive that is on its way into the trash is refused: the archive is gone."""
    tree, name = await archived()
    export = await opened(tree)
    expiring = await Held(tree, "remove_symlink", export.expire(name, LATER)).reached()
    with pytest.raises(ArchiveUnusable):
        await restore(await opened(tree), V2, "b", name)
    assert await expiring.goes_on()
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [])


async def test_one_process_serves_one_claim_at_a_time() -> None:
    """Of many claims of one process and the expiry that want one archive, exactly one gets it."""
    tree, name = await archived()

    async def slow(_call: str, _path: RelPath) -> None:
        await asyncio.sleep(0)

    tree.before = tree.after = slow
    export = await opened(tree)
    restores = (restore(export, f"pvc-{n}", f"x{n}", name) for n in range(10, 18))
    outcomes = await asyncio.gather(*restores, export.expire(name, LATER), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(Record) == 1
    assert outcomes[-1] is False
    assert all(isinstance(each, (Record, ArchiveUnusable, bool)) for each in outcomes)
    assert len(ledger(tree, "pending")) == 1
