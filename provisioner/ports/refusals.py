"""What a refusal means, by its name and by the call that met it: one table for errno and every version of NFS.

The three name their errors alike: EACCES, NFS3ERR_ACCES, NFS4ERR_ACCESS. A rule gives the cause, and the advice where
it knows better than the cause does. A hint never changes between two attempts at the same thing: it becomes part of an
event. `{who}` in it stands for the user that the server sees.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from provisioner.core.reserved import is_servers
from provisioner.ports.tree import Cause, ExportError, ModeRefused, NotEmpty, PathExists, PathMissing, Proof

Call = Literal[
    "mkdir", "chmod", "chown", "rename", "rmdir", "remove", "symlink", "readlink", "readdir", "lookup", "getattr",
    "statfs", "open", "mount", "call",
]  # fmt: skip
"""What was asked of a file system, in the words that admins know; `call` is anything else."""

NESTED_INSIDE = "nothing on it is removed: move its data away and unmount it on the server"
"""The advice where another file system is mounted inside a directory that is to be removed."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a refusal comes to."""

    cause: Cause
    hint: str = ""


_NO_ACCESS_SET = ("PERM", "ACCES", "INVAL", "NOTSUPP", "ATTRNOTSUPP")
"""How servers say that they do not set modes or owners: with NFSv4 ACLs, on FAT, or for want of the right."""
_READS = ("lookup", "getattr", "readdir", "readlink", "statfs", "open", "mount")

_SQUASHED = (
    "the server squashes root: export with no_root_squash, or act as the owner of that directory (--nfs-uid and"
    " --nfs-gid, or the pod's user where it is mounted), or name a directory below it that is writable as the share"
)
_HELD = (
    "it is immutable or held by the server (chattr +i, WORM, a snapshot): release it there; or the server squashes"
    " root: export with no_root_squash"
)
_OWNER = (
    "the server does not let {who} give directories away (chown): leave uid and gid out of the class, or export with"
    " no_root_squash"
)
_NUMERIC_OWNER = (
    "the server does not take numeric owners: let its idmapping do so, or leave uid and gid out of the class"
)
_NO_SYMLINKS = "it makes no symbolic links, which the ledger consists of: use an export on a file system that has them"
_IN_USE = (
    "another file system is mounted on the directory on the server, or files in it are in use: move its data away and"
    " unmount it there, or keep the directory: annotate the volume nfs-provisioner/on-delete=retain"
)
_BUSY = (
    "wait a minute or two; if the server goes on saying so, see whether another file system is mounted on the directory"
)
_SNAPSHOT = (
    "the server shows snapshots inside, which cannot be removed: hide them there, or remove the directory on the server"
)
_NAME = "the server does not take this name: choose a pathPattern with plain letters and digits"
_TOO_MANY = (
    "the directory above holds as many directories as its file system takes: let the pathPattern spread volumes over"
    " more of them, for instance with ${.PVC.namespace}/"
)
_TOO_SMALL = "the server takes only requests that are smaller than NFS needs: raise its limits"
_LOCAL = "the provisioner's own machine is short of memory or of open files: raise the pod's limits"

_BY_CALL: Mapping[tuple[str, Call], Meaning] = {
    **dict.fromkeys([(key, "chown") for key in _NO_ACCESS_SET], Meaning(Cause.DENIED, _OWNER)),
    ("BADOWNER", "chown"): Meaning(Cause.DENIED, _NUMERIC_OWNER),
    # symlink(2): EPERM is a file system without symbolic links; a want of permission is EACCES.
    **dict.fromkeys(
        [(key, "symlink") for key in ("PERM", "NOTSUPP", "BADTYPE")], Meaning(Cause.UNSUPPORTED, _NO_SYMLINKS)
    ),
    **dict.fromkeys([("XDEV", "rename"), ("BUSY", "rename")], Meaning(Cause.NESTED)),
    ("FILE_OPEN", "rename"): Meaning(Cause.NESTED, _IN_USE),
    ("JUKEBOX", "rename"): Meaning(Cause.NOT_YET, _BUSY),
    **dict.fromkeys([("INVAL", "mkdir"), ("INVAL", "rename"), ("INVAL", "symlink")], Meaning(Cause.OTHER, _NAME)),
    **dict.fromkeys([("MLINK", "mkdir"), ("MLINK", "rename"), ("FBIG", "mkdir")], Meaning(Cause.OTHER, _TOO_MANY)),
}

_BY_KEY: Mapping[str, Meaning] = {
    "PERM": Meaning(Cause.DENIED),
    "ACCES": Meaning(Cause.DENIED),
    "ROFS": Meaning(Cause.READ_ONLY),
    "NOSPC": Meaning(Cause.NO_SPACE),
    "DQUOT": Meaning(Cause.QUOTA),
    "NAMETOOLONG": Meaning(Cause.NAME_TOO_LONG),
    **dict.fromkeys(("STALE", "BADHANDLE", "FHEXPIRED"), Meaning(Cause.STALE)),
    **dict.fromkeys(("NOTDIR", "ISDIR", "LOOP", "SYMLINK", "NOT_SAME", "WRONG_TYPE"), Meaning(Cause.SYMLINK)),
    **dict.fromkeys(("JUKEBOX", "FILE_OPEN"), Meaning(Cause.NOT_YET)),
    "GRACE": Meaning(Cause.NOT_YET, "it waits for its clients after a restart; nothing needs to be done"),
    "WRONGSEC": Meaning(Cause.KERBEROS),
    "MINOR_VERS_MISMATCH": Meaning(Cause.VERSION),
    **dict.fromkeys(("NOTSUPP", "ATTRNOTSUPP", "BADTYPE"), Meaning(Cause.UNSUPPORTED)),
    **dict.fromkeys(("BADCHAR", "BADNAME", "ILSEQ"), Meaning(Cause.OTHER, _NAME)),
    "BADOWNER": Meaning(Cause.DENIED, _NUMERIC_OWNER),
    "XDEV": Meaning(Cause.OTHER, "that would cross into another file system of the server: use one export for both"),
    "IO": Meaning(Cause.OTHER, "the server cannot read or write its disk: look into its log"),
    **dict.fromkeys(("NXIO", "NODEV"), Meaning(Cause.OTHER, "the server's disk is gone: look into its log")),
    "SERVERFAULT": Meaning(Cause.OTHER, "the server has a fault of its own: look into its log"),
    "UCLEAN": Meaning(Cause.OTHER, "its file system is damaged: have it checked on the server"),
    "REMOTE": Meaning(Cause.OTHER, "it lies on another server that this one mounts: name that server in the class"),
    "MOVED": Meaning(Cause.OTHER, "it has moved to another server: name that one in the class"),
    **dict.fromkeys(
        ("NOKEY", "KEYEXPIRED", "KEYREVOKED", "KEYREJECTED"),
        Meaning(Cause.KERBEROS, "the mount has no valid Kerberos ticket: renew it on the node (rpc.gssd, keytab)"),
    ),
    **dict.fromkeys(("MFILE", "NFILE", "NOMEM"), Meaning(Cause.OTHER, _LOCAL)),
    **dict.fromkeys(
        ("RESOURCE", "TOO_MANY_OPS", "REQ_TOO_BIG", "REP_TOO_BIG", "TOOSMALL"), Meaning(Cause.OTHER, _TOO_SMALL)
    ),
}

_PREFIXES = ("NFS3ERR_", "NFS4ERR_", "MNT3ERR_", "E")
_ALIASES = {"ACCESS": "ACCES", "DELAY": "JUKEBOX", "OPNOTSUPP": "NOTSUPP", "NOSYS": "NOTSUPP", "OP_ILLEGAL": "NOTSUPP"}


def refusal(name: str, call: Call, what: str, *, uid: int, gid: int) -> ExportError:
    """The port's error for a `call` about `what` that this user made and that met the error of this name.

    `name` is as errno, NFS or MOUNT has it; an unknown one is Cause.OTHER.
    """
    key = _key(name)
    number = getattr(errno, f"E{key}", None)
    answer = f"{call}: {name}" + (f", {os.strerror(number)}" if number is not None else "")
    if own := _subclass_of(key, call, what):
        return own
    if call == "chmod" and key in _NO_ACCESS_SET:
        return ModeRefused(what, answer=answer)
    found = _BY_CALL.get((key, call)) or _BY_KEY.get(key) or Meaning(Cause.OTHER)
    hint = found.hint or (_permission_hint(call, uid) if found.cause is Cause.DENIED else "")
    hint = hint.replace("{who}", f"uid {uid} and gid {gid}")
    return ExportError(found.cause, f"{what}: {answer}", hint=hint, answer=answer)


def unproven(proof: Proof) -> ExportError:
    """What a rename relies on is gone, or says otherwise."""
    hint = "nothing is touched: another provisioner has changed that record since, and it is looked at again"
    return ExportError(Cause.RECORD, f"{'/'.join(proof.path)} is not what it was", hint=hint)


def inside(names: Sequence[str], error: ExportError) -> ExportError:
    """The refusal of an entry that a server shows below a directory that is to be removed, by the names on the way.

    A snapshot that is shown there is read-only, and does not make the export so.
    """
    if error.cause is Cause.READ_ONLY and any(is_servers(name) for name in names):
        return ExportError(Cause.DENIED, error.detail, hint=_SNAPSHOT, answer=error.answer)
    return error


def _key(name: str) -> str:
    """The name without what each protocol puts before it."""
    key = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
    return _ALIASES.get(key, key)


def _subclass_of(key: str, call: Call, what: str) -> ExportError | None:
    """The three refusals that a retry has to tell apart have types of their own."""
    if key == "NOENT":
        return PathMissing(what)
    if key == "EXIST":
        return PathExists(what)
    if key == "NOTEMPTY":
        return NotEmpty(what)
    if key == "BUSY" and call != "rename":
        return NotEmpty(f"{what} is in use")  # an NFS client keeps an open file as `.nfs…` until it is closed
    return None


def _permission_hint(call: Call, uid: int) -> str:
    """What to do where a user lacks a right: root has all of them, unless the server squashes it."""
    if uid == 0:
        return _HELD if call in ("rename", "rmdir", "remove") else _SQUASHED
    return f"{{who}} need {'read and search' if call in _READS else 'write'} permission there"
