"""What the kernel's errno means for an export: the one table."""

from __future__ import annotations

import errno
import os

from provisioner.ports import Cause, ExportError, NotEmpty, PathExists, PathMissing

# EIO and ETIMEDOUT are what a soft NFS mount gives when the server does not answer (nfs(5), soft and softerr); ENOTCONN
# is a FUSE file system whose process is gone. In all of them the outcome of the call is unknown.
_UNREACHABLE = (
    errno.EIO,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
)
_CAUSES = {
    **dict.fromkeys(_UNREACHABLE, Cause.UNREACHABLE),
    errno.EROFS: Cause.READ_ONLY,
    errno.EDQUOT: Cause.QUOTA,
    errno.EACCES: Cause.DENIED,
    errno.EPERM: Cause.DENIED,
    errno.ESTALE: Cause.STALE,
    errno.ELOOP: Cause.SYMLINK,
    errno.ENOTDIR: Cause.SYMLINK,
    errno.EISDIR: Cause.SYMLINK,
    errno.ENAMETOOLONG: Cause.NAME_TOO_LONG,
}


def translated(exc: OSError, path: str, directory: str) -> ExportError:
    """The port's error for a refusal of the kernel; `directory` is the export's own."""
    if exc.errno == errno.ENOENT:
        return PathMissing(path)
    if exc.errno == errno.EEXIST:
        return PathExists(path)
    # EBUSY is a file that somebody holds open: an NFS client keeps it as `.nfs…` until it is closed.
    if exc.errno in (errno.ENOTEMPTY, errno.EBUSY):
        return NotEmpty(path)
    cause = _out_of_what(directory) if exc.errno == errno.ENOSPC else _CAUSES.get(exc.errno or 0, Cause.OTHER)
    return ExportError(cause, f"{path}: {exc.strerror}", hint=_hint() if cause is Cause.DENIED else "")


def _out_of_what(directory: str) -> Cause:
    """ENOSPC stands for blocks and for inodes alike; statfs tells which."""
    try:
        seen = os.statvfs(directory)
    except OSError:
        return Cause.NO_SPACE
    return Cause.NO_INODES if seen.f_files > 0 and seen.f_favail == 0 else Cause.NO_SPACE


def _hint() -> str:
    return f"uid {os.geteuid()} and gid {os.getegid()} need write permission there; root has none under root_squash"
