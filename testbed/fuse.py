"""Mounts that hang or refuse calls, like those of odd NFS servers, with bindfs (FUSE)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from testbed import packages
from testbed.binaries import Progress, silent

PACKAGES = ("bindfs", "fuse3")
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def missing() -> str:
    """Return why such mounts cannot work here, or ""."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid() != 0 and not _CONNECTIONS.is_mount():
        return "the state of FUSE mounts is not visible: run mount -t fusectl fusectl " + str(_CONNECTIONS)
    return "" if shutil.which("bindfs") else "bindfs is not installed: run apt-get install " + " ".join(PACKAGES)


def install_bindfs(progress: Progress = silent) -> None:
    """Install bindfs if it is missing and can work here. Raises packages.NotInstalled."""
    if os.path.exists("/dev/fuse") and missing():
        packages.install(PACKAGES, progress)


@contextmanager
def without_chmod(directory: Path) -> Iterator[Path]:
    """Mount a file system that refuses chmod and chown, as one with NFSv4 ACLs can."""
    place, behind = directory / "no-chmod", directory / "behind"
    place.mkdir()
    behind.mkdir()
    subprocess.run(["bindfs", "--chmod-deny", "--chown-deny", str(behind), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(place)], check=True)


def _requests(device: int) -> int:
    """Return how many requests the FUSE mount with this minor device number has not answered."""
    if not _CONNECTIONS.is_mount():
        subprocess.run(["mount", "-t", "fusectl", "fusectl", str(_CONNECTIONS)], check=True)
    return int((_CONNECTIONS / str(device) / "waiting").read_text())


class HangingMount:
    """A mount of `source` at `place` that can hang; the context unmounts it, hanging or not."""

    def __init__(self, source: Path, place: Path) -> None:
        """Mount, and return when `place` is a mount point."""
        self.source = source
        self.place = place
        # No caching, so that every system call reaches the process.
        options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
        self._process = subprocess.Popen(["bindfs", "-f", "-o", options, str(source), str(place)])
        self._mounted = True
        while not place.is_mount():
            if self._process.poll() is not None:
                raise RuntimeError(f"bindfs failed with status {self._process.returncode}")
            time.sleep(0.01)
        self._device = os.minor(place.stat().st_dev)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.unmount()
        # A process in another mount namespace can still have a copy of the mount, and then bindfs would not end.
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Let every call on the mount hang from now on.

        The process stops between two requests. Linux can end a process whose request still waits, as on an NFS mount,
        but not one whose request FUSE is already serving.
        """
        while True:
            self._process.send_signal(signal.SIGSTOP)
            os.waitpid(self._process.pid, os.WUNTRACED)  # returns once the process has stopped
            if not _requests(self._device):
                return
            self.go_on()
            time.sleep(0.01)

    def go_on(self) -> None:
        """Answer calls again, including those that hang."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and leave the mount in place."""
        self._process.kill()
        self._process.wait()

    def unmount(self) -> None:
        """Unmount, if it is still mounted."""
        if self._mounted:
            subprocess.run(["fusermount3", "-u", "-z", str(self.place)], check=True)
            self._mounted = False
