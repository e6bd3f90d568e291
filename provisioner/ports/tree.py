"""The `Tree` port: the directory tree of one export, with the values and errors of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from provisioner.core.locations import RelPath
from provisioner.core.parameters import Ownership as Ownership
from provisioner.ports.errors import Cause as Cause
from provisioner.ports.errors import ExportError as ExportError
from provisioner.ports.errors import ModeRefused as ModeRefused
from provisioner.ports.errors import NotEmpty as NotEmpty
from provisioner.ports.errors import PathExists as PathExists
from provisioner.ports.errors import PathMissing as PathMissing

EntryType = Literal["directory", "symlink", "file"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory; `file` stands for all that is neither directory nor symlink."""

    name: str
    type: EntryType


@dataclass(frozen=True, slots=True)
class FilesystemStats:
    """What statfs says of the whole export, in bytes and in inodes (0 and 0 where the server does not count them)."""

    size_bytes: int
    free_bytes: int
    inodes: int = 0
    free_inodes: int = 0

    @classmethod
    def counted(cls, size_bytes: int, free_bytes: int, inodes: int, free_inodes: int) -> FilesystemStats:
        """By what a server counts. A negative number, as some have once a reserve is in use, arrives as a huge one."""
        return cls(*(0 if number >> 63 else number for number in (size_bytes, free_bytes, inodes, free_inodes)))


@dataclass(frozen=True, slots=True)
class Proof:
    """What a rename relies on: the symlink at a path, and the text that it has to have."""

    path: RelPath
    text: str


OnProgress = Callable[[int], bool]
"""Progress callback: receives the number of entries removed since the last call, and returns False to stop.

It is called every few seconds at least.
"""


PARENT_MODE = 0o755
"""Mode of the parents that `Tree.make_directory` creates."""


class Tree(Protocol):
    """The directory tree of one export. No call follows a symbolic link, in any component, at any time.

    Every call has a time limit and raises ExportError only; after Cause.UNREACHABLE the call may still take effect, and
    until it has returned a further one that would change the same path raises Cause.BUSY.
    """

    @property
    def unreachable_hint(self) -> str:
        """What an admin should look at while it does not answer; empty when that is all that is known."""
        ...

    @property
    def verifies(self) -> bool:
        """Whether the server looks at the proofs of a rename in the very step that moves something.

        Only then does one that is carried out late, after its proofs have gone, move nothing. Else we look right before
        it is sent. False as long as that is not known.
        """
        ...

    async def root_id(self) -> str:
        """What tells this root from another one in its place, cheaply; the text means nothing to others."""
        ...

    def pin(self, root_id: str) -> None:
        """From now on every call but root_id() raises Cause.CHANGED unless the root is this one; "" lifts that."""
        ...

    async def make_directory(self, path: RelPath, ownership: Ownership) -> None:
        """Make a directory that is not there yet, parents (mode 0755) as needed, then set owner and mode.

        Raises PathExists when anything is under that name, Cause.SYMLINK when a parent is not a directory, and as the
        last step ModeRefused. A failure after the directory was made leaves it: a retry meets PathExists.
        """
        ...

    async def set_access(self, path: RelPath, ownership: Ownership) -> None:
        """Set owner, then mode, of an existing directory. Raises PathMissing, Cause.SYMLINK, ModeRefused."""
        ...

    async def rename(self, source: RelPath, target: RelPath, *, proofs: Sequence[Proof] = ()) -> None:
        """Rename a directory. Raises PathMissing for the source, PathExists when there is anything at the target,

        Cause.SYMLINK when the source is not a directory. The target's parent must exist. Never replaces anything but,
        in a race that cannot be closed over NFS, an empty directory. Raises Cause.RECORD, and moves nothing, where one
        of the proofs is not there, or says otherwise.
        """
        ...

    async def remove_directory(self, path: RelPath) -> None:
        """Remove an empty directory. Raises NotEmpty, PathMissing, Cause.SYMLINK when it is not a directory."""
        ...

    async def make_symlink(self, path: RelPath, target: str) -> None:
        """Make a symlink whose parent exists. Raises PathExists, PathMissing (no parent)."""
        ...

    async def move_symlink(
        self, source: RelPath, target: RelPath, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """Rename a symlink; the target's parent exists. Raises PathMissing, PathExists for a target that is there.

        With `replace` a symlink at the target gives way in the same step: who looks sees one of the two, whole. A
        directory there is Cause.SYMLINK. Proofs are as those of rename().
        """
        ...

    async def read_symlink(self, path: RelPath) -> str:
        """A symlink's target. Raises PathMissing, Cause.SYMLINK when it is something else."""
        ...

    async def remove_symlink(self, path: RelPath) -> None:
        """Remove a symlink. Raises PathMissing, Cause.SYMLINK when it is something else."""
        ...

    async def list(self, path: RelPath, *, at_most: int | None = None) -> list[Entry]:
        """The entries of a directory in no order, all or so many of them. Raises PathMissing, Cause.SYMLINK.

        A directory without an end, or with more entries than we can hold, is Cause.OTHER with a hint.
        """
        ...

    async def read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        """The targets of many symlinks of one directory, in parallel; those that are gone by now are left out."""
        ...

    async def is_empty(self, path: RelPath) -> bool:
        """Whether a directory is empty, without reading all of it. Raises PathMissing, Cause.SYMLINK."""
        ...

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """Remove a directory with all that is in it and return how many entries went; a missing one is 0.

        May take long and has no limit as a whole, each step has; memory does not grow with the directory. Directories
        without write permission are opened up first. What is refused stays, all else goes, and the first refusal is
        raised. Where `go_on` says no, it ends early, and a further call removes the rest.
        """
        ...

    async def space(self) -> FilesystemStats:
        """What statfs says."""
        ...

    def above(self) -> Iterable[tuple[str, Tree, RelPath]]:
        """The directories above the root, nearest first, as far as there may be a way to them.

        Of each its name, a tree that the caller closes before it takes the next one, and the path of this root in it.
        Whether the server lets us look into one is found out by its calls.
        """
        ...

    async def close(self) -> None:
        """Let go of what the driver holds, within a second, even when the server hangs."""
        ...
