"""SIGINT, SIGTERM and SIGHUP: the first one ends what is under way, at places that allow it; later ones are not heeded.

Cleaning up is never interrupted: it is short, bounded, and a second Ctrl-C would leave behind what it was about to end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """The signals of one process, caught from the moment this is made. Outside `raising` and `calling` they wait."""

    def __init__(self) -> None:
        self.received = False
        self._act: Callable[[], object] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While it is open, the first signal is a KeyboardInterrupt; so is one that came before."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        with self.calling(interrupt):
            yield

    @contextmanager
    def calling(self, act: Callable[[], object]) -> Iterator[None]:
        """While it is open, the first signal calls `act`; so does one that came before."""
        self._act = act
        try:
            if self.received:
                act()
            yield
        finally:
            self._act = None

    def _handle(self, _: int, __: FrameType | None) -> None:
        first, self.received = not self.received, True
        if first and self._act is not None:
            self._act()
