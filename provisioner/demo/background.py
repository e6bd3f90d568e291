"""`--keep` and `--stop`: a demonstration that outlives its terminal, and the end of it.

Servers die with the process that started them. So with --keep the whole demonstration is a process of its own session
from the start; the one in the terminal waits until it has told its story. A locked file says that it is there.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from provisioner.demo.interrupts import Interrupts
from provisioner.demo.performance import perform
from testbed.binaries import cache

_END_S = 120.0


def start(interrupts: Interrupts, *, kubeconfig: str | None) -> int:
    """Run a demonstration that stays up; returns its exit status, or 0 as soon as its story is told and it stays."""
    held = _holder()
    if held is not None:
        print(
            f"a demonstration runs in the background already, process {held}; end it with: nfs-provisioner demo --stop"
        )
        return 1
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "provisioner", "demo", "--keep", f"--tell={writer}"]
    process = subprocess.Popen(  # noqa: S603  the command is our own
        command,
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | ({"DEMO_KUBECONFIG": kubeconfig} if kubeconfig else {}),
    )
    os.close(writer)
    with interrupts.calling(process.terminate), os.fdopen(reader, "rb") as told:
        return 0 if told.read() else process.wait()


def stay(interrupts: Interrupts, *, kubeconfig: str | None, tell: int) -> int:
    """The demonstration itself, in the background process; `tell` is the descriptor that says when it stays."""

    def kept() -> None:
        os.write(tell, b"it stays")
        os.close(tell)
        # The terminal, or the pipe that was read from, is not ours any more.
        with open(os.devnull, "wb") as nowhere:
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)

    _hold()
    return perform(kubeconfig, interrupts, kept=kept)


def stop() -> int:
    """End the demonstration that runs in the background, and return when nothing of it is left."""
    pid = _holder()
    if pid is None:
        print("no demonstration runs in the background")
        return 1
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _END_S
    while _holder() == pid:
        if time.monotonic() > deadline_s:
            print(f"process {pid} does not end; see what it does, or: kill -9 {pid}")
            return 1
        time.sleep(0.05)
    print("it has ended, and its files are gone")
    return 0


def _path() -> Path:
    directory = cache()
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "demo.pid"


def _hold() -> None:
    """Take the lock that says that we are there, with our process id in the file.

    Nobody closes it but the kernel: as long as it is held, there is something of this process.
    """
    descriptor = os.open(_path(), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid()}).encode())


def _holder() -> int | None:
    """The process that holds the lock, or None: a file left by one that was killed counts for nothing."""
    with _path().open("a+") as file:
        if _is_free(file):
            return None
        file.seek(0)
        pid: int = json.loads(file.read() or '{"pid": 0}')["pid"]
        return pid or None


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
