"""The ports: what control asks of the outside, and how an export is reached. Drivers live in kube/ and nfs/.

`Cluster` is the API server, `Exports` and `Export` are the NFS side with its ledger, `Clock` is time. `Tree` is the
smaller port below `Export`: the directory tree of one export, by a mounted directory or by our own NFS client.
Each driver of a port, fakes among them, passes that port's contract suite in tests/contract.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from provisioner.core.checks import Permission
from provisioner.core.discretion import Words
from provisioner.core.errors import ProvisionerError
from provisioner.core.leases import LeaseRecord
from provisioner.core.locations import Location, Path
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, Namespace, StorageClass, Volume
from provisioner.core.parameters import Access as Access
from provisioner.core.paths import LEDGER, PathIndex
from provisioner.core.places import Places
from provisioner.core.records import ArchiveRecord, Record
from provisioner.core.recovery import Contents
from provisioner.core.tenancy import UNKNOWN, Tenant

# ---------------------------------------------------------------------------------------------------- the API server


class ClusterError(ProvisionerError):
    """A call to the API server failed; the text is short enough for a log line and carries no secret."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        """What an admin can do about it, where more is known than the text says."""


class NotFound(ClusterError):
    """404."""


class AlreadyExists(ClusterError):
    """409 for a name that is taken."""


class Conflict(ClusterError):
    """409 for a resourceVersion or a precondition that no longer holds: read again."""


class Rejected(ClusterError):
    """400, 403, 422 and their like: the same call will be refused again until somebody changes something."""


class Forbidden(Rejected):
    """403: a right is missing."""


class Expired(ClusterError):
    """410: the version to watch from, or the list to continue, is gone: list again."""


class ApiUnavailable(ClusterError):
    """No answer, a 5xx or a 429: **the outcome of a write is unknown**. `retry_after_s` is the server's own wish."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


Kind = Literal["claims", "volumes", "classes"]
AnyItem = Claim | Volume | StorageClass
Item = TypeVar("Item", bound=AnyItem)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list. `continue_token` is empty on the last one, `version` is where a watch resumes."""

    items: Sequence[Item]
    version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[Item]):
    """One line of a watch. A bookmark has no item; `version` is where a watch resumes after it."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    version: str
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What an event is about."""

    kind: Literal["PersistentVolumeClaim", "PersistentVolume"]
    namespace: str
    name: str
    uid: str
    resource_version: str = ""


EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event to record: on the first occurrence created, on a repetition counted up."""

    about: ObjectRef
    type: EventType
    reason: str
    message: str


class Cluster(Protocol):
    """The API server. Every call has a time limit, raises ClusterError only, and obeys 429 with Retry-After."""

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        """One page of all objects of a kind. Raises Expired when the token is too old."""
        ...

    async def version(self, kind: Kind) -> str:
        """The version that a list of a kind would have now, which costs no list."""
        ...

    def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        """Changes after a version until the server ends the watch cleanly; close the generator to end it early.

        Raises Expired on 410, ApiUnavailable when the connection breaks or nothing comes for too long. A watch from a
        version that is yet to come is silent until then, but for bookmarks.
        """
        ...

    async def get_claim(self, namespace: str, name: str) -> Claim | None:
        """The claim as it is now, or None where there is none of that name."""
        ...

    async def get_volume(self, name: str) -> Volume | None:
        """The volume as it is now, or None where there is none of that name."""
        ...

    async def get_namespace(self, name: str) -> Namespace | None:
        """The namespace as it is now, or None where there is none of that name."""
        ...

    async def create_volume(self, body: Mapping[str, object]) -> Volume:
        """Create a PersistentVolume. Raises AlreadyExists."""
        ...

    async def patch_volume(self, name: str, patch: Mapping[str, object]) -> Volume:
        """JSON merge patch (RFC 7386); with `metadata.resourceVersion` in it raises Conflict when that is old."""
        ...

    async def set_finalizer(self, volume: Volume, finalizer: str, *, present: bool) -> None:
        """Put one finalizer on the volume, or take it off, whatever others do to the rest of the list meanwhile.

        Raises NotFound when the volume is gone, Conflict when another one has its name.
        """
        ...

    async def delete_volume(self, volume: Volume) -> None:
        """Delete exactly the volume that was read: its uid and resourceVersion are preconditions (raises Conflict).

        Raises NotFound when it is gone. The object stays until its finalizers are off.
        """
        ...

    async def patch_claim_status(self, namespace: str, name: str, patch: Mapping[str, object]) -> Claim:
        """Strategic merge patch of a claim's status (lists merge by key); raises Conflict as patch_volume does."""
        ...

    async def record_event(self, event: Event, *, count: int, name: str, first_seen: datetime, seen: datetime) -> None:
        """Create the event object `name` where `count` is 1, else set its count and the time it was last seen."""
        ...

    async def get_lease(self, namespace: str, name: str) -> LeaseRecord | None:
        """The lease as it is now, or None."""
        ...

    async def create_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Create the lease. Raises AlreadyExists."""
        ...

    async def replace_lease(self, namespace: str, name: str, lease: LeaseRecord) -> LeaseRecord:
        """Replace the lease that was read (`lease.version`). Raises Conflict when somebody else was faster."""
        ...

    async def may(self, permission: Permission) -> bool:
        """Whether the API server would let us do that."""
        ...

    async def identity(self) -> str:
        """What tells this cluster from others for as long as it lives: the uid of its namespace kube-system."""
        ...

    async def ping(self) -> None:
        """Raise ClusterError unless the API server says that it is ready."""
        ...

    def server_time(self) -> datetime | None:
        """The API server's own clock by the latest answer that came promptly, and the seconds since; UTC, aware.

        It may be behind by the second that the answer was cut to and the time that it took. None before the first.
        """
        ...


# ---------------------------------------------------------------------------------------------------- exports


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

    def told_of(self, export: str) -> str:
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
class Space:
    """What statfs says of the whole export, in bytes and in inodes (0 and 0 where the server does not count them)."""

    size_bytes: int
    free_bytes: int
    inodes: int = 0
    free_inodes: int = 0

    @classmethod
    def counted(cls, size_bytes: int, free_bytes: int, inodes: int, free_inodes: int) -> Space:
        """By what a server counts. A negative number, as some have once a reserve is in use, arrives as a huge one."""
        return cls(*(0 if number >> 63 else number for number in (size_bytes, free_bytes, inodes, free_inodes)))


@dataclass(frozen=True, slots=True)
class Proof:
    """What a rename relies on: the symlink at a path, and the text that it has to have."""

    path: Path
    text: str


GoOn = Callable[[int], bool]
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
    def silence(self) -> str:
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

    async def make_directory(self, path: Path, access: Access) -> None:
        """Make a directory that is not there yet, parents (mode 0755) as needed, then set owner and mode.

        Raises PathExists when anything is under that name, Cause.SYMLINK when a parent is not a directory, and as the
        last step ModeRefused. A failure after the directory was made leaves it: a retry meets PathExists.
        """
        ...

    async def set_access(self, path: Path, access: Access) -> None:
        """Set owner, then mode, of an existing directory. Raises PathMissing, Cause.SYMLINK, ModeRefused."""
        ...

    async def rename(self, source: Path, target: Path, *, proofs: Sequence[Proof] = ()) -> None:
        """Rename a directory. Raises PathMissing for the source, PathExists when there is anything at the target,

        Cause.SYMLINK when the source is not a directory. The target's parent must exist. Never replaces anything but,
        in a race that cannot be closed over NFS, an empty directory. Raises Cause.RECORD, and moves nothing, where one
        of the proofs is not there, or says otherwise.
        """
        ...

    async def remove_directory(self, path: Path) -> None:
        """Remove an empty directory. Raises NotEmpty, PathMissing, Cause.SYMLINK when it is not a directory."""
        ...

    async def make_symlink(self, path: Path, target: str) -> None:
        """Make a symlink whose parent exists. Raises PathExists, PathMissing (no parent)."""
        ...

    async def move_symlink(
        self, source: Path, target: Path, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """Rename a symlink; the target's parent exists. Raises PathMissing, PathExists for a target that is there.

        With `replace` a symlink at the target gives way in the same step: who looks sees one of the two, whole. A
        directory there is Cause.SYMLINK. Proofs are as those of rename().
        """
        ...

    async def read_symlink(self, path: Path) -> str:
        """A symlink's target. Raises PathMissing, Cause.SYMLINK when it is something else."""
        ...

    async def remove_symlink(self, path: Path) -> None:
        """Remove a symlink. Raises PathMissing, Cause.SYMLINK when it is something else."""
        ...

    async def list(self, path: Path, *, at_most: int | None = None) -> list[Entry]:
        """The entries of a directory in no order, all or so many of them. Raises PathMissing, Cause.SYMLINK.

        A directory without an end, or with more entries than we can hold, is Cause.OTHER with a hint.
        """
        ...

    async def read_symlinks(self, path: Path, names: Iterable[str]) -> dict[str, str]:
        """The targets of many symlinks of one directory, in parallel; those that are gone by now are left out."""
        ...

    async def is_empty(self, path: Path) -> bool:
        """Whether a directory is empty, without reading all of it. Raises PathMissing, Cause.SYMLINK."""
        ...

    async def remove_tree(self, path: Path, *, go_on: GoOn = to_the_end) -> int:
        """Remove a directory with all that is in it and return how many entries went; a missing one is 0.

        May take long and has no limit as a whole, each step has; memory does not grow with the directory. Directories
        without write permission are opened up first. What is refused stays, all else goes, and the first refusal is
        raised. Where `go_on` says no, it ends early, and a further call removes the rest.
        """
        ...

    async def space(self) -> Space:
        """What statfs says."""
        ...

    def above(self) -> Iterable[tuple[str, Tree, Path]]:
        """The directories above the root, nearest first, as far as there may be a way to them.

        Of each its name, a tree that the caller closes before it takes the next one, and the path of this root in it.
        Whether the server lets us look into one is found out by its calls.
        """
        ...

    async def close(self) -> None:
        """Let go of what the driver holds, within a second, even when the server hangs."""
        ...


class DiscreetError(ProvisionerError):
    """A refusal that names what other namespaces may have: the text is for the log, `told` for an event on a claim."""

    def __init__(self, words: Words | str) -> None:
        """`words` is one text where nothing in it is of another namespace."""
        self._words = Words(words, words) if isinstance(words, str) else words
        super().__init__(self._words.whole)

    @property
    def told(self) -> str:
        """See `ProvisionerError`."""
        return self._words.told


class PathTaken(DiscreetError):
    """A directory cannot be handed out because somebody else has it, or one above or below it; the text says who."""


class AlreadyThere(ProvisionerError):
    """The directory was there before, and the rule for existing directories does not let us hand it out."""


class ArchiveUnusable(DiscreetError):
    """An archive cannot be brought back for this claim; the text says why."""


class Export(Protocol):
    """One export with its ledger (design, "The export's ledger"): what control drives.

    Calls raise ExportError, and provision() what it says. Each may be repeated after an unknown outcome or a crash.
    """

    @property
    def location(self) -> Location:
        """Where the export is, as volumes name it."""
        ...

    @property
    def name(self) -> str:
        """What people call it: its location, and its port where that is a special one."""
        ...

    @property
    def id(self) -> str:
        """The id in `.provisioner/export`; empty until open() succeeded."""
        ...

    @property
    def folds(self) -> bool:
        """Whether the server takes names for one that differ in case, or in their normal form, as open() found out."""
        ...

    @property
    def since(self) -> str:
        """Since when a provisioner has kept the ledger: UTC, RFC 3339; empty before its first sign()."""
        ...

    @property
    def records(self) -> Mapping[str, Record]:
        """The ledger in memory, by volume name: all records since open(), with our own changes."""
        ...

    @property
    def pending(self) -> Set[str]:
        """The volumes in `records` of which the ledger says that their claim never got a PersistentVolume."""
        ...

    @property
    def archived(self) -> Mapping[str, ArchiveRecord]:
        """The records of archives, by archive name: an archive that another provisioner left has none."""
        ...

    @property
    def unreadable(self) -> Set[str]:
        """The names in the ledger that are no records of ours, or of a newer version: reported, never touched."""
        ...

    @property
    def foreign(self) -> Set[str]:
        """Those of `unreadable` that another version of ours wrote."""
        ...

    @property
    def silence(self) -> str:
        """What an admin should look at while it does not answer; empty when that is all that is known."""
        ...

    @property
    def exposed(self) -> str:
        """The server's answer where it refused to close the ledger to others when open() made it; else empty."""
        ...

    def mode_refused(self, volume: str) -> str:
        """The server's answer where it did not set the mode of a pending volume's directory; else empty."""
        ...

    async def open(
        self, *, create: bool = True, others: Iterable[Export] = (), carried: Set[str] = frozenset()
    ) -> Export:
        """Find the ledger, read all of it, check the export's id. May be called again: it reads anew.

        Only with `create` is a ledger made where there is none; else that raises Cause.NO_LEDGER. `carried` are the ids
        that volumes on it carry: while there are any, none is made, and one whose id none of them carries is not used,
        which raises Cause.CHANGED.
        Returns the one of `others` that is this export by another name; else itself. Only itself is open then. Raises
        Cause.COPY where one of `others` has the same id and is another export.
        """
        ...

    def marked(self, name: str) -> AbstractAsyncContextManager[None]:
        """While this is open, the ledger has a mark of that name."""
        ...

    async def probe(self) -> Space:
        """Whether the export answers and is the one that it was, with its ledger, and what statfs says."""
        ...

    async def read_remains(self) -> None:
        """Read what is left of a ledger that has lost its id; nothing is made. Raises ExportError."""
        ...

    async def restore_ledger(self, id: str, records: Mapping[str, Record]) -> dict[str, str]:
        """Write records that are missing or cannot be read, and then the id where the ledger has another one or none.

        Returns, by volume, why for those that were not written. May be repeated: what is there stays.
        """
        ...

    def adoptable(self, record: Record) -> str | None:
        """The volume whose settled record names exactly this directory and a namespace of the same name, if any."""
        ...

    async def provision(
        self, volume: str, record: Record, access: Access, *, adopt_from: str | None = None, tenant: Tenant = UNKNOWN
    ) -> Record:
        """Record first, then the directory. Returns the record that holds: that of an earlier attempt stays.

        `adopt_from` names the record whose directory may be handed out again; the caller has made sure that its volume
        is gone and that it is the tenant's. Where the record names an archive, the directory is that archive's,
        renamed, if it is the tenant's. Raises PathTaken, AlreadyThere, ArchiveUnusable.
        """
        ...

    async def settle(self, volume: str, uid: str = "") -> None:
        """Note that the PersistentVolume exists, with this uid: from now on only a reclaim may end the record.

        A record that is settled already gets the uid as well; an empty one changes nothing of what is recorded.
        """
        ...

    async def undo(self, volume: str) -> bool:
        """Take back a provisioning that never got a PersistentVolume: rmdir when empty, then the record.

        What came from an archive becomes that archive again. False when the directory holds something: nothing was
        touched. A settled record is left alone (True).
        """
        ...

    async def take_over(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Enter volumes that another provisioner made; nothing but the ledger is touched.

        Returns, by volume, why for those that were not entered: somebody else has the directory, or one above or below.
        """
        ...

    async def reinstate(self, volume: str, record: Record, *, archive: str = "", trash: str = "") -> None:
        """Let the data of a volume that exists come back into its directory, out of an archive or the trash.

        The record comes first, where the volume has none; then the rename, never over anything but an empty directory;
        then the archive's record ends. Raises PathTaken, AlreadyThere, and Cause.RECORD where the data are gone.
        """
        ...

    async def contents(self, path: Path) -> Contents:
        """What there is of a directory."""
        ...

    async def vet(self, volume: str, record: Record) -> None:
        """Raise PathTaken where a directory that is there cannot become a volume's.

        Another volume, of whatever cluster, has it, or one above or below; it is an archive; it is another export's
        root, or lies in one; or a record that cannot be read may have it. The volume's own record does not count.
        """
        ...

    async def amend(self, volume: str, record: Record) -> None:
        """Put a record of the same directory in the place of the volume's, in one step."""
        ...

    async def reread(self, volume: str) -> Record | None:
        """The volume's record as the export itself has it now, and `records` from then on; None where it has none."""
        ...

    async def is_gone(self, volume: str) -> bool:
        """Whether the directory in a volume's record does not exist."""
        ...

    async def find_damage(self) -> None:
        """Read all settled records again: those that cannot be read any more are `unreadable` from then on."""
        ...

    async def is_left(self, volume: str) -> bool:
        """Whether what is at the path in a volume's record may not be taken away as an attempt: it holds something."""
        ...

    async def missing(self, paths: Iterable[Path]) -> Set[Path]:
        """Those of the directories at whose path there is nothing: a listing of each parent, not a call for each."""
        ...

    async def strays(self, known: PathIndex, *, limit: int) -> list[Path]:
        """Directories that hold something and are neither known, nor on the way to a known one; at most so many.

        The ledger, archives, and what servers put into a root themselves are none. One call for each directory on the
        way to a known one, and one for each stray.
        """
        ...

    async def discard(self, volume: str) -> bool:
        """Move the volume's directory into the trash, where an earlier attempt has not; False where there is none."""
        ...

    async def archive(self, volume: str, at: datetime) -> str | None:
        """Move the volume's directory to `archived-…`, with a record; its name there, None where there was nothing."""
        ...

    async def retain(self, volume: str, at: datetime) -> bool:
        """Note in the record that the PersistentVolume goes and that the directory is to stay; once is enough.

        False where there is no directory: the record stays all the same.
        """
        ...

    async def forget(self, volume: str) -> None:
        """Remove the volume's record; last step of a reclaim."""
        ...

    async def archives(self) -> list[str]:
        """The names of the archives at the export's root, those without a record among them."""
        ...

    async def expire(self, archive: str, at: datetime) -> bool:
        """Move an archive that has a record into the trash, then end its record.

        False, and nothing is touched, while a claim waits for it or where the ledger, asked now, has another record.
        """
        ...

    async def end_archive(self, archive: str) -> bool:
        """End the record of an archive whose directory is gone.

        False, and nothing is touched, while its volume has a record or a claim waits for it.
        """
        ...

    async def amend_archive(self, archive: str, record: ArchiveRecord) -> None:
        """Put a record in the place of the archive's, in one step."""
        ...

    async def sign(self, cluster: str, at: datetime) -> None:
        """Leave word that a provisioner of that cluster is at work on this export."""
        ...

    async def clusters(self) -> Mapping[str, str]:
        """When a provisioner of which cluster was here last: UTC, RFC 3339."""
        ...

    async def instance(self, name: str) -> str:
        """The sign of an instance that stands under this name (core.instances); empty where there is none."""
        ...

    async def sign_instance(self, name: str, sign: str, *, over: bool) -> None:
        """Leave the sign of an instance in the place of the one that is there; without `over` raises PathExists."""
        ...

    async def trash(self) -> list[str]:
        """The names in the trash."""
        ...

    async def begun(self) -> Set[str]:
        """Those names in the trash whose removal has begun: a part may be gone, or all of it."""
        ...

    def may_come_late(self, name: str) -> bool:
        """Whether a rename to this name in the trash, of a leader that was held up, may still be carried out.

        Then the name has to stay taken for some minutes after the purge.
        """
        ...

    async def purge(self, name: str, *, go_on: GoOn = to_the_end, taken: bool = False) -> int:
        """Remove one directory in the trash for good, as Tree.remove_tree does; returns how many entries went.

        Where its name is to stay `taken`, a directory stays that no rename can replace.
        """
        ...

    async def close(self) -> None:
        """Let go of the export."""
        ...


class Exports(Protocol):
    """The exports that we serve: those of the settings, and those that classes and volumes name as we meet them.

    Two locations may lead to one export: from when that is known, one object stands for it under all its names.
    """

    @property
    def default(self) -> Location | None:
        """The export of classes that name none."""
        ...

    @property
    def places(self) -> Places:
        """Which locations lead to one export, as far as is known."""
        ...

    def __iter__(self) -> Iterator[Export]:
        """All exports, configured or met so far."""
        ...

    def primary(self, export: Export) -> Export:
        """The object that stands for an export: itself, or the one that it was united with."""
        ...

    def unite(self, alias: Export, primary: Export) -> None:
        """Two objects are one export: from now on `primary` stands for it."""
        ...

    def at(self, location: Location, options: MountOptions) -> Export:
        """The export at a location; one that is not mounted for us is spoken to as the options say.

        Raises ExportError with a hint where it cannot be reached so.
        """
        ...

    def of(self, volume: Volume) -> tuple[Export, Path] | None:
        """The export that a volume lies on, and its directory's components below that export's root.

        Nothing that the volume says is trusted by this: the ledger of that export has the last word.
        """
        ...

    def obstacle(self, volume: Volume) -> str:
        """What in a volume's mount options keeps the driver from its server, and what to change; empty for nothing."""
        ...

    def forget(self, export: Export) -> None:
        """Nothing names an export any more: from now on it is not one of ours. One of the settings stays."""
        ...


# ---------------------------------------------------------------------------------------------------- time


class Clock(Protocol):
    """Time and chance, so that a simulation can provide them."""

    def now(self) -> datetime:
        """The wall clock, UTC, aware. It may jump: for names and records only."""
        ...

    def steady(self) -> datetime:
        """The wall clock at the process's start, and the seconds since: it may be wrong, and never jumps."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, also while the machine is suspended: for every decision about durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...
