"""Archives with a fault at every call: no data is lost, none has two owners, and no record names other data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from provisioner.core import times
from provisioner.core.locations import RelPath
from provisioner.core.records import RECORD_LIMIT_BYTES, ArchiveRecord, Record, decode, encode, no_owner, unowned
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership, PathMissing
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


def encode_archive(volume: str) -> str:
    """Return the text of an archive's record, of another volume."""
    return encode(ArchiveRecord(volume, times.text(AT), record("elsewhere", volume)))


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


async def test_every_name_is_taken_by_a_stranger() -> None:
    """If other directories get all names that archives reserve, archiving fails and the data stays in its place."""
    tree = await filled()
    export = await opened(tree)

    async def faster(call: str, path: RelPath) -> None:
        if call == "rename":
            for name in ledger(tree, "archives"):
                tree.root.entries[name] = Directory()

    tree.before = faster
    with pytest.raises(ExportError, match="100 archives of 'a'"):
        await export.archive(V1, AT)
    tree.before = no_fault
    assert places_of_data(tree) == ["a"]
    assert ledger(tree, "archives") == list(export.archived) == []
    assert await export.archive(V1, LATER) is not None


async def test_a_record_of_another_archive_of_the_name() -> None:
    """An archive takes another name where the export has a record of its name that this process has not read."""
    tree = await filled()
    export = await opened(tree)
    others = encode_archive(V3)
    tree.plant_symlink((".provisioner", "archives", NAME), others)
    name = await export.archive(V1, AT)
    assert name not in (None, NAME)
    assert places_of_data(tree) == [name]
    assert set(export.archived) == {name}
    assert tree.look((".provisioner", "archives", NAME)) == Symlink(others)


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


async def test_a_taker_whose_record_another_version_wrote() -> None:
    """An archive stays while its taker has a pending record that this version cannot read."""
    tree, name = await archived()
    export = await opened(tree)
    await export.replace_archive_record(name, structs.replace(export.archived[name], taker=V2))
    tree.plant_symlink((".provisioner", "pending", V2), '{"v":2,"dir":"b"}')
    assert not await export.expire(name, LATER)
    with pytest.raises(ArchiveUnusable, match=f"goes to another claim, as volume {V2}"):
        await give(export, "c", V3)
    assert places_of_data(tree) == [name]
    del tree.root.entries[name]
    assert not await export.end_archive(name)
    assert ledger(tree, "archives") == [name]


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


async def test_the_annotation_comes_after_data() -> None:
    """A claim that names an archive after its directory got data keeps that data and gets no archive."""
    tree, name = await archived()
    export = await opened(tree)
    await export.provision(V2, record("b", V2), ACCESS)
    tree.write_file(("b", "other"), b"x")
    with pytest.raises(AlreadyThere, match="of an earlier attempt for this claim is not empty"):
        await give(export)
    assert tree.look(("b", "other")) == File(b"x")
    assert places_of_data(tree) == [name]
    assert ledger(tree, "pending") == [V2]


async def test_an_archive_that_is_not_complete_yet() -> None:
    """A claim does not get an archive while the record of the archive's volume exists."""
    tree = await filled()
    export = await opened(tree)
    assert await export.archive(V1, AT) == NAME
    with pytest.raises(ArchiveUnusable, match=f"volume {V1} is still being reclaimed"):
        await give(export)
    assert places_of_data(tree) == [NAME]
    assert not export.pending
    await export.forget(V1)
    await give(export)
    assert places_of_data(tree) == ["b"]


def once(wanted: str, then: Callable[[], object]) -> Callable[[str, RelPath], Awaitable[None]]:
    """Return a hook that does something at the first call of this name."""
    seen: list[str] = []

    async def hook(call: str, _path: RelPath) -> None:
        if call == wanted and not seen:
            seen.append(call)
            then()

    return hook


async def test_a_directory_that_comes_before_the_rename() -> None:
    """A directory that appears at the claim's path right before the rename stays, and so does the archive."""
    tree, name = await archived()
    export = await opened(tree)
    tree.before = once("rename", lambda: tree.root.entries.update(b=Directory(mode=0o711)))
    with pytest.raises(AlreadyThere, match="never replaces anything"):
        await give(export)
    assert tree.look(("b",)) == Directory(mode=0o711)
    assert places_of_data(tree) == [name]
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [name])


async def test_another_leaders_rename_right_before_a_claim_is_refused() -> None:
    """If another leader moves the archive right before its claim's record ends, the new record has the milder rule."""
    tree, name = await archived()
    export = await opened(tree)
    tree.before = once("rename", lambda: tree.root.entries.update(b=Directory()))

    async def moved(call: str, path: RelPath) -> None:
        await in_the_way(call, path)
        if call == "remove_symlink" and path[1] == "pending":
            tree.root.entries["b"] = tree.root.entries.pop(name)

    in_the_way, tree.before = tree.before, moved
    with pytest.raises(AlreadyThere):
        await give(export)
    tree.before = no_fault
    assert places_of_data(tree) == ["b"]
    assert recorded(tree, "pending", V2).on_delete == export.records[V2].on_delete == "archive"
    assert await export.undo(V2)
    assert places_of_data(tree) == [name]


async def test_a_claims_record_that_changes_before_the_rename() -> None:
    """An archive does not move for a claim whose record has changed since it was read."""
    tree, name = await archived()
    export = await opened(tree)
    changed = encode(wanting("c", V2, name))
    place = (".provisioner", "pending", V2)

    async def change(call: str, path: RelPath) -> None:
        # The archive's record gets its taker; after that the claim's record is read for the last time.
        if call == "move_symlink" and path[-1] == name:
            tree.plant_symlink(place, changed)

    tree.after = change
    with pytest.raises(ExportError) as caught:
        await give(export)
    assert caught.value.cause is Cause.RECORD
    assert places_of_data(tree) == [name]
    assert tree.look(place) == Symlink(changed)


async def test_a_taker_right_before_the_rename() -> None:
    """A claim whose archive another claim takes in the last moment is told so, and nothing is moved for it."""
    tree, name = await archived()
    export = await opened(tree)
    others = encode(structs.replace(export.archived[name], taker=V3))

    async def replaced(call: str, path: RelPath) -> None:
        # The pending record is read for the last time, after the look at the taker.
        if call == "read_symlink" and path[-2:] == ("pending", V2):
            tree.plant_symlink((".provisioner", "archives", name), others)

    tree.after = replaced
    with pytest.raises(ArchiveUnusable, match=f"goes to another claim, as volume {V3}"):
        await give(export)
    assert places_of_data(tree) == [name]


async def test_two_takers_that_write_together() -> None:
    """Of two claims that write themselves into an archive's record together, the one whose text is there gets it."""
    tree, name = await archived()
    export = await opened(tree)
    others = encode(structs.replace(export.archived[name], taker=V3))

    async def replaced(call: str, path: RelPath) -> None:
        if call == "move_symlink" and path[-1] == name:
            tree.plant_symlink((".provisioner", "archives", name), others)

    tree.after = replaced
    with pytest.raises(ArchiveUnusable, match="goes to another claim"):
        await give(export)
    assert places_of_data(tree) == [name]
    assert ledger(tree, "pending") == []
    assert tree.look((".provisioner", "archives", name)) == Symlink(others)


async def test_two_leaders_that_give_back() -> None:
    """If another leader gives an archive back first, undo() removes the claim's record and touches nothing else."""
    tree, name = await archived()
    export = await opened(tree)
    await give(export)
    tree.before = once("rename", lambda: tree.root.entries.update({name: tree.root.entries.pop("b")}))
    assert await export.undo(V2)
    assert places_of_data(tree) == [name]
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([], [name])


async def test_a_directory_above_that_another_cluster_gets_during_a_restore() -> None:
    """If another cluster gets a directory above during a restore, the archive goes back, and the claim is refused."""
    tree, name = await archived()
    export = await opened(tree)
    others = encode(record("x", V3))
    tree.before = once("rename", lambda: tree.plant_symlink((".provisioner", "pending", V3), others))
    with pytest.raises(PathTaken, match=V3):
        await give(export, "x/b")
    assert places_of_data(tree) == [name]
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([V3], [name])
    await tree.remove_symlink((".provisioner", "pending", V3))
    await give(export, "x/b")
    assert places_of_data(tree) == ["x/b"]


async def test_an_unfinished_restore_below_another_clusters_directory() -> None:
    """After a crash behind a restore's rename, undo gives the archive back, even below another cluster's directory."""
    tree, name = await archived()
    await give(await opened(tree), "x/b")
    tree.plant_symlink((".provisioner", "pending", V3), encode(record("x", V3)))
    assert await (await opened(tree)).undo(V2)
    assert places_of_data(tree) == [name]
    assert (ledger(tree, "pending"), ledger(tree, "archives")) == ([V3], [name])


# ------------------------------------------------------------------------------------------------------- by an admin


def without_owner(directory: str) -> Record:
    return no_owner(directory, times.text(AT), "cluster-1")


async def test_an_archive_without_a_record_gets_one_first() -> None:
    """An archive without a record gets one, once, and can then be expired like any other."""
    tree, bare = await filled(), "archived-bare"
    await tree.make_directory((bare,), Ownership())
    tree.write_file((bare, "old"), b"old")
    export = await opened(tree)
    for _ in range(2):
        await export.enter_archive(bare, unowned(bare, times.text(AT), without_owner(bare)))
    assert ledger(tree, "archives") == [bare]
    assert await export.expire(bare, LATER)
    assert ledger(tree, "archives") == []
    assert bare not in tree.root.entries
    assert ledger(tree, "trash") == [f"{bare}.{times.file_stamp(times.parse(times.text(AT)) or AT)}"]
    assert stranger_is_safe(tree)


async def test_a_record_of_another_version_stays() -> None:
    """An archive whose record cannot be read is never deleted."""
    tree, bare = await filled(), "archived-bare"
    await tree.make_directory((bare,), Ownership())
    tree.write_file((bare, "old"), b"old")
    await tree.make_symlink((".provisioner", "archives", bare), "of another version")
    export = await opened(tree)
    with pytest.raises(ExportError) as caught:
        await export.enter_archive(bare, unowned(bare, times.text(AT), without_owner(bare)))
    assert caught.value.cause is Cause.RECORD
    assert tree.look((bare, "old")) == File(b"old")


async def test_a_directory_of_no_volume_becomes_an_archive() -> None:
    """A directory without an owner is renamed to an archive with a record; a volume's directory is not."""
    tree = await filled()
    export = await opened(tree)
    name = await export.set_aside(without_owner("stranger"), AT)
    assert tree.look((name, "precious")) == File(b"precious")
    assert "stranger" not in tree.root.entries
    assert export.archived[name].was.directory == "stranger"
    for taken in ("a", "a/inner", name):
        with pytest.raises(PathTaken):
            await export.set_aside(without_owner(taken), AT)
    assert places_of_data(tree) == ["a"]


async def test_a_directory_that_is_gone_leaves_no_record() -> None:
    """If the directory is gone, there is no record of an archive either."""
    tree = await filled()
    with pytest.raises(PathMissing):
        await (await opened(tree)).set_aside(without_owner("nothere"), AT)
    assert ledger(tree, "archives") == []
