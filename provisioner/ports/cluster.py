"""The `Cluster` port: the API server, with the values and errors of its calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from provisioner.core.checks import Permission
from provisioner.core.errors import ProvisionerError
from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import Claim, Namespace, StorageClass, Volume
from provisioner.core.parameters import Ownership as Ownership


class ClusterError(ProvisionerError):
    """A call to the API server failed; the text is short enough for a log line and carries no secret."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        """What an admin can do about it, where more is known than the text says."""


class NotFound(ClusterError):
    """404."""


class AlreadyExists(ClusterError):
    """409 for a name that is taken."""


class Conflict(ClusterError):
    """409 for a resourceVersion or a precondition that no longer holds: read again."""


class Rejected(ClusterError):
    """400, 403, 422 and their like: the same call will be refused again until somebody changes something."""


class Forbidden(Rejected):
    """403: a right is missing."""


class Expired(ClusterError):
    """410: the version to watch from, or the list to continue, is gone: list again."""


class ApiUnavailable(ClusterError):
    """No answer, a 5xx or a 429: **the outcome of a write is unknown**. `retry_after_s` is the server's own wish."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


Kind = Literal["claims", "volumes", "classes"]

AnyItem = Claim | Volume | StorageClass

Item = TypeVar("Item", bound=AnyItem)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list. `continue_token` is empty on the last one, `version` is where a watch resumes."""

    items: Sequence[Item]
    version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[Item]):
    """One line of a watch. A bookmark has no item; `version` is where a watch resumes after it."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    version: str
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What an event is about."""

    kind: Literal["PersistentVolumeClaim", "PersistentVolume"]
    namespace: str
    name: str
    uid: str
    resource_version: str = ""


EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event to record: on the first occurrence created, on a repetition counted up."""

    about: ObjectRef
    type: EventType
    reason: str
    message: str


class Cluster(Protocol):
    """The API server. Every call has a time limit, raises ClusterError only, and obeys 429 with Retry-After."""

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        """One page of all objects of a kind. Raises Expired when the token is too old."""
        ...

    async def version(self, kind: Kind) -> str:
        """The version that a list of a kind would have now, which costs no list."""
        ...

    def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        """Changes after a version until the server ends the watch cleanly; close the generator to end it early.

        Raises Expired on 410, ApiUnavailable when the connection breaks or nothing comes for too long. A watch from a
        version that is yet to come is silent until then, but for bookmarks.
        """
        ...

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        """The claim as it is now, or None where there is none of that name."""
        ...

    async def get_volume(self, name: str) -> Volume | None:
        """The volume as it is now, or None where there is none of that name."""
        ...

    async def get_namespace(self, name: str) -> Namespace | None:
        """The namespace as it is now, or None where there is none of that name."""
        ...

    async def create_volume(self, body: Mapping[str, object]) -> Volume:
        """Create a PersistentVolume. Raises AlreadyExists."""
        ...

    async def patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        """JSON merge patch (RFC 7386); with `metadata.resourceVersion` in it raises Conflict when that is old."""
        ...

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        """Put one finalizer on the volume, or take it off, whatever others do to the rest of the list meanwhile.

        Raises NotFound when the volume is gone, Conflict when another one has its name.
        """
        ...

    async def delete_volume(self, volume: Volume) -> None:
        """Delete exactly the volume that was read: its uid and resourceVersion are preconditions (raises Conflict).

        Raises NotFound when it is gone. The object stays until its finalizers are off.
        """
        ...

    async def patch_claim_status(self, namespace: str, name: str, patch: Mapping[str, object]) -> Claim:
        """Strategic merge patch of a claim's status (lists merge by key); raises Conflict as patch_volume does."""
        ...

    async def record_event(self, event: Event, *, count: int, name: str, first_seen: datetime, seen: datetime) -> None:
        """Create the event object `name` where `count` is 1, else set its count and the time it was last seen."""
        ...

    async def get_lease(self, namespace: str, name: str) -> LeaseRecord | None:
        """The lease as it is now, or None."""
        ...

    async def create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Create the lease. Raises AlreadyExists."""
        ...

    async def replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Replace the lease that was read (`lease.version`). Raises Conflict when somebody else was faster."""
        ...

    async def is_allowed(self, permission: Permission) -> bool:
        """Whether the API server would let us do that."""
        ...

    async def cluster_uid(self) -> str:
        """What tells this cluster from others for as long as it lives: the uid of its namespace kube-system."""
        ...

    async def ping(self) -> None:
        """Raise ClusterError unless the API server says that it is ready."""
        ...

    def server_time(self) -> datetime | None:
        """The API server's own clock by the latest answer that came promptly, and the seconds since; UTC, aware.

        It may be behind by the second that the answer was cut to and the time that it took. None before the first.
        """
        ...
