"""What figures depend on: the machine, and the versions of the programs."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from testbed.binaries import kubernetes_version


def machine() -> dict[str, Any]:
    """Return what the figures of a run depend on."""
    temporary = Path(tempfile.gettempdir())
    return {
        "processors": os.cpu_count(),
        "processor": _after_colon(Path("/proc/cpuinfo"), "model name"),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kubernetes": kubernetes_version(),
        "exports": _file_system(temporary.resolve()),
        "commit": _commit(),
        "taken": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _after_colon(path: Path, name: str) -> str:
    values = (line.partition(":")[2].strip() for line in path.read_text().splitlines() if line.startswith(name))
    return next(values, "")


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path: that of its closest mount point (proc(5), mounts)."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    closest = max((mount for mount in mounts if path.is_relative_to(mount[0])), key=lambda mount: len(mount[0]))
    return closest[1]


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()
