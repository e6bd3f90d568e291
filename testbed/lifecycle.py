"""What the servers of the testbed have in common: ready on entry and ended on exit, killed, frozen, thawed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from testbed.processes import Server, ServerFailed, free_port


class Startable(ABC):
    """Ready on entry of the context and ended on exit, or by `start` and `stop`."""

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
        """Start what does not run, and return when it is ready. Raises ServerFailed."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and wipe what was made for it."""


class NfsServer(Startable):
    """An NFS server that is one process. `port` (NFS) and `mount_port` (MOUNT, of v3) stay the same for life."""

    def __init__(self, name: str) -> None:
        self.port = free_port()
        self.mount_port = free_port()
        self._name = name
        self._server: Server | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return None if self._server is None else self._server.pid

    def kill(self) -> None:
        """End it as a crash, or a power cut, would; `start` brings it back on the same ports."""
        self._running().kill()

    def pause(self) -> None:
        """Freeze it: connections are accepted, and nothing is answered until `resume`."""
        self._running().pause()

    def resume(self) -> None:
        """Let it go on; it carries out what it was asked while paused, as a slow server would."""
        self._running().resume()

    def _running(self) -> Server:
        if self._server is None:
            raise ServerFailed(f"{self._name} was never started")
        return self._server
