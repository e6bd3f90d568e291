"""The `Files` part of the `Tree` port: objects of all types in a tree, with their content, for copies.

An `Item` is an object that was looked at. Calls on it go to that object, by its file handle or by its path without
following a symlink. A call on a file raises Cause.NOT_FOUND or STALE once that object is gone, also if another one has
its name. Every call has a time limit and raises only ExportError, as the calls of `Tree` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from provisioner.core.locations import RelPath
from provisioner.ports.errors import Cause, ExportError

Kind = Literal["directory", "symlink", "file", "fifo", "other"]
"""The type of an object; `other` is a socket or a device."""

Made = Literal["directory", "symlink", "file", "fifo"]
"""The types that `Files.make` creates."""

NO_DATA = bytes(8)
"""The verifier of a file to which nothing was written."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a copy of an object keeps besides its content.

    Owner and group are the server's own strings: numbers, or names that only this server knows. Times are nanoseconds
    since 1970.
    """

    mode: int
    owner: str
    group: str
    accessed_ns: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Item:
    """An object of a tree."""

    path: RelPath
    kind: Kind
    id: str
    """Equal for all names of one object (hard links), and different for all others."""
    filesystem: str
    """Another one than that of the directory above: another file system is mounted here."""
    links: int
    size_bytes: int
    used_bytes: int
    """The space that it takes: less than its size if it has holes, or is compressed."""
    kept: Kept
    handle: bytes = field(default=b"", repr=False, compare=False)
    """The driver's own."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a directory; `more` continues behind them, and None is the end."""

    items: Sequence[Item]
    more: object | None = None


class Files(Protocol):
    """The objects of one tree."""

    async def chunk_bytes(self, directory: Item) -> int:
        """Return the largest size of a read or a write in the file system of a directory."""
        ...

    def shares(self, other: Files) -> bool:
        """Return True if `clone` and `copy_range` can be tried with sources of this other tree."""
        ...

    async def look(self, path: RelPath) -> Item:
        """Return the object at a path. Raises PathMissing."""
        ...

    async def page(self, directory: Item, more: object | None = None) -> Page:
        """Return the first entries of a directory, or those behind a page.

        A page that failed can be read again. Raises Cause.NOT_FOUND or STALE if the directory is gone.
        """
        ...

    async def read_link(self, symlink: Item) -> str:
        """Return the whole target of a symlink."""
        ...

    async def make(self, parent: Item, name: str, kind: Made, target: str = "") -> Item:
        """Create an object that only its owner can use; `target` is that of a symlink.

        Raises PathExists, and PathMissing for the parent.
        """
        ...

    async def link(self, item: Item, parent: Item, name: str) -> None:
        """Give a file one more name (a hard link). Raises PathExists."""
        ...

    async def remove(self, parent: Item, name: str) -> None:
        """Remove an entry that is not a directory. Success if there is none."""
        ...

    async def read(self, file: Item, offset_bytes: int, size_bytes: int) -> bytes:
        """Return bytes of a file: at least one, and fewer than asked for only with good reason; none at its end."""
        ...

    async def write(self, file: Item, offset_bytes: int, data: bytes, *, stable: bool) -> bytes:
        """Write all of the data; return a verifier.

        With `stable` the data survives a crash of the server. Otherwise `flush` has to return the same verifier.
        """
        ...

    async def flush(self, file: Item) -> bytes:
        """Bring what was written to stable storage.

        The verifier tells whether the server has lost writes: then it is another one than that of the writes.
        """
        ...

    async def next_data(self, file: Item, offset_bytes: int) -> tuple[int, int] | None:
        """Return begin and end of the next data of a file, at or behind an offset; None if there is only a hole.

        A tree that cannot tell holes returns everything behind the offset. `file.size_bytes` is the end of the file.
        """
        ...

    async def set_size(self, file: Item, size_bytes: int) -> None:
        """Cut a file, or extend it by a hole."""
        ...

    async def clone(self, source: Item, file: Item) -> bool:
        """Let an empty file share the stored data of a source; return False if the server cannot do that."""
        ...

    async def copy_range(
        self, source: Item, file: Item, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """Copy bytes to the same offset without moving them through this process.

        Returns how many, 0 at the end of the source, with a verifier as `write` returns it; None if the server cannot
        do that.
        """
        ...

    async def copy_whole(self, source: Item, parent: Item, name: str, kept: Kept) -> int | None:
        """Create a small file as a copy of a source, on stable storage, as `make`, `copy_range` and `keep` would.

        Returns how many bytes it has, at most `source.size_bytes`; None if the tree has no such call. A call that is
        refused leaves no file. Raises PathExists.
        """
        ...

    async def attributes(self, item: Item) -> Mapping[str, bytes]:
        """Return the extended attributes of a file or directory, by names such as `user.comment`.

        Empty for a tree without extended attributes.
        """
        ...

    async def set_attribute(self, item: Item, name: str, value: bytes) -> bool:
        """Set an extended attribute of a file or directory; return False if the tree cannot keep it."""
        ...

    async def keep(self, item: Item, kept: Kept) -> None:
        """Set owner, mode and times of an object that `make` returned; a symlink has no mode.

        Raises Cause.DENIED if the server refuses the owner.
        """
        ...


def number_of(owner: str, what: str) -> int:
    """Return the number of an owner or group. Raises ExportError for a name that only another server knows."""
    if owner.isascii() and owner.isdecimal():
        return int(owner)
    hint = f"the source's server names owners instead of numbering them ({owner}): turn off its idmapping, or use NFS 3"
    raise ExportError(Cause.OTHER, f"{what}: owner {owner!r}", hint=hint)
