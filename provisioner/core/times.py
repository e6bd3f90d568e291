"""Points in time as text: as records, conditions and listings carry them, and as names of files do. All UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_FILE_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def text(at: datetime) -> str:
    """RFC 3339, whole seconds, as Kubernetes writes it: `2026-11-23T16:15:12Z`."""
    return at.strftime(_FORMAT)


def parse(written: str) -> datetime | None:
    """The time that text() wrote; None for anything else."""
    try:
        return datetime.strptime(written, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def file_stamp(at: datetime) -> str:
    """`20261123T161512.123456Z`: unique enough for a name, and sorted as time is."""
    return at.strftime(_FILE_FORMAT)


def stamped(name: str) -> datetime | None:
    """The time at the end of a name such as `NAME.20261123T161512.123456Z`; None for any other name."""
    stamp = ".".join(name.rsplit(".", 2)[1:])
    try:
        return datetime.strptime(stamp, _FILE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
