"""Path rules: which directories may be handed out, and which of them touch one another.

Each rule answers a loss that a peer had: traversal with `..`, empty pieces that resolve to the directory of a namespace
or to the export's root, two volumes in one directory, one volume inside another (peers, harms 1 to 3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set

from provisioner.core.errors import InvalidPath
from provisioner.core.folding import fold, fold_path
from provisioner.core.locations import RelPath, split_path
from provisioner.core.reserved import is_servers, is_servers_at_root

COMPONENT_LIMIT_BYTES = 255
ARCHIVE_PREFIX = "archived-"
_SHOWN_LIMIT = 120
"""Characters of a path that a message repeats."""

LEDGER = ".provisioner"
"""The one name at an export's root that is ours alone, and so in any directory: it may be an export's root."""


def components(text: str) -> list[str]:
    """The names in a path as people write it: slashes and `.` that add nothing are left out, `..` is not."""
    return [part for part in split_path(text) if part != "."]


def shown(text: str) -> str:
    """A text for an event, in quotes; a tenant's may be longer than an event, and the advice must not be cut off."""
    return repr(text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…")


def check(text: str) -> RelPath:
    """The components of a rendered path, a strict descendant of the export by every rule. Raises InvalidPath."""
    if not text:
        raise InvalidPath("the directory is empty: it would be the export's root")
    if text.startswith("/"):
        raise InvalidPath(f"the directory {shown(text)} begins with /: it must be relative to the export")
    path = tuple(text.split("/"))
    for part in path:
        _check_component(part, text)
    if any(fold(part).startswith(LEDGER) for part in path):  # an export may lie in another one
        raise InvalidPath(
            f"the directory {shown(text)} has a name that begins with {LEDGER}, which is the provisioner's own"
        )
    if len(path) > 1 and fold(path[0]).startswith(ARCHIVE_PREFIX):
        raise InvalidPath(f"the directory {shown(text)} begins with {ARCHIVE_PREFIX}: it might lie within an archive")
    reserved = next((part for part in path if is_servers(part)), path[0] if is_servers_at_root(path[0]) else None)
    if reserved is not None:
        raise InvalidPath(
            f"the directory {shown(text)} has the name {shown(reserved)}, which file servers keep for themselves"
        )
    return path


def _check_component(part: str, text: str) -> None:
    if part == "":
        raise InvalidPath(f"the directory {shown(text)} has an empty component")
    if part in (".", ".."):
        raise InvalidPath(f"the directory {shown(text)} has the component {part!r}")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in part):
        raise InvalidPath(f"the directory {shown(text)} has a control character")
    size = len(part.encode("utf-8", "surrogatepass"))
    if size > COMPONENT_LIMIT_BYTES:
        raise InvalidPath(f"the component {shown(part)} has {size} bytes; {COMPONENT_LIMIT_BYTES} are allowed")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in part):
        raise InvalidPath(f"the directory {shown(text)} is not valid Unicode")


def shorten(start: str, middle: str, end: str) -> str:
    """The three as one name of at most 255 bytes: the middle gives way first, then the start; `end` stays whole."""
    room = COMPONENT_LIMIT_BYTES - len(end.encode())
    head = start.encode()[:room]
    body = middle.encode()[: room - len(head)]
    return (head + body).decode("utf-8", "ignore") + end


def archive_name(directory: RelPath, stamp: str) -> str:
    """`archived-<last component>-<UTC time>`, the component cut where the name would pass 255 bytes."""
    return shorten(ARCHIVE_PREFIX, directory[-1], f"-{stamp}")


def is_archive_name(text: str) -> bool:
    """Whether a text can be the name of an archive at the export's root."""
    return text.startswith(ARCHIVE_PREFIX) and "/" not in text


def ancestors(path: RelPath) -> Iterator[RelPath]:
    """The strict ancestors of a path, nearest to the root first, without the root."""
    for depth in range(1, len(path)):
        yield path[:depth]


class PathIndex:
    """Who has which path, and who has one above or below it, in time that does not grow with the number of paths.

    With `folds` names that some server takes for one are one.
    """

    def __init__(self, *, folds: bool = False) -> None:
        self._folds = folds
        self._owners: dict[RelPath, set[str]] = {}
        self._below: dict[RelPath, int] = {}

    def add(self, path: RelPath, owner: str) -> None:
        """Enter a path; entering it twice for one owner is the same as once."""
        path = self._key(path)
        owners = self._owners.setdefault(path, set())
        if owner in owners:
            return
        owners.add(owner)
        for above in ancestors(path):
            self._below[above] = self._below.get(above, 0) + 1

    def _key(self, path: RelPath) -> RelPath:
        return fold_path(path) if self._folds else path

    def remove(self, path: RelPath, owner: str) -> None:
        """Take a path out; one that is not in it is none."""
        path = self._key(path)
        owners = self._owners.get(path)
        if owners is None or owner not in owners:
            return
        owners.remove(owner)
        if not owners:
            del self._owners[path]
        for above in ancestors(path):
            self._below[above] -= 1
            if not self._below[above]:
                del self._below[above]

    def folded(self) -> PathIndex:
        """Return an index of the same paths with their names folded."""
        index = PathIndex(folds=True)
        for path, owners in self._owners.items():
            for owner in owners:
                index.add(path, owner)
        return index

    def owners(self, path: RelPath) -> Set[str]:
        """Who has exactly this path."""
        return self._owners.get(self._key(path), set())

    def __bool__(self) -> bool:
        """Whether there is any path in it."""
        return bool(self._owners)

    def leads_on(self, path: RelPath) -> bool:
        """Whether there is a path below this one."""
        return self._key(path) in self._below or (path == () and any(self._owners))

    def touching(self, path: RelPath, *, other_than: Collection[str] = (), below: int = 0) -> str | None:
        """An owner of this path, or of one above or below it, who is none of the given; None where it is free.

        Paths of no more than `below` components do not count.
        """
        path = self._key(path)
        for above in (*ancestors(path), path):
            if len(above) <= below:
                continue
            for owner in sorted(self._owners.get(above, ())):
                if owner not in other_than:
                    return owner
        if path in self._below:
            return self._first_below(path, other_than)
        return None

    def all_touching(self, path: RelPath) -> list[str]:
        """All owners of this path, or of one above or below it."""
        path = self._key(path)
        found = [owner for above in (*ancestors(path), path) for owner in sorted(self._owners.get(above, ()))]
        if path in self._below:
            inside = (owners for held, owners in self._owners.items() if held[: len(path)] == path and held != path)
            found += [owner for owners in inside for owner in sorted(owners)]
        return found

    def _first_below(self, path: RelPath, other_than: Collection[str]) -> str | None:
        # A walk over all paths, for the words of a refusal only: it runs when there is a conflict.
        inside = (owners for held, owners in self._owners.items() if held[: len(path)] == path and held != path)
        return next((owner for owners in inside for owner in sorted(owners) if owner not in other_than), None)
