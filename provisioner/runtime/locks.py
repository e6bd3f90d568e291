"""Locks per volume.

A claim and its volume are two queue keys, but share one record and one directory, so only one may be worked on at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class VolumeLocks:
    """Try-locks by volume name.

    A worker that does not get a lock requeues its key instead of waiting.
    """

    def __init__(self) -> None:
        self._locked: set[str] = set()

    @contextmanager
    def try_acquire(self, volume_name: str) -> Iterator[bool]:
        """Lock a volume while the context is open.

        Yields False if it is locked already: leave it alone then.
        """
        if volume_name in self._locked:
            yield False
            return
        self._locked.add(volume_name)
        try:
            yield True
        finally:
            self._locked.discard(volume_name)
