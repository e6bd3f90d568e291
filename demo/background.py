"""`--keep` and `--stop`: a demonstration that outlives its terminal.

A server dies with the process that started it. Therefore `--keep` runs the whole demonstration in a process with a
session of its own; the process in the terminal waits until the story is over. The background process holds a lock on
a file for as long as it lives.
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

from demo.interrupts import Interrupts
from demo.performance import perform, stop_command
from testbed.binaries import cache

_STOP_S = 120.0


def start(interrupts: Interrupts, *, kubeconfig: str | None) -> int:
    """Run a demonstration that stays up.

    Returns 0 as soon as its story is over and it stays, or its exit status if it ends.
    """
    holder = _holder()
    if holder is not None:
        print(f"a demonstration already runs in the background, process {holder}; stop it with: {stop_command()}")
        return 1
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--keep", f"--ready-fd={writer}"],
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | ({"DEMO_KUBECONFIG": kubeconfig} if kubeconfig else {}),
    )
    os.close(writer)
    with interrupts.calling(process.terminate), os.fdopen(reader, "rb") as ready:
        return 0 if ready.read() else process.wait()


def stay(interrupts: Interrupts, *, kubeconfig: str | None, ready_fd: int) -> int:
    """Run the demonstration in the background process.

    Write to `ready_fd` once the story is over and it stays.
    """

    def kept() -> None:
        os.write(ready_fd, b"ready")
        os.close(ready_fd)
        # The user has the terminal back, and a pipe's reader may be gone: print nothing from here on.
        with open(os.devnull, "wb") as nowhere:
            for descriptor in (1, 2):
                os.dup2(nowhere.fileno(), descriptor)

    _hold()
    return perform(kubeconfig, interrupts, kept=kept)


def stop() -> int:
    """Stop the demonstration in the background, and return once it has removed everything."""
    pid = _holder()
    if pid is None:
        print("no demonstration runs in the background")
        return 1
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _STOP_S
    while _holder() == pid:
        if time.monotonic() > deadline_s:
            print(f"process {pid} does not stop: look at what it does, or run: kill -9 {pid}")
            return 1
        time.sleep(0.05)
    print("the demonstration has stopped, and its files are removed")
    return 0


def _path() -> Path:
    directory = cache()
    directory.mkdir(parents=True, exist_ok=True)
    return directory / "demo.pid"


def _hold() -> None:
    """Lock the file and write this process's id into it.

    The descriptor is never closed: the kernel releases the lock when the last descriptor of this process is gone.
    """
    descriptor = os.open(_path(), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid()}).encode())


def _holder() -> int | None:
    """Return the process that holds the lock, or None.

    The file of a killed process is not locked.
    """
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
