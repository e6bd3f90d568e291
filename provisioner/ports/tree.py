"""The `Tree` port: the directory tree of one export, with the values and errors of its calls."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import RelPath
from provisioner.core.parameters import Ownership as Ownership
from provisioner.core.paths import LEDGER


class Cause(enum.Enum):
    """Why an export could not do as asked, in words for an event; the words do not change between two attempts."""

    UNREACHABLE = "it does not answer"
    BUSY = "an earlier call on the same directory has not returned"
    MISSING = "its directory is not there"
    NOT_MOUNTED = "nothing is mounted on its directory"
    CHANGED = "another export is mounted in its place, or its ledger is lost"
    COPY = "its ledger is a copy of another export's"
    INSIDE = "it lies in a directory that another export keeps for its own volumes"
    TWICE = "two clusters with one id are at work on it"
    UNSETTLED = "another instance of the provisioner may still be at work on it"
    READ_ONLY = "it is read-only"
    NO_SPACE = "no space is left on it"
    NO_INODES = "no inodes are left on it"
    QUOTA = "a quota is used up"
    DENIED = "permission is denied"
    STALE = "its file handle is stale"
    SYMLINK = "a component of the path is a symbolic link or not a directory"
    NAME_TOO_LONG = "the server does not take a name of this length"
    RECORD = "its ledger has no such record of the volume any more"
    NO_LEDGER = "no provisioner has ever made a volume on it"
    NOT_YET = "it asks us to try again later"
    VERSION = "it does not speak the NFS version asked for"
    KERBEROS = "it wants Kerberos"
    TRANSPORT = "its mount options ask for a way to it that the provisioner does not speak"
    NESTED = "another file system is mounted on the directory, or it is one itself"
    UNSUPPORTED = "its file system lacks what the provisioner needs"
    OTHER = "the server answered with an error"
    UNEXPECTED = "the provisioner met an error that it does not expect"


_ADVICE = {
    Cause.UNREACHABLE: "see that its server runs, and, where it is mounted, that the mount is not stuck",
    Cause.BUSY: "see that its server answers: that call ends with the answer, or with the connection",
    Cause.MISSING: "export or make that directory, or correct the path",
    Cause.NOT_MOUNTED: "mount the export there",
    Cause.CHANGED: (
        f"bring back the export, or the {LEDGER}, that was there; if it is lost, `nfs-provisioner recover --ledger`"
        " shows what can be written again from the PersistentVolumes"
    ),
    Cause.INSIDE: "use a directory that is no other export's volume",
    Cause.COPY: "use one of the two only; to use both, remove .provisioner from the copy",
    Cause.TWICE: (
        "nothing on it is deleted or archived, and no archive is restored: one of them is a copy of the other: stop the"
        " provisioner of one, then run `nfs-provisioner instances --this-cluster-goes-on` in the other"
    ),
    Cause.UNSETTLED: "wait: within a minute that one has shown itself, or what is to be deleted is",
    Cause.READ_ONLY: "let the server export it for writing (rw in exports(5)), and mount it so where it is mounted",
    Cause.NO_SPACE: "free some space on it, or enlarge it",
    Cause.NO_INODES: "remove files from it, or give its file system more inodes",
    Cause.QUOTA: "raise the quota on the server",
    Cause.DENIED: "give us write permission on its root and on .provisioner in it",
    Cause.STALE: "see that the server still exports the same directory, and mount it again where it is mounted",
    Cause.SYMLINK: f"let {LEDGER} at its root, and what lies on the way to the volume, be directories",
    Cause.NAME_TOO_LONG: "choose a pathPattern with shorter names",
    Cause.RECORD: "compare its ledger with the volume",
    Cause.NO_LEDGER: "let a class or --export name it, if it is the right one",
    Cause.NOT_YET: "wait a minute or two: servers say so after a restart, or while they are busy",
    Cause.VERSION: "name a version that the server has with nfsvers= in the class's mountOptions",
    Cause.KERBEROS: "let the server export it with sec=sys too, or have it mounted for us",
    Cause.TRANSPORT: "have it mounted for the provisioner (access: mounted in the chart), or take those options out",
    Cause.NESTED: (
        "move its data away and unmount it on the server, or keep the directory:"
        " annotate the volume nfs-provisioner/on-delete=retain"
    ),
    Cause.UNSUPPORTED: "use an export on a file system that has directories, renames and symbolic links",
    Cause.OTHER: "look into the log of its server",
    Cause.UNEXPECTED: "look for unexpected_error in the provisioner's log, and report it; the work is tried again",
}
"""What an admin can do, where the driver knows no better; part of an event as the cause itself."""


class ExportError(ProvisionerError):
    """An export could not do as asked. With UNREACHABLE the outcome of the call is unknown.

    `cause` gives the words for people, `detail` (it may change between attempts) belongs in the log only.
    """

    def __init__(self, cause: Cause, detail: str = "", *, hint: str = "", answer: str = "") -> None:
        super().__init__(f"{cause.value}: {detail}" if detail else cause.value)
        self.cause = cause
        self.detail = detail
        self.hint = hint
        """What the driver knows that an admin can do about it; part of the event."""
        self.answer = answer
        """The server's own error and the call that met it, such as `mkdir: NFS4ERR_ACCESS, Permission denied`."""

    @property
    def reason(self) -> str:
        """The cause's name, as `NoSpace`."""
        return self.cause.name.title().replace("_", "")

    @property
    def advice(self) -> str:
        """What an admin can do about it: the driver's own words, which know most, or else those for the cause."""
        return self.hint or _ADVICE[self.cause]

    def event_message(self, export: str) -> str:
        """The message for an event: it stays the same from attempt to attempt."""
        said = self.answer or self.detail if self.cause is Cause.OTHER else ""
        why = f"{self.cause.value} ({said})" if said and said not in self.advice else self.cause.value
        return f"export {export}: {why}; {self.advice}"


class PathExists(ExportError):
    """There is something under the name that was to be made (EEXIST)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Cause.OTHER, f"{detail} exists already")


class PathMissing(ExportError):
    """There is nothing under that name (ENOENT)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Cause.OTHER, f"{detail} does not exist")


class NotEmpty(ExportError):
    """A directory that was to be removed holds something (ENOTEMPTY), or something in it is in use (EBUSY)."""

    def __init__(self, detail: str = "", *, why: str = "is not empty") -> None:
        hint = (
            "look what is in it on the server: a file that a client holds open (.nfs…) goes when that closes it, and"
            " a snapshot (.snapshot) when the server no longer shows it there"
        )
        super().__init__(Cause.OTHER, f"{detail} {why}", hint=hint)


class ModeRefused(ExportError):
    """The server refuses to set modes (chmod), as with NFSv4 ACLs. All else that was asked for has been done."""

    def __init__(self, what: str, *, answer: str) -> None:
        hint = 'the server refuses to change modes (chmod): let it do so, or leave the mode to it with mode: "0"'
        super().__init__(Cause.DENIED, f"{what}: {answer}", hint=hint, answer=answer)


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
"""Told how many entries went since it was told last, every few seconds at least; says whether to go on."""


def to_the_end(_removed: int) -> bool:
    """Go on."""
    return True


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

    async def make_directory(self, path: RelPath, access: Ownership) -> None:
        """Make a directory that is not there yet, parents (mode 0755) as needed, then set owner and mode.

        Raises PathExists when anything is under that name, Cause.SYMLINK when a parent is not a directory, and as the
        last step ModeRefused. A failure after the directory was made leaves it: a retry meets PathExists.
        """
        ...

    async def set_access(self, path: RelPath, access: Ownership) -> None:
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

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress = to_the_end) -> int:
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
