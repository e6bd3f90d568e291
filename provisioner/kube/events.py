"""Kubernetes events as API objects of core/v1, which `kubectl describe` and existing alerts read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from provisioner.core import names, times
from provisioner.core.events import clip
from provisioner.ports.cluster import Event

INSTANCE_LIMIT = 128
"""Characters of reportingInstance (Kubernetes, pkg/apis/core/validation/events.go)."""


class _Source(Struct, frozen=True):
    component: str = ""


class RecordedEvent(Struct, frozen=True, rename="camel"):
    """An event that the API server has, with the fields that commands show."""

    type: str = ""
    reason: str = ""
    message: str = ""
    source: _Source = _Source()
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def by(self) -> str:
        """The component that wrote it."""
        return self.source.component

    @property
    def at(self) -> str:
        """The time of the last occurrence: RFC 3339, UTC; empty if unknown."""
        return self.last_timestamp or self.event_time or ""


class _List(Struct):
    kind: str
    items: list[RecordedEvent] = []


_decoder = msgspec.json.Decoder(_List)


def query(uid: str) -> dict[str, str]:
    """Return the query for the events about one object, a hundred at most."""
    return {"fieldSelector": f"involvedObject.uid={uid}", "limit": "100"}


def decode(body: bytes) -> Sequence[RecordedEvent]:
    """Decode the events in an answer. Raises msgspec.DecodeError."""
    return _decoder.decode(body).items


def namespace(event: Event) -> str:
    """Return the namespace of an event: that of its object, or `default` for objects without a namespace."""
    return event.about.namespace or "default"


def body(
    event: Event, *, name: str, count: int, first_seen: datetime, seen: datetime, provisioner: str, identity: str
) -> dict[str, object]:
    """Return the object to create."""
    about = event.about
    involved = {
        "apiVersion": f"{names.SNAPSHOT_GROUP}/v1" if about.kind == "VolumeSnapshot" else "v1",
        "kind": about.kind,
        "namespace": about.namespace,
        "name": about.name,
        "uid": about.uid,
        "resourceVersion": about.resource_version,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace(event)},
        "involvedObject": {key: value for key, value in involved.items() if value},
        "type": event.type,
        "reason": event.reason,
        "message": clip(event.message),
        "source": {"component": provisioner},
        "reportingComponent": provisioner,
        "reportingInstance": identity[:INSTANCE_LIMIT],
        "firstTimestamp": _time(first_seen),
        **repetition(count=count, seen=seen),
    }


def repetition(*, count: int, seen: datetime) -> dict[str, object]:
    """Return the fields that change with a repetition."""
    return {"count": count, "lastTimestamp": _time(seen)}


def _time(at: datetime) -> str:
    """Return a `metav1.Time`: RFC 3339, UTC, whole seconds."""
    return times.text(at.astimezone(UTC))
