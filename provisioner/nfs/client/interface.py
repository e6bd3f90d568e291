"""Interface of the clients for each NFS version (`nfs3`, `nfs4`): the operations of a tree by file handle.

A `Place` is a file handle and a path down from it. Each step down is a LOOKUP, which returns a symlink itself and not
its target. So no client ever follows a symlink: it raises Cause.SYMLINK if a step needs a directory and finds
something else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from provisioner.core.locations import RelPath
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Facts, Found, Position
from provisioner.ports.files import Kept, Made
from provisioner.ports.tree import Change, EntryType, ExportError, FilesystemStats, Ownership, PathMissing, Proof

LARGEST_PAGE_BYTES = 64 << 10
"""Upper limit for a page of a directory, if the server reports that a smaller page is too small."""
CHUNK_BYTES = 256 << 10
"""The largest READ or WRITE of this client."""
SAFE_CHUNK_BYTES = 32 << 10
"""Size of a READ or WRITE with a server that announces none."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path below a directory whose handle is known."""

    handle: bytes
    path: RelPath = ()
    called: str = ""
    """Its name in messages, if that is not the path."""

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
        return self.called or "/".join(self.path) or "the directory itself"


@dataclass(frozen=True, slots=True)
class Thing:
    """An object by its handle, with what a copy has to know about it."""

    handle: bytes
    facts: Facts


@dataclass(frozen=True, slots=True)
class Removal:
    """Result of removing names in order: how many were removed, and the refusal of the next one."""

    removed: int
    refusal: ExportError | None = None


class FilesClient(Protocol):
    """The calls of `Files` by file handle; the path of a `Place` is for messages, except in `look`."""

    @property
    def offloads(self) -> bool:
        """Whether the version has CLONE and COPY."""
        ...

    async def chunk_bytes(self, deadline: Deadline, what: Place) -> int:
        """Return the largest READ and WRITE in the file system of an object."""
        ...

    async def look(self, deadline: Deadline, place: Place) -> Thing:
        """Return the object at a place. Raises PathMissing."""
        ...

    async def list(self, deadline: Deadline, directory: Place, position: Position) -> DirectoryPage:
        """Read one page of a directory; each entry has a handle and facts."""
        ...

    async def read_link(self, deadline: Deadline, what: Place) -> str:
        """Return the whole target of a symlink."""
        ...

    async def make(self, deadline: Deadline, parent: Place, name: str, kind: Made, target: str) -> Thing:
        """Create an object. Raises PathExists."""
        ...

    async def link(self, deadline: Deadline, what: Place, parent: Place, name: str) -> None:
        """Give a file one more name. Raises PathExists."""
        ...

    async def remove(self, deadline: Deadline, parent: Place, name: str) -> None:
        """Remove an entry that is not a directory. Raises PathMissing."""
        ...

    async def read(self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int) -> bytes:
        """Return bytes of a file, none at its end."""
        ...

    async def write(
        self, deadline: Deadline, what: Place, offset_bytes: int, data: bytes, *, stable: bool
    ) -> tuple[int, bytes]:
        """Write data; return how many bytes the server took, and its verifier."""
        ...

    async def flush(self, deadline: Deadline, what: Place) -> bytes:
        """Bring writes to stable storage; return the verifier."""
        ...

    async def next_data(
        self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, int] | None:
        """Return begin and end of the next data of a file of this size."""
        ...

    async def set_size(self, deadline: Deadline, what: Place, size_bytes: int) -> None:
        """Set the size of a file."""
        ...

    async def clone(self, deadline: Deadline, source: Place, what: Place) -> bool:
        """Share the stored data; return False if the server cannot."""
        ...

    async def copy_range(
        self, deadline: Deadline, source: Place, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """Copy within the server; return how many bytes and the verifier, or None if the server cannot."""
        ...

    async def has_attributes(self, deadline: Deadline, what: Place) -> bool:
        """Return True if the file system of an object has extended attributes."""
        ...

    async def attributes(self, deadline: Deadline, what: Place) -> Mapping[str, bytes]:
        """Return the extended attributes of a file or directory."""
        ...

    async def set_attribute(self, deadline: Deadline, what: Place, name: str, value: bytes) -> bool:
        """Set an extended attribute; return False if the server cannot keep it."""
        ...

    async def keep(self, deadline: Deadline, what: Place, kept: Kept, *, mode: bool, owner: bool) -> None:
        """Set times, and the mode and the owner if wanted."""
        ...


class Client(Protocol):
    """One server in one NFS version.

    All calls raise ExportError. Calls that `Tree` has as well keep the promises of `Tree`.
    """

    version: str

    @property
    def files(self) -> FilesClient:
        """The calls for copies."""
        ...

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


Look = Callable[[Deadline, Place], Awaitable[Thing]]


async def with_facts(look: Look, deadline: Deadline, directory: Place, page: DirectoryPage) -> DirectoryPage:
    """Return a page with what the server left out; entries that are gone are left out."""
    entries: list[DirectoryEntry] = []
    for entry in page.entries:
        if entry.handle and entry.facts:
            entries.append(entry)
            continue
        try:
            found = await look(deadline, Place(directory.handle, (entry.name,)))
        except PathMissing:
            continue
        entries.append(DirectoryEntry(entry.name, found.handle, None, entry.cookie, found.facts))
    return DirectoryPage(tuple(entries), page.next, page.verifier)
