"""What opening the exports has found out of their locations: which lead to one export, and which fold names.

A server has several names and addresses, and a directory may be shared under several paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import PathIndex


class Places:
    """The locations of each export. A location of which nothing is known stands for itself, and folds no names."""

    def __init__(self) -> None:
        self._groups: dict[Location, tuple[Location, ...]] = {}
        self._folding: set[Location] = set()

    def unite(self, one: Location, other: Location) -> None:
        """Two locations lead to one export."""
        group = tuple(dict.fromkeys([*self.same(one), *self.same(other)]))
        for each in group:
            self._groups[each] = group

    def part(self, location: Location) -> None:
        """Nothing is known any more of an export that has this location."""
        for each in self.same(location):
            self._groups.pop(each, None)
            self._folding.discard(each)

    def note(self, location: Location, *, folds: bool) -> None:
        """Whether the server of an export takes names for one that differ in case, or in their normal form."""
        (self._folding.add if folds else self._folding.discard)(location)

    def folds(self, location: Location) -> bool:
        """Whether names are to be folded before they are compared."""
        return any(each in self._folding for each in self.same(location))

    def relative(self, location: Location, server: str, path: str) -> RelPath | None:
        """The components of an absolute path on a server below an export, by any of its locations."""
        found = (each.relative(server, path) for each in self.same(location))
        return next((below for below in found if below is not None), None)

    def root_within(self, location: Location, path: RelPath, others: Iterable[Location]) -> Location | None:
        """One of the other exports' locations that is a directory of this export, or one above or below it."""
        for other in others:
            for mine, theirs in product(self.same(location), self.same(other)):
                root = mine.relative(theirs.server, theirs.path)
                index = PathIndex(folds=self.folds(location))
                index.add(root or (), "")
                if root and index.touching(path) is not None:
                    return theirs
        return None

    def same(self, location: Location) -> tuple[Location, ...]:
        """All locations of the export that has this one, itself included."""
        return self._groups.get(location, (location,))
