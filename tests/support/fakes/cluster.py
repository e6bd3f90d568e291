"""An API server in memory: the `Cluster` port for tests, with versions, watches and injected faults.

The controllers of kube-controller-manager are in fakes.controllers.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, TypeVar

import msgspec

from provisioner import __version__
from provisioner.core import times
from provisioner.core.checks import Permission
from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import (
    Claim,
    Metadata,
    Namespace,
    Snapshot,
    SnapshotClass,
    SnapshotContent,
    StorageClass,
    Volume,
)
from provisioner.ports.cluster import (
    AlreadyExists,
    AnyItem,
    Conflict,
    Event,
    Expired,
    Kind,
    NotFound,
    Page,
    Rejected,
    WatchEvent,
)

ACCESS_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"
_TYPES: dict[Kind, type[AnyItem]] = {
    "claims": Claim,
    "volumes": Volume,
    "classes": StorageClass,
    "snapshots": Snapshot,
    "snapshot_contents": SnapshotContent,
    "snapshot_classes": SnapshotClass,
}
_NEW: dict[Kind, dict[str, Any]] = {
    "claims": {"metadata": {"finalizers": [CLAIM_PROTECTION]}, "status": {"phase": "Pending"}},
    "volumes": {"metadata": {"finalizers": [VOLUME_PROTECTION]}, "status": {"phase": "Pending"}},
    "classes": {},
    "snapshots": {},
    "snapshot_contents": {},
    "snapshot_classes": {},
}
"""Finalizers that the admission plugin StorageObjectInUseProtection adds to new objects."""
_BOOKMARK_EARLY_S = 2.0

Body = dict[str, Any]
Hook = Callable[[str, str], Awaitable[None]]
"""Receives the name of a call and its object (a kind, a name or `namespace/name`); can wait or raise ClusterError."""
Listener = Callable[[Kind, AnyItem | None, AnyItem | None], None]
"""Receives each change when it happens: the kind, the old object and the new object."""
Result = TypeVar("Result")


async def no_fault(_call: str, _about: str) -> None:
    """Hook of a cluster without faults."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """The fields of an event object that tests read."""

    event: Event
    count: int
    first_seen: datetime
    seen: datetime


class Namespaces:
    """The namespaces of a cluster; a name that is added again is a new namespace."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._count = 0
        self._found: dict[str, Namespace] = {}

    def add(self, name: str) -> None:
        """Create a namespace, unless it exists."""
        if name not in self._found:
            self._count += 1
            uid = f"{self._cluster}-ns-{self._count:04x}"
            metadata = Metadata(name=name, uid=uid, creation_timestamp=times.text(_time()))
            self._found[name] = Namespace(metadata)

    def discard(self, name: str) -> None:
        """Remove a namespace, whatever it contains."""
        self._found.pop(name, None)

    def get(self, name: str) -> Namespace | None:
        """Return the namespace of a name."""
        return self._found.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __ior__(self, names: Iterable[str]) -> Self:
        for name in sorted(names):
            self.add(name)
        return self


class MemoryCluster:
    """A `Cluster` in memory. Each call takes effect in one step, between its two hooks.

    An error raised by `before` is a call without effect. An error raised by `after` is a call that took effect, but
    whose caller does not know. `delivering` runs before each event of a watch and can delay or break the watch. `again`
    says how many earlier events a watch repeats. The methods that are not part of the port are for other clients:
    users, admins and controllers.
    """

    def __init__(
        self,
        *,
        identity: str = "memory",
        uids: str = "",
        page_items: int = 500,
        watch_s: float = 50.0,
        before: Hook = no_fault,
        after: Hook = no_fault,
    ) -> None:
        self.before = before
        self.after = after
        self.delivering: Hook = no_fault
        self.again: Callable[[], int] = lambda: 0
        self.listeners: list[Listener] = []
        self.namespaces = Namespaces(identity)
        self.namespaces |= {"default", "kube-system"}
        self.events: dict[tuple[str, str], RecordedEvent] = {}
        self._identity = identity
        self._uid_prefix = uids or identity
        self._page_items = page_items
        self._watch_s = watch_s
        self._version = 1
        self._forgotten = 0
        self._uids = 0
        self._bodies: dict[Kind, dict[str, Body]] = {kind: {} for kind in _TYPES}
        self._items: dict[Kind, dict[str, AnyItem]] = {kind: {} for kind in _TYPES}
        self._history: dict[Kind, list[WatchEvent[AnyItem]]] = {kind: [] for kind in _TYPES}
        self._lists: dict[str, list[AnyItem]] = {}
        self._leases: dict[tuple[str, str], LeaseRecord] = {}
        self._waiting: list[asyncio.Event] = []

    # ------------------------------------------------------------------------------------------------ the port

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        """See `Cluster`."""
        return await self._call("list", kind, lambda: self._list(kind, continue_token))

    async def version(self, kind: Kind) -> str:
        """See `Cluster`."""
        return await self._call("version", kind, lambda: str(self._version))

    async def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        """See `Cluster`."""
        await self.before("watch", kind)
        loop = asyncio.get_running_loop()
        at, end_s, sent = int(version), loop.time() + self._watch_s - _BOOKMARK_EARLY_S, 0
        news = asyncio.Event()
        self._waiting.append(news)
        try:
            while True:
                news.clear()
                for event in self._news(kind, at, sent):
                    await self.delivering("watch", kind)
                    at, sent = max(at, int(event.version)), sent + 1
                    yield event
                if news.is_set():
                    continue
                if loop.time() >= end_s:
                    break
                timer = loop.call_at(end_s, news.set)
                await news.wait()
                timer.cancel()
            yield WatchEvent("BOOKMARK", str(self._version))
        finally:
            self._waiting.remove(news)

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        """See `Cluster`."""
        key = f"{_checked(namespace)}/{_checked(name)}"
        return await self._call("get_claim", key, lambda: self.claim(key))

    async def get_volume(self, name: str) -> Volume | None:
        """See `Cluster`."""
        return await self._call("get_volume", _checked(name), lambda: self.volume(name))

    async def get_namespace(self, name: str) -> Namespace | None:
        """See `Cluster`."""
        return await self._call("get_namespace", _checked(name), lambda: self.namespaces.get(name))

    async def create_volume(self, body: Mapping[str, object]) -> Volume:
        """See `Cluster`."""
        made: Body = copy.deepcopy(dict(body))
        return await self._call(
            "create_volume", made["metadata"]["name"], lambda: msgspec.convert(self.create("volumes", made), Volume)
        )

    async def patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        """See `Cluster`."""
        return await self._call("patch_volume", _checked(name), lambda: self._patch_volume(name, patch))

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        """See `Cluster`."""
        name = _checked(volume.name)
        await self._call("set_finalizer", name, lambda: self._set_finalizer(volume, finalizer, present=present))

    async def delete_volume(self, volume: Volume) -> None:
        """See `Cluster`."""
        await self._call("delete_volume", _checked(volume.name), lambda: self._delete_volume(volume))

    async def request_size(self, claim: Claim, size: str) -> Claim:
        """See `Cluster`."""
        key = f"{_checked(claim.metadata.namespace)}/{_checked(claim.metadata.name)}"
        return await self._call("request_size", key, lambda: self._request_size(key, claim, size))

    async def patch_claim_status(self, namespace: str, name: str, patch: Mapping[str, object]) -> Claim:
        """See `Cluster`."""
        key = f"{_checked(namespace)}/{_checked(name)}"
        return await self._call("patch_claim_status", key, lambda: self._patch_claim_status(key, patch))

    async def get_snapshot(self, namespace: str, name: str) -> Snapshot | None:
        """See `Cluster`."""
        key = f"{_checked(namespace)}/{_checked(name)}"
        return await self._call("get_snapshot", key, lambda: self.snapshot(key))

    async def create_snapshot(self, body: Mapping[str, object]) -> Snapshot:
        """See `Cluster`."""
        made: Body = copy.deepcopy(dict(body))
        about = f"{made['metadata']['namespace']}/{made['metadata']['name']}"
        return await self._call(
            "create_snapshot", about, lambda: msgspec.convert(self.create("snapshots", made), Snapshot)
        )

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        """See `Cluster`."""

        def delete() -> None:
            meta, old = snapshot.metadata, self._checked_version("snapshots", snapshot.key, {})
            if (meta.uid, meta.resource_version) != (old["metadata"]["uid"], old["metadata"]["resourceVersion"]):
                raise Conflict(f"snapshots {snapshot.key} is not as it was read")
            self.delete("snapshots", snapshot.key)

        await self._call("delete_snapshot", snapshot.key, delete)

    async def name_snapshot_class(self, snapshot: Snapshot, class_name: str) -> Snapshot:
        """See `Cluster`."""

        def name() -> Snapshot:
            old = self._checked_version("snapshots", snapshot.key, {})
            if old["metadata"]["uid"] != snapshot.uid:
                raise Conflict(f"snapshots {snapshot.key}: it is another object now")
            changed = self.change(
                "snapshots", snapshot.key, lambda body: body["spec"].update(volumeSnapshotClassName=class_name)
            )
            return msgspec.convert(changed, Snapshot)

        return await self._call("name_snapshot_class", snapshot.key, name)

    async def get_snapshot_content(self, name: str) -> SnapshotContent | None:
        """See `Cluster`."""
        return await self._call("get_snapshot_content", _checked(name), lambda: self.snapshot_content(name))

    async def create_snapshot_content(self, body: Mapping[str, object]) -> SnapshotContent:
        """See `Cluster`. Its status is a resource of its own, so that a creation drops it."""
        made: Body = {key: value for key, value in copy.deepcopy(dict(body)).items() if key != "status"}
        return await self._call(
            "create_snapshot_content",
            made["metadata"]["name"],
            lambda: msgspec.convert(self.create("snapshot_contents", made), SnapshotContent),
        )

    async def patch_snapshot_status(self, name: str, patch: Mapping[str, object]) -> SnapshotContent:
        """See `Cluster`."""
        only = {key: value for key, value in patch.items() if key == "status"}
        return await self._call(
            "patch_snapshot_status",
            _checked(name),
            lambda: msgspec.convert(
                self.change("snapshot_contents", name, lambda body: _become(body, merged(body, only))), SnapshotContent
            ),
        )

    async def release_snapshot_content(self, content: SnapshotContent, finalizer: str) -> None:
        """See `Cluster`."""
        left = [each for each in content.metadata.finalizers if each != finalizer]

        def release() -> None:
            self._require_content(content)
            self.change("snapshot_contents", content.name, lambda body: body["metadata"].update(finalizers=left))

        await self._call("release_snapshot_content", _checked(content.name), release)

    async def delete_snapshot_content(self, content: SnapshotContent) -> None:
        """See `Cluster`."""

        def delete() -> None:
            self._require_content(content)
            self.delete("snapshot_contents", content.name)

        await self._call("delete_snapshot_content", _checked(content.name), delete)

    async def record_event(self, event: Event, *, count: int, name: str, first_seen: datetime, seen: datetime) -> None:
        """See `Cluster`."""
        where = event.about.namespace or "default"
        recorded = RecordedEvent(event, count, first_seen, seen)
        await self._call("record_event", f"{where}/{_checked(name)}", lambda: self._record(where, name, recorded))

    async def get_lease(self, namespace: str, name: str) -> LeaseRecord | None:
        """See `Cluster`."""
        return await self._call("get_lease", f"{namespace}/{name}", lambda: self._leases.get((namespace, name)))

    async def create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """See `Cluster`."""
        return await self._call(
            "create_lease", f"{namespace}/{name}", lambda: self._create_lease(namespace, name, lease)
        )

    async def replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """See `Cluster`."""
        return await self._call(
            "replace_lease", f"{namespace}/{name}", lambda: self._replace_lease(namespace, name, lease)
        )

    async def is_allowed(self, permission: Permission) -> bool:
        """See `Cluster`."""
        return await self._call("may", permission.resource, lambda: True)

    async def cluster_uid(self) -> str:
        """See `Cluster`."""
        return await self._call("identity", "", lambda: self._identity)

    async def ping(self) -> None:
        """See `Cluster`."""
        await self._call("ping", "", lambda: None)

    def server_time(self) -> datetime | None:
        """See `Cluster`; follows the loop's time."""
        return _time()

    # ------------------------------------------------------------------------------------------------ other clients

    def claim(self, key: str) -> Claim | None:
        """Return a claim by `namespace/name`."""
        item = self._items["claims"].get(key)
        return item if isinstance(item, Claim) else None

    def volume(self, name: str) -> Volume | None:
        """Return a volume."""
        item = self._items["volumes"].get(name)
        return item if isinstance(item, Volume) else None

    def storage_class(self, name: str) -> StorageClass | None:
        """Return a class."""
        item = self._items["classes"].get(name)
        return item if isinstance(item, StorageClass) else None

    def snapshot(self, key: str) -> Snapshot | None:
        """Return a VolumeSnapshot by `namespace/name`."""
        item = self._items["snapshots"].get(key)
        return item if isinstance(item, Snapshot) else None

    def snapshot_content(self, name: str) -> SnapshotContent | None:
        """Return a VolumeSnapshotContent."""
        item = self._items["snapshot_contents"].get(name)
        return item if isinstance(item, SnapshotContent) else None

    def claims(self) -> Sequence[Claim]:
        """Return all claims, sorted by name."""
        return [item for _, item in sorted(self._items["claims"].items()) if isinstance(item, Claim)]

    def volumes(self) -> Sequence[Volume]:
        """Return all volumes, sorted by name."""
        return [item for _, item in sorted(self._items["volumes"].items()) if isinstance(item, Volume)]

    def classes(self) -> Sequence[StorageClass]:
        """Return all classes, sorted by name."""
        return [item for _, item in sorted(self._items["classes"].items()) if isinstance(item, StorageClass)]

    def snapshots(self) -> Sequence[Snapshot]:
        """Return all VolumeSnapshots, sorted by name."""
        return [item for _, item in sorted(self._items["snapshots"].items()) if isinstance(item, Snapshot)]

    def body(self, kind: Kind, key: str) -> Body | None:
        """Return an object with all its fields."""
        return self._bodies[kind].get(key)

    def create(self, kind: Kind, body: Body) -> Body:
        """Create an object and return it as stored. Raises AlreadyExists, NotFound, Rejected."""
        metadata = body["metadata"]
        namespace = metadata.get("namespace", "")
        key = f"{namespace}/{_checked(metadata['name'])}" if namespace else _checked(metadata["name"])
        if key in self._bodies[kind]:
            raise AlreadyExists(f"{kind} {key} exists already")
        if namespace and namespace not in self.namespaces:
            raise NotFound(f"there is no namespace {namespace}")
        made = merged(_NEW[kind], body)
        made.setdefault("spec", {})
        self._uids += 1
        made["metadata"] |= {
            "uid": f"{self._uid_prefix}-{self._uids:04x}",
            "creationTimestamp": times.text(_time()),
            "finalizers": [*_NEW[kind].get("metadata", {}).get("finalizers", ()), *metadata.get("finalizers", ())],
        }
        if kind == "volumes":
            _check_volume(made)
        return self._write(kind, key, made)

    def change(self, kind: Kind, key: str, change: Callable[[Body], object]) -> Body:
        """Change an object in place; without finalizers, a deleted object disappears. Raises NotFound."""
        old = self._bodies[kind].get(key)
        if old is None:
            raise NotFound(f"{kind} {key} is not there")
        new = copy.deepcopy(old)
        change(new)
        return self._write(kind, key, new) if new != old else old

    def delete(self, kind: Kind, key: str) -> None:
        """Delete an object, which stays until its finalizers are removed. Raises NotFound."""
        self.change(kind, key, lambda body: body["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z"))

    def expire(self) -> None:
        """Forget all history: watches and lists from an earlier version get Expired."""
        self._version += 1
        self._forgotten = self._version
        for history in self._history.values():
            history.clear()

    def saved(self) -> Body:
        """Return all stored objects, like a backup of etcd."""
        return copy.deepcopy(
            {
                "_version": self._version,
                "_bodies": self._bodies,
                "_items": self._items,
                "_leases": self._leases,
                "events": self.events,
            }
        )

    def restore(self, saved: Body) -> None:
        """Restore a backup: the version goes back too, and running watches continue without an event."""
        for name, value in copy.deepcopy(saved).items():
            setattr(self, name, value)
        self._forgotten = self._version
        for history in self._history.values():
            history.clear()

    # ------------------------------------------------------------------------------------------------ how

    async def _call(self, name: str, about: str, job: Callable[[], Result]) -> Result:
        await self.before(name, about)
        result = job()
        await self.after(name, about)
        return result

    def _write(self, kind: Kind, key: str, body: Body) -> Body:
        """Store a changed object; a deleted object without finalizers disappears."""
        before = self._items[kind].get(key)
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        item = msgspec.convert(body, _TYPES[kind])
        gone = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if gone:
            self._bodies[kind].pop(key, None)
            self._items[kind].pop(key, None)
        else:
            self._bodies[kind][key], self._items[kind][key] = body, item
        type_: Literal["ADDED", "MODIFIED", "DELETED"] = (
            "DELETED" if gone else "ADDED" if before is None else "MODIFIED"
        )
        self._history[kind].append(WatchEvent(type_, str(self._version), item))
        for waiting in self._waiting:
            waiting.set()
        for listener in self.listeners:
            listener(kind, before, None if gone else item)
        return body

    def _news(self, kind: Kind, at: int, sent: int) -> Sequence[WatchEvent[AnyItem]]:
        """Return the events after a version, preceded by as many repeated events as `again` wants."""
        history = self._history[kind]
        if at < self._forgotten:
            raise Expired(f"watch {kind}: version {at} is too old")
        first = next((i for i in range(len(history) - 1, -1, -1) if int(history[i].version) <= at), -1) + 1
        if first == len(history):
            return []
        return history[max(0, first - min(self.again(), sent)) :]

    def _list(self, kind: Kind, token: str) -> Page[AnyItem]:
        start = 0
        if token:
            version, _, begin = token.partition(":")
            start = int(begin)
            if int(version) < self._forgotten or f"{kind}:{version}" not in self._lists:
                raise Expired(f"list {kind}: the continue token is too old")
        else:
            version = str(self._version)
        listed = f"{kind}:{version}"
        if not token:
            self._lists[listed] = [item for _, item in sorted(self._items[kind].items())]
        items = self._lists[listed]
        end = start + self._page_items
        if end < len(items):
            return Page(items[start:end], version, f"{version}:{end}")
        del self._lists[listed]
        return Page(items[start:], version)

    def _patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        old = self._checked_version("volumes", name, patch)
        allowed = {key: value for key, value in patch.items() if key != "status"}  # a resource of its own
        new = merged(old, allowed)
        if new["spec"].get("nfs") != old["spec"].get("nfs"):
            raise Rejected(f"volume {name}: spec.persistentvolumesource is immutable after creation")
        if set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ()):
            _refuse_when_deleted(old)
        _check_volume(new)
        return msgspec.convert(self.change("volumes", name, lambda body: _become(body, new)), Volume)

    def _set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        body = self._bodies["volumes"].get(volume.name)
        if body is None:
            raise NotFound(f"volume {volume.name} is not there")
        if body["metadata"]["uid"] != volume.metadata.uid:
            raise Conflict(f"volume {volume.name} is another one")
        others = [name for name in body["metadata"].get("finalizers") or () if name != finalizer]
        if present and finalizer not in (body["metadata"].get("finalizers") or ()):
            _refuse_when_deleted(body)
        finalizers = [*others, finalizer] if present else others
        if sorted(finalizers) != sorted(body["metadata"].get("finalizers") or ()):
            self.change("volumes", volume.name, lambda new: new["metadata"].update(finalizers=finalizers))

    def _delete_volume(self, volume: Volume) -> None:
        body = self._bodies["volumes"].get(volume.name)
        if body is None:
            raise NotFound(f"volume {volume.name} is not there")
        meta = volume.metadata
        if (meta.uid, meta.resource_version) != (body["metadata"]["uid"], body["metadata"]["resourceVersion"]):
            raise Conflict(f"volume {volume.name} is not as it was read")
        self.delete("volumes", volume.name)

    def snapshot_contents(self) -> Sequence[SnapshotContent]:
        """Return all VolumeSnapshotContents."""
        return [
            item for _, item in sorted(self._items["snapshot_contents"].items()) if isinstance(item, SnapshotContent)
        ]

    def _require_content(self, content: SnapshotContent) -> None:
        """Raise NotFound or Conflict unless a content is as it was read."""
        meta = content.metadata
        old = self._checked_version("snapshot_contents", content.name, {})
        if (meta.uid, meta.resource_version) != (old["metadata"]["uid"], old["metadata"]["resourceVersion"]):
            raise Conflict(f"snapshot_contents {content.name} is not as it was read")

    def _request_size(self, key: str, claim: Claim, size: str) -> Claim:
        meta = claim.metadata
        old = self._checked_version("claims", key, {"metadata": {"resourceVersion": meta.resource_version}})
        if old["metadata"]["uid"] != meta.uid:
            raise Conflict(f"claims {key}: it is another object now")

        def request(body: Body) -> None:
            body["spec"].setdefault("resources", {}).setdefault("requests", {})["storage"] = size

        return msgspec.convert(self.change("claims", key, request), Claim)

    def _patch_claim_status(self, key: str, patch: Mapping[str, object]) -> Claim:
        self._checked_version("claims", key, patch)
        status = patch.get("status", {})
        assert isinstance(status, Mapping)
        stored = self.change("claims", key, lambda body: body.update(status=merged(body["status"], status, lists=True)))
        return msgspec.convert(stored, Claim)

    def _checked_version(self, kind: Kind, key: str, patch: Mapping[str, Any]) -> Body:
        body = self._bodies[kind].get(key)
        if body is None:
            raise NotFound(f"{kind} {key} is not there")
        version = patch.get("metadata", {}).get("resourceVersion")
        if version is not None and version != body["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind} {key} is not as it was read")
        return body

    def _record(self, namespace: str, name: str, recorded: RecordedEvent) -> None:
        if namespace not in self.namespaces:
            raise NotFound(f"there is no namespace {namespace}")
        known = self.events.get((namespace, name))
        self.events[namespace, name] = (
            recorded if known is None else replace(known, count=recorded.count, seen=recorded.seen)
        )

    def _create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        if (namespace, name) in self._leases:
            raise AlreadyExists(f"lease {namespace}/{name} exists already")
        return self._write_lease(namespace, name, lease)

    def _replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        known = self._leases.get((namespace, name))
        if known is None:
            raise NotFound(f"lease {namespace}/{name} is not there")
        if known.version != lease.version:
            raise Conflict(f"lease {namespace}/{name} is not as it was read")
        return self._write_lease(namespace, name, lease)

    def _write_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        self._version += 1
        duration_s = float(max(1, math.ceil(lease.duration_s)))
        stored = replace(lease, version=str(self._version), duration_s=duration_s, program=__version__)
        self._leases[namespace, name] = stored
        return stored


def _time() -> datetime:
    """The server's clock: the loop's time, which a simulation advances; without a loop it stands still."""
    try:
        passed_s = asyncio.get_running_loop().time()
    except RuntimeError:
        passed_s = 0.0
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=passed_s)


def merged(old: Mapping[str, Any], patch: Mapping[str, Any], *, lists: bool = False) -> Body:
    """Apply a JSON merge patch (RFC 7386); with `lists`, conditions merge by type as in a strategic patch."""
    new = copy.deepcopy(dict(old))
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, Mapping):
            below = new.get(key)
            new[key] = merged(below if isinstance(below, dict) else {}, value, lists=lists)
        elif lists and key == "conditions":
            new[key] = _merged_conditions(new.get(key, []), value)
        else:
            new[key] = copy.deepcopy(value)
    return new


def _merged_conditions(old: list[Body], patch: list[Body]) -> list[Body]:
    by_type = {condition["type"]: condition for condition in old}
    for condition in patch:
        if condition.get("$patch") == "delete":
            by_type.pop(condition["type"], None)
        else:
            by_type[condition["type"]] = {**by_type.get(condition["type"], {}), **condition}
    return list(by_type.values())


def _become(body: Body, new: Body) -> None:
    body.clear()
    body.update(new)


def _check_volume(body: Body) -> None:
    for mode in body["spec"].get("accessModes", ()):
        if mode not in ACCESS_MODES:
            raise Rejected(f"volume {body['metadata']['name']}: spec.accessModes: {mode!r} is not supported")


def _refuse_when_deleted(body: Body) -> None:
    if "deletionTimestamp" in body["metadata"]:
        raise Rejected("no new finalizers can be added if the object is being deleted")


def _checked(name: str) -> str:
    if name in ("", ".", ".."):
        raise Rejected(f"{name!r} is not the name of an object")
    return name
