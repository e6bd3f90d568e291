"""What tenants have had in a directory over time, and whether a copy of it is one that the time allows.

Each file of a copy must be as the source had it at some time during the copy. A file that was written in place can be
torn: then each of its bytes is that of some version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

from tests.support.fakes.tree import Directory, File, Node, Symlink

Content = bytes | str
"""Of a file, or the target of a symlink; `directory` stands for a directory."""

DIRECTORY = "a directory"


@dataclass(slots=True)
class Versions:
    """The contents of a directory, by path and time."""

    _log: dict[str, list[tuple[float, Content | None]]] = field(default_factory=dict)
    """Each change; None stands for a path at which there is nothing."""
    _files: dict[str, list[Node]] = field(default_factory=dict)
    """The files that have been at each path: a file is read by its handle, under whatever name it was found."""

    def replace(self, now_s: float, name: str, node: Node | None) -> None:
        """Note what is at a name from now on; None stands for nothing."""
        below = dict(contents(Directory(entries={name: node}))) if node is not None else {}
        if node is not None:
            self._files.setdefault(name, []).append(node)
        known = [path for path in self._log if path == name or path.startswith(f"{name}/")]
        for path in sorted({*known, *below}):
            changes = self._log.setdefault(path, [])
            if not changes or changes[-1][1] != below.get(path):
                changes.append((now_s, below.get(path)))

    def extend(self, other: Versions) -> None:
        """Add the changes of a directory that has become this one."""
        for path, changes in other._log.items():
            self._log[path] = [*changes, *self._log.get(path, ())]
            self._files[path] = [*other._files.get(path, ()), *self._files.get(path, ())]

    def wrong(self, source: Directory, copy: Directory, begun_s: float) -> Iterator[str]:
        """Yield what a copy that began at this time, and is complete now, has that it must not have."""
        found = dict(contents(copy))
        for path in sorted(self._log.keys() | found.keys()):
            allowed = [each for name in self._names(path) for each in self._since(name, begun_s)]
            if found.get(path) not in allowed and not _is_torn(found.get(path), allowed):
                yield f"{path} is {found.get(path)!r}, and was {allowed!r}"
        steady = {path for path in source.entries if len(self._since(path, begun_s)) == 1}
        for path, other in combinations(sorted(steady), 2):
            linked = source.entries[path] is source.entries[other]
            if linked and copy.entries.get(path) is not copy.entries.get(other):
                yield f"{path} is no hard link to {other}"

    def _names(self, path: str) -> list[str]:
        """Return all names that the files at a path have had, this one first."""
        files = self._files.get(path, [])
        others = (name for name, have in self._files.items() if any(each is file for each in have for file in files))
        return [path, *(name for name in others if name != path)]

    def _since(self, path: str, begun_s: float) -> list[Content | None]:
        """Return the versions of a path from this time on: the one that was there, and all later ones."""
        changes = self._log.get(path, [])
        before = [content for at_s, content in changes if at_s < begun_s][-1:] or [None]
        return [*before, *(content for at_s, content in changes if at_s >= begun_s)]


def _is_torn(content: Content | None, versions: list[Content | None]) -> bool:
    """Whether each byte of a content is that of a version, or behind the end of one."""
    sizes = [len(each) for each in versions if isinstance(each, bytes)]
    if not isinstance(content, bytes) or len(sizes) < 2 or len(content) not in sizes:
        return False
    for at, byte in enumerate(content):
        allowed = {each[at] if at < len(each) else 0 for each in versions if isinstance(each, bytes)}
        if byte not in allowed:
            return False
    return True


def contents(directory: Directory, above: str = "") -> Iterator[tuple[str, Content]]:
    """Yield all paths in a directory, with their contents."""
    for name, node in directory.entries.items():
        path = f"{above}{name}"
        yield path, content_of(node)
        if isinstance(node, Directory):
            yield from contents(node, f"{path}/")


def content_of(node: Node) -> Content:
    """Return the content of a node."""
    match node:
        case Directory():
            return DIRECTORY
        case Symlink():
            return node.target
        case File():
            return node.content
