"""nfs.client.remove_tree: a removal uses bounded memory for any shape of tree, and it always ends."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence

import pytest

from provisioner.nfs.client import remove_tree as purging
from provisioner.nfs.client.backlog import REMOVAL_BYTES, TOTAL_BYTES, MemoryBudget
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Place, Removal
from provisioner.nfs.client.remove_tree import DEPTH_LIMIT, TreeRemoval
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Position
from provisioner.ports.tree import Cause, ExportError, OnProgress
from tests.support.fakes.directories import Directories

pytestmark = pytest.mark.timeout(300)

COUNT = 3_000
WIDE = 150
ROOM_BYTES = 64 << 10
BESIDE_BYTES = 256 << 10
"""What 32 calls in flight and their pages take beside what waits."""

Shape = Callable[[Directories], None]


def wide(tree: Directories) -> None:
    """All directories in one directory."""
    for number in range(COUNT):
        tree.put(tree.top, f"{number:08}")


def deep(tree: Directories) -> None:
    """Each directory inside the previous one."""
    here = tree.top
    for number in range(COUNT):
        here = tree.put(here, f"{number:08}")


def deep_among_siblings(tree: Directories) -> None:
    """Each level is full of empty directories, one of which, at any position, is the next level."""
    chance, here = random.Random(1), tree.top
    for _ in range(COUNT // WIDE):
        here = random.Random(chance.random()).choice([tree.put(here, f"{number:08}") for number in range(WIDE)])


def bushy(tree: Directories) -> None:
    """Each directory has two subdirectories."""
    level = [tree.top]
    while level and len(level) < COUNT // 2:
        level = [tree.put(here, name) for here in level for name in ("left", "right")]


def two_wide_levels(tree: Directories) -> None:
    """Many directories with as many subdirectories in each."""
    for number in range(60):
        above = tree.put(tree.top, f"{number:08}")
        for below in range(COUNT // 60):
            tree.put(above, f"{below:08}")


def long_names(tree: Directories) -> None:
    """A deep tree among siblings with names of maximum length that take four bytes per character in memory."""
    here = tree.top
    for _ in range(COUNT // WIDE):
        here = [tree.put(here, f"{number:03}{'x' * 248}\N{GRINNING FACE}") for number in range(WIDE)][-1]


def hard_links(tree: Directories) -> None:
    """One file with many names, in many directories of a chain."""
    file, here = tree.new(directory=False), tree.top
    for _ in range(COUNT // WIDE):
        for number in range(WIDE):
            tree.put(here, f"{number:08}", file)
        here = tree.put(here, "below")


def mixed(tree: Directories) -> None:
    """Directories and files, each in a random one of the last hundred directories."""
    chance, places = random.Random(2), [tree.top]
    for number in range(COUNT):
        above = chance.choice(places[-100:])
        if chance.random() < 0.5:
            tree.put(above, f"{number:08}", tree.new(directory=False))
        else:
            places.append(tree.put(above, f"{number:08}"))


SHAPES: list[Shape] = [
    wide,
    deep,
    deep_among_siblings,
    bushy,
    two_wide_levels,
    long_names,
    hard_links,
    mixed,
]


async def limited(step: Callable[[Deadline], Awaitable[object]]) -> object:
    """Run a step without a time limit."""
    return await step(Deadline(float("inf")))


def removal(
    tree: Directories, *, budget: MemoryBudget | None = None, on_progress: OnProgress | None = None
) -> TreeRemoval:
    """Return a removal of the tree's top directory."""
    return TreeRemoval(tree, limited, on_progress, budget or MemoryBudget())  # type: ignore[arg-type]


def for_a_while(entries: int) -> OnProgress:
    """Return a progress callback that stops after this many removed entries."""
    gone: list[int] = []

    def on_progress(removed: int) -> bool:
        gone.append(removed)
        return sum(gone) < entries

    return on_progress


async def remove(tree: Directories, *, budget: MemoryBudget | None = None) -> TreeRemoval:
    """Remove the tree's top directory."""
    purge = removal(tree, budget=budget)
    await purge.remove(tree.place, tree.found)
    return purge


@pytest.mark.parametrize("shape", SHAPES)
async def test_memory_has_a_bound_for_any_shape(shape: Shape) -> None:
    """Two concurrent removals stay within their shared memory limit for any tree, and remove everything."""
    trees = Directories(), Directories()
    for tree in trees:
        shape(tree)
    expected = sum(sum(1 for _ in tree.left()) + 1 for tree in trees)
    budget = MemoryBudget(ROOM_BYTES)
    tracemalloc.start()
    try:
        done = await asyncio.gather(*(remove(tree, budget=budget) for tree in trees))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(purge.removed for purge in done) == expected
    assert not any(True for tree in trees for _ in tree.left())
    assert peak < ROOM_BYTES + 2 * BESIDE_BYTES
    assert budget.held_bytes == 0


def test_all_removals_share_a_limit() -> None:
    """All removals of a process share 8 MiB, of which one removal takes at most a quarter."""
    assert TOTAL_BYTES == 8 << 20
    assert REMOVAL_BYTES <= TOTAL_BYTES // 4
    budget = MemoryBudget()
    assert budget.limit_bytes == TOTAL_BYTES


async def test_deep_directories_move_to_the_top_only() -> None:
    """A chain is cut every 32 levels, and its rest is moved into the top directory with one rename."""
    tree = Directories()
    deep(tree)
    await remove(tree)
    assert tree.moved == (COUNT - 1) // DEPTH_LIMIT


async def test_an_ordinary_tree_is_removed_in_place() -> None:
    """A tree of ordinary depth is removed without renames and with all workers busy."""
    tree = Directories()
    two_wide_levels(tree)
    await remove(tree)
    assert tree.moved == 0
    assert tree.most_in_flight == purging.WORKERS


async def test_two_removals_of_one_tree() -> None:
    """Two leaders that remove the same deep tree concurrently remove all of it, and nothing else."""
    tree = Directories()
    deep(tree)
    await asyncio.gather(remove(tree), remove(tree), return_exceptions=True)
    await remove(tree)
    assert not list(tree.left())


async def test_a_stopped_removal_can_be_continued() -> None:
    """A removal of a deep tree that stops early releases its memory, and the next removal continues."""
    tree, budget = Directories(), MemoryBudget()
    deep_among_siblings(tree)
    while tree.top.entries:
        purge = removal(tree, budget=budget, on_progress=for_a_while(300))
        await purge.remove(tree.place, tree.found)
        assert purge.removed
        assert budget.held_bytes == 0


async def test_a_deep_refused_entry_stays() -> None:
    """A file below the depth limit that cannot be removed stays with its parents, and the refusal is raised."""
    tree = Directories()
    here = tree.top
    for number in range(100):
        tree.put(here, "beside")
        here = tree.put(here, f"{number:08}")
    tree.put(here, "kept", tree.new(directory=False)).denied = True
    with pytest.raises(ExportError) as caught:
        await remove(tree)
    assert caught.value.cause is Cause.DENIED
    left = list(tree.left())
    assert "kept" in left
    assert "beside" not in left


class Scripted(Directories):
    """A server that returns scripted pages for the top directory, and reports every removal as done."""

    def __init__(self, page: Callable[[Position], DirectoryPage]) -> None:
        super().__init__()
        self._page = page
        self.reads = 0

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """See Client."""
        self.reads += 1
        await asyncio.sleep(0)
        return self._page(position)

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """See Client."""
        await asyncio.sleep(0)
        return Removal(len(names))


@pytest.mark.parametrize("period", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("empty", [False, True])
async def test_a_readdir_loop_ends_a_removal(period: int, *, empty: bool) -> None:
    """Repeated positions, after any number of pages, with or without entries, are reported as a readdir loop."""

    def page(position: Position) -> DirectoryPage:
        cookie = 5 + (position.cookie - 4) % period
        entries = () if empty else (DirectoryEntry(f"name-{cookie}", cookie=cookie),)
        return DirectoryPage(entries, Position(cookie))

    tree = Scripted(page)
    with pytest.raises(ExportError) as caught:
        await remove(tree)
    assert caught.value.cause is Cause.OTHER
    assert "repeats a directory position (readdir loop) in directory top" in caught.value.advice
    assert tree.reads < 6 * period + 10


async def test_endless_names_end_a_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with endless new names ends a removal with a clear error."""
    monkeypatch.setattr(purging, "ENTRIES_LIMIT", 1000)
    tree = Scripted(
        lambda position: DirectoryPage(
            (DirectoryEntry(f"name-{position.cookie}", cookie=position.cookie + 1),), Position(position.cookie + 1)
        )
    )
    with pytest.raises(ExportError, match="has no end"):
        await remove(tree)


async def test_a_server_that_keeps_entries_ends_a_removal() -> None:
    """A server that reports entries as removed but keeps them ends a removal as not empty."""
    tree = Scripted(lambda _: DirectoryPage((DirectoryEntry("name", cookie=1),), None))
    tree.put(tree.top, "name")
    with pytest.raises(ExportError, match="not empty"):
        await remove(tree)
    assert tree.reads <= purging.REREADS_LIMIT + 1


class Waiting(Directories):
    """A server that asks to try later at each removal."""

    asked = 0

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """See Client."""
        self.asked += 1
        return Removal(0, ExportError(Cause.NOT_YET, names[0]))


async def test_a_server_that_always_delays_ends_a_removal() -> None:
    """A removal does not wait for each entry of a server that always asks to try later."""
    tree = Waiting()
    wide(tree)
    with pytest.raises(ExportError) as caught:
        await remove(tree)
    assert caught.value.cause is Cause.NOT_YET
    assert tree.asked < 4 * purging.WORKERS
