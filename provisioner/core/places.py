"""The locations that lead to the same export, and the exports whose servers fold names: found by opening them.

A server can have several names and addresses, and a directory can be exported under several paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import PathIndex


class Places:
    """The locations of each export.

    An unknown location stands for itself, and folds no names.
    """

    def __init__(self) -> None:
        self._groups: dict[Location, tuple[Location, ...]] = {}
        self._folding: set[Location] = set()

    def unite(self, one: Location, other: Location) -> None:
        """Note that two locations lead to one export."""
        group = tuple(dict.fromkeys([*self.same(one), *self.same(other)]))
        for each in group:
            self._groups[each] = group

    def part(self, location: Location) -> None:
        """Forget the export of a location."""
        for each in self.same(location):
            self._groups.pop(each, None)
            self._folding.discard(each)

    def note(self, location: Location, *, folds: bool) -> None:
        """Note whether the server of an export treats names as equal that differ in case or in Unicode normal form."""
        (self._folding.add if folds else self._folding.discard)(location)

    def folds(self, location: Location) -> bool:
        """Return True if names of an export must be folded before they are compared."""
        return any(each in self._folding for each in self.same(location))

    def relative(self, location: Location, server: str, path: str) -> RelPath | None:
        """Return the components of an absolute path below an export, by any of its locations, or None."""
        found = (each.relative(server, path) for each in self.same(location))
        return next((below for below in found if below is not None), None)

    def root_within(self, location: Location, path: RelPath, others: Iterable[Location]) -> Location | None:
        """Return the location of another export whose root overlaps with a path of this export, or None."""
        for other in others:
            for mine, theirs in product(self.same(location), self.same(other)):
                root = mine.relative(theirs.server, theirs.path)
                index = PathIndex(folds=self.folds(location))
                index.add(root or (), "")
                if root and index.touching(path) is not None:
                    return theirs
        return None

    def same(self, location: Location) -> tuple[Location, ...]:
        """Return all locations of the export of a location, including itself."""
        return self._groups.get(location, (location,))
