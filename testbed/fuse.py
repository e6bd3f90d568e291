"""Mounts that hang or refuse calls, as those of odd NFS servers do: a directory shown elsewhere by bindfs (FUSE)."""

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
    """Why nothing can be mounted so here, or "" when it can."""
    if not os.path.exists("/dev/fuse"):
        return "it has no /dev/fuse"
    if os.geteuid() != 0 and not _CONNECTIONS.is_mount():
        return "it does not show how many requests a FUSE mount serves: mount -t fusectl fusectl " + str(_CONNECTIONS)
    return "" if shutil.which("bindfs") else "bindfs is not installed: apt-get install " + " ".join(PACKAGES)


def install_bindfs(progress: Progress = silent) -> None:
    """Install bindfs unless it is there or would be of no use. Raises packages.NotInstalled."""
    if os.path.exists("/dev/fuse") and missing():
        packages.install(PACKAGES, progress)


@contextmanager
def without_chmod(directory: Path) -> Iterator[Path]:
    """A file system below a directory that refuses chmod and chown, as one with NFSv4 ACLs may."""
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
    """`source` shown at `place`; as a context it unmounts at the end, hung or not."""

    def __init__(self, source: Path, place: Path) -> None:
        """Mount; returns when the place is a mount point."""
        self.source = source
        self.place = place
        # Nothing is cached, so that every system call asks the process.
        options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
        self._process = subprocess.Popen(["bindfs", "-f", "-o", options, str(source), str(place)])
        self._mounted = True
        while not place.is_mount():
            if self._process.poll() is not None:
                raise RuntimeError(f"bindfs has ended with status {self._process.returncode}")
            time.sleep(0.01)
        self._device = os.minor(place.stat().st_dev)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.unmount()
        self._process.wait()

    def hang(self) -> None:
        """From now on every call on the mount hangs.

        The process stops between two requests. Linux lets a killed process go whose request waits, as an NFS mount
        does, but not one whose request FUSE is already serving.
        """
        while True:
            self._process.send_signal(signal.SIGSTOP)
            os.waitpid(self._process.pid, os.WUNTRACED)  # the kernel says that it has stopped
            if not _requests(self._device):
                return
            self.go_on()
            time.sleep(0.01)

    def go_on(self) -> None:
        """Answer again, to the calls that hang as well."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process and leave the mount behind."""
        self._process.kill()
        self._process.wait()

    def unmount(self) -> None:
        """Take the mount away, if it is there."""
        if self._mounted:
            subprocess.run(["fusermount3", "-u", "-z", str(self.place)], check=True)
            self._mounted = False
