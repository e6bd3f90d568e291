"""Interface of the clients for each NFS version (`nfs3`, `nfs4`): the operations of a tree by file handle.

A `Place` is a file handle and a path down from it. Each step down is a LOOKUP, which returns a symlink itself and not
its target. So no client ever follows a symlink: it raises Cause.SYMLINK if a step needs a directory and finds
something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.core.locations import RelPath
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.protocol.values import DirectoryPage, Found, Position
from provisioner.ports.tree import Change, EntryType, ExportError, FilesystemStats, Ownership, Proof

LARGEST_PAGE_BYTES = 64 << 10
"""Upper limit for a page of a directory, if the server reports that a smaller page is too small."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path below a directory whose handle is known."""

    handle: bytes
    path: RelPath = ()

    @property
    def parent(self) -> Place:
        """The parent directory."""
        return Place(self.handle, self.path[:-1])

    @property
    def name(self) -> str:
        """The last component."""
        return self.path[-1]

    def __str__(self) -> str:
        """Return the path, for messages."""
        return "/".join(self.path) or "the directory itself"


@dataclass(frozen=True, slots=True)
class Removal:
    """Result of removing names in order: how many were removed, and the refusal of the next one."""

    removed: int
    refusal: ExportError | None = None


class Client(Protocol):
    """One server in one NFS version.

    All calls raise ExportError. Calls that `Tree` has as well keep the promises of `Tree`.
    """

    version: str

    @property
    def max_names_per_call(self) -> int:
        """How many names one call of remove_names accepts."""
        ...

    @property
    def verifies(self) -> bool:
        """Whether the server checks the proofs of a rename in the same step; see `Tree`."""
        ...

    async def negotiate(self, deadline: Deadline) -> None:
        """Raise Cause.VERSION if the server does not support this version."""
        ...

    async def root(self, deadline: Deadline, path: RelPath) -> Found:
        """Look up the root of an export by its path on the server.

        Raises Cause.MISSING, DENIED, KERBEROS.
        """
        ...

    async def look_up(self, deadline: Deadline, place: Place) -> Found:
        """Return handle and attributes of an entry. Raises PathMissing."""
        ...

    async def make_directory(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """Create a directory and its missing parents, then set owner and mode."""
        ...

    async def set_access(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """Set owner and mode of a directory."""
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
        """Rename a directory or symlink (`kind`) to a free path or, with `replace`, over a symlink.

        The paths of the proofs start at the same handle as the source.
        """
        ...

    async def remove_directory(self, deadline: Deadline, place: Place) -> None:
        """Remove an empty directory."""
        ...

    async def make_symlink(self, deadline: Deadline, place: Place, target: str) -> None:
        """Create a symlink."""
        ...

    async def read_symlink(self, deadline: Deadline, place: Place) -> str:
        """Return the target of a symlink."""
        ...

    async def remove_symlink(self, deadline: Deadline, place: Place) -> None:
        """Remove a symlink."""
        ...

    async def read_symlinks(self, deadline: Deadline, directory: Place, names: Sequence[str]) -> dict[str, str]:
        """Return the targets of symlinks in one directory, without those that no longer exist."""
        ...

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """Read one page of a directory of about this size; each entry has a handle and attributes.

        If the server reports that the page is too small, the client asks for a larger one.
        """
        ...

    async def move(self, deadline: Deadline, source: bytes, name: str, target: bytes, new_name: str) -> None:
        """Rename an entry from one directory into another, without checking its type."""
        ...

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """Remove at most `max_names_per_call` names in order, up to the first refusal.

        Either all names are empty directories, or none is a directory. Raises ExportError only if the outcome is
        unknown.
        """
        ...

    async def carry_out(self, deadline: Deadline, root: bytes, changes: Sequence[Change]) -> int:
        """Carry out the first of these changes in one request, and return how many are done.

        The next change needs a call of its own, which also finds out why the server refused it. Nothing of it is done.
        """
        ...

    async def space(self, deadline: Deadline, root: bytes) -> FilesystemStats:
        """Return size and free space."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
