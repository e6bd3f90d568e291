"""VolumeSnapshots in the random crowd: a model of the stock snapshot-controller, and the invariants of snapshots.

The model does what docs/development/copies.md says of the snapshot-controller v8.7.0: finalizers, the annotation of a
deletion, binding, and the status of a snapshot. Between two of its writes anything can happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from provisioner.core import names, snapshots
from provisioner.core.objects import Claim, Snapshot, SnapshotContent
from provisioner.ledger import layout
from provisioner.ports.cluster import OPTIONAL_KINDS, AnyItem, Kind, KindMissing
from tests.simulation.judge import Judge
from tests.simulation.process import PROVISIONER
from tests.simulation.versions import contents
from tests.simulation.world import Site, World
from tests.support.fakes.cluster import Body
from tests.support.fakes.tree import Directory

_SOURCE = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
_BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"


class StockController:
    """The snapshot-controller of one cluster, which is stopped now and then."""

    def __init__(self, world: World, site: Site) -> None:
        self._world, self._cluster = world, site.cluster
        self._news = asyncio.Event()
        self.is_up = True
        site.cluster.listeners.append(lambda *_: self._news.set())

    async def run(self) -> None:
        """Reconcile everything until cancelled."""
        while True:
            self._news.clear()
            for content in self._cluster.snapshot_contents():
                await self._sync_content(content)
            for snapshot in self._cluster.snapshots():
                await self._sync(snapshot.key)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 10.0)  # what it refused is tried again

    async def _write(self, kind: Kind, key: str, uid: str, change: Callable[[Body], object]) -> None:
        await self._world.plan.pause()
        body = self._cluster.body(kind, key) if self.is_up else None
        if body is not None and body["metadata"]["uid"] == uid:
            self._cluster.change(kind, key, change)

    async def _sync_content(self, content: SnapshotContent) -> None:
        if content.metadata.deletion_timestamp is None and names.CONTENT_FINALIZER not in content.metadata.finalizers:
            await self._write("snapshot_contents", content.name, content.metadata.uid, _with(names.CONTENT_FINALIZER))

    async def _sync(self, key: str) -> None:
        snapshot = self._cluster.snapshot(key)
        if snapshot is None:
            return
        content = self._content_of(snapshot)
        if snapshot.metadata.deletion_timestamp:
            await self._delete(snapshot, content)
            return
        await self._write("snapshots", key, snapshot.uid, _with(_SOURCE))
        if content is None:
            error = {"message": "cannot find CSI PersistentVolumeSource for volume"}
            await self._write("snapshots", key, snapshot.uid, _status(readyToUse=False, error=error))
            return
        if content.spec.deletion_policy == "Delete":
            await self._write("snapshots", key, snapshot.uid, _with(_BOUND))
        if not content.spec.volume_snapshot_ref.uid:
            name = _reference(snapshot.uid)
            await self._write("snapshot_contents", content.name, content.metadata.uid, name)
        body = self._cluster.body("snapshot_contents", content.name) or {}
        status = {"boundVolumeSnapshotContentName": content.name, "error": None, "readyToUse": False}
        status |= {name: of for name, of in (body.get("status") or {}).items() if name in ("readyToUse", "error")}
        await self._write("snapshots", key, snapshot.uid, _status(**status))

    async def _delete(self, snapshot: Snapshot, content: SnapshotContent | None) -> None:
        """Delete the content by its policy, and then release the snapshot."""
        if any(_restores(claim, snapshot) for claim in self._cluster.claims()):
            return
        if content is not None:
            where = "snapshot_contents", content.name, content.metadata.uid
            await self._write(*where, _annotated(names.SNAPSHOT_BEING_DELETED))  # type: ignore[arg-type]
            if content.spec.deletion_policy == "Delete":
                await self._write(*where, _deleted)  # type: ignore[arg-type]
                await self._write("snapshots", snapshot.key, snapshot.uid, _without(_SOURCE))
                if self._content_of(snapshot) is not None:
                    return
        await self._write("snapshots", snapshot.key, snapshot.uid, _without(_SOURCE, _BOUND))

    def _content_of(self, snapshot: Snapshot) -> SnapshotContent | None:
        """Return the content of a snapshot, if the two name each other."""
        named = snapshot.spec.source.volume_snapshot_content_name
        content = self._cluster.snapshot_content(named or names.content_name(snapshot.uid))
        reference = content.spec.volume_snapshot_ref if content is not None else None
        where = (snapshot.metadata.namespace, snapshot.metadata.name)
        if reference is None or (reference.namespace, reference.name) != where:
            return None
        return content if reference.uid == snapshot.uid or (named and not reference.uid) else None


def _with(finalizer: str) -> Callable[[Body], object]:
    def put(body: Body) -> None:
        have = body["metadata"].get("finalizers") or []
        if finalizer not in have and "deletionTimestamp" not in body["metadata"]:
            body["metadata"]["finalizers"] = [*have, finalizer]

    return put


def _without(*finalizers: str) -> Callable[[Body], object]:
    def take(body: Body) -> None:
        have = body["metadata"].get("finalizers") or []
        body["metadata"]["finalizers"] = [each for each in have if each not in finalizers]

    return take


def _annotated(name: str) -> Callable[[Body], object]:
    return lambda body: body["metadata"].setdefault("annotations", {}).update({name: "yes"})


def _deleted(body: Body) -> None:
    body["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")


def _status(**fields: Any) -> Callable[[Body], object]:
    return lambda body: body.setdefault("status", {}).update(fields)


def _reference(uid: str) -> Callable[[Body], object]:
    return lambda body: body["spec"]["volumeSnapshotRef"].update(uid=uid)


def _restores(claim: Claim, snapshot: Snapshot) -> bool:
    source = claim.data_source
    return (
        source is not None
        and source.is_snapshot
        and claim.status.phase == "Pending"
        and (claim.metadata.namespace, source.name) == (snapshot.metadata.namespace, snapshot.metadata.name)
    )


# ------------------------------------------------------------------------------------------- the invariants


@dataclass(slots=True, eq=False)
class Shot:
    """A snapshot that is ready, or was."""

    handle: str
    directory: Directory
    contents: dict[str, object]
    doomed: bool = False
    """Whether its data can go: the snapshot-controller has asked for it, and the policy is Delete."""


class Album:
    """Watches the snapshots of one cluster."""

    def __init__(self, world: World, site: Site) -> None:
        self._judge: Judge = world.judge
        self._trees = list(world.trees.values())
        self._cluster = site.cluster
        self.shots: dict[str, Shot] = {}
        self._released: set[str] = set()
        """The snapshots whose data stays by the policy of their content, which is gone."""
        self._unseen: set[str] = set()
        """The snapshots that were deleted before the snapshot-controller saw them. Contents that it saw stay."""
        site.cluster.listeners.append(self._changed)
        world.judge.checks.append(self._check)
        world.judge.rests.append(self.unrest)
        world.judge.restored = self._restored

    def _data(self, handle: str) -> Directory | None:
        for tree in self._trees:
            found = tree.look((*layout.snapshot(handle), "tree"))
            if isinstance(found, Directory):
                return found
        return None

    def _changed(self, kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        if kind in ("snapshots", "snapshot_contents"):
            self._doom()
        if isinstance(before, SnapshotContent) and after is None and before.spec.deletion_policy == "Retain":
            self._released.add(snapshots.handle_of(before))
        if isinstance(before, Snapshot) and after is None and not before.metadata.finalizers:
            self._unseen.add(before.uid)
        if kind == "snapshot_contents" and isinstance(after, SnapshotContent) and after.spec.driver == PROVISIONER:
            was = isinstance(before, SnapshotContent) and before.status is not None and before.status.ready_to_use
            if after.status is not None and after.status.ready_to_use and not was:
                self._served(after)

    def _served(self, content: SnapshotContent) -> None:
        """A content becomes ready: the ledger has its data, which is what the source had during the copy."""
        handle = snapshots.handle_of(content)
        data = self._data(handle)
        if data is None:
            self._judge.blame(f"content {content.name} is served, and no ledger has its data")
            return
        if handle in self.shots:
            return
        self.shots[handle] = Shot(handle, data, dict(contents(data)))
        origin = next((each for each in self._judge.homes if each.volume == content.spec.source.volume_handle), None)
        begun_s = self._judge.begun_s(data)
        if origin is None or begun_s is None:
            self._judge.blame(f"content {content.name} is no copy of a volume")
            return
        for wrong in origin.versions.wrong(origin.directory, data, begun_s):
            self._judge.blame(f"snapshot {handle} is not as its source was: {wrong}")

    def _content_of(self, handle: str) -> SnapshotContent | None:
        return next((each for each in self._cluster.snapshot_contents() if snapshots.handle_of(each) == handle), None)

    def _doom(self) -> None:
        """Note which data can go from now on."""
        uids = {each.uid for each in self._cluster.snapshots()}
        for shot in self.shots.values():
            content = self._content_of(shot.handle)
            if content is None or content.spec.deletion_policy != "Delete":
                continue
            asked = content.metadata.annotations.get(names.SNAPSHOT_BEING_DELETED) == "yes"
            alone = content.spec.volume_snapshot_ref.uid not in uids
            bare = names.CONTENT_FINALIZER not in content.metadata.finalizers
            deleted = content.metadata.deletion_timestamp is not None
            shot.doomed |= (deleted and (asked or alone)) or (alone and bare)

    def _check(self) -> None:
        """The data of a snapshot stays where it is, and as it is, until it can go."""
        for shot in self.shots.values():
            if not shot.doomed and self._data(shot.handle) is not shot.directory:
                self._judge.blame(f"the data of snapshot {shot.handle} is gone, and nothing asked for that")
                shot.doomed = True

    def _restored(self, source: str, restored: Directory) -> Iterator[str]:
        """Yield what a claim has that was restored from a snapshot, and must not have."""
        shot = self.shots.get(names.snapshot_handle(source))
        if shot is None:
            yield "it was restored from a snapshot that was never ready"
        elif dict(contents(restored)) != shot.contents:
            yield f"it is not what snapshot {shot.handle} has"

    def unrest(self) -> Iterator[str]:
        """The violations of the invariants that hold once everything is at rest."""
        uids = {each.uid for each in self._cluster.snapshots()}
        for shot in self.shots.values():
            if not shot.doomed and dict(contents(shot.directory)) != shot.contents:
                yield f"snapshot {shot.handle} was changed"
        for content in self._cluster.snapshot_contents():
            bound = content.spec.volume_snapshot_ref.uid in uids
            seen = names.CONTENT_FINALIZER in content.metadata.finalizers
            if seen and content.spec.volume_snapshot_ref.uid in self._unseen:
                continue
            if content.spec.driver == PROVISIONER and content.spec.deletion_policy == "Delete" and not bound:
                yield f"content {content.name} has no snapshot"
        yield from filter(None, map(self._unready, self._cluster.snapshots()))
        yield from self._orphans(uids)

    def _unready(self, snapshot: Snapshot) -> str:
        """Return what is wrong with a snapshot, or empty."""
        if snapshot.metadata.deletion_timestamp:
            restores = any(_restores(claim, snapshot) for claim in self._cluster.claims())
            content = self._cluster.snapshot_content(names.content_name(snapshot.uid))
            refused = content is not None and content.status is not None and content.status.error is not None
            return "" if restores or refused else f"snapshot {snapshot.key} is still being deleted"
        if not snapshot.status.ready_to_use and self._should_be_ready(snapshot):
            return f"snapshot {snapshot.key} ({snapshot.uid}) is not ready, and no event says why"
        return ""

    def _orphans(self, uids: set[str]) -> Iterator[str]:
        """Yield what the ledgers have of snapshots that are gone."""
        for tree in {id(tree): tree for tree in self._trees}.values():
            found = tree.look(layout.SNAPSHOTS)
            for name in found.entries if isinstance(found, Directory) else ():
                handle = name.removesuffix(layout.BEGUN)
                known = handle in self._released or (handle in self.shots and not self.shots[handle].doomed)
                if name.endswith(layout.BEGUN) and handle not in uids:
                    yield f"snapshot {handle} has begun, and is gone"
                elif not name.endswith(layout.BEGUN) and not known and self._content_of(handle) is None:
                    yield f"the data of snapshot {handle} stays, and nothing needs it"

    def _should_be_ready(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot that is not ready has no reason that users can see."""
        source = snapshot.spec.source
        content = self._cluster.snapshot_content(names.content_name(snapshot.uid))
        if source.volume_snapshot_content_name or (content is not None and content.metadata.deletion_timestamp):
            return False  # forged, or its content was deleted by hand
        claim = self._cluster.claim(f"{snapshot.metadata.namespace}/{source.persistent_volume_claim_name}")
        events = (each.event for each in self._cluster.events.values() if each.event.about.uid == snapshot.uid)
        return (
            claim is not None and claim.status.phase == "Bound" and not any(each.type == "Warning" for each in events)
        )


def hide_kinds(world: World, site: Site) -> Callable[[], None]:
    """Remove the CRDs of snapshots from a cluster; return what brings them."""
    others, hidden = site.cluster.before, [True]

    async def before(call: str, about: str) -> None:
        await others(call, about)
        if hidden[0] and about in OPTIONAL_KINDS:
            raise KindMissing(f"{call} {about}: there is no such kind")

    site.cluster.before = before

    def bring() -> None:
        if hidden[0]:
            world.note("the CRDs of snapshots come")
        hidden[0] = False

    return bring
