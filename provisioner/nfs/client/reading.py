"""Where the reading of a directory goes on from page to page, and that it comes to an end.

A server that repeats positions keeps a reader busy without end; some have done so by mistake. Their period may be long,
so that positions are compared with one that is remembered ever longer (R. P. Brent, "An improved Monte Carlo
factorization algorithm", 1980): every loop is found, and one number is held.
"""

from __future__ import annotations

from collections.abc import Callable

from provisioner.nfs.protocol.values import DirectoryPage, Position
from provisioner.ports import endless

START = Position()


class Reading:
    """One reading of a directory, from its beginning."""

    __slots__ = ("_entries", "_limit", "_remembered", "_steps_left", "_stride", "position")

    def __init__(self, limit: int) -> None:
        self.position = START
        """Where the next page begins."""
        self._limit = limit
        self._entries = 0
        self._remembered = START.cookie
        self._stride = self._steps_left = 1

    def advance(self, page: DirectoryPage, named: Callable[[], str]) -> bool:
        """Go on behind a page; whether there is more.

        Raises Cause.OTHER for a position that was there before, and for more entries than the limit. A page without
        any counts as one. `named` gives the directory's name for the message.
        """
        self._entries += len(page.entries) or 1
        if self._entries > self._limit:
            raise endless.too_many(named(), self._limit)
        if page.next is None:
            return False
        if page.next.cookie in (self.position.cookie, self._remembered):
            raise endless.repeats(named())
        self.position = page.next
        self._steps_left -= 1
        if not self._steps_left:
            self._stride *= 2
            self._remembered, self._steps_left = page.next.cookie, self._stride
        return True
