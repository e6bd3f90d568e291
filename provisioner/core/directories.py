"""The directories of volumes on all servers: which owner has a directory, or one above or below it.

A directory is known by its server and its absolute path. An export has several such paths if several locations lead to
it, so a look-up takes all of its locations. Names are compared as written, or folded if the export's server treats
different spellings as one name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from provisioner.core.locations import Location, RelPath, normal_server, split_path
from provisioner.core.paths import PathIndex


class DirectoryIndex:
    """Directories by server, with their owners.

    A look-up takes time that does not grow with their number.
    """

    def __init__(self) -> None:
        self._written: dict[str, PathIndex] = {}
        self._folded: dict[str, PathIndex] = {}
        """The same directories with their names folded: built for a server when a look-up first needs it."""

    def add(self, server: str, path: str, owner: str) -> None:
        """Add a directory of an owner; adding it twice is the same as once."""
        server = normal_server(server)
        self._written.setdefault(server, PathIndex()).add(split_path(path), owner)
        if server in self._folded:
            self._folded[server].add(split_path(path), owner)

    def remove(self, server: str, path: str, owner: str) -> None:
        """Remove a directory of an owner; a no-op if it is not there."""
        server = normal_server(server)
        written = self._written.get(server)
        if written is None:
            return
        written.remove(split_path(path), owner)
        if server in self._folded:
            self._folded[server].remove(split_path(path), owner)
        if not written:
            del self._written[server]
            self._folded.pop(server, None)

    def holder(
        self, locations: Iterable[Location], path: RelPath, *, folds: bool, other_than: Collection[str] = ()
    ) -> str | None:
        """Return an owner of a directory of an export, or of one above or below it; None if it is free.

        `locations` are all that lead to the export; owners in `other_than` do not count. Nor do owners of the whole
        export or of a directory above it: admins create such volumes to look around in it.
        """
        for each in locations:
            index = self._index(each.server, folds=folds)
            root = each.components
            found = index.touching((*root, *path), other_than=other_than, below=len(root))
            if found is not None:
                return found
        return None

    def anywhere(self, locations: Iterable[Location], path: RelPath, *, folds: bool) -> Iterator[str]:
        """Return the owners of the same absolute path on any server, or of one above or below it."""
        for each in locations:
            for server in list(self._written):
                yield from self._index(server, folds=folds).all_touching((*each.components, *path))

    def has_below(self, locations: Iterable[Location]) -> bool:
        """Return True if any directory lies below the export's root."""
        places = [(self._written.get(each.server), each.components) for each in locations]
        return any(index is not None and index.leads_on(root) for index, root in places)

    def _index(self, server: str, *, folds: bool) -> PathIndex:
        written = self._written.get(server)
        if written is None:
            return PathIndex()
        if not folds:
            return written
        if server not in self._folded:
            self._folded[server] = written.folded()
        return self._folded[server]
