"""What a server says of an object, a page of a directory and a filesystem, in NFSv3 and NFSv4 alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from provisioner.ports.tree import EntryType

Fsid = tuple[int, int]
"""Which filesystem of the server an object is on (RFC 8881 section 5.8.1.9); NFSv3 has the first number only."""

NAME_LIMIT_BYTES = 4096
"""What we read as a name; servers hold to 255."""

SYMLINK_LIMIT_BYTES = 65536
"""What we read as a symlink's target; Linux holds to 4,095."""
SYMLINK_KEPT = 1024
"""How many characters of it we keep: a record has 1,023 at most, and what is longer is none."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Type, permission bits and filesystem of an object; owner and group where the version gives them as numbers."""

    type: EntryType
    mode: int
    fsid: Fsid
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """An object with its file handle: what LOOKUP gives."""

    handle: bytes
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory; handle and attributes where the server added them."""

    name: str
    handle: bytes | None = None
    attributes: Attributes | None = None
    cookie: int = field(default=0, compare=False)
    """Where the directory goes on behind this entry."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading a directory goes on: the last entry's cookie and the server's verifier for it."""

    cookie: int = 0
    verifier: bytes = bytes(8)


@dataclass(frozen=True, slots=True)
class DirectoryPage:
    """One page of a directory, without `.` and `..`; `next` is None after the last.

    A page without entries that is not the last goes on where it began, or behind `.` and `..`.
    """

    entries: tuple[DirectoryEntry, ...]
    next: Position | None
    verifier: bytes = field(default=bytes(8), compare=False)

    def first(self, count: int) -> DirectoryPage:
        """The page cut after so many of its entries, one at least."""
        if count >= len(self.entries):
            return self
        return DirectoryPage(
            self.entries[:count], Position(self.entries[count - 1].cookie, self.verifier), self.verifier
        )
