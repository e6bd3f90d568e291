"""ledger.export over a tree in memory, one operation at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec import structs

from provisioner.core.locations import Location, RelPath
from provisioner.core.records import Record, encode
from provisioner.ledger.errors import AlreadyThere, PathTaken, UnreadableRecord
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, Change, ExportError, FilesystemStats, ModeRefused, Ownership, PathExists
from tests.support import samples
from tests.support.fakes.tree import Directory, File, MemoryTree, Symlink, no_fault

NAS = Location("nas", "/exports")
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
LATER = datetime(2026, 1, 2, 3, 4, 6, 0, UTC)
STAMP = "20260102T030405.000006Z"
ACCESS = Ownership(mode=0o770, uid=1000, gid=2000)
V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"
OWN = f"a-{V1}"
"""A directory with the volume's own name: its record and the directory are created in one call."""


def record(directory: str, volume: str = V1, *, namespace: str = "shop") -> Record:
    return samples.record(directory, claim_uid=volume.removeprefix("pvc-"), namespace=namespace)


async def opened(tree: MemoryTree) -> Export:
    export = Export(NAS, tree)
    await export.open()
    return export


async def provisioned(tree: MemoryTree, directory: str = "a/b", volume: str = V1) -> Export:
    """Return an export on which one volume was provisioned and settled."""
    export = await opened(tree)
    await export.provision(volume, record(directory, volume), ACCESS)
    await export.settle(volume)
    return export


def ledger(tree: MemoryTree, kind: str) -> list[str]:
    """Return the names in one of the ledger's directories."""
    directory = tree.look((".provisioner", kind))
    assert isinstance(directory, Directory)
    return sorted(directory.entries)


# ------------------------------------------------------------------------------------------------------- opening


async def test_open_makes_the_ledger() -> None:
    """The first open creates a private ledger with a new id."""
    tree = MemoryTree()
    export = await opened(tree)
    private = tree.look((".provisioner",))
    assert isinstance(private, Directory)
    assert private.mode == 0o700
    assert tree.look((".provisioner", "export")) == Symlink(export.id)
    assert len(export.id) == 32
    assert export.location == NAS


async def test_a_server_that_does_not_set_modes() -> None:
    """On a server that refuses chmod the ledger is created all the same, and the answer is reported."""
    tree = MemoryTree()
    assert (await opened(tree)).exposed == ""
    tree = MemoryTree()
    tree.refuses_modes = "chmod: EPERM"
    export = await opened(tree)
    assert export.exposed == "chmod: EPERM"
    await export.provision(V1, record("a/b"), Ownership())
    assert export.mode_refused(V1) == "chmod: EPERM"
    await export.settle(V1)
    assert export.mode_refused(V1) == ""


@pytest.mark.parametrize("directory", ["a/b", OWN])
@pytest.mark.parametrize(
    ("access", "refused"),
    [
        (Ownership(), False),
        (Ownership(mode=None), False),
        (Ownership(mode=None, mode_asked=True), False),
        (Ownership(mode=0o770, mode_asked=True), True),
    ],
)
async def test_a_mode_that_is_refused(access: Ownership, refused: bool, directory: str) -> None:
    """A mode that the class names and the server refuses is an error on each attempt; a default mode is optional."""
    tree = MemoryTree()
    tree.refuses_modes = "chmod: EPERM"
    export = await opened(tree)
    for _ in range(2):
        if refused:
            with pytest.raises(ModeRefused):
                await export.provision(V1, record(directory), access)
        else:
            await export.provision(V1, record(directory), access)
    assert (export.mode_refused(V1) != "") is (access.mode is not None and not refused)
    assert await export.undo(V1)
    assert export.mode_refused(V1) == ""


async def test_an_archive_comes_back_from_a_server_that_does_not_set_modes() -> None:
    """The parents of a restored directory are created also where chmod is refused."""
    tree = MemoryTree()
    export = await provisioned(tree, "a/b")
    archive = await export.archive(V1, AT)
    assert archive is not None
    await export.forget(V1)
    tree.refuses_modes = "chmod: EPERM"
    await export.provision(V2, structs.replace(record("new/b", V2), archive=archive), ACCESS, tenant=samples.TENANT)
    assert tree.look(("new", "b")) is not None


@pytest.mark.parametrize("rule", ["discard", "retain"])
async def test_a_directory_that_is_not_there(rule: str) -> None:
    """Moving to the trash reports whether there was a directory; one of an earlier attempt counts."""
    for gone in (True, False):
        tree = MemoryTree()
        export = await provisioned(tree, "a/b")
        if gone:
            await tree.remove_directory(("a", "b"))
        if rule == "retain":
            assert await export.retain(V1, AT) is not gone
            assert export.records[V1].retained
        else:
            assert await export.move_to_trash(V1) is not gone
            assert await export.move_to_trash(V1) is not gone


async def test_open_without_making_a_ledger() -> None:
    """Opening without `create` writes nothing, and reads a ledger that exists."""
    tree = MemoryTree()
    with pytest.raises(ExportError) as caught:
        await Export(NAS, tree).open(create=False)
    assert caught.value.cause is Cause.NO_LEDGER
    assert tree.root.entries == {}
    await provisioned(tree)
    export = Export(NAS, tree)
    await export.open(create=False)
    assert set(export.records) == {V1}


async def test_names() -> None:
    """The name of an export is its location, unless it gets another one."""
    assert Export(NAS, MemoryTree()).name == "nas:/exports"
    assert Export(NAS, MemoryTree(), name="fast").name == "fast"


async def test_every_replica_finds_the_same_id() -> None:
    """A later open finds the same id, and each export has its own."""
    tree = MemoryTree()
    first, second = await opened(tree), await opened(tree)
    assert first.id == second.id
    assert (await opened(MemoryTree())).id != first.id


async def test_open_reads_the_ledger() -> None:
    """A new process knows settled, pending and unreadable records."""
    tree = MemoryTree()
    before = await provisioned(tree)
    await before.provision(V2, record("c", V2), ACCESS)
    tree.plant_symlink((".provisioner", "volumes", V3), "junk")
    tree.write_file((".provisioner", "volumes", "a-file"))
    export = await opened(tree)
    assert export.records == {V1: record("a/b"), V2: record("c", V2)}
    assert export.pending == {V2}
    assert export.unreadable == {V3}


async def test_settled_counts() -> None:
    """A record that is both pending and settled is settled."""
    tree = MemoryTree()
    await provisioned(tree)
    tree.plant_symlink((".provisioner", "pending", V1), encode(record("a/b")))
    assert not (await opened(tree)).pending


async def test_reading_only_mends_nothing() -> None:
    """A record that is both pending and settled is settled, and stays so until a daemon opens the export."""
    tree = MemoryTree()
    await provisioned(tree)
    tree.plant_symlink((".provisioner", "pending", V1), encode(record("a/b")))
    export = Export(NAS, tree)
    await export.open(create=False)
    assert not export.pending
    assert ledger(tree, "pending") == [V1]
    await export.open()
    assert ledger(tree, "pending") == []


@pytest.mark.parametrize("target", ["\udcff", '{"dir":"\udcff"}'])
async def test_unreadable_records_do_not_stop_the_export(target: str) -> None:
    """An export opens whatever bytes its ledger holds, and unreadable names are reported."""
    tree = MemoryTree()
    await provisioned(tree)
    tree.plant_symlink((".provisioner", "volumes", V2), target)
    export = await opened(tree)
    assert export.unreadable == {V2}
    assert set(export.records) == {V1}


async def test_another_export_in_its_place() -> None:
    """Another export under the same name is noticed before anything is created on it, and when it is opened again."""
    tree = MemoryTree()
    export = await provisioned(tree)
    tree.root, tree.id = MemoryTree().root, "another"
    with pytest.raises(ExportError) as probed:
        await export.probe()
    with pytest.raises(ExportError) as provisioning:
        await export.provision(V2, record("c", V2), ACCESS)
    with pytest.raises(ExportError) as reopened:
        await export.open()
    assert {caught.value.cause for caught in (probed, provisioning, reopened)} == {Cause.CHANGED}
    assert tree.root.entries == {}


async def test_another_id_under_the_same_root() -> None:
    """An export whose id has changed is another one, even if its root is the same."""
    tree = MemoryTree()
    export = await opened(tree)
    tree.plant_symlink((".provisioner", "export"), "another")
    for call in (export.probe, export.open):
        with pytest.raises(ExportError) as caught:
            await call()
        assert caught.value.cause is Cause.CHANGED


async def test_remounted() -> None:
    """The same export under a new root is usable after it is opened again."""
    tree = MemoryTree()
    export = await provisioned(tree)
    tree.id = "remounted"
    await export.open()
    assert await export.probe() == tree.statfs
    assert set(export.records) == {V1}


async def test_probe_before_open() -> None:
    """An export answers probes before it is opened: standby replicas do not write."""
    tree = MemoryTree(space=FilesystemStats(size_bytes=10, free_bytes=5))
    assert await Export(NAS, tree).probe() == FilesystemStats(size_bytes=10, free_bytes=5)
    assert tree.root.entries == {}


# -------------------------------------------------------------------------------------------------- provisioning


async def test_provision() -> None:
    """A volume gets an empty directory with the requested ownership, and a record that is pending until settled."""
    tree = MemoryTree()
    export = await opened(tree)
    assert await export.provision(V1, record("a/b"), ACCESS) == record("a/b")
    assert tree.look(("a", "b")) == Directory(mode=0o770, uid=1000, gid=2000)
    assert (ledger(tree, "pending"), ledger(tree, "volumes"), export.pending) == ([V1], [], {V1})
    await export.settle(V1)
    assert (ledger(tree, "pending"), ledger(tree, "volumes"), export.pending) == ([], [V1], set())
    assert tree.look((".provisioner", "volumes", V1)) == Symlink(encode(record("a/b")))


async def test_the_earlier_record_holds() -> None:
    """A retry keeps the record of the first attempt, also if the class has changed since."""
    tree = MemoryTree()
    await (await opened(tree)).provision(V1, record("a"), ACCESS)
    again = await opened(tree)
    assert await again.provision(V1, record("b"), ACCESS) == record("a")
    assert tree.look(("b",)) is None


@pytest.mark.parametrize("directory", ["a/b", "a", "a/b/c"])
@pytest.mark.parametrize("settled", [True, False])
async def test_taken(directory: str, settled: bool) -> None:
    """A directory of another volume, or one above or below it, is refused, and nothing is written."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a/b"), ACCESS)
    if settled:
        await export.settle(V1)
    with pytest.raises(PathTaken, match=r"overlaps with volume pvc-1 \(a/b\).*\.PV\.name"):
        await export.provision(V2, record(directory, V2), ACCESS)
    assert V2 not in export.records
    assert V2 not in ledger(tree, "pending")


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("directory", ["found", "a/found"])
async def test_foreign_directory(directory: str, content: bool) -> None:
    """A directory without a record is never handed out, and its content, mode and owner stay."""
    tree = MemoryTree()
    path = tuple(directory.split("/"))
    await tree.make_directory(path, Ownership(mode=0o711, uid=7))
    if content:
        tree.write_file((*path, "precious"), b"data")
    export = await opened(tree)
    with pytest.raises(AlreadyThere, match=f"{directory!r} already exists on export nas:/exports"):
        await export.provision(V1, record(directory), ACCESS)
    found = tree.look(path)
    assert isinstance(found, Directory)
    assert (found.mode, found.uid, set(found.entries)) == (0o711, 7, {"precious"} if content else set())
    assert (dict(export.records), ledger(tree, "pending")) == ({}, [])


async def test_a_symlink_in_the_way() -> None:
    """A symlink that a tenant planted is neither followed nor handed out."""
    tree = MemoryTree()
    await tree.make_directory(("secret",), Ownership())
    tree.plant_symlink(("a",), "secret")
    export = await opened(tree)
    with pytest.raises(AlreadyThere):
        await export.provision(V1, record("a"), ACCESS)
    with pytest.raises(ExportError) as caught:
        await export.provision(V2, record("a/b", V2), ACCESS)
    assert caught.value.cause is Cause.SYMLINK
    assert tree.look(("secret",)) == Directory(mode=0o777)


async def test_an_unreadable_record_of_the_volume() -> None:
    """A volume whose own record cannot be read gets no directory."""
    tree = MemoryTree()
    export = await opened(tree)
    tree.plant_symlink((".provisioner", "pending", V1), "junk")
    with pytest.raises(UnreadableRecord, match="unreadable record of volume pvc-1"):
        await export.provision(V1, record("a"), ACCESS)
    assert tree.look(("a",)) is None


# ------------------------------------------------------------------------------------------------------ adoption


async def test_adopt() -> None:
    """A retained directory is handed out again with its content, and then belongs to the new volume."""
    tree = MemoryTree()
    export = await provisioned(tree, "a")
    tree.write_file(("a", "precious"), b"data")
    new = record("a", V2)
    assert export.adoptable(new) == V1
    await export.provision(V2, new, Ownership(mode=0o700), adopt_from=V1)
    await export.settle(V2)
    assert tree.look(("a",)) == Directory(0o770, 1000, 2000, {"precious": File(b"data")})
    assert (ledger(tree, "volumes"), ledger(tree, "pending"), set(export.records)) == ([V2], [], {V2})


async def test_adopting_is_undone() -> None:
    """An adoption that never got its volume leaves the directory, even an empty one, and the old record."""
    tree = MemoryTree()
    export = await provisioned(tree, "a")
    await export.provision(V2, record("a", V2), ACCESS, adopt_from=V1)
    assert await export.undo(V2)
    assert isinstance(tree.look(("a",)), Directory)
    assert (ledger(tree, "volumes"), ledger(tree, "pending"), set(export.records)) == ([V1], [], {V1})


async def test_a_record_that_ends_before_its_directory_is_adopted() -> None:
    """The adoption is refused, and is judged again by what there is then."""
    tree = MemoryTree()
    export = await provisioned(tree, "a")

    async def end(call: str, path: RelPath) -> None:
        if call == "make_symlink" and path[1] == "pending":
            volumes = tree.look((".provisioner", "volumes"))
            assert isinstance(volumes, Directory)
            del volumes.entries[V1]
            export._state.index.remove(V1)

    tree.after = end
    with pytest.raises(ExportError) as caught:
        await export.provision(V2, record("a", V2), ACCESS, adopt_from=V1)
    assert caught.value.cause is Cause.RECORD
    assert isinstance(tree.look(("a",)), Directory)


@pytest.mark.parametrize("former", ["pvc-0", "pvc-9"], ids=["sorted before", "sorted after"])
async def test_adopted_once(former: str) -> None:
    """Of two claims that want to adopt one directory at the same time, one gets it and the other one is refused."""
    tree = MemoryTree()
    export = await provisioned(tree, "a", former)
    await export.provision(V2, record("a", V2), ACCESS, adopt_from=former)
    with pytest.raises(PathTaken):
        await export.provision(V3, record("a", V3), ACCESS, adopt_from=former)


# ------------------------------------------------------------------------------------------------------- undoing


async def test_undo() -> None:
    """Undo removes the empty directory, then the record; parents stay."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a/b"), ACCESS)
    assert await export.undo(V1)
    assert tree.look(("a",)) == Directory()
    assert (dict(export.records), ledger(tree, "pending")) == ({}, [])


async def test_undo_leaves_data() -> None:
    """Undo leaves a directory that is not empty, with its record."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a"), ACCESS)
    tree.write_file(("a", "precious"))
    assert not await export.undo(V1)
    assert tree.look(("a", "precious")) == File()
    assert (set(export.records), ledger(tree, "pending")) == ({V1}, [V1])


async def test_undo_leaves_what_is_settled() -> None:
    """Undo does nothing for a settled record, and nothing without a record."""
    tree = MemoryTree()
    export = await provisioned(tree, "a")
    assert await export.undo(V1)
    assert await export.undo(V2)
    assert isinstance(tree.look(("a",)), Directory)
    assert ledger(tree, "volumes") == [V1]


# ---------------------------------------------------------------------------------------------------- reclaiming


async def test_discard() -> None:
    """Deleting moves the directory with its content into the trash; the record ends last; then the purge removes it."""
    tree = MemoryTree()
    export = await provisioned(tree)
    tree.write_file(("a", "b", "data"))
    assert not await export.directory_missing(V1)
    await export.move_to_trash(V1)
    assert await export.directory_missing(V1)
    assert await export.trash.names() == [V1]
    assert ledger(tree, "volumes") == [V1]
    await export.forget(V1)
    assert (ledger(tree, "volumes"), dict(export.records)) == ([], {})
    assert await export.trash.purge(V1) == 2
    assert await export.trash.names() == []
    assert tree.look(("a",)) == Directory()


async def test_an_empty_directory_is_purged_in_one_step() -> None:
    """The purge removes an empty directory without a step between, and reports it as one entry."""
    tree = MemoryTree()
    export = await provisioned(tree)
    calls: list[str] = []

    async def note(call: str, _path: RelPath) -> None:
        calls.append(call)

    removed: list[int] = []

    def on_progress(count: int) -> bool:
        removed.append(count)
        return True

    await export.move_to_trash(V1)
    tree.before = note
    assert await export.trash.purge(V1, on_progress=on_progress) == 1
    assert (calls, removed) == (["remove_directory"], [1])
    assert ledger(tree, "trash") == []


async def test_a_directory_of_the_own_name_that_exists() -> None:
    """An existing directory is not handed out though it has the volume's name, and no record stays."""
    tree = MemoryTree()
    export = await opened(tree)
    await tree.make_directory((OWN,), ACCESS)
    with pytest.raises(AlreadyThere):
        await export.provision(V1, record(OWN), ACCESS)
    assert (ledger(tree, "pending"), dict(export.records)) == ([], {})
    assert tree.look((OWN,)) is not None


async def test_a_provisioning_and_its_reclaim_take_few_calls() -> None:
    """A volume of its own takes two calls on the export until it is settled, and two until it is forgotten."""
    tree = MemoryTree()
    export = await opened(tree)
    calls: list[int] = []
    one_by_one = tree.carry_out

    async def count(*changes: Change) -> None:
        calls.append(len(changes))
        await one_by_one(*changes)

    tree.carry_out = count  # type: ignore[method-assign]
    await export.provision(V1, record(OWN), ACCESS)
    await export.settle(V1, "uid")
    await export.move_to_trash(V1)
    assert calls == [2, 3, 1]


async def test_settling_what_another_leader_has_changed() -> None:
    """A record that another leader has settled or written again gets the uid too, and no draft is left."""
    for settled in (True, False):
        tree = MemoryTree()
        export = await opened(tree)
        await export.provision(V1, record(OWN), ACCESS)
        live = structs.replace(record(OWN), capacity="7Gi")
        await tree.remove_symlink((".provisioner", "pending", V1))
        tree.plant_symlink((".provisioner", "volumes" if settled else "pending", V1), encode(live))
        await export.settle(V1, "uid")
        named = structs.replace(live, volume_uid="uid")
        assert export.records[V1] == (await opened(tree)).records[V1] == named
        assert (ledger(tree, "volumes"), ledger(tree, "pending"), ledger(tree, "drafts")) == ([V1], [], [])


async def test_settling_beside_another_leader() -> None:
    """A record that another leader settles in the same moment stays settled, and its pending one ends."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record(OWN), ACCESS)

    async def settle_first(call: str, _path: RelPath) -> None:
        if call == "move_symlink":
            tree.plant_symlink((".provisioner", "volumes", V1), encode(record(OWN)))

    tree.before = settle_first
    await export.settle(V1)
    assert (ledger(tree, "volumes"), ledger(tree, "pending"), set(export.pending)) == ([V1], [], set())


async def test_discarding_a_volume_without_a_record() -> None:
    """Nothing is moved for a volume that the ledger does not know."""
    tree = MemoryTree()
    export = await provisioned(tree)
    with pytest.raises(ExportError) as caught:
        await export.move_to_trash(V2)
    assert caught.value.cause is Cause.RECORD


async def test_discarding_a_volume_with_a_long_record() -> None:
    """A record that is longer than the provisioner writes them is proof enough for its directory."""
    tree = MemoryTree()
    await provisioned(tree)
    text = msgspec.json.encode(structs.replace(record("a/b"), namespace="n" * 2000)).decode()
    await tree.remove_symlink((".provisioner", "volumes", V1))
    tree.plant_symlink((".provisioner", "volumes", V1), text)
    assert await (await opened(tree)).move_to_trash(V1)
    assert tree.look((".provisioner", "trash", V1)) is not None


async def test_discard_before_settling() -> None:
    """A volume that was released before its record was settled is reclaimed too."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a"), ACCESS)
    await export.move_to_trash(V1)
    await export.forget(V1)
    assert (tree.look(("a",)), ledger(tree, "pending"), dict(export.records)) == (None, [], {})


async def test_archive() -> None:
    """Archiving moves the directory to a name at the export's root with its former path and the time."""
    tree = MemoryTree()
    export = await provisioned(tree)
    tree.write_file(("a", "b", "data"))
    assert await export.archive(V1, AT) == f"archived-b-{STAMP}"
    assert tree.look((f"archived-b-{STAMP}", "data")) == File()
    assert ledger(tree, "archives") == list(export.archived) == [f"archived-b-{STAMP}"]
    assert export.archived[f"archived-b-{STAMP}"].was == export.records[V1]
    assert await export.archive(V1, LATER) == f"archived-b-{STAMP}"


async def test_nothing_to_archive() -> None:
    """Archiving a directory that is gone leaves no archive, and no record of one."""
    tree = MemoryTree()
    export = await provisioned(tree)
    await tree.remove_directory(("a", "b"))
    assert await export.archive(V1, AT) is None
    assert ledger(tree, "archives") == list(export.archived) == []


async def test_archives_never_collide() -> None:
    """An archive never replaces anything; if no name is free it fails, and the directory stays."""
    tree = MemoryTree()
    export = await provisioned(tree)
    tree.write_file((f"archived-b-{STAMP}",))
    await tree.make_directory((f"archived-b-{STAMP}-1",), Ownership())
    assert await export.archive(V1, AT) == f"archived-b-{STAMP}-2"
    assert tree.look((f"archived-b-{STAMP}",)) == File()
    await export.forget(V1)
    await export.provision(V2, record("c/b", V2), ACCESS)
    for number in range(3, 100):
        tree.write_file((f"archived-b-{STAMP}-{number}",))
    with pytest.raises(ExportError, match="100 archives"):
        await export.archive(V2, AT)
    assert isinstance(tree.look(("c", "b")), Directory)


@pytest.mark.parametrize("target", [None, "junk", encode(record("elsewhere"))], ids=["gone", "junk", "another"])
@pytest.mark.parametrize("reclaim", ["discard", "archive"])
async def test_the_export_has_the_last_word(target: str | None, reclaim: str) -> None:
    """If the record on the export differs from the one in memory, nothing is moved."""
    tree = MemoryTree()
    export = await provisioned(tree)
    await tree.remove_symlink((".provisioner", "volumes", V1))
    if target is not None:
        tree.plant_symlink((".provisioner", "volumes", V1), target)
    with pytest.raises(ExportError):
        await (export.move_to_trash(V1) if reclaim == "discard" else export.archive(V1, AT))
    assert isinstance(tree.look(("a", "b")), Directory)


async def test_reclaiming_follows_no_symlink() -> None:
    """A symlink that a tenant put in a directory's place is not moved, nor is its target."""
    tree = MemoryTree()
    export = await provisioned(tree)
    await tree.make_directory(("secret",), Ownership())
    tree.plant_symlink(("a", "b"), "../secret")
    for reclaim in (lambda: export.move_to_trash(V1), lambda: export.archive(V1, AT)):
        with pytest.raises(ExportError) as caught:
            await reclaim()
        assert caught.value.cause is Cause.SYMLINK
    assert isinstance(tree.look(("secret",)), Directory)


async def test_forget_ends_all_records_of_the_volume() -> None:
    """After a reclaim no record of the volume is left, also if a late attempt has written another one."""
    tree = MemoryTree()
    await provisioned(tree)
    tree.plant_symlink((".provisioner", "pending", V1), encode(record("a/b")))
    export = await opened(tree)
    await export.move_to_trash(V1)
    await export.forget(V1)
    assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([], [])


async def test_settling_what_is_gone() -> None:
    """Settling writes a record again that another leader has withdrawn: its volume exists."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a"), ACCESS)
    await tree.remove_symlink((".provisioner", "pending", V1))
    await export.settle(V1)
    assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V1], [])
    assert V1 not in export.pending


async def test_a_record_that_may_not_have_come() -> None:
    """After an unknown outcome undo() removes what got to the export, and touches nothing if nothing did."""
    for came in (False, True):
        tree = MemoryTree()
        export = await opened(tree)
        if not came:
            await tree.make_directory(("a",), Ownership())

        async def lose(call: str, _path: RelPath) -> None:
            if call == "make_symlink":
                raise ExportError(Cause.UNREACHABLE)

        tree.before, tree.after = (no_fault, lose) if came else (lose, no_fault)
        with pytest.raises(ExportError):
            await export.provision(V1, record("a"), ACCESS)
        tree.before = tree.after = no_fault
        assert await export.undo(V1)
        assert (ledger(tree, "pending"), set(export.records)) == ([], set())
        assert (tree.look(("a",)) is None) == came


async def test_close() -> None:
    """Closing an export closes its tree."""
    await (await opened(MemoryTree())).close()


# ------------------------------------------------------------------------------------------------------- others


async def test_a_volume_without_a_record() -> None:
    """A volume that the ledger does not know has no directory, whatever lies on the export."""
    export = await provisioned(MemoryTree())
    assert await export.directory_missing(V2)
    assert not await export.directory_missing(V1)


async def test_a_record_that_is_on_its_way() -> None:
    """A record that is being written stays in memory when it is read too early: no other claim gets its directory."""
    tree = MemoryTree()
    export = await opened(tree)
    found: list[object] = []

    async def early(call: str, _path: RelPath) -> None:
        if call == "make_symlink":
            tree.before = no_fault
            found.append(await export.refresh_record(V1))
            with pytest.raises(PathTaken, match=V1):
                await export.provision(V2, record("a", V2), ACCESS)

    tree.before = early
    await export.provision(V1, record("a"), ACCESS)
    assert found == [None]
    assert (ledger(tree, "pending"), set(export.records)) == ([V1], {V1})


@pytest.mark.parametrize("content", [True, False], ids=["content", "gone"])
async def test_a_directory_that_changes_before_a_retreat(content: bool) -> None:
    """An attempt that retreats keeps its record exactly if its new directory got content; undo() can repeat it."""
    tree = MemoryTree()
    export = await opened(tree)
    others = (".provisioner", "pending", V2)

    async def change(call: str, _path: RelPath) -> None:
        if call == "make_directory":
            tree.plant_symlink(others, encode(record("a", V2)))
            if content:
                tree.write_file(("a", "b", "data"), b"x")
            else:
                await tree.remove_directory(("a", "b"))

    tree.after = change
    with pytest.raises(PathTaken, match=V2):
        await export.provision(V1, record("a/b"), ACCESS)
    tree.after = no_fault
    assert ledger(tree, "pending") == ([V1, V2] if content else [V2])
    assert (V1 in export.records) is content
    await tree.remove_symlink(others)
    assert await export.undo(V1) is not content
    assert (tree.look(("a", "b", "data")) == File(b"x")) is content


async def test_reread() -> None:
    """Refreshing a record finds what another process has changed, also that the record has ended."""
    tree = MemoryTree()
    ours = await provisioned(tree, "a")
    other = await opened(tree)
    changed = structs.replace(record("a"), claim_uid="", cluster="new")
    await other.replace_record(V1, changed)
    assert ours.records[V1] == record("a")
    assert await ours.refresh_record(V1) == changed
    assert ours.records[V1] == changed
    await other.forget(V1)
    assert await ours.refresh_record(V1) is None
    assert V1 not in ours.records
    await ours.provision(V2, record("b", V2), ACCESS)
    assert await ours.refresh_record(V2) == record("b", V2)
    assert set(ours.pending) == {V2}


async def test_since_when() -> None:
    """A ledger records since when it is kept: the first heartbeat of any cluster."""
    tree = MemoryTree()
    first = await opened(tree)
    assert first.since == ""
    second = await opened(tree)
    await first.heartbeats.beat("red", AT)
    await second.heartbeats.beat("blue", AT + timedelta(days=1))
    assert first.since == second.since == (await opened(tree)).since == "2026-01-02T03:04:05Z"


async def test_signs_of_instances() -> None:
    """An instance's sign is created or replaced, and is not listed among the clusters."""
    tree = MemoryTree()
    export = await opened(tree)
    assert await export.heartbeats.instance("red.1") == ""
    await export.heartbeats.sign_instance("red.1", "one", over=False)
    with pytest.raises(PathExists):
        await export.heartbeats.sign_instance("red.1", "two", over=False)
    assert await export.heartbeats.instance("red.1") == "one"
    await export.heartbeats.sign_instance("red.1", "two", over=True)
    await export.heartbeats.beat("red", AT)
    assert await export.heartbeats.instance("red.1") == "two"
    assert set(await export.heartbeats.last_seen()) == {"red"}
