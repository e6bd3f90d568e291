"""Translation of errno into errors of the port.

`ports.refusals` has the table that all drivers share.
"""

from __future__ import annotations

import errno
import os

from provisioner.ports.refusals import Call, refusal
from provisioner.ports.tree import Cause, ExportError

# A soft NFS mount returns EIO or ETIMEDOUT if the server is not responding (nfs(5), soft and softerr). ENOTCONN comes
# from a FUSE file system whose process has ended. In all of these cases the outcome of the call is unknown.
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
    """Return the port's error for an OSError at `path`; `directory` is the root of the export."""
    if exc.errno in UNREACHABLE:
        return ExportError(Cause.UNREACHABLE, f"{path}: {exc.strerror}")
    found = refused(exc, path, call)
    if found.cause is Cause.NO_SPACE and _has_no_inodes(directory):
        return ExportError(Cause.NO_INODES, found.detail)
    return found


def refused(exc: OSError, path: str, call: Call) -> ExportError:
    """Return the port's error for an OSError that is not about an unreachable server."""
    name = errno.errorcode.get(exc.errno or 0, f"errno {exc.errno}: {exc.strerror}")
    return refusal(name, call, path, uid=os.geteuid(), gid=os.getegid())


def _has_no_inodes(directory: str) -> bool:
    """Return True if ENOSPC is about inodes: the kernel reports the same error for blocks and inodes."""
    try:
        seen = os.statvfs(directory)
    except OSError:
        return False
    return seen.f_files > 0 and seen.f_favail == 0
