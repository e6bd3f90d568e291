"""ledger.enrollment: volumes of another provisioner get records, and nothing else is touched."""

from __future__ import annotations

import asyncio

import pytest

from provisioner.core.records import Record, encode
from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import MemoryTree, Symlink
from tests.support.ledger_faults import directories, ledger, opened, record
from tests.unit.ledger.test_races import SEEDS, Jumbled

V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"


async def with_directories(*paths: str) -> MemoryTree:
    """Return an export with a ledger, and directories that another provisioner made."""
    tree = MemoryTree()
    await opened(tree)
    for path in paths:
        await tree.make_directory(tuple(path.split("/")), Ownership())
    return tree


async def test_many_at_once() -> None:
    """Volumes get settled records, which last, with one look at the ledger before all and one after."""
    tree = await with_directories("a", "b")
    export = await opened(tree)
    looks: list[str] = []

    async def count(call: str, _path: object) -> None:
        looks.append(call)

    tree.before = count
    assert await export.take_over({V1: record("a", V1), V2: record("b", V2)}) == {}
    assert looks.count("list") == len(("volumes", "pending")) * 2
    assert ledger(tree, "volumes") == [V1, V2]
    assert (await opened(tree)).records == {V1: record("a", V1), V2: record("b", V2)}
    assert export.pending == set()
    assert directories(tree) == {"a", "b"}


@pytest.mark.parametrize("directory", ["a/b", "a", "a/b/c"])
async def test_taken(directory: str) -> None:
    """A volume whose directory overlaps with a record of any cluster gets none; the others do."""
    tree = await with_directories("a/b/c", "d")
    export, other = await opened(tree), await opened(tree)
    assert await other.take_over({V1: record("a/b", V1)}) == {}
    taken = await export.take_over({V2: record(directory, V2), V3: record("d", V3)})
    assert set(taken) == {V2}
    assert V1 in taken[V2]
    assert ledger(tree, "volumes") == [V1, V3]
    assert set(export.records) == {V1, V3}


async def test_a_record_that_is_there() -> None:
    """A volume that has a record keeps it, however it came there."""
    tree = await with_directories("a")
    export, other = await opened(tree), await opened(tree)
    assert await other.take_over({V1: record("a", V1)}) == {}
    for again in (export, other):
        assert await again.take_over({V1: record("b", V1)}) == {}
        assert again.records[V1] == record("a", V1)


async def test_an_unreadable_record() -> None:
    """A volume whose record cannot be read gets no other one, and the record stays."""
    tree = await with_directories("a")
    export = await opened(tree)
    await tree.make_symlink((".provisioner", "volumes", V1), "?")
    taken = await export.take_over({V1: record("a", V1)})
    assert "unreadable" in taken[V1]
    assert V1 not in export.records
    assert tree.look((".provisioner", "volumes", V1)) == Symlink("?")


async def test_a_failure_in_the_middle() -> None:
    """A call that fails leaves no volume in memory that the export does not have; a retry writes all."""
    tree = await with_directories("a", "b")
    export = await opened(tree)
    wanted = {V1: record("a", V1), V2: record("b", V2)}

    async def full(call: str, path: tuple[str, ...]) -> None:
        if call == "make_symlink" and path[-1] == V2:
            raise ExportError(Cause.NO_SPACE)

    tree.before = full
    with pytest.raises(ExportError):
        await export.take_over(wanted)
    assert set(export.records) == {V1}
    tree.before = MemoryTree().before
    assert await export.take_over(wanted) == {}
    assert export.records == wanted


async def test_a_volume_that_is_reclaimed_during_a_takeover() -> None:
    """A volume whose record ends before the takeover does is not refused, and its record is not written again."""
    tree = await with_directories("a", "b")
    export = await opened(tree)

    async def reclaim(call: str, path: tuple[str, ...]) -> None:
        if call == "make_symlink" and path[-1] == V2:
            await export.forget(V1)

    tree.before = reclaim
    assert await export.take_over({V1: record("a", V1), V2: record("b", V2)}) == {}
    assert ledger(tree, "volumes") == list(export.records) == [V2]


@pytest.mark.parametrize(("peers", "claims"), [("a/b", "a/b/c"), ("a", "a/b")])
async def test_another_cluster_at_once(peers: str, claims: str) -> None:
    """Of a takeover and another cluster's claim for a directory inside it at the same time, at most one succeeds."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        tree = jumbled.tree
        await tree.make_directory(tuple(peers.split("/")), Ownership())
        first, second = await opened(tree), await opened(tree)
        jumbled.begin()
        taken, made = await asyncio.gather(
            first.take_over({V1: record(peers, V1)}),
            second.provision(V2, record(claims, V2), Ownership()),
            return_exceptions=True,
        )
        assert isinstance(taken, dict), taken
        assert isinstance(made, (Record, PathTaken, AlreadyThere)), made
        assert taken or not isinstance(made, Record), f"seed {seed}"
        if not isinstance(made, Record):
            assert await second.undo(V2), f"seed {seed}"
            assert ledger(tree, "pending") == [], f"seed {seed}"
        assert encode(record(peers, V1)) == encode(first.records[V1]) if not taken else V1 not in first.records
