"""A Kubernetes event as the API object of core/v1, which `kubectl describe` and the peers' alerts read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from provisioner.core import times
from provisioner.core.events import clip
from provisioner.ports.cluster import Event

INSTANCE_LIMIT = 128
"""Characters of reportingInstance (Kubernetes, pkg/apis/core/validation/events.go)."""


class _Source(Struct, frozen=True):
    component: str = ""


class RecordedEvent(Struct, frozen=True, rename="camel"):
    """An event that was written, as far as it is shown."""

    type: str = ""
    reason: str = ""
    message: str = ""
    source: _Source = _Source()
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def by(self) -> str:
        """Who said it."""
        return self.source.component

    @property
    def at(self) -> str:
        """When it was said last: RFC 3339, UTC; empty where it does not say."""
        return self.last_timestamp or self.event_time or ""


class _List(Struct):
    kind: str
    items: list[RecordedEvent] = []


_decoder = msgspec.json.Decoder(_List)


def query(uid: str) -> dict[str, str]:
    """The query for what was said of one object, a hundred events at most."""
    return {"fieldSelector": f"involvedObject.uid={uid}", "limit": "100"}


def decode(body: bytes) -> Sequence[RecordedEvent]:
    """The events in an answer. Raises msgspec.DecodeError."""
    return _decoder.decode(body).items


def namespace(event: Event) -> str:
    """Where the event lives: with what it is about, or in `default` for objects without a namespace."""
    return event.about.namespace or "default"


def body(
    event: Event, *, name: str, count: int, first_seen: datetime, seen: datetime, provisioner: str, identity: str
) -> dict[str, object]:
    """The object to create."""
    about = event.about
    involved = {
        "apiVersion": "v1",
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
    """What changes when the same happens again."""
    return {"count": count, "lastTimestamp": _time(seen)}


def _time(at: datetime) -> str:
    """`metav1.Time`: RFC 3339, UTC, whole seconds."""
    return times.text(at.astimezone(UTC))
