"""Copies of a directory tree, from one place of an export to another one of the same or of another export.

A copy has files with their holes, modes, owners, times and extended attributes, symlinks as they are, hard links within
the tree, FIFOs and empty directories, under names of any bytes. Each file is copied in the best way that works: it
shares the stored data (CLONE), the server copies it (COPY), or this process reads and writes. What does not work for
one file is not tried for the next.

How it works:

1. One walker reads the source page by page, depth first, and creates the directories.
2. Workers copy everything else, out of a short queue. Each call takes a worker of the copy's share (see `shares`).
3. A directory gets its mode, owner and times once everything in it is there.
4. A file with several names is first copied into `links`, beside the tree, and each name is a link to it. So no memory
   grows with the number of hard links.

The target is new, and only this copy works on it. The server can be away for any time: each step is repeated until it
is done. Everything else that the source or the target refuses ends the copy. An entry that disappears during the copy
is left out, as `cp` does; one that is replaced by a rename is copied again. What no copy can have is left out too:
sockets, devices, other file systems that are mounted in the tree, snapshots that a server shows there, and extended
attributes that the target does not keep. They are counted and named.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from provisioner.core.backoff import Backoff
from provisioner.core.locations import RelPath
from provisioner.ledger.errors import CopyFailed
from provisioner.ledger.shares import Share
from provisioner.ports.aio import map_bounded
from provisioner.ports.files import Item, Kept, Made
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists, PathMissing, Tree

T = TypeVar("T")

TREE = "tree"
LINKS = "links"
"""Directories below the target: the copy, and the files that have several names in it."""

WORKERS = 32
"""Workers of a copy that shares them with no other one."""
QUEUE_LIMIT = 64
CHUNKS_PER_FILE = 16
DEPTH_LIMIT = 256
SEGMENT_BYTES = 256 << 20
"""The part of a file that is brought to stable storage at a time."""
SEGMENT_TRIES = 10
REPLACED_TRIES = 30
"""How often a file is copied again that was replaced during its copy."""
SLACK_BYTES = 1 << 20
"""How much more space than data a file with holes can take, for the file system's own needs."""
NAMED = 5
"""How many of the entries that were left out are named."""
SERVER_COPY_BYTES = 16 << 20
"""Size of one copy by the server: small enough that a slow one answers within the time limit."""

_PASSING = (Cause.UNREACHABLE, Cause.BUSY, Cause.NOT_YET)
"""Causes that end by themselves: the step is repeated."""
_AGAIN = Backoff(first_s=0.2, limit_s=10.0, jitter=0)
_GONE = (Cause.NOT_FOUND, Cause.STALE, Cause.SYMLINK)
"""Causes of calls on an object that is gone; an object of another type can have its name, or that of its directory."""
_SNAPSHOTS = (".snapshot", "~snapshot", ".zfs")
"""Directories in which servers show snapshots of the directory that they are in."""
_PRIVATE = Ownership(mode=0o700)


@dataclass(frozen=True, slots=True)
class Regroup:
    """What has the source's own group gets that of the copy."""

    old: int
    new: int

    def applied(self, kept: Kept) -> Kept:
        """Return what an entry of the copy keeps."""
        return replace(kept, group=str(self.new)) if kept.group == str(self.old) else kept


class _Vanished(Exception):
    """An object of the source is gone."""


@dataclass(slots=True)
class Progress:
    """What a copy has done so far."""

    entries: int = 0
    size_bytes: int = 0
    vanished: int = 0
    """Entries that were removed during the copy."""
    left_out: int = 0
    """Entries, and extended attributes, that the copy lacks."""
    names: list[str] = field(default_factory=list)
    """The first NAMED of those that were left out."""
    trouble: str = ""
    """Why a step is being repeated; empty while all goes well."""

    def leave_out(self, name: str) -> None:
        """Count an entry or an attribute that no copy can have."""
        self.left_out += 1
        if len(self.names) < NAMED:
            self.names.append(name)


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory that is being copied."""

    source: Item
    target: Item
    parent: _Directory | None
    open_jobs: int = 1
    """Entries that are not copied yet; the walk over the directory is one of them."""


class TreeCopy:
    """One copy; `allows` says whether it can go on."""

    def __init__(
        self,
        source: Tree,
        target: Tree,
        progress: Progress,
        *,
        allows: Callable[[], bool],
        regroup: Regroup | None = None,
        share: Share | None = None,
    ) -> None:
        self._origin = source.files
        self._target = target
        self._into = target.files
        self._progress = progress
        self._allows = allows
        self._regroup = regroup
        shares = self._into.shares(self._origin)
        self._clones = self._copies = self._wholes = shares
        self._queue: asyncio.Queue[tuple[_Directory, Item]] = asyncio.Queue(QUEUE_LIMIT)
        self._share = Share(WORKERS) if share is None else share
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._chunk_bytes: int
        self._links: Item
        self._top: Item

    async def run(self, source: RelPath, target: RelPath) -> None:
        """Copy the directory at `source` to `tree` in the new directory `target`.

        Raises CopyFailed; then the target has a part of the copy.
        """
        try:
            await self._run(source, target)
        except ExportError as exc:
            raise CopyFailed(exc) from exc
        except ExceptionGroup as exc:
            first = exc.exceptions[0]
            if isinstance(first, ExportError):
                raise CopyFailed(first) from first
            raise first from exc

    async def _run(self, source: RelPath, target: RelPath) -> None:
        for name in (TREE, LINKS):
            await self._persist(partial(self._make_private, (*target, name)))
        self._links = await self._persist(lambda: self._into.look((*target, LINKS)))
        tree = await self._persist(lambda: self._into.look((*target, TREE)))
        self._top = await self._persist(lambda: self._origin.look(source))
        if self._top.kind != "directory":
            raise ExportError(Cause.SYMLINK, f"{'/'.join(source)} is a {self._top.kind}")
        read_bytes = await self._persist(lambda: self._origin.chunk_bytes(self._top))
        self._chunk_bytes = min(read_bytes, await self._persist(lambda: self._into.chunk_bytes(tree)))
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(self._share.count)]
            await self._walk(_Directory(self._top, tree, None))
            await self._queue.join()
            for worker in workers:
                worker.cancel()
        # What is moved away during the copy, for its removal, must not look as if it were empty.
        now = await self._persist(lambda: self._origin.look(source))
        if now.id != self._top.id:
            raise ExportError(Cause.NOT_FOUND, f"{'/'.join(source)} was replaced during the copy")

    async def _make_private(self, path: RelPath) -> None:
        with suppress(PathExists):
            await self._target.make_directory(path, _PRIVATE)

    # ------------------------------------------------------------------------------------------- the walk

    async def _walk(self, top: _Directory) -> None:
        """Read the source, create its directories, and queue everything else."""
        stack = [(top, self._entries(top))]
        try:
            while stack:
                directory, entries = stack[-1]
                item = await anext(entries, None)
                if item is None:
                    stack.pop()
                    await self._leave(directory)
                elif self._is_left_out(item):
                    self._progress.leave_out(self._called(item))
                elif item.kind != "directory":
                    directory.open_jobs += 1
                    await self._queue.put((directory, item))
                elif len(stack) >= DEPTH_LIMIT:
                    hint = f"directories nest more than {DEPTH_LIMIT} deep: move the innermost ones up"
                    raise ExportError(Cause.OTHER, f"{item.path[-1]} is too deep", hint=hint)
                else:
                    child = await self._enter(directory, item)
                    stack.append((child, self._entries(child)))
        finally:
            for _, entries in stack:
                await entries.aclose()

    async def _entries(self, directory: _Directory) -> AsyncGenerator[Item, None]:
        """Yield the entries of a directory; none if it is gone."""
        more: object | None = None
        while True:
            try:
                page = await self._read(partial(self._origin.page, directory.source, more))
            except _Vanished:
                self._progress.vanished += 1
                return
            for item in page.items:
                yield item
            more = page.more
            if more is None:
                return

    def _is_left_out(self, item: Item) -> bool:
        return (
            item.kind == "other"
            or item.filesystem != self._top.filesystem
            or (item.kind == "directory" and item.path[-1] in _SNAPSHOTS)
        )

    async def _enter(self, parent: _Directory, item: Item) -> _Directory:
        """Create a directory, which gets its attributes once it is complete."""
        target = await self._make(parent.target, item.path[-1], "directory")
        parent.open_jobs += 1
        return _Directory(item, target, parent)

    async def _leave(self, directory: _Directory) -> None:
        """Count a job of a directory as done. Complete those that have no other, upwards."""
        current: _Directory | None = directory
        while current is not None:
            current.open_jobs -= 1
            if current.open_jobs:
                return
            with suppress(_Vanished):
                await self._keep_attributes(current.source, current.target, await self._attributes(current.source))
            await self._persist(partial(self._into.keep, current.target, self._kept(current.source)))
            self._progress.entries += 1
            current = current.parent

    # ------------------------------------------------------------------------------------------- everything else

    async def _work(self) -> None:
        while True:
            directory, item = await self._queue.get()
            try:
                await self._copy_latest(item, directory.target)
                self._progress.entries += 1
            except _Vanished:
                self._progress.vanished += 1
            await self._leave(directory)
            self._queue.task_done()

    async def _copy_latest(self, item: Item, parent: Item) -> None:
        """Copy an entry that is not a directory. Raises _Vanished if it is gone.

        A program that replaces a file by a rename leaves no moment without a file of that name. So the copy has one
        too: it begins again with the new file.
        """
        for _ in range(REPLACED_TRIES):
            try:
                if item.links > 1 and item.kind != "symlink":
                    await self._copy_linked(item, parent, item.path[-1])
                else:
                    await self._copy_entry(item, parent, item.path[-1])
            except _Vanished:
                item = await self._read(partial(self._origin.look, item.path))
                if item.kind == "directory" or self._is_left_out(item):
                    raise
            else:
                return
        hint = "stop the program that replaces it"
        raise ExportError(Cause.OTHER, f"{item.path[-1]} is replaced faster than it is copied", hint=hint)

    async def _copy_linked(self, item: Item, parent: Item, name: str) -> None:
        """Copy a file that has several names once, and give the copy one name more."""
        lock = self._locks.setdefault(item.id, asyncio.Lock())
        shared = (*self._links.path, item.id)
        async with lock:
            try:
                made = await self._persist(lambda: self._into.look(shared))
            except PathMissing:
                await self._copy_entry(item, self._links, item.id)
                made = await self._persist(lambda: self._into.look(shared))
        tries = 0

        async def link() -> None:
            nonlocal tries
            tries += 1
            try:
                await self._into.link(made, parent, name)
            except PathExists as exc:
                if tries == 1:
                    raise _folded(name) from exc

        await self._persist(link)

    async def _copy_entry(self, item: Item, parent: Item, name: str) -> None:
        """Copy a file, symlink or FIFO. Raises _Vanished, and leaves nothing, if it is gone."""
        kind = item.kind
        assert kind in ("file", "fifo", "symlink")
        attributes = await self._attributes(item) if kind == "file" else {}
        if kind == "file" and self._wholes and item.size_bytes <= self._chunk_bytes and not attributes:
            if await self._copy_whole(item, parent, name):
                return
            self._wholes = False
        target = await self._read(lambda: self._origin.read_link(item)) if kind == "symlink" else ""
        made = await self._make(parent, name, kind, target)
        try:
            if kind == "file":
                await self._copy_content(item, made)
        except _Vanished:
            await self._persist(lambda: self._into.remove(parent, name))
            raise
        await self._keep_attributes(item, made, attributes)
        await self._persist(lambda: self._into.keep(made, self._kept(item)))

    async def _attributes(self, item: Item) -> Mapping[str, bytes]:
        """Return the extended attributes of a file or directory. Raises _Vanished."""
        return await self._read(lambda: self._origin.attributes(item))

    async def _keep_attributes(self, item: Item, made: Item, attributes: Mapping[str, bytes]) -> None:
        """Give extended attributes to a copy while only its owner can use it: its mode can forbid them later."""
        for name, value in attributes.items():
            try:
                kept = await self._persist(partial(self._into.set_attribute, made, name, value))
            except ExportError as exc:
                # Some file systems have little room for attributes, and report a full disk: ext4 has 4 KiB per file.
                if exc.cause is not Cause.NO_SPACE or (await self._target.space()).free_bytes < SLACK_BYTES:
                    raise
                kept = False
            if not kept:
                self._progress.leave_out(f"{self._called(item)} ({name})")

    def _called(self, item: Item) -> str:
        """Return the path of an entry within the tree."""
        return "/".join(item.path[len(self._top.path) :]) or "."

    async def _copy_whole(self, item: Item, parent: Item, name: str) -> bool:
        """Copy a small file in one call, with all that it keeps; return False if the tree has no such call."""
        tries = 0

        async def copy() -> int | None:
            nonlocal tries
            tries += 1
            if tries > 1:  # an earlier try with an unknown outcome can have created a part of it
                await self._into.remove(parent, name)
            try:
                return await self._into.copy_whole(item, parent, name, self._kept(item))
            except PathExists as exc:
                raise _folded(name) from exc

        copied = await self._read_and_change(item, copy)
        self._progress.size_bytes += copied or 0
        return copied is not None

    async def _make(self, parent: Item, name: str, kind: Made, target: str = "") -> Item:
        """Create an object; what an earlier try with an unknown outcome has created is this one."""
        tries = 0

        async def make() -> Item:
            nonlocal tries
            tries += 1
            try:
                return await self._into.make(parent, name, kind, target)
            except PathExists as exc:
                if tries == 1:
                    raise _folded(name) from exc
                return await self._into.look((*parent.path, name))

        return await self._persist(make)

    def _kept(self, item: Item) -> Kept:
        return item.kept if self._regroup is None else self._regroup.applied(item.kept)

    # ------------------------------------------------------------------------------------------- content

    async def _copy_content(self, item: Item, made: Item) -> None:
        size_bytes = item.size_bytes
        if size_bytes and self._clones:
            if await self._read_and_change(item, lambda: self._into.clone(item, made)):
                self._progress.size_bytes += size_bytes
                return
            self._clones = False
        end, whole = 0, True
        is_sparse = size_bytes > self._chunk_bytes and item.used_bytes < size_bytes
        if is_sparse:
            end, data_bytes = await self._copy_regions(item, made)
            # If it takes much more space than it has data, the server tells holes where there is data.
            whole = item.used_bytes > (data_bytes and data_bytes + max(SLACK_BYTES, data_bytes // 8))
        for begin in range(0, size_bytes if whole else 0, SEGMENT_BYTES):
            until = min(size_bytes, begin + SEGMENT_BYTES)
            end = max(end, await self._copy_segment(item, made, begin, until, by_server=not is_sparse))
        if end < size_bytes:
            await self._persist(lambda: self._into.set_size(made, size_bytes))

    async def _copy_regions(self, item: Item, made: Item) -> tuple[int, int]:
        """Copy the data between the holes of a file; return its end, and how many bytes it has."""
        end = offset = data_bytes = 0
        size_bytes = item.size_bytes
        while offset < size_bytes:
            found = await self._read(partial(self._origin.next_data, item, offset))
            if found is None:
                break
            begin, until = found if found[1] > offset else (offset, size_bytes)  # a server that tells nothing
            offset = min(until, begin + SEGMENT_BYTES, size_bytes)
            end = max(end, await self._copy_segment(item, made, begin, offset, by_server=True))
            data_bytes += offset - begin
        return end, data_bytes

    async def _copy_segment(self, item: Item, made: Item, begin: int, end: int, *, by_server: bool) -> int:
        """Copy a part of a file to stable storage, again if the server has lost it; return the end of its data.

        A copy by the server fills holes.
        """
        for _ in range(SEGMENT_TRIES):
            unstable: set[bytes] = set()
            at = await self._copy_by_server(item, made, begin, end, unstable) if by_server else begin
            written = max(at if at > begin else 0, await self._copy_data(item, made, at, end, unstable))
            if not unstable or unstable == {await self._persist(lambda: self._into.flush(made))}:
                return written
        raise ExportError(Cause.OTHER, f"{item.path[-1]}: the server has lost what was written, {SEGMENT_TRIES} times")

    async def _copy_by_server(self, item: Item, made: Item, at: int, end: int, unstable: set[bytes]) -> int:
        """Let the server copy as far as it can; return how far it came."""
        while self._copies and at < end:
            wanted = min(end - at, SERVER_COPY_BYTES)
            copied = await self._read_and_change(item, partial(self._into.copy_range, item, made, at, wanted))
            if copied is None:
                self._copies = False
                break
            size_bytes, verifier = copied
            if not size_bytes:
                break  # the file has become shorter
            unstable.add(verifier)
            self._progress.size_bytes += size_bytes
            at += size_bytes
        return at

    async def _copy_data(self, item: Item, made: Item, begin: int, end: int, unstable: set[bytes]) -> int:
        """Copy by reading and writing; return the end of the data."""
        stable = begin == 0 and end == item.size_bytes and end <= self._chunk_bytes

        async def move(chunk: int) -> int:
            async with self._share:
                return await self._move(item, made, chunk, min(end, chunk + self._chunk_bytes), unstable, stable=stable)

        return max(await map_bounded(move, range(begin, end, self._chunk_bytes), limit=CHUNKS_PER_FILE), default=0)

    async def _move(self, item: Item, made: Item, at: int, end: int, unstable: set[bytes], *, stable: bool) -> int:
        """Read and write a chunk, both by one worker; return the end of its data, 0 if it has only zeros."""
        written = 0
        while at < end:
            data = await self._repeat(lambda: self._from_source(self._origin.read(item, at, end - at)))  # noqa: B023
            if not data:
                break  # the file has become shorter
            if data.count(0) < len(data):
                verifier = await self._repeat(partial(self._into.write, made, at, data, stable=stable))
                if not stable:
                    unstable.add(verifier)
                written = at + len(data)
            at += len(data)
            self._progress.size_bytes += len(data)
        return written

    # ------------------------------------------------------------------------------------------- calls

    async def _persist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Let a worker do a step, and repeat it while its failures are passing ones."""
        async with self._share:
            return await self._repeat(step)

    async def _repeat(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step as a part of what a worker does."""
        failures = 0
        while True:
            if not self._allows():
                raise ExportError(Cause.UNSETTLED)
            try:
                result = await step()
            except ExportError as exc:
                if exc.cause not in _PASSING:
                    raise
                failures += 1
                self._progress.trouble = exc.cause.value
                await asyncio.sleep(_AGAIN.delay_s(failures, 0))
            else:
                if failures:
                    self._progress.trouble = ""
                return result

    async def _read(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step on the source only. Raises _Vanished."""
        return await self._persist(lambda: self._from_source(step()))

    async def _from_source(self, call: Awaitable[T]) -> T:
        """Wait for a call on the source. Raises _Vanished if its object is gone."""
        try:
            return await call
        except ExportError as exc:
            if exc.cause in _GONE:
                raise _Vanished from exc
            raise

    async def _read_and_change(self, item: Item, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step on two objects. Raises _Vanished if that of the source, `item`, is gone."""
        try:
            return await self._persist(step)
        except ExportError as exc:
            if exc.cause in _GONE:
                await self._read(lambda: self._origin.read(item, 0, 1))
            raise


def _folded(name: str) -> ExportError:
    """Two names of a directory are one name for the target's server."""
    hint = "its server treats names as equal that differ in case or normal form: use an export on another file system"
    return ExportError(Cause.OTHER, f"there are two entries {name!r}", hint=hint)
