"""The `Disk` port: the file system behind one export, as the quota agent on the NFS server sees it.

It has the ledger's records, project ids of directories and their content, and the limits of projects. All calls are
synchronous: they are local system calls, and the agent makes them in one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import RelPath


class DiskError(ProvisionerError):
    """A call on the file system failed. The text names the cause, and what to change if that is known."""


class Unable(DiskError):
    """The agent lacks something, such as a mount option or a capability; the text says what to type."""


class NoRoom(DiskError):
    """The file system has no room for a record."""


class Label(Struct, frozen=True, gc=False):
    """The project of a directory."""

    project: int
    inherits: bool
    """Whether new entries get the project id."""
    inode: int
    """Tells whether two paths are one directory."""


class Usage(Struct, frozen=True, gc=False):
    """The usage and the limit of one project; all 0 if the file system knows nothing of it."""

    used_bytes: int = 0
    inodes: int = 0
    limit_bytes: int = 0
    """The hard limit; 0 if there is none."""

    @property
    def is_free(self) -> bool:
        """Whether nothing has the project id, and nothing limits it."""
        return not (self.used_bytes or self.inodes or self.limit_bytes)


UNUSED = Usage()
"""The usage of a project that nothing has."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk through a directory has met so far."""

    entries: int = 0
    special: int = 0
    """Entries that cannot get a project id: symlinks, fifos, sockets, devices, mount points, refused files."""
    busy: int = 0
    """Files that cannot be opened now: an NFS client holds a delegation, which the server recalls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the file system is, and what the agent can do on it."""

    filesystem: str
    """Its type, such as `xfs`."""
    device: str
    """Equal for two roots on one file system, which share their projects."""
    lacks: tuple[str, ...] = ()
    """What prevents limits, each with what to type; empty if limits can be set and are enforced."""


class Disk(Protocol):
    """The file system of one export.

    No call follows a symbolic link or crosses into another file system below the root. Every call raises only
    DiskError. A call that was interrupted has happened or not; none happens in part.
    """

    def facts(self) -> Facts:
        """Return what the file system is, and what prevents limits."""
        ...

    def lock(self) -> bool:
        """Become the one agent of this ledger; return False while another process is.

        The end of the process ends the lock.
        """
        ...

    def release(self) -> None:
        """Close everything, the lock too, so that an admin can unmount the file system.

        The next call opens it again.
        """
        ...

    def names(self, path: RelPath) -> list[str]:
        """Return the names in a directory; a directory that does not exist has none."""
        ...

    def read(self, path: RelPath) -> str:
        """Return the target of a symlink; empty if there is no symlink."""
        ...

    def write(self, path: RelPath, text: str) -> None:
        """Create a record or replace it in one step. Raises NoRoom."""
        ...

    def remove(self, path: RelPath) -> None:
        """Remove a record. Success if it is gone already."""
        ...

    def label(self, path: RelPath) -> Label | None:
        """Return the project of a directory; None if no directory can be reached at the path."""
        ...

    def set_label(self, path: RelPath, project: int, *, was: Label) -> None:
        """Give a directory a project id that new entries inherit; existing entries keep theirs.

        Raises DiskError if the directory at the path no longer is as it was.
        """
        ...

    def walk(self, path: RelPath, project: int) -> Iterator[Walked]:
        """Give the content of a directory the project id, and yield the counts now and then.

        The last value that is yielded has all counts, and there is at least one. It can be repeated, and given up at
        any point. Raises DiskError if the directory itself does not have the project id, and let it inherit. Nothing of
        another directory is changed, even if a tenant moves directories while it runs.
        """
        ...

    def usages(self) -> Mapping[int, Usage]:
        """Return the usage of all projects of the file system."""
        ...

    def usage(self, project: int) -> Usage:
        """Return the usage of one project."""
        ...

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """Set the hard limit of a project; 0 lifts it."""
        ...

    def events(self) -> int | None:
        """Return a descriptor that becomes readable when a record changes; None where changed() has to be polled.

        From this call on, changed() misses no record.
        """
        ...

    def changed(self) -> set[str] | None:
        """Return the names of records that have changed since the last call; None if any can have changed."""
        ...
