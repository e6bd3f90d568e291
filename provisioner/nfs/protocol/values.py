"""Values that NFSv3 and NFSv4 share: attributes of an object, and pages of a directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from provisioner.ports.files import Kept, Kind
from provisioner.ports.tree import EntryType

Fsid = tuple[int, int]
"""ID of the file system that an object is on (RFC 8881 section 5.8.1.9); NFSv3 has only the first number."""

NAME_LIMIT_BYTES = 4096
"""Limit for decoding a name; servers keep to 255 bytes."""

SYMLINK_LIMIT_BYTES = 65536
"""Limit for decoding the target of a symlink; Linux keeps to 4,095 bytes."""
NANOSECONDS = 10**9
"""Nanoseconds per second."""

SYMLINK_KEPT = 1024
"""How many characters of the target to keep: a record has at most 1,023, and a longer target is not a record."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Type, permission bits and file system of an object, and the numeric owner and group if known."""

    type: EntryType
    mode: int
    fsid: Fsid
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Handle and attributes of an object: the result of a look-up."""

    handle: bytes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a copy has to know about an object."""

    kind: Kind
    fsid: Fsid
    fileid: int
    links: int
    size_bytes: int
    used_bytes: int
    kept: Kept


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """An entry of a directory; with handle and attributes if the server added them."""

    name: str
    handle: bytes | None = None
    attributes: Attributes | None = None
    cookie: int = field(default=0, compare=False)
    """The position behind this entry."""
    facts: Facts | None = None
    """Only in pages that were read for a copy."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a directory: the cookie of the last entry, and the server's verifier."""

    cookie: int = 0
    verifier: bytes = bytes(8)


@dataclass(frozen=True, slots=True)
class DirectoryPage:
    """One page of a directory without `.` and `..`; `next` is None for the last page.

    An empty page that is not the last one continues at its own position, or behind `.` and `..`.
    """

    entries: tuple[DirectoryEntry, ...]
    next: Position | None
    verifier: bytes = field(default=bytes(8), compare=False)

    def first(self, count: int) -> DirectoryPage:
        """Return the page with only its first `count` entries, but at least one."""
        if count >= len(self.entries):
            return self
        return DirectoryPage(
            self.entries[:count], Position(self.entries[count - 1].cookie, self.verifier), self.verifier
        )
