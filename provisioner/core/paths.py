"""Path rules: which directories a volume can have, and which of them overlap.

Each rule prevents a data loss that other provisioners have had: traversal with `..`, empty components that lead to the
directory of a namespace or to the export's root, two volumes in one directory, one volume inside another (peers, harms
1 to 3).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Set

from provisioner.core.errors import InvalidPath
from provisioner.core.folding import fold, fold_path
from provisioner.core.locations import RelPath, split_path
from provisioner.core.reserved import is_servers, is_servers_at_root

COMPONENT_LIMIT_BYTES = 255
ARCHIVE_PREFIX = "archived-"
_SHOWN_LIMIT = 120
"""The number of characters of a path that a message shows."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

LEDGER = ".provisioner"
"""The provisioner's own directory at an export's root. No directory can have it: each can be an export's root."""


def components(text: str) -> list[str]:
    """Split a path as users write it: slashes and `.` that add nothing are dropped, `..` is not."""
    return [part for part in split_path(text) if part != "."]


def shown(text: str) -> str:
    """Quote a text for an event, shortened: a tenant's text can be longer than an event, which must keep its advice."""
    return repr(text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…")


def check(text: str) -> RelPath:
    """Return the components of a rendered path that satisfies all rules. Raises InvalidPath."""
    if not text:
        raise InvalidPath("the directory is empty: it would be the export's root")
    if text.startswith("/"):
        raise InvalidPath(f"the directory {shown(text)} begins with /: it must be relative to the export")
    path = tuple(text.split("/"))
    for part in path:
        _check_component(part, text)
    if any(fold(part).startswith(LEDGER) for part in path):  # an export may lie in another one
        raise InvalidPath(
            f"the directory {shown(text)} has a name that begins with {LEDGER}, which is reserved for the provisioner"
        )
    if len(path) > 1 and fold(path[0]).startswith(ARCHIVE_PREFIX):
        raise InvalidPath(f"the directory {shown(text)} begins with {ARCHIVE_PREFIX}: it could be inside an archive")
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
    if _CONTROL.search(part):
        raise InvalidPath(f"the directory {shown(text)} has a control character")
    size = len(part.encode("utf-8", "surrogatepass"))
    if size > COMPONENT_LIMIT_BYTES:
        raise InvalidPath(f"the component {shown(part)} has {size} bytes; {COMPONENT_LIMIT_BYTES} are allowed")
    if _SURROGATE.search(part):
        raise InvalidPath(f"the directory {shown(text)} is not valid Unicode")


def shorten(start: str, middle: str, end: str) -> str:
    """Join three parts to a name of at most 255 bytes: the middle is cut first, then the start, never the end."""
    room = COMPONENT_LIMIT_BYTES - len(end.encode())
    head = start.encode()[:room]
    body = middle.encode()[: room - len(head)]
    return (head + body).decode("utf-8", "ignore") + end


def archive_name(directory: RelPath, stamp: str) -> str:
    """Return `archived-<last component>-<UTC time>`.

    The component is cut if the name would exceed 255 bytes.
    """
    return shorten(ARCHIVE_PREFIX, directory[-1], f"-{stamp}")


def is_archive_name(text: str) -> bool:
    """Return True if a text can be the name of an archive at the export's root."""
    return text.startswith(ARCHIVE_PREFIX) and "/" not in text


def ancestors(path: RelPath) -> Iterator[RelPath]:
    """Iterate over the ancestors of a path from the top down, without the root and the path itself."""
    for depth in range(1, len(path)):
        yield path[:depth]


_Key = str | tuple[()]
"""A path as one text, which takes a third of the memory of its components; the root has none."""


class PathIndex:
    """Paths and their owners: finds the owners of a path, or of one above or below it.

    A look-up takes time that does not grow with the number of paths. With `folds`, names are equal if some server
    treats them as one.
    """

    def __init__(self, *, folds: bool = False) -> None:
        self._folds = folds
        self._owners: dict[_Key, str | set[str]] = {}
        """The owner of each path, or all if there are several."""
        self._below: dict[_Key, int] = {}

    def add(self, path: RelPath, owner: str, *, text: str = "") -> None:
        """Add a path of an owner; adding it twice is the same as once.

        `text`, if it is equal to the path, is kept in place of another copy of it.
        """
        path = self._folded(path)
        key = _key(path)
        owners = self._owners_of(key)
        if owner in owners:
            return
        self._owners[text if key == text else key] = {*owners, owner} if owners else owner
        for above in map(_key, ancestors(path)):
            self._below[above] = self._below.get(above, 0) + 1

    def _folded(self, path: RelPath) -> RelPath:
        return fold_path(path) if self._folds else path

    def _owners_of(self, key: _Key) -> Set[str]:
        owners = self._owners.get(key, ())
        return {owners} if isinstance(owners, str) else set(owners)

    def remove(self, path: RelPath, owner: str) -> None:
        """Remove a path of an owner; a no-op if it is not there."""
        path = self._folded(path)
        key = _key(path)
        owners = self._owners_of(key)
        if owner not in owners:
            return
        left = owners - {owner}
        if left:
            self._owners[key] = set(left) if len(left) > 1 else next(iter(left))
        else:
            del self._owners[key]
        for above in map(_key, ancestors(path)):
            self._below[above] -= 1
            if not self._below[above]:
                del self._below[above]

    def folded(self) -> PathIndex:
        """Return an index of the same paths with their names folded."""
        index = PathIndex(folds=True)
        for key in self._owners:
            for owner in self._owners_of(key):
                index.add(_path(key), owner)
        return index

    def owners(self, path: RelPath) -> Set[str]:
        """Return the owners of exactly this path."""
        return self._owners_of(_key(self._folded(path)))

    def __bool__(self) -> bool:
        """Return True if there is any path."""
        return bool(self._owners)

    def leads_on(self, path: RelPath) -> bool:
        """Return True if there is a path below this one."""
        return _key(self._folded(path)) in self._below or (path == () and any(key != () for key in self._owners))

    def touching(self, path: RelPath, *, other_than: Collection[str] = (), below: int = 0) -> str | None:
        """Return an owner of this path, or of one above or below it; None if it is free.

        Owners in `other_than` and paths of at most `below` components do not count.
        """
        path = self._folded(path)
        for above in (*ancestors(path), path):
            if len(above) <= below:
                continue
            for owner in sorted(self._owners_of(_key(above))):
                if owner not in other_than:
                    return owner
        return next((owner for owner in self._inside(_key(path)) if owner not in other_than), None)

    def all_touching(self, path: RelPath) -> list[str]:
        """Return all owners of this path, or of one above or below it."""
        path = self._folded(path)
        found = [owner for above in (*ancestors(path), path) for owner in sorted(self._owners_of(_key(above)))]
        return [*found, *self._inside(_key(path))]

    def _inside(self, key: _Key) -> Iterator[str]:
        """Iterate over the owners of paths below one that is not the root."""
        if key not in self._below:
            return
        # This walks over all paths, but only for the text of a refusal, after a conflict was found.
        for held in self._owners:
            if isinstance(held, str) and held.startswith(f"{key}/"):
                yield from sorted(self._owners_of(held))


def _key(path: RelPath) -> _Key:
    return "/".join(path) if path else ()


def _path(key: _Key) -> RelPath:
    return tuple(key.split("/")) if isinstance(key, str) else ()
