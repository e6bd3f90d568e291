"""A wall clock that is wrong for one process, and can be set while that runs, by Debian's libfaketime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from testbed import packages
from testbed.binaries import Progress, silent

PACKAGES = ("libfaketime",)


def _library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def missing() -> str:
    """Why no clock can be wrong here, or "" when one can."""
    return "" if _library() else "libfaketime is not installed: apt-get install " + " ".join(PACKAGES)


def install_libfaketime(progress: Progress = silent) -> None:
    """Install libfaketime unless it is there. Raises packages.NotInstalled."""
    if missing():
        packages.install(PACKAGES, progress)


class WrongClock:
    """How far a clock is off, in seconds, in a file that a process started with `environment` asks each time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Have the clock be ahead by so many seconds from now on, or behind. Monotonic time goes on as it does."""
        self._file.write_text(f"{ahead_s:+d}\n")

    @property
    def environment(self) -> Mapping[str, str]:
        """For the process whose clock it is to be."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
