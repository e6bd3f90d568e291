"""An export in memory: the `Tree` port for tests, with injected faults and writing tenants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from provisioner.core.locations import RelPath
from provisioner.ports.files import NO_DATA, Files, Item, Kept, Kind, Made, Page, number_of
from provisioner.ports.tree import (
    Cause,
    Change,
    Entry,
    EntryType,
    ExportError,
    FilesystemStats,
    ModeRefused,
    NotEmpty,
    OnProgress,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Tree,
    one_by_one,
)

CHUNK_BYTES = 16
NAME_LIMIT_BYTES = 255
TARGET_LIMIT_BYTES = 1023

Hook = Callable[[str, RelPath], Awaitable[None]]
"""Receives the name of a call and its path (for a rename, the source); can wait or raise ExportError."""


@dataclass(slots=True)
class Directory:
    """A directory; its entries are in order of creation."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    entries: dict[str, Node] = field(default_factory=dict)
    accessed_ns: int = 0
    modified_ns: int = 0
    attributes: dict[str, bytes] = field(default_factory=dict)


class Folding(dict[str, "Node"]):
    """Entries on a server that folds names: each keeps its spelling and is found by any equal one.

    `same` returns equal texts for names that are equal for the server.
    """

    def __init__(self, same: Callable[[str], str]) -> None:
        super().__init__()
        self._same = same

    def _kept(self, name: object) -> str:
        wanted = self._same(str(name))
        return next((kept for kept in self if self._same(kept) == wanted), str(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._kept(name))

    def __getitem__(self, name: str) -> Node:
        return super().__getitem__(self._kept(name))

    def __setitem__(self, name: str, node: Node) -> None:
        if isinstance(node, Directory) and not isinstance(node.entries, Folding):
            folding = Folding(self._same)
            for each, below in node.entries.items():
                folding[each] = below
            node.entries = folding
        super().__setitem__(self._kept(name), node)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._kept(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the node of a name, in any spelling."""
        return super().get(self._kept(name), default)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove the node of a name, in any spelling."""
        return super().pop(self._kept(name), *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the node of a name, in any spelling; add it if it is missing."""
        if name not in self:
            self[name] = default
        return self[name]


@dataclass(slots=True)
class Symlink:
    """A symlink."""

    target: str
    uid: int = 0
    gid: int = 0
    accessed_ns: int = 0
    modified_ns: int = 0


@dataclass(slots=True)
class File:
    """A file, or any other type; several entries can have one file."""

    content: bytes = b""
    kind: Kind = "file"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    accessed_ns: int = 0
    modified_ns: int = 0
    attributes: dict[str, bytes] = field(default_factory=dict)


Node = Directory | Symlink | File
Expected = TypeVar("Expected", Directory, Symlink, File)
Result = TypeVar("Result")


async def no_fault(_call: str, _path: RelPath) -> None:
    """Hook of an export without faults."""


class MemoryTree:
    """A `Tree` in memory. Each call takes effect in one step, between its two hooks.

    An error raised by `before` is a call without effect. An error raised by `after` is a call that took effect, but
    whose caller does not know. `root` and the methods at the end are for tenants and for checks by the test. A changed
    `id` stands for another export in the same place.
    """

    def __init__(
        self,
        *,
        root_id: str = "memory",
        space: FilesystemStats | None = None,
        before: Hook = no_fault,
        after: Hook = no_fault,
    ) -> None:
        self.root = Directory()
        self.id = root_id
        self.pinned = ""
        self.statfs = space or FilesystemStats(
            size_bytes=1 << 40, free_bytes=1 << 39, inodes=1 << 20, free_inodes=1 << 19
        )
        self.before = before
        self.after = after
        self.outer: list[tuple[str, MemoryTree, RelPath]] = []
        """The trees above this one, nearest first, with their names and the path of this root in each."""
        self.verifies = True
        """Whether it looks at the proofs of a rename when that takes effect, or when the call is made."""
        self.refuses_modes = ""
        """The server's answer to every chmod; empty where it sets modes."""
        self.files = MemoryFiles(self)

    # ------------------------------------------------------------------------------------------------ the port

    @property
    def unreachable_hint(self) -> str:
        """See `Tree`."""
        return "see that the memory answers"

    async def root_id(self) -> str:
        """See `Tree`."""
        return await self._call("root_id", (), lambda: self.id)

    def pin(self, root_id: str) -> None:
        """See `Tree`."""
        self.pinned = root_id

    async def make_directory(self, path: RelPath, ownership: Ownership) -> None:
        """See `Tree`."""
        await self._call("make_directory", path, lambda: self._make_directory(path, ownership))

    async def set_access(self, path: RelPath, ownership: Ownership) -> None:
        """See `Tree`."""
        await self._call("set_access", path, lambda: self._set_access(path, ownership))

    async def rename(self, source: RelPath, target: RelPath, *, proofs: Sequence[Proof] = ()) -> None:
        """See `Tree`."""
        await self._proven("rename", source, proofs, lambda: self._rename(source, target))

    async def remove_directory(self, path: RelPath) -> None:
        """See `Tree`."""
        await self._call("remove_directory", path, lambda: self._remove_directory(path))

    async def make_symlink(self, path: RelPath, target: str) -> None:
        """See `Tree`."""
        await self._call("make_symlink", path, lambda: self._make_symlink(path, target))

    async def move_symlink(
        self, source: RelPath, target: RelPath, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """See `Tree`."""
        move = partial(self._move_symlink, source, target, replace=replace)
        await self._proven("move_symlink", source, proofs, move)

    async def read_symlink(self, path: RelPath) -> str:
        """See `Tree`."""
        return await self._call("read_symlink", path, lambda: self._symlink(path).target)

    async def remove_symlink(self, path: RelPath) -> None:
        """See `Tree`."""
        await self._call("remove_symlink", path, lambda: self._remove_symlink(path))

    async def carry_out(self, *changes: Change) -> None:
        """See `Tree`; one call each, with its hooks."""
        await one_by_one(self, changes)

    async def list(self, path: RelPath, *, at_most: int | None = None) -> list[Entry]:
        """See `Tree`."""
        return await self._call(
            "list",
            path,
            lambda: [Entry(name, type_of(node)) for name, node in self._directory(path).entries.items()][:at_most],
        )

    async def read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        """See `Tree`."""
        return await self._call("read_symlinks", path, lambda: self._read_symlinks(path, names))

    async def is_empty(self, path: RelPath) -> bool:
        """See `Tree`."""
        return await self._call("is_empty", path, lambda: not self._directory(path).entries)

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """See `Tree`; removes everything in one step."""
        removed = await self._call("remove_tree", path, lambda: self._remove_tree(path))
        if on_progress is not None:
            on_progress(removed)
        return removed

    async def space(self) -> FilesystemStats:
        """See `Tree`."""
        return await self._call("space", (), lambda: self.statfs)

    def above(self) -> Iterable[tuple[str, Tree, RelPath]]:
        """See `Tree`."""
        return [*self.outer]

    async def close(self) -> None:
        """See `Tree`."""

    # ------------------------------------------------------------------------------------------------ the tenant

    def look(self, path: RelPath) -> Node | None:
        """Return the node at a path, or None."""
        try:
            return self._parent(path).entries.get(path[-1]) if path else self.root
        except ExportError:
            return None

    def write_file(self, path: RelPath, content: bytes = b"") -> None:
        """Write a file into an existing directory."""
        self._parent(path).entries[path[-1]] = File(content)

    def plant_symlink(self, path: RelPath, target: str) -> None:
        """Replace an entry by a symlink."""
        self._parent(path).entries[path[-1]] = Symlink(target)

    def swap(self, one: RelPath, other: RelPath) -> None:
        """Exchange two entries, like renameat2(RENAME_EXCHANGE)."""
        here, there = self._parent(one).entries, self._parent(other).entries
        here[one[-1]], there[other[-1]] = there[other[-1]], here[one[-1]]

    # ------------------------------------------------------------------------------------------------ how

    async def call(self, name: str, path: RelPath, job: Callable[[], Result]) -> Result:
        """Do a call of `files` in one step, between the hooks."""
        return await self._call(name, path, job)

    def parent_of(self, path: RelPath) -> Directory:
        """Return the parent directory of a path. Raises PathMissing and Cause.SYMLINK."""
        return self._parent(path)

    async def _call(self, name: str, path: RelPath, job: Callable[[], Result]) -> Result:
        await self.before(name, path)
        if self.pinned and self.pinned != self.id and name != "root_id":
            raise ExportError(Cause.CHANGED, f"the root is {self.id} and was {self.pinned}")
        result = job()
        await self.after(name, path)
        return result

    async def _proven(self, name: str, path: RelPath, proofs: Sequence[Proof], job: Callable[[], None]) -> None:
        def proven_job() -> None:
            self._require(proofs)
            job()

        if self.verifies:
            await self._call(name, path, proven_job)
        else:
            self._require(proofs)
            await self._call(name, path, job)

    def _require(self, proofs: Sequence[Proof]) -> None:
        for proof in proofs:
            node = self.look(proof.path)
            if not isinstance(node, Symlink) or node.target != proof.text:
                raise ExportError(Cause.RECORD, "/".join(proof.path))

    def _parent(self, path: RelPath, *, make: bool = False) -> Directory:
        """Return the parent directory of a path."""
        if not path:
            raise ExportError(Cause.OTHER, "the root of the export cannot be changed")
        for name in path:
            _check(name)
        current = self.root
        for name in path[:-1]:
            if make and name not in current.entries:
                current.entries[name] = Directory()
            below = current.entries.get(name)
            if below is None:
                raise PathMissing("/".join(path))
            current = _expect(below, Directory, path)
        return current

    def _node(self, path: RelPath) -> Node:
        """Return the node at a path. Raises PathMissing."""
        if not path:
            return self.root
        node = self._parent(path).entries.get(path[-1])
        if node is None:
            raise PathMissing("/".join(path))
        return node

    def _directory(self, path: RelPath) -> Directory:
        return _expect(self._node(path), Directory, path)

    def _symlink(self, path: RelPath) -> Symlink:
        return _expect(self._node(path), Symlink, path)

    def _make_directory(self, path: RelPath, ownership: Ownership) -> None:
        if not path:
            raise PathExists("the export's root")
        parent = self._parent(path, make=True)
        if path[-1] in parent.entries:
            raise PathExists("/".join(path))
        parent.entries[path[-1]] = Directory()
        self._set_access(path, ownership)

    def _set_access(self, path: RelPath, ownership: Ownership) -> None:
        directory = self._directory(path)
        directory.uid = directory.uid if ownership.uid is None else ownership.uid
        directory.gid = directory.gid if ownership.gid is None else ownership.gid
        if ownership.mode is not None and self.refuses_modes:
            raise ModeRefused("/".join(path), answer=self.refuses_modes)
        directory.mode = directory.mode if ownership.mode is None else ownership.mode

    def _rename(self, source: RelPath, target: RelPath) -> None:
        here, there = self._parent(source), self._parent(target)
        moved = self._directory(source)
        if target[-1] in there.entries:
            raise PathExists("/".join(target))
        if target[: len(source)] == source:
            raise ExportError(Cause.OTHER, f"{'/'.join(target)} lies below the directory to be renamed")
        there.entries[target[-1]] = moved
        del here.entries[source[-1]]

    def _remove_directory(self, path: RelPath) -> None:
        parent = self._parent(path)
        if self._directory(path).entries:
            raise NotEmpty("/".join(path))
        del parent.entries[path[-1]]

    def _make_symlink(self, path: RelPath, target: str) -> None:
        parent = self._parent(path)
        if not target:
            raise PathMissing("/".join(path))  # symlink(2): ENOENT for an empty target.
        if len(_encoded(target)) > TARGET_LIMIT_BYTES:
            raise ExportError(Cause.NAME_TOO_LONG, "/".join(path))
        if path[-1] in parent.entries:
            raise PathExists("/".join(path))
        parent.entries[path[-1]] = Symlink(target)

    def _move_symlink(self, source: RelPath, target: RelPath, *, replace: bool) -> None:
        here, there = self._parent(source), self._parent(target)
        moved = self._symlink(source)
        if target[-1] in there.entries:
            if not replace:
                raise PathExists("/".join(target))
            self._symlink(target)
        there.entries[target[-1]] = moved
        del here.entries[source[-1]]

    def _remove_symlink(self, path: RelPath) -> None:
        self._symlink(path)
        del self._parent(path).entries[path[-1]]

    def _read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        entries = self._directory(path).entries
        return {name: _expect(entries[name], Symlink, (*path, name)).target for name in names if name in entries}

    def _remove_tree(self, path: RelPath) -> int:
        try:
            parent, removed = self._parent(path), self._directory(path)
        except PathMissing:
            return 0
        del parent.entries[path[-1]]
        return _count(removed)


BLOCK_BYTES = 4
"""Blocks of zeros of this size are holes."""


class MemoryFiles:
    """The `Files` of a tree in memory. It clones, copies, tells holes and keeps attributes as the flags say."""

    def __init__(self, tree: MemoryTree) -> None:
        self.tree = tree
        self.clones = True
        self.copies = True
        self.seeks = True
        self.wholes = False
        self.attributed = True
        self.page_items = 2
        self.verifier = NO_DATA
        """A changed verifier stands for a server that has lost writes."""
        self.mounts: set[int] = set()
        """Directories that are the roots of other file systems, by their id()."""
        self.by_handle = False
        """Whether a call on an item finds it wherever it was moved, as by a file handle, or only at its path."""
        self._written = NO_DATA
        """The verifier of writes."""
        self._unstable: list[tuple[File, int, int]] = []
        """What was written since the last flush of its file: begin and end."""
        self._numbers: dict[int, tuple[int, Node]] = {}
        """The number of each node that was looked at, by its id(); the node stays, so that no other one gets its id."""

    def restart(self, verifier: bytes) -> None:
        """Restart the server, which loses what was not flushed."""
        self.verifier = self._written = verifier
        for file, begin, end in self._unstable:
            file.content = file.content[:begin] + bytes(len(file.content[begin:end])) + file.content[end:]
        self._unstable.clear()

    async def chunk_bytes(self, directory: Item) -> int:
        """See `Files`."""
        return await self.tree.call("limits", directory.path, lambda: CHUNK_BYTES)

    def shares(self, other: Files) -> bool:
        """See `Files`."""
        return other is self

    async def look(self, path: RelPath) -> Item:
        """See `Files`."""
        return await self.tree.call("look", path, lambda: self._item(path))

    async def page(self, directory: Item, more: object | None = None) -> Page:
        """See `Files`; an entry that is removed moves no other one."""

        def job() -> Page:
            entries = _expect(self._live(directory), Directory, directory.path).entries
            names = more if isinstance(more, list) else list(entries)
            now, rest = names[: self.page_items], names[self.page_items :]
            return Page([self._item((*directory.path, name)) for name in now if name in entries], rest or None)

        return await self.tree.call("page", directory.path, job)

    async def read_link(self, symlink: Item) -> str:
        """See `Files`."""
        return await self.tree.call(
            "read_link", symlink.path, lambda: _expect(self._live(symlink), Symlink, symlink.path).target
        )

    async def make(self, parent: Item, name: str, kind: Made, target: str = "") -> Item:
        """See `Files`."""
        path = (*parent.path, name)

        def job() -> Item:
            entries = self.tree.parent_of(path).entries
            if name in entries:
                raise PathExists("/".join(path))
            match kind:
                case "directory":
                    entries[name] = Directory(mode=0o700)
                case "symlink":
                    entries[name] = Symlink(target)
                case _:
                    entries[name] = File(kind=kind, mode=0o600)
            return self._item(path)

        return await self.tree.call("make", path, job)

    async def link(self, item: Item, parent: Item, name: str) -> None:
        """See `Files`."""
        path = (*parent.path, name)

        def job() -> None:
            entries = self.tree.parent_of(path).entries
            if name in entries:
                raise PathExists("/".join(path))
            entries[name] = self._live(item)

        await self.tree.call("link", path, job)

    async def remove(self, parent: Item, name: str) -> None:
        """See `Files`."""
        path = (*parent.path, name)

        def job() -> None:
            entries = self.tree.parent_of(path).entries
            if isinstance(entries.get(name), Directory):
                raise ExportError(Cause.SYMLINK, f"{'/'.join(path)} is a directory")
            entries.pop(name, None)

        await self.tree.call("remove", path, job)

    async def read(self, file: Item, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Files`."""
        return await self.tree.call(
            "read", file.path, lambda: self._file(file).content[offset_bytes : offset_bytes + size_bytes]
        )

    async def write(self, file: Item, offset_bytes: int, data: bytes, *, stable: bool) -> bytes:
        """See `Files`."""

        def job() -> bytes:
            found = self._file(file)
            before = found.content[:offset_bytes].ljust(offset_bytes, b"\0")
            found.content = before + data + found.content[offset_bytes + len(data) :]
            if not stable:
                self._unstable.append((found, offset_bytes, offset_bytes + len(data)))
            return self._written

        return await self.tree.call("write", file.path, job)

    async def flush(self, file: Item) -> bytes:
        """See `Files`."""

        def job() -> bytes:
            found = self._file(file)
            self._unstable = [each for each in self._unstable if each[0] is not found]
            return self.verifier

        return await self.tree.call("flush", file.path, job)

    async def next_data(self, file: Item, offset_bytes: int) -> tuple[int, int] | None:
        """See `Files`."""
        return await self.tree.call("next_data", file.path, lambda: self._next_data(file, offset_bytes))

    async def set_size(self, file: Item, size_bytes: int) -> None:
        """See `Files`."""

        def job() -> None:
            found = self._file(file)
            found.content = found.content[:size_bytes].ljust(size_bytes, b"\0")

        await self.tree.call("set_size", file.path, job)

    async def clone(self, source: Item, file: Item) -> bool:
        """See `Files`."""

        def job() -> bool:
            if self.clones:
                self._file(file).content = self._file(source).content
            return self.clones

        return await self.tree.call("clone", file.path, job)

    async def copy_range(
        self, source: Item, file: Item, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """See `Files`; a block less than asked for, as servers do."""
        size_bytes = max(1, size_bytes - BLOCK_BYTES)

        def job() -> tuple[int, bytes] | None:
            if not self.copies:
                return None
            data = self._file(source).content[offset_bytes : offset_bytes + size_bytes]
            found = self._file(file)
            before = found.content[:offset_bytes].ljust(offset_bytes, b"\0")
            found.content = before + data + found.content[offset_bytes + len(data) :]
            self._unstable.append((found, offset_bytes, offset_bytes + len(data)))
            return len(data), self._written

        return await self.tree.call("copy_range", file.path, job)

    async def copy_whole(self, source: Item, parent: Item, name: str, kept: Kept) -> int | None:
        """See `Files`."""
        path = (*parent.path, name)

        def job() -> int | None:
            if not self.wholes:
                return None
            content = self._file(source).content[: source.size_bytes]
            entries = self.tree.parent_of(path).entries
            if name in entries:
                raise PathExists("/".join(path))
            uid, gid = (number_of(owner, "/".join(path)) for owner in (kept.owner, kept.group))
            made = File(content, uid=uid, gid=gid, mode=kept.mode)
            made.accessed_ns, made.modified_ns = kept.accessed_ns, kept.modified_ns
            entries[name] = made
            return len(content)

        return await self.tree.call("copy_whole", source.path, job)

    async def attributes(self, item: Item) -> Mapping[str, bytes]:
        """See `Files`."""
        return await self.tree.call("attributes", item.path, lambda: dict(self._attributed(item)))

    async def set_attribute(self, item: Item, name: str, value: bytes) -> bool:
        """See `Files`."""

        def job() -> bool:
            if self.attributed:
                self._attributed(item)[name] = value
            return self.attributed

        return await self.tree.call("set_attribute", item.path, job)

    async def keep(self, item: Item, kept: Kept) -> None:
        """See `Files`."""

        def job() -> None:
            node = self._live(item)
            node.uid, node.gid = (number_of(owner, "/".join(item.path)) for owner in (kept.owner, kept.group))
            node.accessed_ns, node.modified_ns = kept.accessed_ns, kept.modified_ns
            if not isinstance(node, Symlink):
                node.mode = kept.mode

        await self.tree.call("keep", item.path, job)

    # ------------------------------------------------------------------------------------------------ how

    def _live(self, item: Item) -> Node:
        """Return the node of an item. Raises PathMissing."""
        places = _all(self.tree.root) if self.by_handle else [self.tree.look(item.path)]
        for found in places:
            if found is not None and self._id(found) == item.id:
                return found
        raise PathMissing("/".join(item.path))

    def _id(self, node: Node) -> str:
        return f"{self._numbers.setdefault(id(node), (len(self._numbers), node))[0]:x}"

    def _file(self, item: Item) -> File:
        return _expect(self._live(item), File, item.path)

    def _attributed(self, item: Item) -> dict[str, bytes]:
        node = self._live(item)
        assert not isinstance(node, Symlink)
        return node.attributes

    def _next_data(self, file: Item, offset: int) -> tuple[int, int] | None:
        content = self._file(file).content
        if not self.seeks:
            return (offset, file.size_bytes) if offset < file.size_bytes else None
        begin = offset
        while begin < len(content) and not any(content[begin : begin + BLOCK_BYTES]):
            begin += BLOCK_BYTES
        if begin >= len(content):
            return None
        end = begin
        while end < len(content) and any(content[end : end + BLOCK_BYTES]):
            end += BLOCK_BYTES
        return begin, min(end, len(content))

    def _item(self, path: RelPath) -> Item:
        node = self.tree.look(path)
        if node is None:
            raise PathMissing("/".join(path))
        mode = 0o777 if isinstance(node, Symlink) else node.mode
        links = sum(each is node for each in _all(self.tree.root)) if isinstance(node, File) else 1
        size_bytes = len(node.content) if isinstance(node, File) else 0
        used_bytes = _used(node.content) if isinstance(node, File) else 0
        kept = Kept(mode, str(node.uid), str(node.gid), node.accessed_ns, node.modified_ns)
        above = [self.tree.look(path[:depth]) for depth in range(len(path) + 1)]
        filesystem = next((self._id(each) for each in reversed(above) if each and id(each) in self.mounts), "memory")
        kind = node.kind if isinstance(node, File) else type_of(node)
        return Item(path, kind, self._id(node), filesystem, links, size_bytes, used_bytes, kept)


def _used(content: bytes) -> int:
    """Return the space that a file takes: that of its blocks with data."""
    blocks = (content[begin : begin + BLOCK_BYTES] for begin in range(0, len(content), BLOCK_BYTES))
    return sum(BLOCK_BYTES for block in blocks if any(block))


def _all(node: Node) -> Iterable[Node]:
    yield node
    if isinstance(node, Directory):
        for each in node.entries.values():
            yield from _all(each)


def type_of(node: Node) -> EntryType:
    """Return the type of a node as listings show it."""
    match node:
        case Directory():
            return "directory"
        case Symlink():
            return "symlink"
        case File():
            return "file"


def _expect(node: Node, kind: type[Expected], path: RelPath) -> Expected:
    if not isinstance(node, kind):
        raise ExportError(Cause.SYMLINK, f"{'/'.join(path)} is a {type_of(node)}")
    return node


def _count(node: Node) -> int:
    return 1 + sum(map(_count, node.entries.values())) if isinstance(node, Directory) else 1


def _check(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ExportError(Cause.OTHER, f"{name!r} is not a valid name")
    if len(_encoded(name)) > NAME_LIMIT_BYTES:
        raise ExportError(Cause.NAME_TOO_LONG, name)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
