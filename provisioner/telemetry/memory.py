"""The memory that the container of this process can use (cgroups(7))."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_FILES = ("memory.max", "memory/memory.limit_in_bytes")
"""Of cgroups v2 and v1, as a container sees its own."""
_UNLIMITED = 1 << 60
"""Version 1 has no word for "no limit", but a number of pages close to 2^63 bytes."""


def limit_bytes(cgroups: Path = CGROUPS) -> int:
    """Return the limit in bytes; 0 without one."""
    for name in _FILES:
        try:
            found = int((cgroups / name).read_text())
        except (OSError, ValueError):  # absent, or "max"
            continue
        return found if found < _UNLIMITED else 0
    return 0
