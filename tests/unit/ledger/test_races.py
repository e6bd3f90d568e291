"""ledger.export: claims and clusters that want directories at the same moment, in random but repeatable order."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.records import Record
from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Ownership
from tests.support.fakes.tree import Directory, MemoryTree
from tests.support.ledger_faults import ledger, opened, record

V1, V2, V3 = "pvc-1", "pvc-2", "pvc-3"
ACCESS = Ownership(mode=0o770)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEEDS = range(150)
PAIRS = [("a", "a"), ("a/b", "a/b"), ("a/b", "a/b/c"), ("a/b/c", "a/b"), ("a", "a/b"), ("a/b", "a"), ("a", "a/b/c")]


class Jumbled:
    """A tree whose calls let other tasks run first, in a random order by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.tree = MemoryTree()

    def begin(self) -> None:
        """From now on the order is random."""
        self.tree.before = self.tree.after = self._pause

    async def _pause(self, _call: str, _path: RelPath) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)


async def attempts(*wanted: tuple[Export, str, Record, str | None]) -> list[bool]:
    """Provision all at the same time; return for each whether it got its directory. Only two refusals are allowed."""
    results = await asyncio.gather(
        *(export.provision(volume, new, ACCESS, adopt_from=former) for export, volume, new, former in wanted),
        return_exceptions=True,
    )
    for result in results:
        assert isinstance(result, (Record, PathTaken, AlreadyThere)), result
    return [isinstance(result, Record) for result in results]


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_two_clusters(one: str, other: str) -> None:
    """Of two clusters that want overlapping directories at the same time, at most one gets its own."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        tree = jumbled.tree
        first, second = await opened(tree), await opened(tree)
        jumbled.begin()
        got = await attempts((first, V1, record(one, V1), None), (second, V2, record(other, V2), None))
        assert got != [True, True], f"seed {seed}"
        held = [volume for volume, ok in zip((V1, V2), got, strict=True) if ok]
        for export, volume in ((first, V1), (second, V2)):
            if volume not in held:
                # A loser could not remove its directory while the other's was in it. Now it can.
                assert await export.undo(volume), f"seed {seed}"
        assert ledger(tree, "pending") == held, f"seed {seed}"
        for directory, ok in zip((one, other), got, strict=True):
            assert not ok or isinstance(tree.look(tuple(directory.split("/"))), Directory)


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_two_claims(one: str, other: str) -> None:
    """Of two claims of one cluster that want overlapping directories at the same time, exactly one gets its own."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        export = await opened(jumbled.tree)
        jumbled.begin()
        got = await attempts((export, V1, record(one, V1), None), (export, V2, record(other, V2), None))
        assert sorted(got) == [False, True], f"seed {seed}"
        assert len(export.records) == 1


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a/b", "a/c"), ("a/b", "c"), ("a/b/c", "a/d")])
async def test_neighbours(one: str, other: str) -> None:
    """Directories that do not overlap never conflict, even below a parent that both create."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        first, second = await opened(jumbled.tree), await opened(jumbled.tree)
        jumbled.begin()
        assert await attempts((first, V1, record(one, V1), None), (second, V2, record(other, V2), None)) == [True, True]


async def test_two_claims_adopt() -> None:
    """Of two claims that can adopt one directory at the same time, exactly one gets it, whatever the volumes' names."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        former, one, other = random.Random(seed).sample((V1, V2, V3), 3)
        export = await opened(jumbled.tree)
        await export.provision(former, record("a", former), ACCESS)
        await export.settle(former)
        jumbled.begin()
        wanted = (
            (export, volume, record("a", volume), export.adoptable(record("a", volume))) for volume in (one, other)
        )
        assert sorted(await attempts(*wanted)) == [False, True], f"seed {seed}"


async def test_two_replicas_open() -> None:
    """Replicas and clusters that open a new export at the same time agree on its id."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        jumbled.begin()
        exports = await asyncio.gather(*(opened(jumbled.tree) for _ in range(3)))
        assert len({export.id for export in exports}) == 1, f"seed {seed}"


async def test_two_that_settle() -> None:
    """Two leaders that settle one volume at the same time leave one settled record, with the PersistentVolume's uid."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        tree = jumbled.tree
        first = await opened(tree)
        await first.provision(V1, record("a", V1), ACCESS)
        second = await opened(tree)
        jumbled.begin()
        await asyncio.gather(*(export.settle(V1, "uid") for export in (first, second)), return_exceptions=True)
        await second.settle(V1, "uid")
        assert ledger(tree, "volumes") == [V1], f"seed {seed}"
        again = await opened(tree)
        assert again.records[V1].volume_uid == "uid", f"seed {seed}"
        assert (ledger(tree, "pending"), set(again.pending)) == ([], set()), f"seed {seed}"


async def test_two_reclaims() -> None:
    """A reclaim that two leaders carry out at the same time moves the directory once."""
    for seed in SEEDS:
        jumbled = Jumbled(seed)
        tree = jumbled.tree
        first = await opened(tree)
        await first.provision(V1, record("a", V1), ACCESS)
        await first.settle(V1)
        second = await opened(tree)
        jumbled.begin()
        at = asyncio.gather(*(export.move_to_trash(V1) for export in (first, second)))
        await at
        assert len(ledger(tree, "trash")) == 1
        assert tree.look(("a",)) is None


@pytest.mark.parametrize("directory", ["a", "a/b"])
async def test_a_directory_that_another_cluster_is_reclaiming(directory: str) -> None:
    """Between another cluster's rename of a directory and the end of its record, no claim gets that directory.

    Else its rename, tried again, would take the new volume's directory.
    """
    tree = MemoryTree()
    ours, theirs = await opened(tree), await opened(tree)
    await theirs.provision(V1, record(directory, V1), ACCESS)
    await theirs.settle(V1)
    await theirs.move_to_trash(V1)
    with pytest.raises(PathTaken):
        await ours.provision(V2, record(directory, V2), ACCESS)
    await theirs.move_to_trash(V1)
    await theirs.forget(V1)
    await ours.provision(V2, record(directory, V2), ACCESS)
    assert isinstance(tree.look(tuple(directory.split("/"))), Directory)


async def test_retaining_writes_once() -> None:
    """A record that is marked as retained is not written again: another volume can be adopting the directory."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision(V1, record("a", V1), ACCESS)
    await export.settle(V1)
    await export.retain(V1, NOW)
    changes: list[str] = []

    async def noted(call: str, _path: RelPath) -> None:
        if not call.startswith(("read", "list", "is_")):
            changes.append(call)

    tree.before = noted
    await export.retain(V1, NOW)
    assert changes == []


async def test_a_record_that_another_leader_withdrew() -> None:
    """The leader that created the directory writes the record again, and continues; a record that is there stays."""
    tree = MemoryTree()
    export = await opened(tree)
    held = await attempt(export)
    await tree.remove_symlink((LEDGER, "pending", V1))
    await export.rewrite_pending(V1, held)
    assert ledger(tree, "pending") == [V1]
    assert await attempt(export) == held
    await export.settle(V1, "uid-1")
    await export.rewrite_pending(V1, held)
    assert (ledger(tree, "pending"), ledger(tree, "volumes")) == ([], [V1])


async def test_the_class_of_an_attempt_is_replaced() -> None:
    """The pending record gets another quota; one that another leader has changed, settled or removed stays."""
    tree = MemoryTree()
    export = await opened(tree)
    held = await attempt(export)
    wanted = await export.follow_class(V1, held, "required")
    assert wanted == structs.replace(held, quota="required")
    assert export.records[V1] == await export.refresh_record(V1) == wanted
    assert await export.follow_class(V1, held, "preferred") == held
    assert export.records[V1] == wanted
    await export.settle(V1, "")
    assert await export.follow_class(V1, wanted, "preferred") == wanted
    assert (ledger(tree, "pending"), ledger(tree, "volumes")) == ([], [V1])
    await tree.remove_symlink((LEDGER, "volumes", V1))
    assert await export.follow_class(V1, wanted, "preferred") == wanted
    assert (ledger(tree, "pending"), ledger(tree, "volumes")) == ([], [])


async def attempt(export: Export) -> Record:
    """Provision one volume."""
    return await export.provision(V1, record("a", V1), ACCESS, adopt_from=None)
