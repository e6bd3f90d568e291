"""ledger.copies: a copy becomes a volume whole or not at all, wherever it is interrupted."""

from __future__ import annotations

from contextlib import suppress

import pytest
from msgspec import structs

from provisioner.core.backoff import Backoff
from provisioner.core.groups import GidRange
from provisioner.core.locations import RelPath
from provisioner.core.records import Record, encode
from provisioner.ledger import copying, layout
from provisioner.ledger.copying import Progress, Regroup
from provisioner.ledger.errors import AlreadyThere, CopyFailed, NoFreeGroup, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership, PathMissing
from tests.support.fakes.tree import Directory, File, MemoryTree
from tests.support.ledger_faults import FAULTS, Fault, directories, interrupted, ledger, opened, record

SOURCE, CLONE, OTHER = "pvc-1", "pvc-2", "pvc-3"
ACCESS = Ownership(mode=0o770)
DATA = Directory(mode=0o2770, uid=5, entries={"a": File(b"data"), "b": Directory(entries={"c": File(b"more")})})
PATHS = ["clone", "x/y/clone"]

every_fault = pytest.mark.parametrize("fault", FAULTS, ids=str)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of the copy engine wait for no time."""
    monkeypatch.setattr(copying, "_AGAIN", Backoff(first_s=0.0, limit_s=0.0))


def wanted(directory: str = "clone") -> Record:
    return structs.replace(record(directory, CLONE), clone_of=SOURCE)


async def fresh() -> MemoryTree:
    """Return an export with a settled volume that has data."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(SOURCE, record("source", SOURCE), ACCESS)
    await export.settle(SOURCE, "uid")
    source = tree.look(("source",))
    assert isinstance(source, Directory)
    source.mode, source.uid = DATA.mode, DATA.uid
    source.entries.update({"a": File(b"data"), "b": Directory(entries={"c": File(b"more")})})
    return tree


async def cloned(export: Export, directory: str = "clone") -> Record:
    """Do all that a controller does before it creates the volume."""
    held = await export.begin_copy(CLONE, wanted(directory))
    copy = held.copied
    if not copy:
        try:
            copy = await export.copy_from(export, ("source",), CLONE, Progress(), allows=lambda: True)
        except BaseException:
            await export.discard_copies(CLONE)
            raise
    return await export.provision(CLONE, wanted(directory), ACCESS, copy=copy)


def is_whole(tree: MemoryTree, directory: str = "clone") -> bool:
    return tree.look(tuple(directory.split("/"))) == DATA and tree.look(("source",)) == DATA


async def test_a_clone() -> None:
    """A clone has the data of its source; its record names the source until it is settled, and no copy is left."""
    tree = await fresh()
    export = await opened(tree)
    held = await cloned(export)
    assert (held.clone_of, held.path) == (SOURCE, ("clone",))
    assert is_whole(tree)
    assert ledger(tree, "copies") == []
    (left,) = ledger(tree, "trash")
    assert left.startswith(f"{layout.COPY}{CLONE}.")
    await export.settle(CLONE, "uid 2")
    assert export.records[CLONE] == (await opened(tree)).records[CLONE]
    assert export.records[CLONE] == structs.replace(record("clone", CLONE), volume_uid="uid 2")


async def test_a_clone_with_a_group() -> None:
    """The copy of a volume that has a group of its own gets another one; all other groups stay."""
    tree = await fresh()
    export = await opened(tree)
    source = tree.look(("source",))
    assert isinstance(source, Directory)
    source.gid, source.entries["a"] = 70, File(b"data", gid=70)
    held = await export.begin_copy(CLONE, wanted(), GidRange(71, 71))
    assert held.gid == 71
    regroup = Regroup(70, held.gid)
    copy = await export.copy_from(export, ("source",), CLONE, Progress(), allows=lambda: True, regroup=regroup)
    assert (await export.begin_copy(CLONE, wanted(), GidRange(71, 71))).gid == 71
    assert (await export.provision(CLONE, wanted(), ACCESS, copy=copy, gid_range=GidRange(71, 71))).gid == 71
    made = tree.look(("clone",))
    assert isinstance(made, Directory)
    below = made.entries["b"]
    assert isinstance(below, Directory)
    assert (made.gid, made.entries["a"], below.gid) == (71, File(b"data", gid=71), 0)
    assert ledger(tree, "groups") == ["71"]
    with pytest.raises(NoFreeGroup):
        await export.begin_copy(OTHER, structs.replace(record("other", OTHER), clone_of=SOURCE), GidRange(71, 71))
    assert OTHER not in export.records
    assert await export.undo(CLONE)
    assert ledger(tree, "groups") == []


async def test_a_clone_without_a_group() -> None:
    """The data of a volume without a group of its own keeps its groups: the clone has none either."""
    export = await opened(await fresh())
    copy = await _copied(export)
    held = await export.provision(CLONE, wanted(), ACCESS, copy=copy, gid_range=GidRange(70, 79))
    assert held.gid == 0


async def _copied(export: Export, directory: str = "clone") -> str:
    await export.begin_copy(CLONE, wanted(directory))
    return await export.copy_from(export, ("source",), CLONE, Progress(), allows=lambda: True)


@every_fault
@pytest.mark.parametrize("directory", PATHS)
async def test_clone_and_settle(fault: Fault, directory: str) -> None:
    """Wherever a clone is interrupted, nothing or the whole copy is at its path, and a retry finishes it once."""
    at = tuple(directory.split("/"))

    async def operation(export: Export) -> None:
        await cloned(export, directory)
        await export.settle(CLONE, "uid")

    for tree, export in await interrupted(fault, fresh, operation):
        assert tree.look(at) in (None, DATA)
        if CLONE in (await opened(tree)).pending or CLONE not in export.records or CLONE in export.pending:
            with suppress(ExportError):  # the record in memory can be older than the one on the export
                await cloned(export, directory)
            await cloned(export, directory)
        await export.settle(CLONE, "uid")
        assert is_whole(tree, directory)
        named = structs.replace(record(directory, CLONE), volume_uid="uid")
        assert export.records[CLONE] == (await opened(tree)).records[CLONE] == named
        assert ledger(tree, "copies") == []
        assert ledger(tree, "pending") == []


@every_fault
@pytest.mark.parametrize("directory", PATHS)
async def test_clone_and_undo(fault: Fault, directory: str) -> None:
    """Wherever a clone is interrupted, a claim that is deleted leaves no directory, no copy and no record."""
    for tree, export in await interrupted(fault, fresh, lambda export: cloned(export, directory)):
        with suppress(ExportError):
            await export.undo(CLONE)
        again = await opened(tree)
        assert await again.undo(CLONE)
        await again.discard_unneeded_copies()
        assert {path for path in directories(tree) if path.endswith("clone")} == set()
        assert (ledger(tree, "pending"), ledger(tree, "copies")) == ([], [])
        assert tree.look(("source",)) == DATA


@every_fault
@pytest.mark.parametrize("directory", PATHS)
async def test_undo(fault: Fault, directory: str) -> None:
    """Wherever the undo of a clone is interrupted, a retry leaves neither directory nor record."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        await cloned(await opened(tree), directory)
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.undo(CLONE)):
        assert await export.undo(CLONE)
        assert {path for path in directories(tree) if path.endswith("clone")} == set()
        assert (ledger(tree, "pending"), set(export.records)) == ([], {SOURCE})


async def test_another_leaders_copy() -> None:
    """A leader never continues a copy of a former one, and the former one's rename moves nothing any more."""
    tree = await fresh()
    former = await opened(tree)
    theirs = await _copied(former)
    leader = await opened(tree)
    ours = await _copied(leader)
    assert ledger(tree, "copies") == [f"{CLONE}.{ours}"]
    with pytest.raises(ExportError):
        await former.provision(CLONE, wanted(), ACCESS, copy=theirs)
    assert tree.look(("clone",)) is None
    await leader.provision(CLONE, wanted(), ACCESS, copy=ours)
    assert is_whole(tree)


async def test_a_complete_copy_that_is_lost() -> None:
    """A record that names a copy which is gone loses that name, and the copy begins again."""
    tree = await fresh()
    export = await opened(tree)
    copy = await _copied(export)

    async def fail(call: str, path: RelPath) -> None:
        if call == "rename" and path[-1] == copying.TREE:
            raise ExportError(Cause.UNREACHABLE)

    tree.before = fail
    with pytest.raises(ExportError):
        await export.provision(CLONE, wanted(), ACCESS, copy=copy)
    tree.before = _quiet
    assert (await export.begin_copy(CLONE, wanted())).copied == copy
    await export.discard_copies(CLONE)
    with pytest.raises(ExportError):
        await export.provision(CLONE, wanted(), ACCESS, copy=copy)
    assert (await export.begin_copy(CLONE, wanted())).copied == ""
    await cloned(export)
    assert is_whole(tree)


async def _quiet(_call: str, _path: RelPath) -> None:
    pass


@pytest.mark.parametrize("fresh_attempt", [True, False])
async def test_a_directory_in_the_way(fresh_attempt: bool) -> None:
    """A directory at the claim's path is neither used nor replaced, whether it is there before or after the copy."""
    tree = await fresh()
    export = await opened(tree)
    if not fresh_attempt:
        await export.begin_copy(CLONE, wanted())
    await tree.make_directory(("clone",), ACCESS)
    with pytest.raises(AlreadyThere):
        await export.begin_copy(CLONE, wanted())
    assert ledger(tree, "pending") == ([] if fresh_attempt else [CLONE])
    await tree.remove_directory(("clone",))
    copy = await _copied(export)
    await tree.make_directory(("clone",), ACCESS)
    with pytest.raises(AlreadyThere):
        await export.provision(CLONE, wanted(), ACCESS, copy=copy)
    assert tree.look(("clone",)) == Directory(mode=0o770)


async def test_a_directory_in_the_way_of_the_rename() -> None:
    """A directory that appears right before the rename is not replaced."""
    tree = await fresh()
    export = await opened(tree)
    copy = await _copied(export)

    async def appear(call: str, path: RelPath) -> None:
        if call == "rename" and path[-1] == copying.TREE:
            tree.root.entries["clone"] = Directory(entries={"theirs": File()})

    tree.before = appear
    with pytest.raises(AlreadyThere):
        await export.provision(CLONE, wanted(), ACCESS, copy=copy)
    assert tree.look(("clone",)) == Directory(entries={"theirs": File()})


@every_fault
async def test_undo_with_a_directory_in_the_way(fault: Fault) -> None:
    """Wherever the undo is interrupted, it never touches a directory that has come to the claim's path."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        export = await opened(tree)
        copy = await _copied(export)

        async def appear(call: str, path: RelPath) -> None:
            if call == "rename" and path[-1] == copying.TREE:
                tree.root.entries["clone"] = Directory(entries={"theirs": File()})

        tree.before = appear
        with pytest.raises(AlreadyThere):
            await export.provision(CLONE, wanted(), ACCESS, copy=copy)
        tree.before = _quiet
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.undo(CLONE)):
        with suppress(ExportError):
            await export.undo(CLONE)
        assert await (await opened(tree)).undo(CLONE)
        assert tree.look(("clone",)) == Directory(entries={"theirs": File()})
        assert (ledger(tree, "pending"), ledger(tree, "copies")) == ([], [])


@pytest.mark.parametrize("known", [True, False])
async def test_a_directory_that_another_cluster_has(known: bool) -> None:
    """A clone does not begin where another cluster has the directory, or one above."""
    tree = await fresh()
    export = await opened(tree)
    other = await opened(tree)
    await other.provision(OTHER, record("x", OTHER), ACCESS)
    export = await opened(tree) if known else export
    with pytest.raises(PathTaken):
        await export.begin_copy(CLONE, wanted("x/y"))
    assert ledger(tree, "pending") == [OTHER]


async def test_a_directory_that_another_cluster_gets() -> None:
    """If another cluster gets the directory above while the copy is placed, the copy goes away again."""
    tree = await fresh()
    export = await opened(tree)
    copy = await _copied(export, "x/y")

    async def take(call: str, path: RelPath) -> None:
        if call == "rename" and path[-1] == copying.TREE:
            tree.before = _quiet
            target = layout.of("pending", OTHER)
            await tree.make_symlink(target, encode(record("x", OTHER)))

    tree.before = take
    with pytest.raises(PathTaken):
        await export.provision(CLONE, wanted("x/y"), ACCESS, copy=copy)
    assert tree.look(("x", "y")) is None
    assert tree.look(("source",)) == DATA
    assert await export.undo(CLONE)


async def test_copies_that_nothing_needs() -> None:
    """Copies without a pending record go to the trash; that of another cluster's pending volume stays."""
    tree = await fresh()
    export = await opened(tree)
    await export.begin_copy(CLONE, wanted())
    for name in (f"{CLONE}.1", f"{OTHER}.2", "odd"):
        await tree.make_directory((*layout.COPIES, name), ACCESS)
    await tree.make_symlink((*layout.COPIES, "text"), "no directory")
    await export.discard_copies("pvc-other")
    assert await export.discard_unneeded_copies() == 2
    assert ledger(tree, "copies") == [f"{CLONE}.1", "text"]
    assert ledger(tree, "trash") == ["copy-odd", f"copy-{OTHER}.2"]


async def test_a_name_in_the_trash_that_is_taken() -> None:
    """A copy goes into the trash under a name that is free; at some point that ends."""
    tree = await fresh()
    export = await opened(tree)
    await tree.make_directory((*layout.TRASH, f"copy-{CLONE}.1"), ACCESS)
    await tree.make_directory((*layout.COPIES, f"{CLONE}.1"), ACCESS)
    await export.discard_copies(CLONE)
    assert ledger(tree, "trash") == [f"copy-{CLONE}.1", f"copy-{CLONE}.1-1"]
    for number in range(2, 100):
        await tree.make_directory((*layout.TRASH, f"copy-{CLONE}.1-{number}"), ACCESS)
    await tree.make_directory((*layout.COPIES, f"{CLONE}.1"), ACCESS)
    with pytest.raises(ExportError, match="trash"):
        await export.discard_copies(CLONE)


async def test_a_copy_that_is_gone_before_it_is_discarded() -> None:
    """A copy that another process discards at the same time is no error; neither is a ledger of an older version."""
    tree = await fresh()
    export = await opened(tree)
    await tree.make_directory((*layout.COPIES, f"{CLONE}.1"), ACCESS)

    async def vanish(call: str, _path: RelPath) -> None:
        if call == "rename":
            await tree.remove_tree((*layout.COPIES, f"{CLONE}.1"))

    tree.before = vanish
    await export.discard_copies(CLONE)
    tree.before = _quiet
    await tree.remove_tree(layout.COPIES)
    await export.discard_copies(CLONE)
    assert await export.discard_unneeded_copies() == 0


async def test_a_copy_that_fails() -> None:
    """What source or target refuses fails the copy, and the volume's path stays free."""
    tree = await fresh()
    export = await opened(tree)
    await export.begin_copy(CLONE, wanted())
    progress = Progress()

    async def fail(call: str, _path: RelPath) -> None:
        if call == "make":
            raise ExportError(Cause.NO_SPACE)

    tree.before = fail
    with pytest.raises(CopyFailed):
        await export.copy_from(export, ("source",), CLONE, progress, allows=lambda: True)
    tree.before = _quiet
    await export.discard_copies(CLONE)
    assert (tree.look(("clone",)), ledger(tree, "copies")) == (None, [])


async def test_a_volume_without_a_record() -> None:
    """Settling a volume of which there is no record changes nothing."""
    export = await opened(await fresh())
    await export.settle("pvc-9", "uid")
    assert set(export.records) == {SOURCE}


async def test_a_lost_ledger() -> None:
    """If the ledger is gone, that is the error of a copy that would begin."""
    tree = await fresh()
    export = await opened(tree)
    del tree.root.entries[".provisioner"]
    with pytest.raises(ExportError) as caught:
        await export.begin_copy(CLONE, wanted())
    assert caught.value.cause is Cause.CHANGED


async def test_a_ledger_that_answers_oddly() -> None:
    """If the ledger is whole after all, the first error is that of the copy."""
    tree = await fresh()
    export = await opened(tree)
    once = [PathMissing("odd")]

    async def fail(call: str, path: RelPath) -> None:
        if call == "is_empty" and path == ("clone",) and once:
            raise once.pop()

    tree.before = fail
    assert (await export.begin_copy(CLONE, wanted())).clone_of == SOURCE

    async def missing(call: str, _path: RelPath) -> None:
        if call == "make_symlink":
            raise PathMissing("odd")

    tree.before = missing
    await export.undo(CLONE)
    with pytest.raises(PathMissing):
        await export.begin_copy(CLONE, wanted())
