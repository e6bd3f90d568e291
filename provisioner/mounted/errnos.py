"""What the kernel's errno means for an export: ports.refusals has the table, and this what a system call adds to it."""

from __future__ import annotations

import errno
import os

from provisioner.ports.refusals import Call, refusal
from provisioner.ports.tree import Cause, ExportError

# EIO and ETIMEDOUT are what a soft NFS mount gives when the server does not answer (nfs(5), soft and softerr); ENOTCONN
# is a FUSE file system whose process is gone. In all of them the outcome of the call is unknown.
UNREACHABLE = (
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


def translated(exc: OSError, path: str, directory: str, call: Call = "call") -> ExportError:
    """The port's error for a refusal of the kernel; `directory` is the export's own."""
    if exc.errno in UNREACHABLE:
        return ExportError(Cause.UNREACHABLE, f"{path}: {exc.strerror}")
    found = refused(exc, path, call)
    if found.cause is Cause.NO_SPACE and _has_no_inodes(directory):
        return ExportError(Cause.NO_INODES, found.detail)
    return found


def refused(exc: OSError, path: str, call: Call) -> ExportError:
    """The port's error for what the kernel refused, other than silence of the server."""
    name = errno.errorcode.get(exc.errno or 0, f"errno {exc.errno}: {exc.strerror}")
    return refusal(name, call, path, uid=os.geteuid(), gid=os.getegid())


def _has_no_inodes(directory: str) -> bool:
    """Whether inodes are what ENOSPC stands for: it does for blocks and for inodes alike, and statfs tells which."""
    try:
        seen = os.statvfs(directory)
    except OSError:
        return False
    return seen.f_files > 0 and seen.f_favail == 0
