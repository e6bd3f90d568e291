"""SIGINT, SIGTERM and SIGHUP: the first signal stops the work, at places that allow it.

Later ones are ignored.

Nothing interrupts the cleanup: it is short and bounded, and a second Ctrl-C would leave servers behind.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Catches the signals of this process from its creation on.

    A signal outside `raising` and `calling` waits for the next of them.
    """

    def __init__(self) -> None:
        self.received = False
        self._act: Callable[[], object] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise KeyboardInterrupt for the first signal, during the context or before it."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        with self.calling(interrupt):
            yield

    @contextmanager
    def calling(self, act: Callable[[], object]) -> Iterator[None]:
        """Call `act` for the first signal, during the context or before it."""
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
