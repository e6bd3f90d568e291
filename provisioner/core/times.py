"""Points in time as text, for records, conditions and listings, and for names of files. All are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_FILE_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def text(at: datetime) -> str:
    """Format a time as RFC 3339 with whole seconds, as Kubernetes does: `2026-11-23T16:15:12Z`."""
    return f"{at.isoformat()[:19]}Z"  # several times as fast as strftime()


def parse(written: str) -> datetime | None:
    """Parse a time that text() wrote; None for any other text."""
    try:
        return datetime.strptime(written, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def file_stamp(at: datetime) -> str:
    """Format a time for a file name, sortable: `20261123T161512.123456Z`."""
    return at.strftime(_FILE_FORMAT)


def stamped(name: str) -> datetime | None:
    """Return the time at the end of a name such as `NAME.20261123T161512.123456Z`.

    None for any other name.
    """
    stamp = ".".join(name.rsplit(".", 2)[1:])
    try:
        return datetime.strptime(stamp, _FILE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
