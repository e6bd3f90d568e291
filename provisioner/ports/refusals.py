"""Refusals of file systems and servers: one table from error and call to cause and advice.

The table holds for errno and all versions of NFS, because they share the names of their errors: EACCES, NFS3ERR_ACCES,
NFS4ERR_ACCESS. A rule gives the cause, and a hint if it can be more specific than the advice of the cause. A hint is
part of an event and never changes between two attempts at the same thing. `{who}` in a hint is the user that the
server sees.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from provisioner.core.reserved import is_servers
from provisioner.ports.errors import Cause, ExportError, ModeRefused, NotEmpty, PathExists, PathMissing
from provisioner.ports.tree import Proof

Call = Literal[
    "mkdir", "chmod", "chown", "rename", "rmdir", "remove", "symlink", "readlink", "readdir", "lookup", "getattr",
    "statfs", "open", "mount", "call",
]  # fmt: skip
"""The call that was refused, in terms that admins know; `call` is any other one."""

NESTED_INSIDE = "nothing on that file system is removed: move its data away and unmount it on the server"
"""Advice if another file system is mounted inside a directory that is being removed."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Cause and hint of a refusal; without a hint, the advice of the cause is used."""

    cause: Cause
    hint: str = ""


_NO_ACCESS_SET = ("PERM", "ACCES", "INVAL", "NOTSUPP", "ATTRNOTSUPP")
"""Errors of servers that do not set modes or owners: because of NFSv4 ACLs, on FAT, or without permission."""
_READS = ("lookup", "getattr", "readdir", "readlink", "statfs", "open", "mount")

_SQUASHED = (
    "the server squashes root: export with no_root_squash, or act as the owner of that directory (--nfs-uid and"
    " --nfs-gid or, for mounted exports, the pod's user), or name a directory below it that is writable as the share"
)
_HELD = (
    "the entry is immutable or held by the server (chattr +i, WORM, a snapshot), or the server squashes root: release"
    " the entry there, or export with no_root_squash"
)
_OWNER = (
    "the server does not allow {who} to change owners (chown): leave uid and gid out of the class, or export with"
    " no_root_squash"
)
_NUMERIC_OWNER = (
    "the server does not accept numeric owners: configure its idmapping, or leave uid and gid out of the class"
)
_NO_SYMLINKS = "the ledger needs symbolic links: use an export on a file system that supports symbolic links"
_IN_USE = (
    "another file system is mounted on the directory on the server, or files in it are in use: move its data away and"
    " unmount it there, or keep the directory: annotate the volume nfs-provisioner/on-delete=retain"
)
_BUSY = "wait a minute or two; if the error persists, check whether another file system is mounted on the directory"
_SNAPSHOT = (
    "the server shows snapshots in the directory, which cannot be removed: hide the snapshots there, or remove the"
    " directory on the server"
)
_NAME = "the server does not accept this name: choose a pathPattern with plain letters and digits"
_TOO_MANY = (
    "the parent directory has the maximum number of directories that its file system allows: spread volumes over more"
    " parents with the pathPattern, for example with ${.PVC.namespace}/"
)
_TOO_SMALL = "the server only accepts requests that are smaller than NFS needs: raise its limits"
_LOCAL = "the provisioner's pod ran out of memory or open files: raise the pod's limits"

_BY_CALL: Mapping[tuple[str, Call], Meaning] = {
    **dict.fromkeys([(key, "chown") for key in _NO_ACCESS_SET], Meaning(Cause.DENIED, _OWNER)),
    ("BADOWNER", "chown"): Meaning(Cause.DENIED, _NUMERIC_OWNER),
    # symlink(2): EPERM is a file system without symbolic links; missing permission is EACCES.
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
    "GRACE": Meaning(Cause.NOT_YET, "it is in its grace period after a restart: no action is needed"),
    "WRONGSEC": Meaning(Cause.KERBEROS),
    "MINOR_VERS_MISMATCH": Meaning(Cause.VERSION),
    **dict.fromkeys(("NOTSUPP", "ATTRNOTSUPP", "BADTYPE"), Meaning(Cause.UNSUPPORTED)),
    **dict.fromkeys(("BADCHAR", "BADNAME", "ILSEQ"), Meaning(Cause.OTHER, _NAME)),
    "BADOWNER": Meaning(Cause.DENIED, _NUMERIC_OWNER),
    "XDEV": Meaning(
        Cause.OTHER, "source and target are on different file systems of the server: use one export for both"
    ),
    "IO": Meaning(Cause.OTHER, "the server cannot read or write its disk: check its log"),
    **dict.fromkeys(("NXIO", "NODEV"), Meaning(Cause.OTHER, "the server lost its disk: check its log")),
    "SERVERFAULT": Meaning(Cause.OTHER, "the server failed internally: check its log"),
    "UCLEAN": Meaning(Cause.OTHER, "its file system is damaged: check the file system on the server"),
    "REMOTE": Meaning(
        Cause.OTHER, "the directory is on another server that this one mounts: name that server in the class"
    ),
    "MOVED": Meaning(Cause.OTHER, "the export has moved to another server: name that server in the class"),
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
    """Return the error for a call on `what` that failed with `name` for this user.

    `name` is the error's name in errno, NFS or MOUNT; an unknown name becomes Cause.OTHER.
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
    """The symlink that a rename relies on is missing or has another text."""
    hint = "nothing was changed: another provisioner has changed that record, and the provisioner tries again"
    return ExportError(Cause.RECORD, f"{'/'.join(proof.path)} has changed", hint=hint)


def inside(names: Sequence[str], error: ExportError) -> ExportError:
    """Return the refusal of an entry inside a directory that is being removed.

    `names` lead to the entry.

    A snapshot that the server shows there is read-only, but that does not make the export read-only.
    """
    if error.cause is Cause.READ_ONLY and any(is_servers(name) for name in names):
        return ExportError(Cause.DENIED, error.detail, hint=_SNAPSHOT, answer=error.answer)
    return error


def _key(name: str) -> str:
    """Strip the protocol's prefix from an error name."""
    key = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
    return _ALIASES.get(key, key)


def _subclass_of(key: str, call: Call, what: str) -> ExportError | None:
    """Return the refusals that callers catch by their type."""
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
    """Return the advice for missing permission: root has every permission unless the server squashes it."""
    if uid == 0:
        return _HELD if call in ("rename", "rmdir", "remove") else _SQUASHED
    return f"{{who}} need {'read and search' if call in _READS else 'write'} permission there"
