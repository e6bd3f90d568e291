"""Points in time as text, for records, conditions and listings, and for names of files. All are UTC."""

from __future__ import annotations

import re
from datetime import datetime

_FILE_FORMAT = "%Y%m%dT%H%M%S.%fZ"

# strftime() and strptime() take several times as long as isoformat() and fromisoformat(). The latter accepts many other
# formats, which the patterns exclude.
_WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_IN_FILE_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z", re.ASCII)


def text(at: datetime) -> str:
    """Format a time as RFC 3339 with whole seconds, as Kubernetes does: `2026-11-23T16:15:12Z`."""
    return f"{at.isoformat()[:19]}Z"


def parse(written: str) -> datetime | None:
    """Parse a time that text() wrote; None for any other text."""
    return _parsed(_WRITTEN, written)


def file_stamp(at: datetime) -> str:
    """Format a time for a file name, sortable: `20261123T161512.123456Z`."""
    return at.strftime(_FILE_FORMAT)


def stamped(name: str) -> datetime | None:
    """Return the time at the end of a name such as `NAME.20261123T161512.123456Z`.

    None for any other name.
    """
    return _parsed(_IN_FILE_NAME, ".".join(name.rsplit(".", 2)[1:]))


def _parsed(pattern: re.Pattern[str], written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written) if pattern.fullmatch(written) else None
    except ValueError:
        return None
