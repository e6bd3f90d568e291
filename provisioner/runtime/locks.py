"""Turns: a claim and its volume are two keys, and what is done for either is done to one record and one directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.core.backoff import Backoff

LATER = Backoff(first_s=0.1, limit_s=2.0)
"""For a key whose volume somebody else is at."""


class VolumeLocks:
    """Which volumes somebody is at."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    @contextmanager
    def try_acquire(self, volume: str) -> Iterator[bool]:
        """Whether the volume is ours for as long as the context is open; else it must be left alone."""
        if volume in self._taken:
            yield False
            return
        self._taken.add(volume)
        try:
            yield True
        finally:
            self._taken.discard(volume)
