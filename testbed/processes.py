"""One server as a child process: started, ready, stopped, killed, paused, and started again with the same command."""

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
"""Below Linux's ephemeral range (32768 and up): no outgoing connection takes the port of a server that is down."""


class ServerFailed(Exception):
    """A server ended, or was not ready in time; the text names it and ends with the tail of its log."""


_BLOCK = 400
"""How many of them a process has to itself: more than it starts servers in the time that one of them is down."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that no other process gets from here while this one lives.

    So nobody takes it before its server has started, or while that is down. Raises OSError when there is none.
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
    """The ports of this process, round and round, so that one comes again as late as it can.

    A block is taken by a name in the kernel that ends with the process (unix(7), "abstract"), as nothing else does.
    Where there are no such names, or no block is left, it is any one.
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
    """The last lines of a log, or a note that there are none."""
    try:
        found = path.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        found = []
    return "\n".join(found) or f"(nothing in {path})"


class Server:
    """A command that runs until told otherwise.

    The child dies with the *thread* that started it, even by SIGKILL: a killed test run would otherwise leave servers
    behind for ever. So start servers from a thread that lives as long as they should. The kernel does this (prctl(2),
    PR_SET_PDEATHSIG), asked by `setpriv` of util-linux rather than by a preexec_fn, which is unsafe in a process with
    threads. Where there is no setpriv (macOS), only an orderly end takes the children along.
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
        """`ready` asks once whether the server answers, must return within seconds, and may not raise."""
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
        """The exit status of the last run, negative for a signal; None while it runs or before the first start."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the command unless it runs; its output is appended to the log. Does not wait for readiness."""
        if self.pid is not None:
            return
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal must reach us alone, or etcd would end before the API server.
            self._process = subprocess.Popen(
                [*prefix, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the server answers. Raises ServerFailed when it ended, or does not answer in time."""
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if self.returncode is not None:
                raise ServerFailed(f"{self.name} ended with status {self.returncode}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not ready after {timeout_s:.0f} s:\n{tail(self.log)}")
            time.sleep(0.05)

    def wait(self, timeout_s: float = 15.0) -> int:
        """Wait for the end and return the exit status. Raises ServerFailed when it still runs after that time."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise ServerFailed(f"{self.name} still runs after {timeout_s:.0f} s:\n{tail(self.log)}") from exc

    def stop(self, grace_s: float = 15.0) -> None:
        """End it as an operator would: SIGTERM, and SIGKILL after the grace. Does nothing when it does not run."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and return at once; a paused server is resumed, as it could not see the signal."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash or a lost machine would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its kernel goes on accepting connections and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def restart(self, timeout_s: float = 60.0) -> None:
        """Stop, start and wait until it is ready again."""
        self.stop()
        self.start()
        self.wait_ready(timeout_s)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
