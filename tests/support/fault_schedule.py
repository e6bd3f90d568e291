"""Faults on a schedule: kills, pauses, restarts and full disks at moments that a seed decides."""

from __future__ import annotations

import contextlib
import functools
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from testbed.ganesha import Ganesha

Fault = Callable[[], AbstractContextManager[None]]
"""A fault that lasts while the context is open."""
MEGABYTE = 1 << 20


class FaultSchedule:
    """Runs faults at their times, in the thread that calls `run`: servers die with the thread that started them."""

    def __init__(self, chance: random.Random, duration_s: float) -> None:
        self._chance = chance
        self._duration_s = duration_s
        self._plan: list[tuple[float, str, Callable[[], object]]] = []

    def at(self, at_s: float, what: str, act: Callable[[], object]) -> None:
        """Schedule one action."""
        self._plan.append((at_s, what, act))

    def spread(self, times: int, what: str, act: Callable[[], object]) -> list[float]:
        """Schedule an action several times, each at a random moment of its share of the duration; return the times."""
        share_s = self._duration_s / times
        moments = [(number + self._chance.uniform(0.1, 0.9)) * share_s for number in range(times)]
        for at_s in moments:
            self.at(at_s, what, act)
        return moments

    def in_turn(self, faults: dict[str, Fault], *, lasting_s: float) -> None:
        """Schedule each fault once, in random order, each over before the next begins."""
        names = list(faults)
        self._chance.shuffle(names)
        share_s = self._duration_s / len(names)
        for number, name in enumerate(names):
            stack = ExitStack()
            begin_s = number * share_s + self._chance.uniform(0.0, max(share_s - lasting_s - 1.0, 0.0))
            self.at(begin_s, name, functools.partial(_begin, stack, faults[name]))
            self.at(min(begin_s + lasting_s, (number + 1) * share_s), f"{name}: over", stack.close)

    def run(self, check: Callable[[], None]) -> None:
        """Run the schedule and call `check` throughout, which can raise."""
        began_s = time.monotonic()
        for at_s, what, act in sorted(self._plan, key=lambda item: item[0]):
            self._wait(began_s + at_s, check)
            print(f"{time.monotonic() - began_s:6.1f} s: {what}")
            act()
        self._wait(began_s + self._duration_s, check)

    def _wait(self, until_s: float, check: Callable[[], None]) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.5))
            check()


def _begin(stack: ExitStack, fault: Fault) -> None:
    stack.enter_context(fault())


class SmallDisk:
    """A separate small file system with a directory that a server exports."""

    def __init__(self, place: Path, *, size_mb: int, inodes: int) -> None:
        self.place = place
        self.exported = place / "export"
        place.mkdir()
        options = f"size={size_mb}m,nr_inodes={inodes}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        self.exported.mkdir()
        self.exported.chmod(0o777)

    def close(self) -> None:
        """Unmount it, even while it is in use."""
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    @contextmanager
    def without_space(self) -> Iterator[None]:
        """ENOSPC: fill every byte."""
        filler = self.place / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (MEGABYTE, 4096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        yield
        filler.unlink()

    @contextmanager
    def without_inodes(self) -> Iterator[None]:
        """ENOSPC with space left: use every inode."""
        fillers: list[Path] = []
        with contextlib.suppress(OSError):
            while True:
                filler = self.place / f"filler-{len(fillers)}"
                filler.touch()
                fillers.append(filler)
        yield
        for filler in fillers:
            filler.unlink()

    @contextmanager
    def read_only(self, server: Ganesha) -> Iterator[None]:
        """EROFS, as after a disk error; the server is killed first, because one that writes keeps the disk writable."""
        server.kill()
        subprocess.run(["mount", "-o", "remount,ro", str(self.place)], check=True)
        server.start()
        yield
        subprocess.run(["mount", "-o", "remount,rw", str(self.place)], check=True)

    @contextmanager
    def denied(self) -> Iterator[None]:
        """EACCES: no client can write at the export's root. The server must squash root."""
        self.exported.chmod(0o555)
        yield
        self.exported.chmod(0o777)

    @contextmanager
    def stale(self, server: Ganesha) -> Iterator[None]:
        """ESTALE: the server sees another, read-only file system, and every handle belongs to the old one."""
        place = str(self.place)
        script = 'mount -t tmpfs tmpfs "$0" && mkdir "$0/export" && mount -o remount,ro "$0"'
        _in_its_mounts(server, "sh", "-c", script, place)
        server.kill()
        server.start()
        yield
        _in_its_mounts(server, "umount", "-l", place)
        server.kill()
        server.start()


def _in_its_mounts(server: Ganesha, *command: str) -> None:
    """Run a command in a server's mount namespace; a server with NFSv3 has its own (testbed.ganesha)."""
    subprocess.run(["nsenter", f"--mount=/proc/{server.pid}/ns/mnt", "--", *command], check=True)
