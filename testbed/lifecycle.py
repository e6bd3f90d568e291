"""What the servers of the testbed have in common: start, stop, kill, pause and resume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from testbed.processes import Server, ServerFailed, free_port


class Startable(ABC):
    """Servers that a context starts on entry and stops on exit; or call `start` and `stop`."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self) -> None:
        """Start the servers that do not run, and return when they are ready. Raises ServerFailed."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the servers, and delete their temporary files."""


class NfsServer(Startable):
    """An NFS server in one process.

    `port` (NFS) and `mount_port` (MOUNT of NFSv3) never change.
    """

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self.mount_port = free_port()
        self._name = name
        self._server: Server | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while the server does not run."""
        return None if self._server is None else self._server.pid

    def kill(self) -> None:
        """End it like a crash or a power failure; `start` restarts it on the same ports."""
        self._running().kill()

    def pause(self) -> None:
        """Freeze it: it accepts connections, but answers no call until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """Resume it.

        It carries out the calls that arrived while it was paused, like a slow server.
        """
        self._running().resume()

    def _running(self) -> Server:
        if self._server is None:
            raise ServerFailed(f"{self._name} was never started")
        return self._server
