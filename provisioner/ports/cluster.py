"""The `Cluster` port: calls to the API server, with their values and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from provisioner.core.checks import Permission
from provisioner.core.errors import ProvisionerError
from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import Claim, Namespace, Snapshot, SnapshotClass, SnapshotContent, StorageClass, Volume


class ClusterError(ProvisionerError):
    """A call to the API server failed. The text fits in a log line and has no secrets."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        """What an admin can do, if more is known than the text says."""


class NotFound(ClusterError):
    """404: the object does not exist."""


class AlreadyExists(ClusterError):
    """409: an object of this name already exists."""


class Conflict(ClusterError):
    """409: a resourceVersion or precondition no longer holds; read the object again."""


class Rejected(ClusterError):
    """400, 403, 422 and similar: the API server will reject the same call until an admin changes something."""


class KindMissing(Rejected):
    """404: the API server does not have the kind, because its CRD is missing."""


class Forbidden(Rejected):
    """403: the ServiceAccount lacks a permission."""


class Expired(ClusterError):
    """410: the version to watch from or the list to continue has expired; list again."""


class ApiUnavailable(ClusterError):
    """No response, a 5xx or a 429: **the outcome of a write is unknown**.

    `retry_after_s` is the delay that the server asks for.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


Kind = Literal["claims", "volumes", "classes", "snapshots", "snapshot_contents", "snapshot_classes"]
OPTIONAL_KINDS: frozenset[Kind] = frozenset(("snapshots", "snapshot_contents", "snapshot_classes"))
"""The kinds that have CRDs, which a cluster can lack."""

AnyItem = Claim | Volume | StorageClass | Snapshot | SnapshotContent | SnapshotClass

Item = TypeVar("Item", bound=AnyItem)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list.

    `continue_token` is empty on the last page, and a watch resumes from `version`.
    """

    items: Sequence[Item]
    version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[Item]):
    """One line of a watch; a bookmark has no item, and a watch resumes from `version`."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    version: str
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """The object that an event is about."""

    kind: Literal["PersistentVolumeClaim", "PersistentVolume", "VolumeSnapshot"]
    namespace: str
    name: str
    uid: str
    resource_version: str = ""


EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event to record: created once, and counted up on each repetition."""

    about: ObjectRef
    type: EventType
    reason: str
    message: str


class Cluster(Protocol):
    """The API server.

    Every call has a time limit, raises only ClusterError, and honors 429 with Retry-After.
    """

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        """Return one page of all objects of a kind.

        Raises Expired if the token is too old, and KindMissing.
        """
        ...

    async def version(self, kind: Kind) -> str:
        """Return the version that a list of a kind would have now, without listing."""
        ...

    def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        """Yield the changes after a version until the server ends the watch.

        Close the generator to end it early.

        Raises Expired on 410, and ApiUnavailable if the connection breaks or stays silent for too long. A watch from a
        future version yields only bookmarks until that version exists.
        """
        ...

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        """Return the current claim, or None if it does not exist."""
        ...

    async def get_volume(self, name: str) -> Volume | None:
        """Return the current volume, or None if it does not exist."""
        ...

    async def get_namespace(self, name: str) -> Namespace | None:
        """Return the current namespace, or None if it does not exist."""
        ...

    async def create_volume(self, body: Mapping[str, object]) -> Volume:
        """Create a PersistentVolume. Raises AlreadyExists."""
        ...

    async def patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        """Apply a JSON merge patch (RFC 7386).

        Raises Conflict if its `metadata.resourceVersion` is not current.
        """
        ...

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        """Add or remove one finalizer.

        Concurrent changes of the other finalizers do not interfere.

        Raises NotFound if the volume does not exist, and Conflict if another volume has its name.
        """
        ...

    async def delete_volume(self, volume: Volume) -> None:
        """Delete exactly the volume that was read: its UID and resourceVersion are preconditions.

        Raises Conflict if they do not match, and NotFound if the volume does not exist. The object remains until its
        finalizers are removed.
        """
        ...

    async def request_size(self, claim: Claim, size: str) -> Claim:
        """Change the size that exactly the claim that was read requests: its uid and resourceVersion are preconditions.

        Raises Conflict if they do not match, NotFound, and Rejected, for instance beyond a ResourceQuota.
        """
        ...

    async def patch_claim_status(self, namespace: str, name: str, patch: Mapping[str, object]) -> Claim:
        """Apply a strategic merge patch to a claim's status (lists merge by key).

        Raises Conflict like patch_volume.
        """
        ...

    async def get_snapshot(self, namespace: str, name: str) -> Snapshot | None:
        """Return the current VolumeSnapshot, or None if it does not exist."""
        ...

    async def create_snapshot(self, body: Mapping[str, object]) -> Snapshot:
        """Create a VolumeSnapshot. Raises AlreadyExists, and KindMissing without the CRD."""
        ...

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Delete exactly the VolumeSnapshot that was read, as `delete_volume` does. Raises Conflict, NotFound."""
        ...

    async def name_snapshot_class(self, snapshot: Snapshot, class_name: str) -> Snapshot:
        """Set the class of exactly this VolumeSnapshot: its uid is the precondition. Raises Conflict, NotFound."""
        ...

    async def get_snapshot_content(self, name: str) -> SnapshotContent | None:
        """Return the current VolumeSnapshotContent, or None if it does not exist."""
        ...

    async def create_snapshot_content(self, body: Mapping[str, object]) -> SnapshotContent:
        """Create a VolumeSnapshotContent. Raises AlreadyExists."""
        ...

    async def patch_snapshot_status(self, name: str, patch: Mapping[str, object]) -> SnapshotContent:
        """Apply a JSON merge patch to the status of a VolumeSnapshotContent. Raises NotFound."""
        ...

    async def release_snapshot_content(self, content: SnapshotContent, finalizer: str) -> None:
        """Remove one finalizer of exactly the content that was read. Raises Conflict if it has changed, NotFound."""
        ...

    async def delete_snapshot_content(self, content: SnapshotContent) -> None:
        """Delete exactly the content that was read, as `delete_volume` does. Raises Conflict, NotFound."""
        ...

    async def record_event(self, event: Event, *, count: int, name: str, first_seen: datetime, seen: datetime) -> None:
        """Create the event object `name` if `count` is 1, else update its count and the time it was last seen."""
        ...

    async def get_lease(self, namespace: str, name: str) -> LeaseRecord | None:
        """Return the current lease, or None if it does not exist."""
        ...

    async def create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Create the lease. Raises AlreadyExists."""
        ...

    async def replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Replace the lease that was read (`lease.version`).

        Raises Conflict if another replica was faster.
        """
        ...

    async def is_allowed(self, permission: Permission) -> bool:
        """Return True if the API server grants this permission."""
        ...

    async def cluster_uid(self) -> str:
        """Return a unique ID that never changes: the UID of the namespace kube-system."""
        ...

    async def ping(self) -> None:
        """Raise ClusterError unless the API server reports that it is ready."""
        ...

    def server_time(self) -> datetime | None:
        """Return the API server's clock: the time in its latest prompt response plus the seconds since, in UTC.

        It can be behind by one second, the resolution of the response, plus the time that the response took. None
        before the first response.
        """
        ...
