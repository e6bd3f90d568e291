"""Position of a reader in a directory, from page to page, with a guard against endless directories.

A server that repeats positions would keep a reader busy forever; some servers have had this bug. The loop can be long,
and remembering all positions would take too much memory. So the guard uses Brent's algorithm for cycle detection
(R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980):

1. Remember one position, and compare each new position with it.
2. Replace the remembered position after 1, 2, 4, 8 … steps.

Once the position lies inside the loop and the stride is at least as long as the loop, the remembered position comes
back. Every loop is found, and the guard holds only one number.
"""

from __future__ import annotations

from collections.abc import Callable

from provisioner.nfs.protocol.values import DirectoryPage, Position
from provisioner.ports import endless

START = Position()


class Reading:
    """One pass over a directory from its beginning."""

    __slots__ = ("_entries", "_limit", "_remembered", "_steps_left", "_stride", "position")

    def __init__(self, limit: int) -> None:
        self.position = START
        """Position of the next page."""
        self._limit = limit
        self._entries = 0
        self._remembered = START.cookie
        self._stride = self._steps_left = 1

    def advance(self, page: DirectoryPage, named: Callable[[], str]) -> bool:
        """Move behind a page; return True if there are more pages.

        Raises Endless for a repeated position, and for more entries than the limit. A page without entries counts as
        one entry. `named` returns the directory's name for the message.
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
