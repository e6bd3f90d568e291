"""A server as a child process: start, wait until ready, stop, kill, pause and restart it."""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

TESTBED_PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral range (32768 and up): no outgoing connection can take the port of a stopped server."""


class ServerFailed(Exception):
    """A server failed, or was not ready in time.

    The text names it and ends with the tail of its log.
    """


_BLOCK = 400
"""Ports per process: more than the servers that it starts while one of its servers is down."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1.

    This function gives it to no other process while this one lives. Thus no other server takes the port before its
    server starts, or while its server is down. Raises OSError if there is none.
    """
    ports = _own_ports()
    for port in itertools.islice(ports, _BLOCK):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port on 127.0.0.1 among {_BLOCK}")


@functools.cache
def _own_ports() -> Iterator[int]:
    """Return the ports of this process in a cycle.

    A cycle reuses each port as late as possible.
    A process reserves a block of ports by binding an abstract Unix socket (unix(7)), which the kernel releases when the
    process ends. Where abstract sockets are missing, or all blocks are taken, the process shares some block.
    """
    blocks = [TESTBED_PORTS[first : first + _BLOCK] for first in range(0, len(TESTBED_PORTS), _BLOCK)]
    random.shuffle(blocks)
    for block in blocks:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0testbed ports from {block[0]}")
        except OSError:
            name.close()
            continue
        name.detach()  # open until the process ends
        return itertools.cycle(block)
    return itertools.cycle(blocks[0])


def tail(path: Path, *, lines: int = 20) -> str:
    """Return the last lines of a log, or a note that it is empty."""
    try:
        found = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        found = []
    return "\n".join(found) or f"({path} is empty)"


class Server:
    """A command that runs until it is stopped.

    The kernel kills the child when the *thread* that started it ends, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG):
    a killed test run would otherwise leave its servers running. Therefore start a server from a thread that lives as
    long as the server. `setpriv` of util-linux sets this, because a preexec_fn is unsafe in a process with threads.
    Without setpriv (macOS) the children end only with an orderly stop.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`ready` checks once whether the server answers.

        It must return within seconds and must not raise.
        """
        self.name = name
        self.log = log
        self._command = [os.fspath(word) for word in command]
        self._ready = ready
        self._environment = dict(os.environ) | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process id, or None while the server does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def returncode(self) -> int | None:
        """The exit status of the last run, negative for a signal.

        None while it runs or before the first start.
        """
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the command unless it runs, and append its output to the log.

        Does not wait until it is ready.
        """
        if self.pid is not None:
            return
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self.log.open("ab") as log:
            # A session of its own: otherwise Ctrl-C in a terminal would end etcd before the API server.
            self._process = subprocess.Popen(
                [*prefix, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the server answers.

        Raises ServerFailed if it ends, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if self.returncode is not None:
                raise ServerFailed(f"{self.name} failed with status {self.returncode}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready after {timeout_s:.0f} s:\n{tail(self.log)}")
            time.sleep(0.05)

    def wait(self, timeout_s: float = 15.0) -> int:
        """Wait for the end and return the exit status.

        Raises ServerFailed if it still runs after `timeout_s`.
        """
        if self._process is None:
            raise ServerFailed(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise ServerFailed(f"{self.name} still runs after {timeout_s:.0f} s:\n{tail(self.log)}") from exc

    def stop(self, grace_s: float = 15.0) -> None:
        """Send SIGTERM, and SIGKILL after the grace period.

        Does nothing if the server does not run.
        """
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and return immediately.

        Resume a paused server, which cannot handle the signal.
        """
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it like a crash or a lost machine."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): the kernel still accepts connections, but no call is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused server."""
        self._signal(signal.SIGCONT)

    def restart(self, timeout_s: float = 60.0) -> None:
        """Stop, start and wait until it is ready again."""
        self.stop()
        self.start()
        self.wait_ready(timeout_s)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
