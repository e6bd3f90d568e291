"""controllers.snapshots: contents and their status, copies in the background, and what is never done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from provisioner.controllers.snapshots import SnapshotController
from provisioner.core import names
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim
from provisioner.core.records import SnapshotRecord
from provisioner.ledger import layout
from provisioner.ledger.copying import Progress
from provisioner.ports.cluster import Forbidden
from provisioner.ports.tree import Cause, ExportError
from provisioner.runtime.requeue import AWAITING_CHANGE, FAILED, LOCKED, REFUSED, Requeue
from provisioner.runtime.workqueue import WorkQueue
from tests.support import samples
from tests.support.fakes.clock import simulate
from tests.support.fakes.tree import Directory, File, no_fault
from tests.unit.controllers.test_clones import Site, held

SNAPSHOT_SOURCE = {"apiGroup": names.SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": "snap"}


class SnapshotSite(Site):
    """A leader that serves VolumeSnapshots, with a bound claim that has data."""

    def __init__(self) -> None:
        super().__init__()
        self.cache.with_snapshots = True
        self.snapshot_queue = WorkQueue(self.clock, waited=lambda _: None)
        self.trashed: list[str] = []
        self.taker = SnapshotController(
            self.ctx,
            self.snapshot_queue,
            self.locks,
            self.clones,
            discarded=lambda export: self.trashed.append(export.name),
            released=self.released.append,
        )

    def snapshot_class(self, **fields: Any) -> None:
        """Create a VolumeSnapshotClass."""
        body = {"metadata": {"name": "snaps"}, "driver": samples.US, "deletionPolicy": "Delete"}
        self.cluster.create("snapshot_classes", body | fields)

    def take(self, name: str = "snap", claim: str = "data", class_name: str | None = "snaps") -> str:
        """Create a VolumeSnapshot; return the name of its content."""
        spec: dict[str, Any] = {"source": {"persistentVolumeClaimName": claim}}
        if class_name is not None:
            spec["volumeSnapshotClassName"] = class_name
        body = self.cluster.create("snapshots", {"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
        return names.content_name(body["metadata"]["uid"])

    async def reconcile(self, name: str) -> object:
        """Let the cache see everything, and reconcile one content."""
        cache = self.cache
        for kind, informer in (
            ("snapshots", cache.snapshots),
            ("snapshot_contents", cache.snapshot_contents),
            ("snapshot_classes", cache.snapshot_classes),
        ):
            informer.replace((await self.cluster.list(kind)).items)  # type: ignore[arg-type]
        return await self.taker.reconcile(name)

    async def taken(self, name: str) -> None:
        """Reconcile until a snapshot is complete."""
        for _ in range(10):
            await self.reconcile(name)
            await asyncio.sleep(1.0)
            if self.status(name).get("readyToUse"):
                return
        pytest.fail("it does not become complete")

    def status(self, name: str) -> dict[str, Any]:
        """The status of a content."""
        body = self.cluster.body("snapshot_contents", name)
        status: dict[str, Any] = (body or {}).get("status", {})
        return status

    def stored(self, name: str) -> object:
        """The file in the snapshot of a content."""
        return self.tree.look((*layout.snapshot(names.snapshot_uid(name)), "tree", "file"))


def played(script: Callable[[SnapshotSite, Claim], Awaitable[None]]) -> None:
    """Run a script in simulated time, on a site with a bound claim."""

    async def scene() -> None:
        site = SnapshotSite()
        async with site.led():
            running = asyncio.create_task(site.taker.run())
            await asyncio.sleep(0)
            source = await site.bound()
            site.snapshot_class()
            with site.taker.subscribed():
                await script(site, source)
            running.cancel()

    simulate(scene())


def test_a_snapshot() -> None:
    """The content comes first and without `creationTime`, the data next, and then the complete status."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.reconcile(name)
        assert site.status(name) == {"readyToUse": False}
        await asyncio.sleep(1.0)
        await site.reconcile(name)
        assert site.status(name)["readyToUse"]
        assert site.status(name)["creationTime"] > 0
        assert site.stored(name) == File(b"data")
        assert site.export.snapshots.begun == {}
        assert len(site.released) >= 1
        assert await site.reconcile(name) is None

    played(script)


def test_a_snapshot_that_names_no_class() -> None:
    """It names the default class once its content exists, and waits while there is no default class."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take(class_name=None)
        assert await site.reconcile(name) == REFUSED
        (message,) = await site.messages("snap")
        assert "is the default" in message
        assert site.cluster.snapshot_content(name) is None
        default = {"metadata": {"name": "usual", "annotations": {names.DEFAULT_SNAPSHOT_CLASS: "true"}}}
        site.snapshot_class(**default)
        await site.taken(name)
        snapshot = site.cluster.snapshot("shop/snap")
        assert snapshot is not None
        assert snapshot.spec.volume_snapshot_class_name == "usual"
        assert site.stored(name) == File(b"data")

    played(script)


def test_deleted() -> None:
    """The data goes once the snapshot-controller asks for it, and the finalizer goes last."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.taken(name)

        def protect(body: Any) -> None:
            body["metadata"]["finalizers"] = [names.CONTENT_FINALIZER]

        site.cluster.change("snapshot_contents", name, protect)
        site.cluster.delete("snapshot_contents", name)
        assert await site.reconcile(name) == AWAITING_CHANGE
        assert site.stored(name) == File(b"data")
        mark = {names.SNAPSHOT_BEING_DELETED: "yes"}
        site.cluster.change("snapshot_contents", name, lambda body: body["metadata"].update(annotations=mark))
        assert await site.reconcile(name) is None
        assert site.cluster.snapshot_content(name) is None
        assert site.stored(name) is None
        assert site.trashed

    played(script)


def leave(site: SnapshotSite, name: str) -> None:
    """Delete a content as the snapshot-controller does."""
    fields = {
        "finalizers": [names.CONTENT_FINALIZER],
        "annotations": {names.SNAPSHOT_BEING_DELETED: "yes"},
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    site.cluster.change("snapshot_contents", name, lambda body: body["metadata"].update(fields))


def brought_back(site: SnapshotSite, handle: str, policy: str = "Delete") -> None:
    """Create a content for a snapshot that exists already."""
    spec = {
        "driver": samples.US,
        "deletionPolicy": policy,
        "source": {"snapshotHandle": handle},
        "volumeSnapshotRef": {"namespace": "shop", "name": "back"},
    }
    site.cluster.create("snapshot_contents", {"metadata": {"name": "back"}, "spec": spec})


def test_a_retention() -> None:
    """The data of a deleted snapshot stays for the retention of its class, and goes then."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.snapshot_class(metadata={"name": "kept"}, parameters={"retention": "1h"})
        name = site.take(class_name="kept")
        await site.taken(name)
        leave(site, name)
        assert await site.reconcile(name) is None
        assert site.cluster.snapshot_content(name) is None
        await asyncio.sleep(3000)
        assert site.stored(name) == File(b"data")
        await asyncio.sleep(1000)
        assert site.stored(name) is None
        assert site.export.snapshots.deleted == {}
        assert site.trashed

    played(script)


def test_a_deleted_snapshot_that_is_brought_back() -> None:
    """A content for a deleted snapshot ends its retention: the data stays as long as the content."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.snapshot_class(metadata={"name": "kept"}, parameters={"retention": "1h"})
        name = site.take(class_name="kept")
        await site.taken(name)
        leave(site, name)
        await site.reconcile(name)
        brought_back(site, names.snapshot_uid(name))
        assert await site.reconcile("back") is None
        assert site.status("back")["readyToUse"]
        await asyncio.sleep(9000)
        assert site.stored(name) == File(b"data")

    played(script)


def test_data_that_two_contents_have() -> None:
    """Data stays while another content has it."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.taken(name)
        brought_back(site, names.snapshot_uid(name))
        await site.reconcile("back")
        leave(site, name)
        assert await site.reconcile(name) is None
        assert site.cluster.snapshot_content(name) is None
        assert site.stored(name) == File(b"data")
        leave(site, "back")
        assert await site.reconcile("back") is None
        assert site.stored(name) is None

    played(script)


def test_expiry_that_is_not_due() -> None:
    """A mark without data is removed, and nothing expires in another cluster."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.snapshot_class(metadata={"name": "kept"}, parameters={"retention": "1h"})
        name = site.take(class_name="kept")
        await site.taken(name)
        leave(site, name)
        await site.reconcile(name)
        await site.export.snapshots.mark_deleted("gone", "2026-01-01T00:00:00Z")
        await asyncio.sleep(70)
        assert list(site.export.snapshots.deleted) == [names.snapshot_uid(name)]

        async def restored_etcd(call: str, _about: str) -> None:
            if call == "identity":
                raise Forbidden("no")

        site.cluster.before = restored_etcd
        await asyncio.sleep(9000)
        assert site.stored(name) == File(b"data")

    played(script)


def test_another_export() -> None:
    """A class can keep its snapshots on another export, from which they are restored."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.snapshot_class(metadata={"name": "far"}, parameters={"server": "other", "share": "/exports"})
        name = site.take(class_name="far")
        await site.taken(name)
        assert site.other.look((*layout.snapshot(names.snapshot_uid(name)), "tree", "file")) == File(b"data")
        assert site.stored(name) is None
        bound = {"boundVolumeSnapshotContentName": name, "readyToUse": True}
        site.cluster.change("snapshots", "shop/snap", lambda body: body.update(status=bound))
        claim = site.claim("restored", dataSource=SNAPSHOT_SOURCE)
        await site.controller.reconcile(claim.uid)
        await asyncio.sleep(1.0)
        assert await site.controller.reconcile(claim.uid) is None
        assert site.content(claim) == File(b"data")

    played(script)


def test_an_export_that_cannot_be_used() -> None:
    """A class whose export does not answer gets the reason, and a class that cannot be read is no error."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.snapshot_class(metadata={"name": "bad"}, parameters={"server": "other"})
        site.snapshot_class(metadata={"name": "far"}, parameters={"server": "other", "share": "/exports"})
        name = site.take(class_name="far")

        async def down(_call: str, _path: Any) -> None:
            raise ExportError(Cause.UNREACHABLE)

        site.other.before = down
        await asyncio.sleep(60)
        assert await site.reconcile(name) == FAILED
        (message,) = await site.messages("snap")
        assert "other:/exports" in message
        site.other.before = no_fault
        await asyncio.sleep(60)
        await site.taken(name)

    played(script)


HANDLE = "0a1b2c3d-0000-4000-8000-0123456789ab"


def test_restored_by_its_handle() -> None:
    """A claim whose annotation names a snapshot gets its data, unless that is of an earlier namespace."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        name = names.volume_name(source.uid)
        namespace = site.cluster.namespaces.get("shop")
        assert namespace is not None
        record = SnapshotRecord("shop", "x", "data", name, "snaps", "1Gi", "2026-01-01T00:00:00Z", "memory")
        for handle, uid in ((HANDLE, namespace.metadata.uid), (HANDLE.replace("0a", "0b"), "an earlier one")):
            await site.export.snapshots.begin(handle, structs.replace(record, namespace_uid=uid))
            path = site.export.records[name].path
            copy = await site.export.snapshot_of(site.export, path, handle, Progress(), allows=lambda: True)
            await site.export.snapshots.place(handle, copy, record.created)
        site.cache.with_snapshots = False

        def asking(claim_name: str, handle: str) -> Claim:
            claim = site.claim(claim_name)
            annotations = {names.RESTORE: handle}
            site.cluster.change(
                "claims", f"shop/{claim_name}", lambda body: body["metadata"]["annotations"].update(annotations)
            )
            return site.seen(claim.metadata.name)

        claim = asking("restored", HANDLE)
        await site.controller.reconcile(claim.uid)
        await asyncio.sleep(1.0)
        assert await site.controller.reconcile(claim.uid) is None
        assert site.content(claim) == File(b"data")
        refused = asking("refused", HANDLE.replace("0a", "0b"))
        assert await site.controller.reconcile(refused.uid) == REFUSED
        assert any("an earlier namespace" in each for each in await site.messages("refused"))

    played(script)


def test_deleted_before_the_snapshot_controller_saw_it() -> None:
    """A complete content without a finalizer goes with its data once its snapshot is gone."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.taken(name)
        site.cluster.delete("snapshots", "shop/snap")
        assert await site.reconcile(name) is None
        assert site.cluster.snapshot_content(name) is None
        assert site.stored(name) is None

    played(script)


def test_deleted_during_a_restore() -> None:
    """The data stays while a claim is being restored from it."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.taken(name)
        bound = {"boundVolumeSnapshotContentName": name, "readyToUse": True}
        site.cluster.change("snapshots", "shop/snap", lambda body: body.update(status=bound))
        claim = site.claim("restored", dataSource=SNAPSHOT_SOURCE)
        await site.controller.reconcile(claim.uid)
        assert site.clones.reads_snapshot(names.snapshot_uid(name))

        leave(site, name)
        assert await site.reconcile(name) == AWAITING_CHANGE
        await asyncio.sleep(1.0)
        assert await site.controller.reconcile(claim.uid) is None
        assert site.content(claim) == File(b"data")
        assert await site.reconcile(name) is None
        assert site.stored(name) is None

    played(script)


def test_a_snapshot_that_vanished() -> None:
    """A snapshot that is deleted before its copy is complete leaves neither content nor copy."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.reconcile(name)
        site.cluster.delete("snapshots", "shop/snap")
        await site.reconcile(name)
        assert site.cluster.snapshot_content(name) is None
        assert site.export.snapshots.begun == {}
        assert site.tree.look(layout.COPIES) == Directory(mode=0o700)

    played(script)


def test_the_source_is_protected() -> None:
    """While a snapshot is being taken of a volume, the volume's reclaim waits."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        volume = site.cluster.volume(names.volume_name(source.uid))
        assert volume is not None
        name = site.take()
        assert site.clones.snapshot_of(volume) is None
        with site.locks.try_acquire(volume.name):
            assert await site.reconcile(name) == LOCKED
        await site.reconcile(name)
        assert site.clones.snapshot_of(volume) == "shop/snap"
        site.cache.with_snapshots = False
        assert site.clones.snapshot_of(volume) is None
        site.cache.with_snapshots = True
        await site.taken(name)
        assert site.clones.snapshot_of(volume) is None

    played(script)


def test_refusals() -> None:
    """What cannot be served gets an event, and the reason in the status of its content."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        volume = next(iter(site.cluster.volumes())).name
        site.cluster.change("volumes", volume, lambda body: body["metadata"].update(annotations={}))
        name = site.take()
        assert await site.reconcile(name) == REFUSED
        (message,) = await site.messages("snap")
        assert "another provisioner" in message
        assert site.cluster.snapshot_content(name) is None
        body = {
            "metadata": {"name": "forged"},
            "spec": {
                "driver": samples.US,
                "source": {"snapshotHandle": "x"},
                "volumeSnapshotRef": {"namespace": "shop", "name": "forged"},
            },
        }
        site.cluster.create("snapshot_contents", body)
        assert await site.reconcile("forged") == REFUSED
        assert "no ledger" in site.status("forged")["error"]["message"]

    played(script)


def test_a_volume_without_a_record() -> None:
    """A volume that the ledger does not know is not copied."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        await site.export.forget(names.volume_name(source.uid))
        name = site.take()
        assert await site.reconcile(name) == REFUSED
        (message,) = await site.messages("snap")
        assert "no ledger has a record" in message

    played(script)


def test_a_failed_copy() -> None:
    """A copy that fails is discarded, its reason is in the status, and it begins again after a delay."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()

        async def full(call: str, _path: Any) -> None:
            if call == "make":
                raise ExportError(Cause.QUOTA)

        site.tree.before = full
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        assert await site.reconcile(name) == REFUSED
        assert "has reached a quota" in site.status(name)["error"]["message"]
        assert site.export.snapshots.begun == {}
        site.tree.before = no_fault
        early = await site.reconcile(name)
        assert isinstance(early, Requeue)
        assert not early.is_failure
        assert 14.0 < early.backoff.first_s <= 15.0
        assert site.export.snapshots.begun == {}
        await asyncio.sleep(15.0)
        await site.taken(name)
        assert "error" not in site.status(name)

    played(script)


def test_a_copy_that_has_no_room() -> None:
    """It does not begin again before the export has more space; the status and an event say how much."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        site.plant_large_file(source)
        attempts = 0

        async def full(call: str, path: RelPath) -> None:
            nonlocal attempts
            attempts += call == "make_directory" and path[:2] == layout.COPIES and path[3:] == ("tree",)
            if call == "flush":
                raise ExportError(Cause.NO_SPACE)

        site.tree.before = full
        await site.leave_free(9000)
        name = site.take()
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        assert await site.reconcile(name) == REFUSED
        assert "no space left" in site.status(name)["error"]["message"]
        for size_bytes in (9000, 9000 + (1 << 19)):
            await site.leave_free(size_bytes)
            await asyncio.sleep(900.0)
            assert await site.reconcile(name) == REFUSED
            missing = (
                "has no room for a copy of claim shop/data, which had no space left before: it begins again once 1Mi"
            )
            assert missing in site.status(name)["error"]["message"]
        assert attempts == 1
        assert site.export.snapshots.begun == {}
        assert len([each for each in await site.messages("snap") if missing in each]) == 1
        site.tree.before = no_fault
        await site.leave_free(2 << 20)
        await site.taken(name)

    played(script)


def test_failures_of_a_snapshot_that_is_gone() -> None:
    """They are forgotten with it."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()

        async def full(call: str, _path: Any) -> None:
            if call == "make":
                raise ExportError(Cause.NO_INODES)

        site.tree.before = full
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        assert await site.reconcile(name) == REFUSED
        site.cluster.delete("snapshots", "shop/snap")
        await site.reconcile(name)
        assert site.cluster.snapshot_content(name) is None
        assert site.taker._attempts._failed == {}

    played(script)


def test_lost_data() -> None:
    """A snapshot whose data is lost fails for good: the volume, which has newer data, is not copied again."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.taken(name)
        await site.export.snapshots.remove(names.snapshot_uid(name))
        for _attempt in range(3):
            assert await site.reconcile(name) == REFUSED
            await asyncio.sleep(1.0)
            assert "no ledger has a snapshot" in site.status(name)["error"]["message"]
        assert site.stored(name) is None
        assert site.export.snapshots.begun == {}

    played(script)


def test_names_that_are_too_long() -> None:
    """A record that fits on no server is refused."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        site.cluster.create("snapshot_classes", {"metadata": {"name": "c" * 900}, "driver": samples.US})
        spec = {"volumeSnapshotClassName": "c" * 900, "source": {"persistentVolumeClaimName": "data"}}
        body = {"metadata": {"name": "s" * 253, "namespace": "shop"}, "spec": spec}
        name = names.content_name(site.cluster.create("snapshots", body)["metadata"]["uid"])
        assert await site.reconcile(name) == REFUSED
        (message,) = await site.messages("s" * 253)
        assert "shorter names" in message

    played(script)


def test_an_api_server_that_refuses() -> None:
    """A call that the API server refuses is repeated."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()

        async def refuse(call: str, _about: str) -> None:
            if call == "create_snapshot_content":
                raise Forbidden("no")

        site.cluster.before = refuse
        assert await site.reconcile(name) == FAILED

    played(script)


def test_what_is_queued() -> None:
    """A class that appears queues its unfinished snapshots, and an export what has begun on it."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        name = site.take()
        await site.reconcile(name)
        while len(site.snapshot_queue):
            site.snapshot_queue.done(await site.snapshot_queue.get() or "")
        (snapshot_class,) = site.cache.snapshot_classes.values()
        site.cache.snapshot_classes.apply(snapshot_class, deleted=True)
        site.cache.snapshot_classes.apply(snapshot_class, deleted=False)
        assert await site.snapshot_queue.get() == name
        site.snapshot_queue.done(name)
        with site.taker.subscribed():
            assert await site.snapshot_queue.get() == name

    played(script)


def test_what_an_earlier_leader_has_copied() -> None:
    """Once a snapshot cannot be served, its unfinished copy takes no space any longer."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        held(site)
        name = site.take()
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        job = site.taker._jobs.pop(names.snapshot_uid(name))
        assert job.task is not None
        job.task.cancel()
        await asyncio.sleep(1.0)
        assert site.export.snapshots.begun
        for kind, key in (("claims", "shop/data"), ("volumes", names.volume_name(source.uid))):
            site.cluster.delete(kind, key)  # type: ignore[arg-type]
            site.cluster.change(kind, key, lambda body: body["metadata"].update(finalizers=[]))  # type: ignore[arg-type]
        assert await site.reconcile(name) is REFUSED
        assert site.export.snapshots.begun == {}
        assert site.tree.look(layout.COPIES) == Directory(mode=0o700)

    played(script)


def test_a_content_that_is_deleted_by_hand() -> None:
    """A copy that an earlier leader has begun is completed, although an admin has deleted the content."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        held(site)
        name = site.take()
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        job = site.taker._jobs.pop(names.snapshot_uid(name))
        assert job.task is not None
        job.task.cancel()
        finalizers = {"finalizers": [names.CONTENT_FINALIZER]}
        site.cluster.change("snapshot_contents", name, lambda body: body["metadata"].update(finalizers))
        site.cluster.delete("snapshot_contents", name)
        site.tree.before = no_fault
        await site.taken(name)
        assert site.stored(name) == File(b"data")
        volume = site.cluster.volume(names.volume_name(source.uid))
        assert volume is not None
        assert site.clones.snapshot_of(volume) is None
        assert await site.reconcile(name) == AWAITING_CHANGE
        assert site.stored(name) == File(b"data")

    played(script)


def test_a_snapshot_that_is_deleted_during_its_copy() -> None:
    """A copy that an earlier leader has begun is completed while a claim holds up the snapshot's deletion."""

    async def script(site: SnapshotSite, _: Claim) -> None:
        held(site)
        name = site.take()
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        job = site.taker._jobs.pop(names.snapshot_uid(name))
        assert job.task is not None
        job.task.cancel()
        protected = {"finalizers": ["snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"]}
        site.cluster.change("snapshots", "shop/snap", lambda body: body["metadata"].update(protected))
        site.cluster.delete("snapshots", "shop/snap")
        site.tree.before = no_fault
        await site.taken(name)
        assert site.stored(name) == File(b"data")
        assert site.export.snapshots.begun == {}

    played(script)


def test_a_claim_that_is_created_again() -> None:
    """A copy that has begun goes on with its volume, although another claim of that name waits for a volume."""

    async def script(site: SnapshotSite, source: Claim) -> None:
        held(site)
        name = site.take()
        await site.reconcile(name)
        await asyncio.sleep(1.0)
        job = site.taker._jobs.pop(names.snapshot_uid(name))
        assert job.task is not None
        job.task.cancel()
        site.cluster.delete("claims", "shop/data")
        site.cluster.change("claims", "shop/data", lambda body: body["metadata"].update(finalizers=[]))
        site.claim("data")
        site.tree.before = no_fault
        await site.taken(name)
        assert site.stored(name) == File(b"data")

    played(script)
