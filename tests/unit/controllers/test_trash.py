"""controllers.trash, in simulated time: bounded, fair between exports, patient with entries that cannot be removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from provisioner.controllers import trash
from provisioner.controllers.trash import IN_PARALLEL, PER_EXPORT, TAKEN_S, TURN_S, Purge
from provisioner.core.locations import Location, RelPath
from provisioner.ledger.export import Export
from provisioner.ledger.layout import BEGUN, TOMBSTONE
from provisioner.ports.tree import Cause, ExportError, NotEmpty, OnProgress, Ownership, PathMissing
from provisioner.telemetry.metrics import Metrics
from tests.support.context import running
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.guard import Gate
from tests.support.fakes.tree import Directory, MemoryTree

PLAIN = Ownership(mode=0o755)
STAMP = "20260101T000000.000000Z"
HOUR_S = 3600.0

Running = dict[MemoryTree, int]


class SlowTree(MemoryTree):
    """A tree that removes one entry per second; names that begin with `endless` never come to an end."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.running = running
        self.peak = self.peak_of_all = 0
        self.refusals: dict[str, Exception] = {}
        self.attempts: list[str] = []
        self.slow = True
        """Whether also an empty directory takes a second."""

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """See `Tree`."""
        self.attempts.append(path[-1].removesuffix(BEGUN))
        self.running[self] = self.running.get(self, 0) + 1
        self.peak = max(self.peak, self.running[self])
        self.peak_of_all = max(self.peak_of_all, sum(self.running.values()))
        try:
            return await self._remove_slowly(path, on_progress)
        finally:
            self.running[self] -= 1

    async def remove_directory(self, path: RelPath) -> None:
        """See `Tree`; no directory counts as empty until its removal has begun, so each takes a second."""
        if self.slow and not path[-1].endswith(BEGUN):
            raise NotEmpty(path[-1])
        await super().remove_directory(path)

    async def _remove_slowly(self, path: RelPath, on_progress: OnProgress | None) -> int:
        removed, name = 0, path[-1].removesuffix(BEGUN)
        while True:
            await asyncio.sleep(1.0)
            if name in self.refusals:
                raise self.refusals[name]
            directory = self.look(path)
            if not isinstance(directory, Directory):
                raise PathMissing(path[-1])
            removed += 1
            if not directory.entries and not path[-1].startswith("endless"):
                await self.remove_directory(path)
                if on_progress is not None:
                    on_progress(1)
                return removed
            if directory.entries:
                directory.entries.popitem()
            if on_progress is not None and not on_progress(1):
                return removed


class Trash:
    """Exports with trash, and one purge of all of them."""

    def __init__(self) -> None:
        self.metrics, self.gate = Metrics(), Gate()
        self.asked: list[str] = []
        """Entries of which the purge asked whether they must stay."""
        self.needed: set[str] = set()
        """Entries whose volumes exist again."""
        self.looks: list[tuple[str, list[str]]] = []
        """The exports that were looked at, with the names in their trash."""
        self.purge = Purge(LoopClock(), self.metrics, self._keeps, self.gate, self._looked)
        self.running: Running = {}
        self.trees: dict[str, SlowTree] = {}
        self.exports: dict[str, Export] = {}

    async def _looked(self, export: Export, names: list[str]) -> None:
        self.looks.append((export.name, names))

    async def export(self, name: str, *names: str, entries: int = 0) -> SlowTree:
        """Add an export with these directories in its trash, each with a number of entries."""
        tree = self.trees[name] = SlowTree(self.running)
        self.exports[name] = Export(Location(name, "/x"), tree, name=name)
        await self.exports[name].open()
        for each in names:
            await self.discard(name, each, entries=entries)
        return tree

    async def discard(self, export: str, name: str, *, entries: int = 0) -> None:
        """Put a directory into an export's trash."""
        path = (".provisioner", "trash", f"{name}.{STAMP}" if self.trees[export].verifies else name)
        await self.trees[export].make_directory(path, PLAIN)
        for number in range(entries):
            self.trees[export].write_file((*path, str(number)))
        self.purge.look(self.exports[export])

    async def _keeps(self, _export: Export, name: str) -> bool:
        self.asked.append(name)
        return name.split(".")[0] in self.needed

    async def names(self, export: str) -> list[str]:
        """The names in an export's trash."""
        return sorted(name.split(".")[0] for name in await self.exports[export].trash.names())

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Run the purge while the context is open."""
        async with running(*map(self.purge.keep, self.exports.values())):
            yield

    def sample(self, name: str, export: str) -> float:
        """A metric's value for an export."""
        return self.metrics.registry.get_sample_value(name, {"export": export}) or 0.0


def simulated(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in simulated time."""

    def run() -> None:
        simulate(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@simulated
async def test_all_trash_goes() -> None:
    """Trash from before the start is removed, and later trash as well; each is counted and logged once."""
    trash = Trash()
    await trash.export("nas", *(f"v{number}" for number in range(10)), entries=3)
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(30.0)
            assert await trash.names("nas") == []
            assert trash.looks[-1] == ("nas", [])
            await trash.discard("nas", "late")
            await asyncio.sleep(5.0)
            assert await trash.names("nas") == []
    assert trash.sample("nfs_provisioner_purged_entries_total", "nas") == 41.0
    assert trash.sample("nfs_provisioner_trash_entries", "nas") == 0.0
    assert [(line["event"], line["entries"]) for line in logs] == [("purged", 4)] * 10 + [("purged", 1)]


@simulated
async def test_bounds() -> None:
    """An export has at most four removals at a time, all exports together at most sixteen."""
    trash = Trash()
    trees = [await trash.export(f"nas-{n}", *(f"v{i}" for i in range(20)), entries=3) for n in range(10)]
    async with trash.at_work():
        await asyncio.sleep(HOUR_S)
    assert [await trash.names(name) for name in trash.exports] == [[]] * 10
    assert {tree.peak for tree in trees} == {PER_EXPORT}
    assert max(tree.peak_of_all for tree in trees) == IN_PARALLEL


@simulated
async def test_a_huge_tree_never_starves_another_export() -> None:
    """If huge trees of other exports use all slots, a small one is still removed within a few turns."""
    trash = Trash()
    huge = IN_PARALLEL // PER_EXPORT + 2
    for number in range(huge):
        await trash.export(f"huge-{number}", *(f"endless-{each}" for each in range(PER_EXPORT)))
    await trash.export("small")
    async with trash.at_work():
        await asyncio.sleep(60.0)
        await trash.discard("small", "v1")
        await asyncio.sleep(3 * TURN_S)
        assert await trash.names("small") == []
        await asyncio.sleep(20 * TURN_S)
    removed = [trash.sample("nfs_provisioner_purged_entries_total", f"huge-{number}") for number in range(huge)]
    assert min(removed) > max(removed) / 2


@simulated
async def test_a_huge_tree_does_not_keep_its_own_export() -> None:
    """A huge tree does not hold back the rest of its export's trash, also trash that comes later."""
    trash = Trash()
    await trash.export("nas", "endless", "v1")
    async with trash.at_work():
        await asyncio.sleep(5.0)
        await trash.discard("nas", "v2")
        await asyncio.sleep(5.0)
        assert await trash.names("nas") == ["endless"]


@simulated
async def test_progress_while_one_tree_is_removed() -> None:
    """During the removal of a large tree the counter of entries and the age of the trash grow."""
    trash = Trash()
    await trash.export("nas", "endless")
    seen = []
    async with trash.at_work():
        for _ in range(3):
            await asyncio.sleep(100.0)
            removed = trash.sample("nfs_provisioner_purged_entries_total", "nas")
            seen.append((removed, trash.sample("nfs_provisioner_trash_oldest_seconds", "nas")))
            assert trash.sample("nfs_provisioner_trash_entries", "nas") == 1.0
    assert all(now > before for one in zip(*seen, strict=True) for before, now in pairwise(one))


@simulated
async def test_an_entry_that_cannot_be_removed() -> None:
    """An entry that cannot be removed is logged once, holds back no other, and is tried a few times per hour."""
    trash = Trash()
    tree = await trash.export("nas", "stuck", "v1")
    name = f"stuck.{STAMP}"
    tree.refusals[name] = ExportError(Cause.DENIED, "not permitted")
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(HOUR_S)
            assert await trash.names("nas") == ["stuck"]
            assert trash.sample("nfs_provisioner_trash_refused", "nas") == 1.0
            assert 5 <= tree.attempts.count(name) <= 12
            tree.refusals[name] = ExportError(Cause.OTHER, "something else")
            await asyncio.sleep(HOUR_S)
            del tree.refusals[name]
            await asyncio.sleep(HOUR_S)
            assert await trash.names("nas") == []
            assert trash.sample("nfs_provisioner_trash_refused", "nas") == 0.0
    errors = [line["error"] for line in logs if line["event"] == "not_purged"]
    assert len(errors) == 2
    assert "not permitted" in errors[0]


@simulated
async def test_an_export_that_fails_is_left_alone_until_it_is_back() -> None:
    """While an export does not answer, its trash is tried once per minute and not logged; it is removed afterwards."""
    trash = Trash()
    tree = await trash.export("nas", *(f"v{number}" for number in range(50)))
    silent = ExportError(Cause.UNREACHABLE, "no answer")
    tree.refusals = dict.fromkeys(await trash.exports["nas"].trash.names(), silent)
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(5 * 60.0)
            assert len(tree.attempts) <= 6 * PER_EXPORT
            assert not [line for line in logs if line["log_level"] != "debug"]
            tree.refusals.clear()
            trash.purge.look(trash.exports["nas"])
            await asyncio.sleep(20.0)
            assert await trash.names("nas") == []


@simulated
async def test_two_clusters_with_one_id() -> None:
    """While two clusters are at work nothing is removed, not even the rest of a tree; all is once that is over."""
    trash = Trash()
    await trash.export("nas", "v1", "v2", entries=50)
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(10.0)
            trash.gate.shut = Cause.TWICE
            await asyncio.sleep(1.5)
            gone = trash.sample("nfs_provisioner_purged_entries_total", "nas")
            await asyncio.sleep(10 * 60.0)
            assert gone == trash.sample("nfs_provisioner_purged_entries_total", "nas")
            assert not [line for line in logs if line["log_level"] != "debug"]
            trash.gate.shut = None
            trash.purge.look(trash.exports["nas"])
            await asyncio.sleep(120.0)
            assert await trash.names("nas") == []


@simulated
async def test_a_crash_during_a_removal() -> None:
    """After a crash the next process removes the rest, and nothing twice."""
    trash = Trash()
    await trash.export("nas", "v1", entries=50)
    async with trash.at_work():
        await asyncio.sleep(20.0)
    before = trash.sample("nfs_provisioner_purged_entries_total", "nas")
    assert 0 < before < 51
    async with trash.at_work():
        await asyncio.sleep(60.0)
    assert await trash.names("nas") == []
    assert trash.sample("nfs_provisioner_purged_entries_total", "nas") == 51.0


@simulated
async def test_an_unexpected_error_affects_one_entry() -> None:
    """An unexpected error is counted, and holds back only its own directory, which is tried again later."""
    trash = Trash()
    tree = await trash.export("nas", "odd", "v1", "v2")
    tree.refusals[f"odd.{STAMP}"] = RuntimeError("odd")
    async with trash.at_work():
        await asyncio.sleep(60.0)
        assert await trash.names("nas") == ["odd"]
        assert trash.sample("nfs_provisioner_trash_refused", "nas") == 1.0
        await trash.discard("nas", "late")
        await asyncio.sleep(5.0)
        assert await trash.names("nas") == ["odd"]
        del tree.refusals[f"odd.{STAMP}"]
        await asyncio.sleep(HOUR_S)
        assert await trash.names("nas") == []
    value = trash.metrics.registry.get_sample_value("nfs_provisioner_unexpected_errors_total", {"loop": "purge"})
    assert value is not None
    assert 1.0 <= value <= 5.0


@simulated
async def test_data_of_an_existing_volume_stay() -> None:
    """A kept entry is not touched, not even in part, and removed immediately when its volume is gone."""
    trash = Trash()
    trash.needed.add("v1")
    tree = await trash.export("nas", "v1", "v2", entries=3)
    async with trash.at_work():
        await asyncio.sleep(HOUR_S)
        assert await trash.names("nas") == ["v1"]
        assert await trash.exports["nas"].trash.begun() == set()
        assert tree.attempts == [f"v2.{STAMP}"]
        assert trash.sample("nfs_provisioner_trash_refused", "nas") == 0
        trash.needed.clear()
        trash.purge.freed("v1")
        await asyncio.sleep(10.0)
        assert await trash.names("nas") == []


@simulated
async def test_a_removal_stops_when_its_volume_exists_again() -> None:
    """A long removal stops within a minute when its data must be kept, and reports that a part is gone."""
    trash = Trash()
    await trash.export("nas", "v1", entries=500)
    async with trash.at_work():
        await asyncio.sleep(5.0)
        trash.needed.add("v1")
        await asyncio.sleep(HOUR_S)
        assert await trash.names("nas") == ["v1"]
        assert await trash.exports["nas"].trash.begun() == {f"v1.{STAMP}"}


async def kept(trash: Trash, *names: str) -> None:
    """Directories in the trash of an export whose server does not verify, as move_to_trash() leaves them."""
    tree = await trash.export("nas")
    tree.verifies = False
    for name in names:
        await trash.discard("nas", name, entries=2)
        await tree.make_directory((".provisioner", "trash", name, TOMBSTONE), PLAIN)


@simulated
async def test_a_name_stays_taken_for_a_while() -> None:
    """A name whose rename may arrive late stays taken for ten minutes after the purge, and is not counted as trash."""
    trash = Trash()
    await kept(trash, "v1", "v2")
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(60.0)
            assert await trash.names("nas") == ["v1", "v2"]
            assert trash.sample("nfs_provisioner_trash_entries", "nas") == 0.0
            trash.purge.look(trash.exports["nas"])
            await asyncio.sleep(TAKEN_S - 60.0)
            assert await trash.names("nas") == ["v1", "v2"]
            assert trash.sample("nfs_provisioner_trash_entries", "nas") == 0.0
            assert trash.sample("nfs_provisioner_trash_oldest_seconds", "nas") == 0.0
            await asyncio.sleep(60.0)
            assert await trash.names("nas") == []
    assert [each["event"] for each in logs if each["event"] == "purged"] == ["purged"] * 2


async def emptied(trash: Trash, *names: str) -> SlowTree:
    """Empty directories in the trash of an export whose server does not verify, as move_to_trash() leaves them."""
    tree = await trash.export("nas")
    tree.verifies, tree.slow = False, False
    for name in names:
        await trash.discard("nas", name)
        await tree.make_directory((".provisioner", "trash", name, TOMBSTONE), PLAIN)
    return tree


@simulated
async def test_an_empty_volume_needs_no_removal() -> None:
    """An empty directory in the trash counts as purged, keeps its name taken, and goes with its name."""
    trash = Trash()
    tree = await emptied(trash)
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(1.0)
            for name in ("v1", "v2"):
                await trash.discard("nas", name)
                await tree.make_directory((".provisioner", "trash", name, TOMBSTONE), PLAIN)
            await asyncio.sleep(60.0)
            assert (await trash.names("nas"), sorted(trash.asked)) == (["v1", "v2"], ["v1", "v2"])
            assert trash.sample("nfs_provisioner_purged_entries_total", "nas") == 2.0
            assert trash.sample("nfs_provisioner_trash_entries", "nas") == 0.0
            await asyncio.sleep(TAKEN_S)
            assert await trash.names("nas") == []
    assert [(each["event"], each["entries"]) for each in logs] == [("purged", 1)] * 2
    assert tree.attempts == []


@simulated
async def test_an_empty_volume_that_exists_again_is_kept() -> None:
    """An empty directory whose volume exists again stays, and is asked for again every minute."""
    trash = Trash()
    tree = await emptied(trash)
    trash.needed.add("v1")
    async with trash.at_work():
        await asyncio.sleep(1.0)
        await trash.discard("nas", "v1")
        await tree.make_directory((".provisioner", "trash", "v1", TOMBSTONE), PLAIN)
        await asyncio.sleep(HOUR_S)
        assert await trash.names("nas") == ["v1"]
        assert len(trash.asked) >= 59


@simulated
async def test_a_name_that_got_data_again_is_purged() -> None:
    """What a client writes into a directory that counts as purged goes once its name is to be free."""
    trash = Trash()
    tree = await emptied(trash, "v1")
    async with trash.at_work():
        await asyncio.sleep(60.0)
        tree.write_file((".provisioner", "trash", "v1", "late"))
        await asyncio.sleep(TAKEN_S + 60.0)
        assert await trash.names("nas") == []
    assert tree.attempts == ["v1"]


@simulated
async def test_names_become_free_only_while_this_replica_leads() -> None:
    """No name becomes free while the guard refuses."""
    trash = Trash()
    tree = await emptied(trash, "v1")
    async with trash.at_work():
        await asyncio.sleep(60.0)
        trash.gate.shut = Cause.UNSETTLED
        await asyncio.sleep(HOUR_S)
        assert await trash.names("nas") == ["v1"]
    assert tree.attempts == []


@simulated
async def test_a_restart_keeps_a_name_for_longer() -> None:
    """A process that finds a taken name does not know since when, and keeps it for ten minutes more."""
    trash = Trash()
    await kept(trash, "v1")
    for _ in range(2):
        async with trash.at_work():
            await asyncio.sleep(TAKEN_S - 60.0)
            assert await trash.names("nas") == ["v1"]
    async with trash.at_work():
        await asyncio.sleep(TAKEN_S + 60.0)
        assert await trash.names("nas") == []


@simulated
async def test_a_restart_reads_no_volume_of_a_purged_directory() -> None:
    """A process that finds only taken names destroys nothing for them, and asks for no volume; data are purged."""
    trash = Trash()
    await kept(trash, "v1", "v2")
    async with trash.at_work():
        await asyncio.sleep(60.0)
    await trash.discard("nas", "v3", entries=2)
    trash.asked.clear()
    attempts = len(trash.trees["nas"].attempts)
    with capture_logs() as logs:
        async with trash.at_work():
            await asyncio.sleep(60.0)
            assert trash.asked == ["v3"]
            assert trash.trees["nas"].attempts[attempts:] == ["v3"]
            assert trash.sample("nfs_provisioner_trash_entries", "nas") == 0.0
            await asyncio.sleep(TAKEN_S + 60.0)
            assert await trash.names("nas") == []
    assert [each["trash"] for each in logs if each["event"] == "purged"] == ["v3"]


@simulated
async def test_a_removal_that_had_begun_is_completed_after_a_restart() -> None:
    """A name under which a part of a directory is left is no taken name: the next process removes that part."""
    trash = Trash()
    await kept(trash, "v1")
    await trash.trees["nas"].rename((".provisioner", "trash", "v1"), (".provisioner", "trash", "v1" + BEGUN))
    await trash.trees["nas"].make_directory((".provisioner", "trash", "v1", TOMBSTONE), PLAIN)
    async with trash.at_work():
        await asyncio.sleep(60.0)
        assert trash.trees["nas"].attempts == ["v1"]
        assert await trash.exports["nas"].trash.is_over("v1")


def test_names_that_are_taken_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit the oldest names are freed earlier."""
    monkeypatch.setattr(trash, "TAKEN_LIMIT", 3)

    async def run() -> None:
        trash = Trash()
        await kept(trash, *(f"v{number}" for number in range(9)))
        async with trash.at_work():
            await asyncio.sleep(180.0)
            assert len(await trash.names("nas")) == 3

    simulate(run())
