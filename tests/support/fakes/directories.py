"""Directories of a server in memory, behind the part of the NFS client interface that removals use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count

from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Place, Removal
from provisioner.nfs.protocol.values import Attributes, DirectoryEntry, DirectoryPage, Found, Position
from provisioner.ports.tree import Cause, ExportError, NotEmpty, Ownership, PathExists, PathMissing

ENTRY_BYTES = 108
"""What READDIR of NFSv4 takes for an entry beside its name."""


class Node:
    """A directory, or a file if `files` is None; entries by name, each with its cookie."""

    __slots__ = ("denied", "entries", "number")

    def __init__(self, number: int, *, directory: bool = True) -> None:
        self.number = number
        self.entries: dict[str, tuple[int, Node]] | None = {} if directory else None
        self.denied = False
        """Whether the server refuses to have it removed."""


class Directories:
    """A tree, with the calls of a `Client`."""

    max_names_per_call = 48

    def __init__(self) -> None:
        self._numbers = count(1)
        self._cookies = count(1)
        self._nodes: dict[int, Node] = {}
        self.top = self.new()
        self.place = Place(b"", ("top",))
        self.moved = 0
        self.in_flight = self.most_in_flight = 0

    # ------------------------------------------------------------------------------------------- making

    def new(self, *, directory: bool = True) -> Node:
        """Create a node without a parent."""
        node = Node(next(self._numbers), directory=directory)
        if directory:
            self._nodes[node.number] = node
        return node

    def put(self, parent: Node, name: str, node: Node | None = None) -> Node:
        """Add a directory, or the given node, to a directory."""
        assert parent.entries is not None
        made = node or self.new()
        parent.entries[name] = next(self._cookies), made
        return made

    @property
    def found(self) -> Found:
        """The top directory as LOOKUP returns it."""
        return self._found(self.top)

    # ------------------------------------------------------------------------------------------- calls

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """See Client."""
        await self._answer()
        node = self._directory(place.handle)
        assert node.entries is not None
        entries: list[DirectoryEntry] = []
        for name, (cookie, below) in node.entries.items():
            if cookie <= position.cookie:
                continue
            size_bytes -= ENTRY_BYTES + len(name.encode())
            if size_bytes < 0:
                return DirectoryPage(tuple(entries), Position(entries[-1].cookie))
            found = self._found(below)
            entries.append(DirectoryEntry(name.encode().decode(), found.handle, found.attributes, cookie))
        return DirectoryPage(tuple(entries), None)

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """See Client."""
        await self._answer()
        node = self._directory(directory)
        assert node.entries is not None
        for removed, name in enumerate(names):
            if name not in node.entries:
                return Removal(removed, PathMissing(name))
            below = node.entries[name][1]
            if below.entries:
                return Removal(removed, NotEmpty(name))
            if below.denied:
                return Removal(removed, ExportError(Cause.DENIED, name))
            del node.entries[name]
            self._nodes.pop(below.number, None)
        return Removal(len(names))

    async def move(self, deadline: Deadline, source: bytes, name: str, target: bytes, new_name: str) -> None:
        """See Client."""
        await self._answer()
        above, new_above = self._directory(source), self._directory(target)
        assert above.entries is not None
        assert new_above.entries is not None
        if name not in above.entries:
            raise PathMissing(name)
        if new_name in new_above.entries:
            raise PathExists(new_name)
        self.put(new_above, new_name, above.entries.pop(name)[1])
        self.moved += 1

    async def remove_directory(self, deadline: Deadline, place: Place) -> None:
        """See Client; only for the top directory."""
        await self._answer()
        if self.top.entries:
            raise NotEmpty(str(place))

    async def set_access(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """See Client."""
        await self._answer()

    async def _answer(self) -> None:
        """Let the other calls start first."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1

    def _directory(self, handle: bytes) -> Node:
        number = int.from_bytes(handle[:8], "big")
        if number not in self._nodes:
            raise ExportError(Cause.STALE, str(number))
        return self._nodes[number]

    def _found(self, node: Node) -> Found:
        kind = Attributes("file" if node.entries is None else "directory", 0o777, (1, 1))
        return Found(node.number.to_bytes(8, "big") + bytes(20), kind)

    def left(self) -> Iterator[str]:
        """Return the names of all entries left below the top."""
        waiting = [self.top]
        while waiting:
            for name, (_, below) in (waiting.pop().entries or {}).items():
                yield name
                waiting.append(below)
