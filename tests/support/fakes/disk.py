"""A file system with project quotas in memory: the `Disk` port for tests, over the nodes of a `MemoryTree`.

New entries get the project of a parent that passes it on. The tree does not know projects, so the disk looks for new
entries before each of its calls, and settle() does it before a tenant moves something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quota import ANSWERS
from provisioner.ports.quota import DiskError, Facts, Label, NoRoom, Usage, Walked
from tests.support.fakes.tree import Directory, File, MemoryTree, Node, Symlink

_WATCHED: tuple[RelPath, ...] = ((LEDGER, "pending"), (LEDGER, "volumes"))

Hook = Callable[[str, RelPath], None]
"""Receives the name of a call and its path; can raise."""

ENTRIES_PER_SLICE = 2
"""So that tests see walks of several slices."""


def no_fault(_call: str, _path: RelPath) -> None:
    """Hook without faults."""


class Quotas:
    """The file system: projects of its nodes, limits, and which process has the lock of a ledger."""

    def __init__(self, *trees: MemoryTree) -> None:
        self.trees = trees
        self.limits: dict[int, int] = {}
        self.elsewhere: dict[int, Usage] = {}
        """Usage of entries that no tree has: links outside, files that clients hold open."""
        self.locks: dict[int, MemoryDisk] = {}
        self.filesystem = "memory"
        self.lacks: tuple[str, ...] = ()
        self.busy: set[int] = set()
        """The files that an NFS client holds, by their id()."""
        self.is_full = False
        self._projects: dict[int, tuple[Node, int, bool]] = {}

    def project(self, node: Node) -> tuple[int, bool]:
        """Return the project of a node, and whether it passes it on."""
        _, project, inherits = self._projects.get(id(node), (node, 0, False))
        return project, inherits

    def give(self, node: Node, project: int, *, inherits: bool = False) -> None:
        """Set the project of a node."""
        self._projects[id(node)] = (node, project, inherits)

    def settle(self) -> None:
        """Give new entries the projects of their parents."""
        for tree in self.trees:
            self._settle(tree.root)

    def _settle(self, parent: Directory) -> None:
        project, inherits = self.project(parent)
        for node in parent.entries.values():
            if id(node) not in self._projects:
                self.give(node, project if inherits else 0, inherits=inherits and isinstance(node, Directory))
            if isinstance(node, Directory):
                self._settle(node)

    def usages(self) -> dict[int, Usage]:
        """Return the usage of all projects."""
        self.settle()
        found: dict[int, list[int]] = {}
        for project, other in self.elsewhere.items():
            found[project] = [other.used_bytes, other.inodes]
        for tree in self.trees:
            for node in nodes(tree.root):
                counted = found.setdefault(self.project(node)[0], [0, 0])
                counted[0] += len(node.content) if isinstance(node, File) else 0
                counted[1] += 1
        return {
            project: self._usage(found.get(project, [0, 0]), self.limits.get(project, 0))
            for project in found.keys() | {project for project, limit in self.limits.items() if limit}
        }

    @staticmethod
    def _usage(counted: list[int], limit_bytes: int) -> Usage:
        used_bytes, inodes = counted
        return Usage(used_bytes, inodes, limit_bytes)


def nodes(node: Node) -> Iterator[Node]:
    """Iterate over a node and all below it."""
    yield node
    if isinstance(node, Directory):
        for each in node.entries.values():
            yield from nodes(each)


class MemoryDisk:
    """A `Disk` in memory, as one process sees it.

    An error raised by `before` is a call without effect, one raised by `after` a call that took effect.
    """

    def __init__(self, quotas: Quotas, tree: MemoryTree, *, before: Hook = no_fault, after: Hook = no_fault) -> None:
        self.quotas = quotas
        self.tree = tree
        self.before = before
        self.after = after
        self._seen: dict[RelPath, dict[str, str]] = {}

    # ------------------------------------------------------------------------------------------------ the port

    def facts(self) -> Facts:
        """See `Disk`."""
        self._begin("facts", ())
        return Facts(filesystem=self.quotas.filesystem, device="memory", lacks=self.quotas.lacks)

    def lock(self) -> bool:
        """See `Disk`."""
        self._begin("lock", ())
        return self.quotas.locks.setdefault(id(self.tree), self) is self

    def release(self) -> None:
        """See `Disk`."""
        if self.quotas.locks.get(id(self.tree)) is self:
            del self.quotas.locks[id(self.tree)]

    def names(self, path: RelPath) -> list[str]:
        """See `Disk`."""
        self._begin("names", path)
        node = self.tree.look(path)
        if node is not None and not isinstance(node, Directory):
            raise DiskError(f"{'/'.join(path)}: Not a directory")
        return list(node.entries) if node is not None else []

    def read(self, path: RelPath) -> str:
        """See `Disk`."""
        self._begin("read", path)
        node = self.tree.look(path)
        return node.target if isinstance(node, Symlink) else ""

    def write(self, path: RelPath, text: str) -> None:
        """See `Disk`."""
        self._begin("write", path)
        if self.quotas.is_full:
            raise NoRoom(f"{'/'.join(path)}: No space left on device: free some space on the file system")
        ledger = self._directory((LEDGER,))
        ledger.entries.setdefault(ANSWERS[-1], Directory(mode=0o700))
        parent = self._directory(path[:-1])
        if isinstance(parent.entries.get(path[-1]), Directory):
            raise DiskError(f"{'/'.join(path)}: Is a directory")
        parent.entries[path[-1]] = Symlink(text)
        self._end("write", path)

    def remove(self, path: RelPath) -> None:
        """See `Disk`."""
        self._begin("remove", path)
        if self.tree.look(path[:-1]) is not None:
            self._directory(path[:-1]).entries.pop(path[-1], None)
        self._end("remove", path)

    def label(self, path: RelPath) -> Label | None:
        """See `Disk`."""
        self._begin("label", path)
        node = self.tree.look(path)
        return self._label(node) if isinstance(node, Directory) else None

    def set_label(self, path: RelPath, project: int, *, was: Label) -> None:
        """See `Disk`."""
        self._begin("set_label", path)
        node = self._directory(path)
        if self._label(node) != was:
            raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
        self.quotas.give(node, project, inherits=True)
        self._end("set_label", path)

    def walk(self, path: RelPath, project: int) -> Iterator[Walked]:
        """See `Disk`."""
        self._begin("walk", path)
        root = self._directory(path)
        label = self._label(root)
        if label.project != project or not label.inherits:
            raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
        entries = special = busy = 0
        for node in list(nodes(root))[1:]:
            entries += 1
            if isinstance(node, Symlink):
                special += self.quotas.project(node)[0] != project
            elif id(node) in self.quotas.busy:
                busy += self.quotas.project(node)[0] != project
            else:
                self.quotas.give(node, project, inherits=isinstance(node, Directory))
            if entries % ENTRIES_PER_SLICE == 0:
                self._end("walk", path)
                yield Walked(entries, special, busy)
                self._begin("walk", path)
        self._end("walk", path)
        yield Walked(entries, special, busy)

    def usages(self) -> Mapping[int, Usage]:
        """See `Disk`."""
        self._begin("usages", ())
        return self.quotas.usages()

    def usage(self, project: int) -> Usage:
        """See `Disk`."""
        self._begin("usage", ())
        return self.quotas.usages().get(project, Usage())

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """See `Disk`."""
        self._begin("set_limit", ())
        self.quotas.limits[project] = limit_bytes
        self._end("set_limit", ())

    def events(self) -> int | None:
        """See `Disk`."""
        for path in _WATCHED:
            self._seen.setdefault(path, self._texts(path))
        return None

    def changed(self) -> set[str] | None:
        """See `Disk`."""
        self._begin("changed", ())
        found: set[str] = set()
        for path in self._seen:
            was, self._seen[path] = self._seen[path], (texts := self._texts(path))
            found |= {name for name in was.keys() | texts.keys() if was.get(name) != texts.get(name)}
        return found

    # ------------------------------------------------------------------------------------------------ how

    def _texts(self, path: RelPath) -> dict[str, str]:
        node = self.tree.look(path)
        records = node.entries if isinstance(node, Directory) else {}
        return {name: each.target for name, each in records.items() if isinstance(each, Symlink)}

    def _begin(self, call: str, path: RelPath) -> None:
        self.before(call, path)
        self.quotas.settle()

    def _end(self, call: str, path: RelPath) -> None:
        self.quotas.settle()
        self.after(call, path)

    def _directory(self, path: RelPath) -> Directory:
        node = self.tree.look(path)
        if not isinstance(node, Directory):
            raise DiskError(f"{'/'.join(path)}: No such directory")
        return node

    def _label(self, node: Directory) -> Label:
        return Label(*self.quotas.project(node), id(node))
