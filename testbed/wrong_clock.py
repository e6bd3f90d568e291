"""A wrong, adjustable wall clock for one process, with Debian's libfaketime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from testbed import packages
from testbed.binaries import Progress, silent

PACKAGES = ("libfaketime",)


def _library() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def missing() -> str:
    """Return why this cannot work here, or ""."""
    return "" if _library() else "libfaketime is not installed: run apt-get install " + " ".join(PACKAGES)


def install_libfaketime(progress: Progress = silent) -> None:
    """Install libfaketime if it is missing. Raises packages.NotInstalled."""
    if missing():
        packages.install(PACKAGES, progress)


class WrongClock:
    """The offset of a clock, in a file that a process with `environment` reads at each call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Put the clock ahead by `ahead_s` seconds, or behind if negative.

        Monotonic time does not change.
        """
        self._file.write_text(f"{ahead_s:+d}\n")

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables for the process that gets this clock."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
