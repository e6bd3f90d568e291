"""controllers.clones: copies in the background, their events, and the protection of their sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import structs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.claims import ClaimController
from provisioner.controllers.clones import LOOK_EVERY_S, Clones
from provisioner.core import names
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, DataSource
from provisioner.ledger import layout
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.fair_share import FairShare
from provisioner.runtime.locks import VolumeLocks
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context, running
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import Directory, File, MemoryTree, no_fault

NAS, OTHER = Location("nas", "/exports"), Location("other", "/exports")
SOURCE = {"kind": "PersistentVolumeClaim", "name": "data"}
STILL_RUNNING = Requeue.after(LOOK_EVERY_S)


class Site:
    """A leader with a bound claim that has data, and a pending claim that asks for a clone."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.tree, self.other = LoopClock(), Metrics(), MemoryTree(), MemoryTree()
        self.export, second = Export(NAS, self.tree), Export(OTHER, self.other)
        self.cluster, self.cache = MemoryCluster(), ClusterCache(samples.US)
        exports = ExportRegistry({NAS: self.export, OTHER: second}, NAS, lambda *_: pytest.fail("no other"))
        self.ctx = controller_context(
            cluster=self.cluster,
            cache=self.cache,
            exports=exports,
            metrics=self.metrics,
            clock=self.clock,
            cluster_id="memory",
        )
        self.cluster.namespaces.add("shop")
        self.cache.classes.apply(samples.storage_class(), deleted=False)
        self.queue = WorkQueue(self.clock, waited=lambda _: None)
        self.locks = VolumeLocks()
        self.released: list[str] = []
        self.clones = Clones(self.ctx, self.locks, revisit=self.queue.add, released=self.released.append)
        share = FairShare(4, self.queue.add)
        self.controller = ClaimController(self.ctx, self.queue, share, self.locks, self.clones)

    def claim(self, name: str, **spec: Any) -> Claim:
        """Create a claim."""
        body: Any = msgspec.to_builtins(samples.claim(name=name, uid=""))
        body["spec"].update(spec)
        self.cluster.create("claims", body)
        return self.seen(name)

    def plant_large_file(self, source: Claim) -> None:
        """Give a claim a file of 10,000 bytes, which copies have to read and write."""
        directory = self.tree.look(self.export.records[names.volume_name(source.uid)].path)
        assert isinstance(directory, Directory)
        directory.entries["large"] = File(bytes(range(1, 251)) * 40)
        self.tree.files.clones = self.tree.files.copies = False

    async def leave_free(self, size_bytes: int) -> None:
        """Change the free space of the export, and wait until the daemon has seen it."""
        self.tree.statfs = replace(self.tree.statfs, free_bytes=size_bytes)
        await asyncio.sleep(15.0)

    def seen(self, name: str) -> Claim:
        """Let the cache see a claim as it is."""
        claim = self.cluster.claim(f"shop/{name}")
        assert claim is not None
        self.cache.claims.apply(claim, deleted=False)
        return claim

    async def bound(self) -> Claim:
        """Provision and bind the source, with data."""
        claim = self.claim("data")
        assert await self.controller.reconcile(claim.uid) is None
        name = names.volume_name(claim.uid)
        self.cluster.change("volumes", name, lambda body: body["status"].update(phase="Bound"))

        def bind(body: Any) -> None:
            body["spec"]["volumeName"] = name
            body["status"]["phase"] = "Bound"

        self.cluster.change("claims", "shop/data", bind)
        directory = self.tree.look(self.export.records[name].path)
        assert isinstance(directory, Directory)
        directory.entries["file"] = File(b"data")
        volume = self.cluster.volume(name)
        assert volume is not None
        self.cache.volumes.apply(volume, deleted=False)
        return self.seen("data")

    def content(self, claim: Claim) -> object:
        """What the directory of a claim holds."""
        record = self.export.records.get(names.volume_name(claim.uid))
        return self.tree.look((*record.path, "file")) if record is not None else None

    async def messages(self, name: str) -> list[str]:
        """The messages of the events about a claim so far."""
        await self.ctx.recorder.drain()
        await asyncio.sleep(0.1)
        events = self.cluster.events.values()
        return [each.event.message for each in events if each.event.about.name == name]

    @asynccontextmanager
    async def led(self) -> AsyncIterator[None]:
        """Check the exports, run copies and write events while the context is open."""
        async with running(self.ctx.health.run(), self.ctx.recorder.run(), self.clones.run()):
            for export in self.ctx.exports:
                self.ctx.health.add(export, named=True)
            await self.ctx.health.lead()
            await asyncio.sleep(0)
            yield


def scene(play: Callable[[Site], Awaitable[None]]) -> Callable[[], None]:
    """Turn a scene into a test in simulated time."""

    def test() -> None:
        async def run() -> None:
            site = Site()
            async with site.led():
                await play(site)

        simulate(run())

    test.__doc__ = play.__doc__
    return test


def held(site: Site, call: str = "make") -> asyncio.Event:
    """Hold up the copy at this call until the event is set."""
    goes_on = asyncio.Event()

    async def hold(name: str, path: RelPath) -> None:
        if name == call and path[:2] == (".provisioner", "copies"):
            await goes_on.wait()

    site.tree.before = hold
    return goes_on


@scene
async def test_a_copy_in_the_background(site: Site) -> None:
    """The claim is looked at every half minute while its copy runs; then it gets the volume."""
    await site.bound()
    goes_on = held(site)
    clone = site.claim("clone", dataSource=SOURCE)
    for _ in range(3):
        assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
        assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
        await asyncio.sleep(LOOK_EVERY_S)
    assert site.cluster.volume(names.volume_name(clone.uid)) is None
    progress = [each for each in await site.messages("clone") if "copying the data of claim shop/data" in each]
    assert len(progress) == 1  # the same message is one event
    goes_on.set()
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.content(clone) == File(b"data")
    assert site.cluster.volume(names.volume_name(clone.uid)) is not None
    assert site.released == [names.volume_name(site.seen("data").uid)]


@scene
async def test_a_copy_that_fails(site: Site) -> None:
    """A refusal is an event with its cause; what was copied goes to the trash, and a later look begins again."""
    await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)

    async def refuse(name: str, path: RelPath) -> None:
        if name == "make":
            raise ExportError(Cause.READ_ONLY)

    site.tree.before = refuse
    discarded: list[Export] = []
    site.clones.on_discarded = discarded.append
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is REFUSED
    assert any("the copy has failed" in each and "nas:/exports" in each for each in await site.messages("clone"))
    assert discarded == [site.export]
    copies = site.tree.look((".provisioner", "copies"))
    assert copies == Directory(mode=0o700)
    site.tree.before = no_fault
    early = await site.controller.reconcile(clone.uid)
    assert early is not None
    assert not early.is_failure
    assert 0 < early.backoff.first_s <= 2.0
    await asyncio.sleep(2.0)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.content(clone) == File(b"data")


@scene
async def test_a_copy_that_has_no_room(site: Site) -> None:
    """It begins again after a long delay, and not before the export has more space than that attempt had."""
    source = await site.bound()
    site.plant_large_file(source)
    clone = site.claim("clone", dataSource=SOURCE)
    attempts = 0

    async def full(name: str, path: RelPath) -> None:
        nonlocal attempts
        attempts += name == "make_directory" and path[:2] == (".provisioner", "copies") and len(path) == 4
        if name == "flush":
            raise ExportError(Cause.NO_SPACE)

    site.tree.before = full
    await site.leave_free(9000)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is REFUSED
    for size_bytes in (9000, 9000 + (1 << 19)):
        await site.leave_free(size_bytes)
        await asyncio.sleep(900.0)
        assert await site.controller.reconcile(clone.uid) is REFUSED
    assert attempts == 2  # the two directories of one attempt
    waits = [each for each in await site.messages("clone") if "has no room for a copy of claim shop/data" in each]
    assert len(waits) == 1
    assert "once 1Mi are free" in waits[0]
    site.tree.before = no_fault
    await site.leave_free(2 << 20)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None


@scene
async def test_a_copy_that_waits_for_its_turn(site: Site) -> None:
    """Space that is free again begins no attempt before the delay is over."""
    await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)

    async def full(name: str, path: RelPath) -> None:
        if name == "make":
            raise ExportError(Cause.NO_INODES)

    site.tree.before = full
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is REFUSED
    early = await site.controller.reconcile(clone.uid)
    assert early is not None
    assert not early.is_failure
    assert 14.0 < early.backoff.first_s <= 15.0
    await site.clones.cancel(names.volume_name(clone.uid))  # the claim needs none any longer: that is forgotten
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING


@scene
async def test_a_source_that_goes_before_its_copy_can_begin(site: Site) -> None:
    """A clone that has passed all checks protects its source, though nothing is written while the export is away."""
    source = await site.bound()
    volume = site.cluster.volume(names.volume_name(source.uid))
    assert volume is not None

    async def away(name: str, path: RelPath) -> None:
        raise ExportError(Cause.UNREACHABLE)

    site.tree.before = away
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) is FAILED
    assert site.export.pending == set()
    assert site.clones.reader_of(volume) == "shop/clone"
    site.cluster.delete("claims", "shop/data")
    site.cluster.change("claims", "shop/data", lambda body: body["metadata"].update(finalizers=[]))
    assert site.cluster.claim("shop/data") is None
    assert await site.controller.reconcile(clone.uid) is FAILED
    site.tree.before = no_fault
    await asyncio.sleep(10.0)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.content(clone) == File(b"data")
    assert site.clones.reader_of(volume) is None
    assert site.released == [volume.name]


@scene
async def test_a_clone_that_is_deleted_before_its_copy_can_begin(site: Site) -> None:
    """Its source is free again, and looked at again."""
    source = await site.bound()
    volume = site.cluster.volume(names.volume_name(source.uid))
    assert volume is not None
    clone = site.claim("clone", dataSource=SOURCE)
    with site.locks.try_acquire(volume.name):
        assert await site.controller.reconcile(clone.uid) == Requeue.after(0.5)
    assert site.clones.reader_of(volume) == "shop/clone"
    site.cache.claims.apply(clone, deleted=True)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.clones.reader_of(volume) is None
    assert site.released == [volume.name]


@scene
async def test_a_source_on_an_export_that_has_not_answered(site: Site) -> None:
    """While the ledger of an export is unknown, the source counts as on it: the event says that it is away."""
    source = await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)
    held(site)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await site.clones.cancel(names.volume_name(clone.uid))
    await site.export.forget(names.volume_name(source.uid))
    unread = Export(Location("third", "/"), site.other)
    site.ctx.exports._mounted[unread.location] = unread
    site.ctx.health.add(unread, named=False)

    async def away(name: str, path: RelPath) -> None:
        raise ExportError(Cause.UNREACHABLE)

    site.other.before = away
    assert await site.controller.reconcile(clone.uid) is FAILED


@scene
async def test_a_copy_that_cannot_begin(site: Site) -> None:
    """An export that does not answer before anything is copied is a failure of the export."""
    await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)

    async def away(name: str, path: RelPath) -> None:
        if name == "list" and path == (".provisioner", "copies"):
            raise ExportError(Cause.UNREACHABLE)

    site.tree.before = away
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is FAILED


@scene
async def test_a_bug_in_a_copy(site: Site) -> None:
    """An unexpected error is logged, and the copy begins again later."""
    await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)

    async def fail(name: str, path: RelPath) -> None:
        if name == "make":
            raise ZeroDivisionError

    site.tree.before = fail
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is FAILED


@scene
async def test_a_deleted_claim(site: Site) -> None:
    """The copy ends, and nothing of it is left; the source's volume is looked at again."""
    source = await site.bound()
    held(site)
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    site.cluster.delete("claims", "shop/clone")
    site.cluster.change("claims", "shop/clone", lambda body: body["metadata"].update(finalizers=[]))
    site.cache.claims.apply(clone, deleted=True)
    site.tree.before = no_fault
    assert await site.controller.reconcile(clone.uid) is None
    assert site.export.pending == set()
    assert site.released == [names.volume_name(source.uid)]


@scene
async def test_the_source_is_protected(site: Site) -> None:
    """A volume has a reader while a pending record names it, and no longer."""
    source = await site.bound()
    volume = site.cluster.volume(names.volume_name(source.uid))
    assert volume is not None
    assert site.clones.reader_of(volume) is None
    goes_on = held(site)
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    assert site.clones.reader_of(volume) == "shop/clone"
    goes_on.set()
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.clones.reader_of(volume) is None


def test_an_export_that_has_not_answered() -> None:
    """While the records of an export are unknown, every claim that can have begun protects its source."""

    async def play() -> None:
        site = Site()
        volume = samples.volume(name="pvc-a", claim_uid="a")
        reference = volume.spec.claim_ref
        assert reference is not None
        assert site.clones.reader_of(volume) is None
        site.claim("clone", dataSource={**SOURCE, "name": reference.name})
        site.claim("other", dataSource={**SOURCE, "name": "another"})
        assert site.clones.reader_of(volume) == "shop/clone"
        bare = structs.replace(volume, spec=structs.replace(volume.spec, claim_ref=None))
        assert site.clones.reader_of(bare) is None

    simulate(play())


@scene
async def test_a_source_that_is_not_there_yet(site: Site) -> None:
    """The clone waits for it, and is looked at again when it changes."""
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) is AWAITING_CHANGE
    with site.controller.subscribed():
        while len(site.queue):
            key = await site.queue.get()
            assert key is not None
            site.queue.done(key)
        await site.bound()
        keys = {await site.queue.get() for _ in range(len(site.queue))}
        assert clone.uid in keys


@scene
async def test_a_source_that_is_being_worked_on(site: Site) -> None:
    """While another worker has the source's volume, the copy does not begin: it may be about to be reclaimed."""
    source = await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)
    with site.locks.try_acquire(names.volume_name(source.uid)):
        assert await site.controller.reconcile(clone.uid) == Requeue.after(0.5)
    assert site.export.pending == set()


@scene
async def test_a_source_that_the_ledger_does_not_know(site: Site) -> None:
    """Without a record that confirms it, a source is not copied."""
    source = await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)
    await site.export.forget(names.volume_name(source.uid))
    assert await site.controller.reconcile(clone.uid) is REFUSED
    assert any("no ledger has a record" in each for each in await site.messages("clone"))


@scene
async def test_a_copy_that_an_earlier_leader_has_begun(site: Site) -> None:
    """The record names the source: the copy begins again, although the source's claim is gone."""
    source = await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)
    name = names.volume_name(source.uid)
    held(site)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await site.clones.cancel(names.volume_name(clone.uid))
    site.tree.before = no_fault
    site.cluster.delete("claims", "shop/data")
    site.cluster.change("claims", "shop/data", lambda body: body["metadata"].update(finalizers=[]))
    found = await site.clones.source_of(clone)
    assert found is not None
    assert found.begun == name
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert site.content(clone) == File(b"data")


@scene
async def test_what_an_earlier_leader_has_copied_of_a_source_that_is_gone(site: Site) -> None:
    """An unfinished copy takes no space once the ledger has no record of its source."""
    source = await site.bound()
    held(site)
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    job = site.clones._jobs.pop(names.volume_name(clone.uid))
    assert job.task is not None
    job.task.cancel()
    site.tree.before = no_fault
    await site.export.forget(names.volume_name(source.uid))
    assert await site.controller.reconcile(clone.uid) is REFUSED
    assert site.tree.look(layout.COPIES) == Directory(mode=0o700)


@scene
async def test_a_complete_copy_of_a_source_that_is_gone(site: Site) -> None:
    """It stays: it is all that there is of the data."""
    source = await site.bound()
    clone = site.claim("clone", dataSource=SOURCE)

    async def unplaced(name: str, path: RelPath) -> None:
        if name == "rename" and path[:2] == layout.COPIES:
            raise ExportError(Cause.DENIED)

    site.tree.before = unplaced
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is FAILED
    site.tree.before = no_fault
    await site.export.forget(names.volume_name(source.uid))
    assert await site.controller.reconcile(clone.uid) is REFUSED
    copied = site.export.records[names.volume_name(clone.uid)].copied
    data = site.tree.look((*layout.copy(names.volume_name(clone.uid), copied), "tree", "file"))
    assert data == File(b"data")


@scene
async def test_what_a_copy_leaves_out(site: Site) -> None:
    """An event names it."""
    source = await site.bound()
    directory = site.tree.look(site.export.records[names.volume_name(source.uid)].path)
    assert isinstance(directory, Directory)
    directory.entries["socket"] = File(kind="other")
    clone = site.claim("clone", dataSource=SOURCE)
    assert await site.controller.reconcile(clone.uid) == STILL_RUNNING
    await asyncio.sleep(1)
    assert await site.controller.reconcile(clone.uid) is None
    assert any("'socket'" in each for each in await site.messages("clone"))


def test_a_claim_without_a_source() -> None:
    """Nothing is read for a claim that asks for no clone."""

    async def play() -> None:
        site = Site()
        claim = site.claim("plain")
        assert await site.clones.source_of(claim) is None
        assert claim.data_source is None
        assert DataSource("VolumeSnapshot", "a", "snapshot.storage.k8s.io").is_claim is False

    simulate(play())
