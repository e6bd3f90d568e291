"""What each NFS version can do for a tree, by file handle: the interface of client3 and client4.

A `Place` is a file handle and a path down from it. Every step down is a LOOKUP, which takes a symlink for what it is,
so no client ever follows one: where a directory is needed and something else is found, Cause.SYMLINK is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.core.locations import RelPath
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.protocol.values import DirectoryPage, Found, Position
from provisioner.ports.tree import EntryType, ExportError, FilesystemStats, Ownership, Proof

LARGEST_PAGE_BYTES = 64 << 10
"""What a server is asked for at most that finds a page of a directory too small."""


@dataclass(frozen=True, slots=True)
class Place:
    """What lies under a path below a directory whose handle is known."""

    handle: bytes
    path: RelPath = ()

    @property
    def parent(self) -> Place:
        """The directory that holds it."""
        return Place(self.handle, self.path[:-1])

    @property
    def name(self) -> str:
        """Its name there."""
        return self.path[-1]

    def __str__(self) -> str:
        """The path, for messages."""
        return "/".join(self.path) or "the directory itself"


@dataclass(frozen=True, slots=True)
class Removal:
    """What came of removing names in order: how many went, and why the one after them did not."""

    removed: int
    refusal: ExportError | None = None


class Client(Protocol):
    """One server, in one version of NFS. Calls raise ExportError; `Tree` says what those promise that it has too."""

    version: str

    @property
    def max_names_per_call(self) -> int:
        """How many names remove_names takes at once."""
        ...

    @property
    def verifies(self) -> bool:
        """As that of `Tree`."""
        ...

    async def negotiate(self, deadline: Deadline) -> None:
        """Raise Cause.VERSION when the server does not have this version."""
        ...

    async def root(self, deadline: Deadline, path: RelPath) -> Found:
        """The root of the export with this path on the server. Raises Cause.MISSING, DENIED, KERBEROS."""
        ...

    async def look_up(self, deadline: Deadline, place: Place) -> Found:
        """What is there. Raises PathMissing."""
        ...

    async def make_directory(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """Make a directory and its parents, set mode and owner."""
        ...

    async def set_access(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """Set mode and owner of a directory."""
        ...

    async def rename(
        self,
        deadline: Deadline,
        source: Place,
        target: Place,
        kind: EntryType,
        *,
        replace: bool,
        proofs: Sequence[Proof] = (),
    ) -> None:
        """Rename a directory or a symlink, as `kind` says, to where nothing is, or with `replace` over a symlink.

        The proofs' paths are below the same handle as the source's.
        """
        ...

    async def remove_directory(self, deadline: Deadline, place: Place) -> None:
        """Remove an empty directory."""
        ...

    async def make_symlink(self, deadline: Deadline, place: Place, target: str) -> None:
        """Make a symlink."""
        ...

    async def read_symlink(self, deadline: Deadline, place: Place) -> str:
        """A symlink's target."""
        ...

    async def remove_symlink(self, deadline: Deadline, place: Place) -> None:
        """Remove a symlink."""
        ...

    async def read_symlinks(self, deadline: Deadline, directory: Place, names: Sequence[str]) -> dict[str, str]:
        """The targets of symlinks of one directory; those that are gone are left out."""
        ...

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """One page of a directory of about that size; each entry has a handle and attributes.

        A server that finds that too small is asked for a larger one.
        """
        ...

    async def move(self, deadline: Deadline, source: bytes, name: str, target: bytes, new_name: str) -> None:
        """RENAME from one directory into another, without a look at what it is."""
        ...

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """Remove at most `names_a_call` names in order, all empty directories or all none, up to the first refusal.

        Raises ExportError only where nobody knows what was done.
        """
        ...

    async def space(self, deadline: Deadline, root: bytes) -> FilesystemStats:
        """What statfs says."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...
