"""Errors of the `Tree` port: why an export failed, and what an admin can do about it.

Each failure has one `Cause`. The cause carries the words for events, `check` and the log, so that all drivers report
the same problem in the same words. The words never change between two attempts at the same thing: Kubernetes counts
repeated events by their text.
"""

from __future__ import annotations

import enum

from provisioner.core.errors import ProvisionerError
from provisioner.core.paths import LEDGER


class Cause(enum.Enum):
    """Why an export failed: what the export does or has (the value), and the default advice."""

    advice: str
    """What an admin can do if the driver has no better hint."""

    def __new__(cls, text: str, advice: str) -> Cause:
        """Make `text` the value, and keep the advice beside it."""
        cause = object.__new__(cls)
        cause._value_ = text
        cause.advice = advice
        return cause

    UNREACHABLE = (
        "is not responding",
        "check that the NFS server is running and, for mounted exports, that the mount is not hung",
    )
    BUSY = (
        "has not completed an earlier call on the same directory",
        "check that the server responds: the earlier call ends with its reply or with the connection",
    )
    MISSING = "does not exist", "export or create that directory, or correct the path"
    NOT_MOUNTED = "is not mounted", "mount the export there"
    CHANGED = (
        "was replaced by another export, or its ledger is lost",
        f"restore the previous export or its {LEDGER}; if it is lost, `nfs-provisioner recover --ledger` shows which"
        " records can be rewritten from the PersistentVolumes",
    )
    COPY = (
        "has a ledger that is a copy of another export's ledger",
        "use only one of the two exports; to use both, remove .provisioner from the copy",
    )
    INSIDE = (
        "is inside a directory that another export uses for its volumes",
        "use a directory outside the volumes of other exports",
    )
    TWICE = (
        "is in use by two clusters with the same ID",
        "nothing on it is deleted or archived and no archive is restored, because one cluster is a copy of the other,"
        " or a cluster has two installations of this provisioner name: stop the provisioner of one, then run"
        " `nfs-provisioner instances --this-cluster-goes-on` in the other",
    )
    UNSETTLED = (
        "might still be in use by another instance of the provisioner",
        "wait: within a minute the other instance reports itself or the deletion continues",
    )
    READ_ONLY = (
        "is read-only",
        "export it read-write (rw in exports(5)) and, for mounted exports, mount it read-write",
    )
    NO_SPACE = "has no space left", "free up space on it or enlarge it"
    NO_INODES = "has no inodes left", "remove files from it, or give its file system more inodes"
    QUOTA = "has reached a quota", "raise the quota on the server"
    DENIED = (
        "denies permission",
        "give the provisioner write permission on the root of the export and on .provisioner in it",
    )
    STALE = (
        "has a stale file handle",
        "check that the server still exports the same directory; for mounted exports, mount it again",
    )
    SYMLINK = (
        "has a symbolic link or a file where a directory is expected",
        f"replace it: {LEDGER} at the root and every component of a volume's path must be directories",
    )
    NAME_TOO_LONG = "does not accept a name of this length", "choose a pathPattern with shorter names"
    RECORD = "no longer has the expected record of the volume", "compare its ledger with the volume"
    NO_LEDGER = (
        "has no ledger, because no provisioner has created a volume on it",
        "if it is the right export, name it in a StorageClass or with --export",
    )
    NOT_YET = (
        "asks its clients to try again later",
        "wait a minute or two: servers answer like this after a restart or while they are busy",
    )
    VERSION = (
        "does not support the requested NFS version",
        "set nfsvers= in the class's mountOptions to a version that the server supports",
    )
    KERBEROS = "requires Kerberos", "export it with sec=sys as well, or mount it for the provisioner"
    TRANSPORT = (
        "has mount options for a transport that the provisioner does not support",
        "mount it for the provisioner (access: mounted in the chart), or remove these options",
    )
    NESTED = (
        "has another file system mounted on the directory, or the directory is a file system itself",
        "move its data away and unmount it on the server, or keep the directory:"
        " annotate the volume nfs-provisioner/on-delete=retain",
    )
    UNSUPPORTED = (
        "has a file system that lacks features the provisioner needs",
        "use an export whose file system supports directories, renames and symbolic links",
    )
    EXISTS = "already has an entry at that path", "move that entry away, or choose another path"
    NOT_FOUND = (
        "has no entry at that path",
        "check on the server whether another client removed or renamed the entry",
    )
    NOT_EMPTY = (
        "has a directory that is not empty, or that is in use",
        "check its content on the server: a file that a client holds open (.nfs…) disappears when the client closes"
        " it, and a snapshot (.snapshot) when the server no longer shows it there",
    )
    OTHER = "reported an error", "check the log of its server"
    UNEXPECTED = (
        "failed with an unexpected error of the provisioner",
        "look for unexpected_error in the provisioner's log, and report it; the provisioner tries again",
    )


_EXPLAINED_BY_DETAIL = (Cause.EXISTS, Cause.NOT_FOUND, Cause.NOT_EMPTY, Cause.OTHER)
"""Causes that say too little without the path or the server's own error; both stay the same between attempts."""


class ExportError(ProvisionerError):
    """A call to an export failed. With Cause.UNREACHABLE the outcome of the call is unknown.

    `cause` has the words for people. `detail` can change between attempts and is for the log.
    """

    def __init__(self, cause: Cause, detail: str = "", *, hint: str = "", answer: str = "") -> None:
        super().__init__(f"the export {cause.value}: {detail}" if detail else f"the export {cause.value}")
        self.cause = cause
        self.detail = detail
        self.hint = hint
        """The driver's own advice for an admin; part of the event."""
        self.answer = answer
        """The server's own error and the call that met it, such as `mkdir: NFS4ERR_ACCESS, Permission denied`."""
        self.done = 0
        """Of `Tree.carry_out`: how many changes were carried out before the one that failed."""

    @property
    def reason(self) -> str:
        """The cause's name in CamelCase, such as `NoSpace`."""
        return self.cause.name.title().replace("_", "")

    @property
    def advice(self) -> str:
        """What an admin can do: the driver's hint, which is more specific, or the advice of the cause."""
        return self.hint or self.cause.advice

    def event_message(self, export_name: str) -> str:
        """The message for an event; it stays the same from attempt to attempt."""
        detail = self.answer or self.detail if self.cause in _EXPLAINED_BY_DETAIL else ""
        detail = f" ({detail})" if detail and detail not in self.advice else ""
        return f"export {export_name} {self.cause.value}{detail}: {self.advice}"


class PathExists(ExportError):
    """There is already an entry at a path where one was to be created (EEXIST)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Cause.EXISTS, detail)


class PathMissing(ExportError):
    """There is no entry at a path (ENOENT)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Cause.NOT_FOUND, detail)


class NotEmpty(ExportError):
    """A directory cannot be removed: it has entries (ENOTEMPTY), or one of them is in use (EBUSY)."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(Cause.NOT_EMPTY, detail)


class ModeRefused(ExportError):
    """The server refuses to set modes (chmod), as some do with NFSv4 ACLs.

    The rest of the call is done.
    """

    def __init__(self, detail: str, *, answer: str) -> None:
        hint = (
            'the server refuses to change modes (chmod): allow it there, or leave the mode to the server with mode: "0"'
        )
        super().__init__(Cause.DENIED, f"{detail}: {answer}", hint=hint, answer=answer)
