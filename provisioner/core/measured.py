"""What volumes use, as `usage` lists it: the quota agent's answer, or what a walk has counted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from msgspec import Struct

from provisioner.core import quota
from provisioner.core.errors import InvalidQuantity
from provisioner.core.listing import VolumeRow
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, Heartbeat

Source = Literal["", "agent", "walk"]


class UsageRow(Struct, frozen=True):
    """The usage of one volume; the fields are the columns of the table."""

    volume: str
    namespace: str
    claim: str
    storage_class: str
    capacity: str
    export: str
    directory: str
    used_bytes: int | None = None
    """None if it is unknown."""
    files: int | None = None
    """Objects of all types, directories included."""
    percent: int | None = None
    """`used_bytes` of the capacity."""
    source: Source = ""
    """`agent`: the answer of the quota agent; `walk`: counted by this command; empty: unknown."""
    complete: bool = False
    """Whether everything was counted."""
    why: str = ""
    """Why the usage is unknown or not complete."""


def unknown(volume: VolumeRow, why: str) -> UsageRow:
    """Return the row of a volume whose usage is not known."""
    return UsageRow(
        volume=volume.volume,
        namespace=volume.namespace,
        claim=volume.claim,
        storage_class=volume.storage_class,
        capacity=volume.capacity,
        export=volume.export,
        directory=volume.directory,
        why=why,
    )


def of_agent(volume: VolumeRow, answer: Answer | None, heartbeat: Heartbeat | None, now: datetime) -> UsageRow | None:
    """Return the row by the quota agent's answer; None if there is none, or it is old or not about everything."""
    if answer is None or not answer.whole or not quota.is_alive(heartbeat, now):
        return None
    return counted(volume, answer.used_bytes, answer.inodes, source="agent", why="")


def counted(volume: VolumeRow, used_bytes: int, files: int, *, source: Source, why: str) -> UsageRow:
    """Return the row of a volume that was counted; `why` says what is missing."""
    row = unknown(volume, why)
    return UsageRow(
        **{name: getattr(row, name) for name in _IDENTITY},
        used_bytes=used_bytes,
        files=files,
        percent=_percent(used_bytes, volume.capacity),
        source=source,
        complete=not why,
        why=why,
    )


_IDENTITY = ("volume", "namespace", "claim", "storage_class", "capacity", "export", "directory")


def _percent(used_bytes: int, capacity: str) -> int | None:
    try:
        size = parse_bytes(capacity)
    except InvalidQuantity:
        return None
    return round(100 * used_bytes / size) if size > 0 else None


def largest_first(rows: Iterable[UsageRow], field: str) -> list[UsageRow]:
    """Sort by a number, the largest first; what is unknown comes last."""
    return sorted(rows, key=lambda row: (getattr(row, field) is None, -(getattr(row, field) or 0), row.volume))
