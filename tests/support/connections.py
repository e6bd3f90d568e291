"""TCP connections of a process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def connections_to(port: int, *, pid: int | None = None) -> int:
    """Return the number of a process's established TCP connections to a port of 127.0.0.1 (proc(5)).

    The process is this one unless `pid` names another. Other processes of the machine can connect to the port too.
    """
    own = set()
    process = Path("/proc") / ("self" if pid is None else str(pid))
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            own.add(os.readlink(descriptor))
    rows = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    ours = {row[9] for row in rows if row[2] == f"0100007F:{port:04X}" and row[3] == "01"}
    return sum(f"socket:[{inode}]" in own for inode in ours)
