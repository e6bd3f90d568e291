"""Archives with a fault at every call: no data is lost, none has two owners, and no record names other data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from provisioner.core import times
from provisioner.core.locations import RelPath
from provisioner.core.records import RECORD_LIMIT_BYTES, ArchiveRecord, Record, decode, encode
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import Directory, File, MemoryTree, Symlink, no_fault
from tests.support.ledger_faults import FAULTS, TENANT, Fault, directories, interrupted, ledger, opened, record

V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"
ACCESS = Ownership(mode=0o770)
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
LATER = AT + timedelta(days=40)
DATA = File(b"data")
PATHS = ["b", "x/b"]

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=str)


def wanting(directory: str, volume: str, archive: str) -> Record:
    return structs.replace(record(directory, volume), archive=archive)


async def filled(directory: str = "a") -> MemoryTree:
    """Return an export with a volume that has data, and with a directory that no record names."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, structs.replace(record(directory, V1), retention="30d"), ACCESS)
    await export.settle(V1)
    tree.write_file((*directory.split("/"), "data"), b"data")
    await tree.make_directory(("stranger",), Ownership())
    tree.write_file(("stranger", "precious"), b"precious")
    return tree


async def archived() -> tuple[MemoryTree, str]:
    """Return an export with one archive, whose volume is gone."""
    tree = await filled()
    export = await opened(tree)
    name = await export.archive(V1, AT)
    await export.forget(V1)
    assert name is not None
    return tree, name


def to_archive(*then: Callable[[MemoryTree, str], Awaitable[None]]) -> Callable[[], Awaitable[MemoryTree]]:
    async def prepare() -> MemoryTree:
        tree, name = await archived()
        for step in then:
            await step(tree, name)
        return tree

    return prepare


NAME = f"archived-a-{times.file_stamp(AT)}"


def recorded(tree: MemoryTree, state: str, volume: str) -> Record:
    """Return the record of a volume as the export has it."""
    node = tree.look((".provisioner", state, volume))
    assert isinstance(node, Symlink)
    return decode(node.target)


def places_of_data(tree: MemoryTree) -> list[str]:
    """Return where the data is, which must be exactly one place."""
    found = {path for path in directories(tree) if tree.look((*path.split("/"), "data")) == DATA}
    trash = tree.look((".provisioner", "trash"))
    assert isinstance(trash, Directory)
    found |= {"trash" for entry in trash.entries.values() if isinstance(entry, Directory) and "data" in entry.entries}
    return sorted(found)


def stranger_is_safe(tree: MemoryTree) -> bool:
    return tree.look(("stranger", "precious")) == File(b"precious")


async def no_rename(call: str, path: RelPath) -> None:
    """A hook: renames fail."""
    if call == "rename":
        raise ExportError(Cause.UNREACHABLE, "/".join(path))


# ------------------------------------------------------------------------------------------------------- storing


@each_fault
async def test_storing_begun_long_ago(fault: Fault) -> None:
    """The time of an archive counts from the attempt that renamed the directory, not from an earlier failed one."""
    for tree, export in await interrupted(fault, filled, lambda export: export.archive(V1, AT)):
        moved_before = places_of_data(tree) != ["a"]
        name = await export.archive(V1, LATER)
        assert name is not None
        assert places_of_data(tree) == [name]
        stamped = (await opened(tree)).archived[name].archived
        assert stamped == times.text(AT if moved_before else LATER)
        await export.forget(V1)
        for lost in set(export.archived) - {name}:
            assert await export.end_archive(lost)
        assert ledger(tree, "archives") == [name]


@each_fault
async def test_an_earlier_archive_of_the_volume(fault: Fault) -> None:
    """A volume that came back with a restore of etcd becomes a second archive, and the first one keeps its record."""

    async def twice() -> MemoryTree:
        tree, _ = await archived()
        export = await opened(tree)
        await export.provision(V1, structs.replace(record("a", V1), created=times.text(LATER)), ACCESS)
        await export.settle(V1)
        tree.write_file(("a", "data"), b"data")
        return tree

    second = f"archived-a-{times.file_stamp(LATER)}"
    for tree, export in await interrupted(fault, twice, lambda export: export.archive(V1, LATER)):
        await export.archive(V1, LATER)
        await export.forget(V1)
        assert places_of_data(tree) == [NAME, second]
        assert {NAME, second} <= set(ledger(tree, "archives"))
        assert (await opened(tree)).archived[NAME].archived == times.text(AT)


async def test_a_stamp_that_went_back() -> None:
    """An archive that an earlier attempt stamped later keeps the later time."""
    tree = await filled()
    tree.before = no_rename
    with pytest.raises(ExportError):
        await (export := await opened(tree)).archive(V1, LATER)
    tree.before = no_fault
    assert await export.archive(V1, AT) is not None
    assert [each.archived for each in export.archived.values()] == [times.text(LATER)]


async def test_a_name_that_a_stranger_took() -> None:
    """If another directory gets the name that an archive has reserved, the archive's record ends."""
    tree = await filled()
    tree.before = no_rename
    with pytest.raises(ExportError):
        await (export := await opened(tree)).archive(V1, AT)
    tree.before = no_fault
    await tree.make_directory((NAME,), Ownership())
    name = await export.archive(V1, AT)
    assert name not in (None, NAME)
    assert ledger(tree, "archives") == [name]
    assert places_of_data(tree) == [name]


# ------------------------------------------------------------------------------------------------------- expiring


@each_fault
async def test_expiring(fault: Fault) -> None:
    """Wherever expiry is interrupted, the data is in the archive or in the trash, and a retry ends the record."""
    for tree, export in await interrupted(fault, to_archive(), lambda export: export.expire(NAME, LATER)):
        assert places_of_data(tree) in ([NAME], ["trash"])
        if NAME in export.archived:
            await export.expire(NAME, LATER)
        assert places_of_data(tree) == ["trash"]
        assert (ledger(tree, "archives"), dict(export.archived)) == ([], {})
        assert stranger_is_safe(tree)


async def test_an_archive_in_the_making_does_not_expire() -> None:
    """While a volume has its record, neither its archive nor the archive's record is removed."""
    tree = await filled()
    export = await opened(tree)
    name = await export.archive(V1, AT)
    assert name is not None
    assert not await export.expire(name, LATER)
    assert not await export.end_archive(name)
    await export.forget(V1)
    assert await export.expire(name, LATER)


async def test_a_volume_that_another_replica_is_archiving() -> None:
    """The export counts, not the index: a volume whose record is still on the export needs its archive's record."""
    tree = await filled()
    export = await opened(tree)
    name = await export.archive(V1, AT)
    assert name is not None
    await export.forget(V1)
    tree.plant_symlink((".provisioner", "volumes", V1), encode(record("a", V1)))
    assert not await export.end_archive(name)
    assert not await export.expire(name, LATER)


async def test_a_claim_that_waits_keeps_the_archive() -> None:
    """While a claim waits for an archive, by the index or by another replica's record, the archive does not expire."""
    tree, name = await archived()
    stale, export = await opened(tree), await opened(tree)
    await export.provision(V2, wanting("b", V2, name), ACCESS, tenant=TENANT)
    for each in (export, stale, stale):  # a stale one first reads that the record has changed
        assert not await each.expire(name, LATER)
        assert not await each.end_archive(name)
    assert places_of_data(tree) == ["b"]


async def test_end_archive_only_where_nothing_is() -> None:
    """An archive's record stays while its directory exists, and while a file has the archive's name."""
    tree, name = await archived()
    export = await opened(tree)
    assert not await export.end_archive(name)
    tree.root.entries[name] = File(b"")
    assert not await export.end_archive(name)
    del tree.root.entries[name]
    assert await export.end_archive(name)
    assert not await export.end_archive(name)


# ------------------------------------------------------------------------------------------------------- bringing back


async def give(export: Export, directory: str = "b", volume: str = V2) -> None:
    await export.provision(volume, wanting(directory, volume, NAME), ACCESS, tenant=TENANT)


@each_fault
@pytest.mark.parametrize("directory", PATHS)
async def test_bringing_back(fault: Fault, directory: str) -> None:
    """Wherever a restore is interrupted, a retry gives the claim the data and ends the archive."""
    made: list[bool] = []

    async def operation(export: Export) -> None:
        made.append(False)
        await give(export, directory)
        made[-1] = True  # the volume object: from here on it is only settled
        await export.settle(V2)

    for (tree, export), exists in zip(await interrupted(fault, to_archive(), operation), made, strict=False):
        assert places_of_data(tree) in ([NAME], [directory])
        if not exists:
            await give(export, directory)
        await export.settle(V2)
        assert places_of_data(tree) == [directory]
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V2], [])
        for lost in list(export.archived):
            await export.end_archive(lost)
        assert (ledger(tree, "archives"), dict(export.archived)) == ([], {})


@each_fault
async def test_bringing_back_by_way_of_a_class_that_deletes(fault: Fault) -> None:
    """Wherever it is interrupted, the claim's record has the milder rule before the data moves, and keeps it."""
    brief = structs.replace(wanting("b", V2, NAME), on_delete="delete", retention="1h")
    for tree, export in await interrupted(
        fault, to_archive(), lambda export: export.provision(V2, brief, ACCESS, tenant=TENANT)
    ):
        if places_of_data(tree) == ["b"]:
            assert recorded(tree, "pending", V2).on_delete == "archive"
        held = await export.provision(V2, brief, ACCESS, tenant=TENANT)
        await export.settle(V2)
        assert (held.on_delete, held.retention) == ("archive", "30d")
        assert recorded(tree, "volumes", V2) == held == export.records[V2]


async def test_a_rule_that_leaves_no_room_in_the_record() -> None:
    """If the longer record does not fit, the claim is refused and the archive stays as it is."""
    tree, name = await archived()
    export = await opened(tree)
    brief = structs.replace(wanting("b", V2, name), on_delete="delete", retention="1h")
    room = RECORD_LIMIT_BYTES - len(encode(ArchiveRecord(V2, brief.created, brief, V3 + "-" * 36)))
    brief = structs.replace(brief, mount_options="o" * (room - 9))
    with pytest.raises(ArchiveUnusable, match="cannot be restored into this claim: the record"):
        await export.provision(V2, brief, ACCESS, tenant=TENANT)
    assert places_of_data(tree) == [name]
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [name])


@each_fault
@pytest.mark.parametrize("directory", PATHS)
async def test_a_restore_given_up(fault: Fault, directory: str) -> None:
    """Wherever a restore is interrupted, undoing the claim gives the archive back, and another claim can restore it."""
    for tree, export in await interrupted(fault, to_archive(), lambda export: give(export, directory)):
        assert await export.undo(V2)
        assert await (await opened(tree)).undo(V2)  # the next start: a record that was not known to be there
        assert places_of_data(tree) == [NAME]
        assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [NAME])
        again = await opened(tree)
        await give(again, "c", V3)
        await again.settle(V3)
        assert places_of_data(tree) == ["c"]


@each_fault
async def test_giving_back(fault: Fault) -> None:
    """Wherever giving an archive back is interrupted, a retry leaves the archive and no record of the claim."""

    async def prepare() -> MemoryTree:
        tree, _ = await archived()
        await give(await opened(tree))
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.undo(V2)):
        assert await export.undo(V2)
        assert places_of_data(tree) == [NAME]
        assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [NAME])


@each_fault
async def test_two_claims_for_one_archive(fault: Fault) -> None:
    """Of two claims, one gets the archive and the other one is refused, wherever the first one was interrupted."""
    for tree, export in await interrupted(fault, to_archive(), lambda export: give(export, "b", V2)):
        other = await opened(tree)
        with suppress(ArchiveUnusable, AlreadyThere):
            await give(other, "c", V3)
        owners = [place for place in places_of_data(tree) if place in ("b", "c")]
        with suppress(ArchiveUnusable, AlreadyThere):
            await give(export, "b", V2)
        assert places_of_data(tree) in (["b"], ["c"])
        assert not owners or places_of_data(tree) == owners
        for volume in (V2, V3):
            await (await opened(tree)).undo(volume)
        assert places_of_data(tree) == [NAME]


@each_fault
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "pending"])
async def test_a_stranger_in_the_claims_place(fault: Fault, settled: bool) -> None:
    """A directory that exists at the claim's path is never treated as the archive, wherever it is interrupted."""

    async def attempt(export: Export) -> None:
        await give(export, "stranger")

    for tree, export in await interrupted(fault, to_archive(), attempt):
        other = await opened(tree)
        await give(other, "c", V3)  # in between, another claim gets the archive
        if settled:
            await other.settle(V3)
        with pytest.raises((AlreadyThere, ArchiveUnusable)):
            await attempt(export)
        with suppress(ExportError):
            await export.undo(V2)
        assert stranger_is_safe(tree)
        assert places_of_data(tree) == ["c"]


async def test_after_a_restore_the_error_names_the_claim() -> None:
    """A claim that comes too late gets an error that names the claim of its namespace with the archive's data."""
    tree, _ = await archived()
    export = await opened(tree)
    await give(export)
    with pytest.raises(ArchiveUnusable, match=f"goes to another claim, as volume {V2}"):
        await give(export, "c", V3)
    await export.settle(V2)
    with pytest.raises(ArchiveUnusable, match="was restored into claim shop/data already"):
        await give(export, "c", V3)
    assert not export.pending


async def test_refusals() -> None:
    """An archive that is missing, without a record, or of another namespace or cluster is refused and not touched."""
    tree, name = await archived()
    export = await opened(tree)
    await tree.make_directory(("archived-peer",), Ownership())
    for wanted, words in (
        (wanting("b", V2, "archived-none"), "there is no archive"),
        (wanting("b", V2, "archived-peer"), "has no record"),
        (structs.replace(wanting("b", V2, name), namespace="bank"), "not of namespace bank"),
        (structs.replace(wanting("b", V2, name), cluster="another"), "another cluster"),
        (wanting("b", V2, name), "is not known: grant get on namespaces"),
    ):
        with pytest.raises(ArchiveUnusable, match=words):
            await export.provision(V2, wanted, ACCESS)
        assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [name])
    assert places_of_data(tree) == [name]


async def test_an_archive_whose_directory_is_gone() -> None:
    """A record without a directory restores nothing, and the claim can try another archive."""
    tree, name = await archived()
    del tree.root.entries[name]
    export = await opened(tree)
    with pytest.raises(ArchiveUnusable, match="gone from the export"):
        await give(export)
    assert not export.pending


async def test_a_file_in_the_claims_place() -> None:
    """A file or a symlink at the claim's path makes the restore fail, and stays."""
    tree, name = await archived()
    export = await opened(tree)
    tree.write_file(("b",), b"x")
    with pytest.raises(AlreadyThere):
        await give(export)
    assert tree.look(("b",)) == File(b"x")
    assert not export.pending
    assert places_of_data(tree) == [name]


async def test_what_may_be_the_archive_stays() -> None:
    """If another directory has the archive's name, or its record is gone, undo() touches nothing."""
    tree, name = await archived()
    export = await opened(tree)
    await give(export)
    await tree.make_directory((name,), Ownership())
    assert not await export.undo(V2)
    assert V2 in export.pending
    await tree.remove_directory((name,))
    await tree.remove_symlink((".provisioner", "archives", name))
    assert not await export.undo(V2)
    assert places_of_data(tree) == ["b"]


async def test_the_annotation_comes_later() -> None:
    """A claim that names an archive after its empty directory was created gets the archive in its place."""
    tree, _ = await archived()
    export = await opened(tree)
    await export.provision(V2, record("b", V2), ACCESS)
    await give(export)
    assert places_of_data(tree) == ["b"]
    with pytest.raises(PathTaken):
        await export.provision(V3, record("b/c", V3), ACCESS)
