"""ledger.export with a fault at every call: a retry finishes the work exactly once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import pytest
from msgspec import structs

from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import ExportError, Ownership
from tests.support.fakes.tree import Directory, File, MemoryTree
from tests.support.ledger_faults import FAULTS, Fault, directories, interrupted, ledger, opened, record

V1, V2 = "pvc-5", "pvc-6"
ACCESS = Ownership(mode=0o770, uid=1000, gid=2000)
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
LATER = datetime(2026, 1, 2, 3, 9, 0, 0, UTC)
PATHS = ["a", "a/b", "a/b/c", f"a-{V1}"]
"""The last one has the volume's own name, so that nothing else can want it."""

pytestmark = pytest.mark.parametrize("fault", FAULTS, ids=str)


async def fresh() -> MemoryTree:
    """Return an export with a ledger, and with a directory of a stranger that must not be touched."""
    tree = MemoryTree()
    await opened(tree)
    await tree.make_directory(("stranger",), Ownership())
    tree.write_file(("stranger", "precious"), b"data")
    return tree


def parents(directory: str) -> set[str]:
    parts = directory.split("/")
    return {"/".join(parts[:depth]) for depth in range(1, len(parts))}


def stranger_is_safe(tree: MemoryTree) -> bool:
    return tree.look(("stranger", "precious")) == File(b"data")


async def test_open(fault: Fault) -> None:
    """A ledger whose creation was interrupted anywhere is completed by the next open, and is private."""
    for number in range(1, 100):
        tree = MemoryTree()
        if not await fault.at(number, tree, opened(tree)):
            return
        export = await opened(tree)
        assert export.id
        assert (await opened(tree)).id == export.id
        assert [ledger(tree, kind) for kind in ("pending", "volumes", "trash", "archives")] == [[], [], [], []]


@pytest.mark.parametrize("directory", PATHS)
async def test_provision_and_settle(fault: Fault, directory: str) -> None:
    """Wherever provisioning is interrupted, a retry gives one directory and one settled record.

    The settled record names the PersistentVolume, and nothing is left of what led to it.
    """

    async def operation(export: Export) -> None:
        await export.provision(V1, record(directory, V1), ACCESS)
        await export.settle(V1, "uid")

    for tree, export in await interrupted(fault, fresh, operation):
        await operation(export)
        named = structs.replace(record(directory, V1), volume_uid="uid")
        assert export.records[V1] == (await opened(tree)).records[V1] == named
        assert ledger(tree, "drafts") == []
        assert tree.look(tuple(directory.split("/"))) == Directory(0o770, 1000, 2000)
        assert directories(tree) == {directory, "stranger"} | parents(directory)
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V1], [])
        assert (set(export.records), set(export.pending)) == ({V1}, set())
        assert stranger_is_safe(tree)


@pytest.mark.parametrize("directory", PATHS)
async def test_provision_and_undo(fault: Fault, directory: str) -> None:
    """Wherever provisioning is interrupted, a claim that is deleted leaves neither directory nor record."""

    async def operation(export: Export) -> None:
        await export.provision(V1, record(directory, V1), ACCESS)

    for tree, export in await interrupted(fault, fresh, operation):
        await export.undo(V1)
        assert await (await opened(tree)).undo(V1)  # the next start: a record that was not known to be there
        assert directories(tree) <= {"stranger"} | parents(directory)
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([], [])


@pytest.mark.parametrize("directory", PATHS)
async def test_undo(fault: Fault, directory: str) -> None:
    """Wherever undo() is interrupted, a retry leaves neither directory nor record."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        await (await opened(tree)).provision(V1, record(directory, V1), ACCESS)
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.undo(V1)):
        assert await export.undo(V1)
        assert directories(tree) == {"stranger"} | parents(directory)
        assert (ledger(tree, "pending"), dict(export.records)) == ([], {})


def with_data(directory: str, *, settled: bool) -> Callable[[], Awaitable[MemoryTree]]:
    """Return an export with a volume that has data."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        export = await opened(tree)
        await export.provision(V1, record(directory, V1), ACCESS)
        if settled:
            await export.settle(V1)
        tree.write_file((*directory.split("/"), "data"), b"data")
        return tree

    return prepare


async def reclaims_interrupted(
    fault: Fault, prepare: Callable[[], Awaitable[MemoryTree]], rule: Literal["discard", "archive"]
) -> list[tuple[MemoryTree, Export, bool]]:
    """As interrupted(), for a reclaim; the flag says whether the volume object, deleted in the middle, still exists."""
    exists: list[bool] = []

    async def operation(export: Export) -> None:
        exists.append(True)
        await (export.move_to_trash(V1) if rule == "discard" else export.archive(V1, AT))
        exists[-1] = False
        await export.forget(V1)

    met = await interrupted(fault, prepare, operation)
    return [(tree, export, left) for (tree, export), left in zip(met, exists, strict=False)]


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "pending"])
@pytest.mark.parametrize("directory", PATHS)
async def test_discard_and_forget(fault: Fault, directory: str, settled: bool) -> None:
    """Wherever a deletion is interrupted, a retry leaves the data in the trash once, and no record."""
    for tree, export, exists in await reclaims_interrupted(fault, with_data(directory, settled=settled), "discard"):
        if exists:
            await export.move_to_trash(V1)
        if V1 in export.records:
            assert await export.directory_missing(V1)
            await export.forget(V1)
        (entry,) = ledger(tree, "trash")
        assert tree.look((".provisioner", "trash", entry, "data")) == File(b"data")
        assert directories(tree) == {"stranger"} | parents(directory)
        assert (ledger(tree, "volumes"), ledger(tree, "pending"), dict(export.records)) == ([], [], {})
        assert stranger_is_safe(tree)


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "pending"])
@pytest.mark.parametrize("directory", PATHS)
async def test_archive_and_forget(fault: Fault, directory: str, settled: bool) -> None:
    """Wherever archiving is interrupted, a retry leaves the data in one archive, and no record."""
    for tree, export, exists in await reclaims_interrupted(fault, with_data(directory, settled=settled), "archive"):
        if exists:
            await export.archive(V1, LATER)
        if V1 in export.records:
            assert await export.directory_missing(V1)
            await export.forget(V1)
        (archive,) = directories(tree) - {"stranger"} - parents(directory)
        assert archive.startswith(f"archived-{directory.split('/')[-1]}-")
        assert tree.look((archive, "data")) == File(b"data")
        assert archive in ledger(tree, "archives")
        assert (ledger(tree, "volumes"), ledger(tree, "pending"), dict(export.records)) == ([], [], {})


async def test_retain(fault: Fault) -> None:
    """Wherever retaining is interrupted, a retry leaves the data in place, and one record that says so."""
    for tree, export in await interrupted(fault, with_data("a", settled=True), lambda export: export.retain(V1, AT)):
        assert (await opened(tree)).records[V1].directory == "a"
        with suppress(ExportError):  # the record in memory can be older than the one on the export
            await export.retain(V1, AT)
        await export.retain(V1, AT)
        assert tree.look(("a", "data")) == File(b"data")
        assert export.records[V1].retained == (await opened(tree)).records[V1].retained == "2026-01-02T03:04:05Z"
        assert export.adoptable(record("a", "pvc-9")) == V1


async def test_settling_what_is_settled(fault: Fault) -> None:
    """A settled record gets the uid of a volume that was created again, and is complete at every moment."""
    renewed = structs.replace(record("a", V1), volume_uid="second")
    for tree, export in await interrupted(
        fault, with_data("a", settled=True), lambda export: export.settle(V1, "second")
    ):
        assert (await opened(tree)).records[V1] in (record("a", V1), renewed)
        await export.settle(V1, "second")
        assert export.records[V1] == (await opened(tree)).records[V1] == renewed
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V1], [])


async def test_amend(fault: Fault) -> None:
    """Wherever replacing a record is interrupted, the old or the new one is there, and a retry leaves the new one."""
    larger = structs.replace(record("a", V1), capacity="2Gi")
    for tree, export in await interrupted(
        fault, with_data("a", settled=True), lambda export: export.replace_record(V1, larger)
    ):
        assert (await opened(tree)).records[V1] in (record("a", V1), larger)
        await export.replace_record(V1, larger)
        assert export.records[V1] == (await opened(tree)).records[V1] == larger
        assert ledger(tree, "drafts") == []


async def test_take_over(fault: Fault) -> None:
    """Wherever a takeover is interrupted, a retry gives one settled record and touches nothing else."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        await tree.make_directory(("a",), Ownership())
        tree.write_file(("a", "data"), b"data")
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.take_over({V1: record("a", V1)})):
        assert await export.take_over({V1: record("a", V1)}) == {}
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V1], [])
        assert export.records == {V1: record("a", V1)}
        assert tree.look(("a", "data")) == File(b"data")


@pytest.mark.parametrize("former", ["pvc-1", "pvc-9"], ids=["sorted before", "sorted after"])
@pytest.mark.parametrize("directory", PATHS)
async def test_adopt_and_settle(fault: Fault, directory: str, former: str) -> None:
    """Wherever an adoption is interrupted, a retry gives the data to the new volume, with one record."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        export = await opened(tree)
        await export.provision(former, record(directory, former), ACCESS)
        await export.settle(former)
        tree.write_file((*directory.split("/"), "data"), b"data")
        return tree

    async def provision(export: Export) -> None:
        new = record(directory, V1)
        await export.provision(V1, new, ACCESS, adopt_from=export.adoptable(new))

    made: list[bool] = []

    async def operation(export: Export) -> None:
        made.append(False)
        await provision(export)
        made[-1] = True  # the volume object: from here on it is only settled, not provisioned again
        await export.settle(V1)

    met = await interrupted(fault, prepare, operation)
    for (tree, export), exists in zip(met, made, strict=False):
        if not exists:
            await provision(export)
        await export.settle(V1)
        assert tree.look((*directory.split("/"), "data")) == File(b"data")
        assert (ledger(tree, "volumes"), ledger(tree, "pending")) == ([V1], [])
        assert (set(export.records), set(export.pending)) == ({V1}, set())


@pytest.mark.parametrize("directory", ["stranger", "stranger/precious", "stranger/deep/dir"])
async def test_foreign_directory(fault: Fault, directory: str) -> None:
    """Wherever it is interrupted and retried, a stranger's directory is neither handed out nor removed."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        await tree.make_directory(("stranger", "deep", "dir"), Ownership())
        tree.write_file(("stranger", "deep", "dir", "precious"), b"data")
        return tree

    async def attempt(export: Export) -> None:
        await export.provision(V1, record(directory, V1), ACCESS)

    for tree, export in await interrupted(fault, prepare, attempt):
        with pytest.raises((AlreadyThere, ExportError)):
            await attempt(export)
        with suppress(ExportError):
            await export.undo(V1)
        assert stranger_is_safe(tree)
        assert tree.look(("stranger", "deep", "dir", "precious")) == File(b"data")


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "pending"])
@pytest.mark.parametrize(
    ("theirs", "ours"), [("a", "a"), ("a/b", "a/b"), ("a/b", "a"), ("a", "a/b"), ("a/b", "a/b/c"), ("a/b/c", "a/b")]
)
async def test_another_clusters_directory(fault: Fault, theirs: str, ours: str, settled: bool) -> None:
    """Wherever it is interrupted and retried, no cluster gets a directory that overlaps with another cluster's."""
    for number in range(1, 100):
        tree = await fresh()
        export = await opened(tree)  # before the other cluster writes its record
        other = await opened(tree)
        await other.provision(V2, record(theirs, V2), ACCESS)
        if settled:
            await other.settle(V2)
        if not await fault.at(number, tree, export.provision(V1, record(ours, V1), ACCESS)):
            return
        export = export if fault.survives else await opened(tree)
        with pytest.raises((AlreadyThere, PathTaken)):
            await export.provision(V1, record(ours, V1), ACCESS)
        await export.undo(V1)
        assert isinstance(tree.look(tuple(theirs.split("/"))), Directory)
        assert V2 in ledger(tree, "volumes" if settled else "pending")


async def test_purging_an_empty_directory(fault: Fault) -> None:
    """Wherever the purge of an empty directory is interrupted, the next purge leaves nothing of it."""

    async def prepare() -> MemoryTree:
        tree = await fresh()
        export = await opened(tree)
        await export.provision(V1, record("a", V1), ACCESS)
        await export.move_to_trash(V1)
        return tree

    for tree, export in await interrupted(fault, prepare, lambda export: export.trash.purge(V1)):
        await export.trash.purge(V1)
        assert ledger(tree, "trash") == []
        assert stranger_is_safe(tree)
