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
from provisioner.ports.files import Files

EntryType = Literal["directory", "symlink", "file"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory; `file` is everything that is neither a directory nor a symlink."""

    name: str
    type: EntryType


@dataclass(frozen=True, slots=True)
class FilesystemStats:
    """Size and free space of the whole export, in bytes and inodes (0 if the server does not count inodes)."""

    size_bytes: int
    free_bytes: int
    inodes: int = 0
    free_inodes: int = 0

    @classmethod
    def counted(cls, size_bytes: int, free_bytes: int, inodes: int, free_inodes: int) -> FilesystemStats:
        """Build from a server's counters, with negative ones as 0.

        Some servers report a negative number once a reserve is in use; it arrives as a huge unsigned one.
        """
        return cls(*(0 if number >> 63 else number for number in (size_bytes, free_bytes, inodes, free_inodes)))


@dataclass(frozen=True, slots=True)
class Proof:
    """A precondition of a rename: a symlink that must exist at a path, and the text it must have."""

    path: RelPath
    text: str


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """`Tree.make_directory` as a value, for `Tree.carry_out`."""

    path: RelPath
    ownership: Ownership

    @property
    def paths(self) -> tuple[RelPath, ...]:
        """The paths that change."""
        return (self.path,)

    async def on(self, tree: Tree) -> None:
        """Make this call on a tree."""
        await tree.make_directory(self.path, self.ownership)


@dataclass(frozen=True, slots=True)
class MakeSymlink:
    """`Tree.make_symlink` as a value."""

    path: RelPath
    target: str

    @property
    def paths(self) -> tuple[RelPath, ...]:
        """The paths that change."""
        return (self.path,)

    async def on(self, tree: Tree) -> None:
        """Make this call on a tree."""
        await tree.make_symlink(self.path, self.target)


@dataclass(frozen=True, slots=True)
class MoveSymlink:
    """`Tree.move_symlink` as a value."""

    source: RelPath
    target: RelPath
    replace: bool = False
    proofs: tuple[Proof, ...] = ()

    @property
    def paths(self) -> tuple[RelPath, ...]:
        """The paths that change."""
        return self.source, self.target

    async def on(self, tree: Tree) -> None:
        """Make this call on a tree."""
        await tree.move_symlink(self.source, self.target, replace=self.replace, proofs=self.proofs)


@dataclass(frozen=True, slots=True)
class Rename:
    """`Tree.rename` as a value."""

    source: RelPath
    target: RelPath
    proofs: tuple[Proof, ...] = ()

    @property
    def paths(self) -> tuple[RelPath, ...]:
        """The paths that change."""
        return self.source, self.target

    async def on(self, tree: Tree) -> None:
        """Make this call on a tree."""
        await tree.rename(self.source, self.target, proofs=self.proofs)


Change = MakeDirectory | MakeSymlink | MoveSymlink | Rename


async def one_by_one(tree: Tree, changes: Sequence[Change], *, done: int = 0) -> None:
    """Carry out changes as one call each, and see `Tree.carry_out`; the first `done` of them are done already."""
    for number in range(done, len(changes)):
        try:
            await changes[number].on(tree)
        except ExportError as exc:
            exc.done = number
            raise


OnProgress = Callable[[int], bool]
"""Progress callback: receives the number of entries removed since the last call, and returns False to stop.

It is called every few seconds at least.
"""


PARENT_MODE = 0o755
"""Mode of the parents that `Tree.make_directory` creates."""


class Tree(Protocol):
    """The directory tree of one export.

    No call ever follows a symbolic link in any component of a path.

    Every call has a time limit and raises only ExportError. After Cause.UNREACHABLE the call can still take effect.
    Until it has returned, another call that would change the same path raises Cause.BUSY.
    """

    @property
    def unreachable_hint(self) -> str:
        """What an admin should check while the export is not responding.

        Empty if nothing more is known.
        """
        ...

    @property
    def verifies(self) -> bool:
        """Whether the server checks the proofs of a rename in the same step that moves the entry.

        Only then does a rename that the server runs late, after its proofs are gone, move nothing. Otherwise the client
        checks the proofs right before it sends the rename. False until the answer is known.
        """
        ...

    @property
    def files(self) -> Files:
        """The objects in the tree with their content, for copies."""
        ...

    async def root_id(self) -> str:
        """Return an opaque ID that changes when another root takes the place of this one.

        The call is cheap.
        """
        ...

    def pin(self, root_id: str) -> None:
        """Make every call except root_id() raise Cause.CHANGED if the root is another one.

        An empty text lifts the pin.
        """
        ...

    async def make_directory(self, path: RelPath, ownership: Ownership) -> None:
        """Create a directory and missing parents (PARENT_MODE), then set owner and mode.

        Raises PathExists if the path has any entry, Cause.SYMLINK if a parent is not a directory, and, as the last
        step, ModeRefused. A failure after the directory was created leaves it in place: a retry gets PathExists.
        """
        ...

    async def set_access(self, path: RelPath, ownership: Ownership) -> None:
        """Set the owner and then the mode of an existing directory.

        Raises PathMissing, Cause.SYMLINK and ModeRefused.
        """
        ...

    async def rename(self, source: RelPath, target: RelPath, *, proofs: Sequence[Proof] = ()) -> None:
        """Rename a directory to a path that has no entry and whose parent exists.

        Raises PathMissing for the source, PathExists for the target, and Cause.SYMLINK if the source is not a
        directory. Raises Cause.RECORD and moves nothing if a proof is missing or has another text. The call replaces
        nothing, except for an empty directory in a race that NFS cannot exclude.
        """
        ...

    async def remove_directory(self, path: RelPath) -> None:
        """Remove an empty directory.

        Raises NotEmpty, PathMissing, and Cause.SYMLINK if it is not a directory.
        """
        ...

    async def make_symlink(self, path: RelPath, target: str) -> None:
        """Create a symlink in an existing directory.

        Raises PathExists, and PathMissing for the parent.
        """
        ...

    async def move_symlink(
        self, source: RelPath, target: RelPath, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """Rename a symlink into an existing directory.

        Raises PathMissing for the source, PathExists for the target.

        With `replace`, the rename replaces a symlink at the target in one step: readers see either the old or the new
        link. A directory at the target is Cause.SYMLINK. Proofs work as in rename().
        """
        ...

    async def read_symlink(self, path: RelPath) -> str:
        """Return the target of a symlink.

        Raises PathMissing, and Cause.SYMLINK if it is not a symlink.
        """
        ...

    async def remove_symlink(self, path: RelPath) -> None:
        """Remove a symlink. Raises PathMissing, and Cause.SYMLINK if it is not a symlink."""
        ...

    async def carry_out(self, *changes: Change) -> None:
        """Carry out changes in this order, up to the first that fails, with as few round trips as possible.

        Each change keeps the promises of its own call. Raises the error of the change that failed, with the number of
        changes before it in `done`. After Cause.UNREACHABLE, the changes from `done` on can still take effect, in this
        order.
        """
        ...

    async def list(self, path: RelPath, *, at_most: int | None = None) -> list[Entry]:
        """Return the entries of a directory in no particular order, all or `at_most` many.

        Raises PathMissing and Cause.SYMLINK; Endless if the directory has no end or more entries than fit in memory.
        """
        ...

    async def read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        """Read many symlinks of one directory in parallel.

        The result omits those that no longer exist.
        """
        ...

    async def is_empty(self, path: RelPath) -> bool:
        """Return True if a directory is empty, without reading all of it.

        Raises PathMissing, Cause.SYMLINK.
        """
        ...

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """Remove a directory with its content and return the number of removed entries; 0 if it does not exist.

        The removal can take long: each step has a time limit, the whole has none. Memory use does not grow with the
        directory. The removal adds write permission to directories that lack it. It removes everything that the server
        allows, and then raises the first refusal. If `on_progress` returns False it stops early, and another call
        removes the rest.
        """
        ...

    async def space(self) -> FilesystemStats:
        """Return size and free space."""
        ...

    def above(self) -> Iterable[tuple[str, Tree, RelPath]]:
        """Iterate over the directories above the root, nearest first, as far as they might be reachable.

        Yields the name of each, its tree, and the path of this root in it. The caller closes the tree before it takes
        the next one. Only the calls on that tree show whether the server grants access.
        """
        ...

    async def close(self) -> None:
        """Release all resources within a second, even if the server hangs."""
        ...
