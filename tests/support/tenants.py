"""What a tenant does on a node: mounts a volume, and writes as a user. It needs nothing but Python."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errors of a write beyond a quota."""


@contextmanager
def mounted(path: str, options: str, at: str = "/mnt") -> Iterator[Path]:
    """Mount a path of the host over NFS while the context is open."""
    Path(at).mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "nfs", "-o", options, f"{os.environ['HOST']}:{path}", at], check=True)
    try:
        yield Path(at)
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def as_user(uid: int, work: Callable[[], int]) -> int:
    """Run something in a child process as a user; return its pid. The exit status is the result."""
    if not (child := os.fork()):
        status = 255
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            status = work()
        finally:
            os._exit(status)
    return child
