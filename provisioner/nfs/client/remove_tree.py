"""Removal of a directory with its content: by handle, with many calls in flight and bounded memory.

How it works:

1. Read a page of the directory. Keep only as much of the page as memory allows (see `backlog`), and read the rest again
   later.
2. Remove the files of the page in batches. Empty its subdirectories in the same way, then remove them in batches.
3. Once the page is done, read the next page. Once the last page is done, the directory is empty.

A tenant can nest directories without limit, and a path of handles to a deep directory would take unlimited memory. So a
non-empty directory deeper than `DEPTH_LIMIT` is renamed into the top directory, under a random name that no tenant can
guess, and the next pass over the top directory finds it there. The removal never holds more than one path down the tree
and the pages along that path.

Entries that the server refuses to remove stay while all others are removed, and the first refusal is raised at the end.
If another file system is mounted inside the directory, nothing is removed from that file system. The removal keeps no
state outside the tree: after a crash, or in parallel with another removal of the same directory, it continues with the
entries that still exist.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from provisioner.nfs.client.backlog import Backlog, MemoryBudget
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Client, Place, Removal
from provisioner.nfs.client.reading import Reading
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Found, Fsid
from provisioner.ports import endless
from provisioner.ports.endless import Endless
from provisioner.ports.refusals import NESTED_INSIDE, inside
from provisioner.ports.tree import Cause, ExportError, NotEmpty, OnProgress, Ownership

T = TypeVar("T")

WORKERS = 32
PAGE_BYTES = 32 << 10
SMALLEST_PAGE_BYTES = 2 << 10
"""Large enough for a name of 255 bytes with its handle."""
DEPTH_LIMIT = 32
ENTRIES_LIMIT = 10_000_000
"""Entries of one directory that one pass reads; the rest waits for the next removal."""
REFUSALS_LIMIT = 1_000_000
"""Number of refused entries after which the removal stops early."""
LOST_LIMIT = 10_000
"""How often to read a directory again because the server lost the position while entries were removed."""
REREADS_LIMIT = 100
"""How often to read a directory again because it still had entries after the last page."""
_DIRECTORY_BYTES = 200
_BATCH_BYTES = 150
_NAME_BYTES = 16
"""Memory for a directory, a batch of names and each name, in addition to the text and the handle."""
_MOST_BYTES = 1536
"""Maximum memory for an entry: a name of 255 bytes can take four times that as text."""
_OPEN = Ownership(mode=0o700)
_GONE = (Cause.NOT_FOUND, Cause.STALE, Cause.MISSING)


class Limited(Protocol):
    """Runs one step with its own time limit."""

    async def __call__(self, step: Callable[[Deadline], Awaitable[T]]) -> T:
        """Run the step. Raises what the step raises, and Cause.UNREACHABLE after the time limit."""
        ...


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory that is being removed."""

    handle: bytes
    name: str = ""
    parent: _Directory | None = None
    depth: int = 0
    reading: Reading | None = None
    """The pass over its pages; None before the first page."""
    at_end: bool = False
    """Whether the last page was read."""
    open_jobs: int = 0
    """Number of batches and subdirectories of the current page that are not done."""
    emptied: list[_Directory] | None = None
    """Empty subdirectories that wait to be removed together."""
    shrank: bool = False
    """Whether entries were removed, or moved in from below, since the current pass began."""
    rereads: int = 0
    stays: bool = False
    """Whether an entry in it was refused, so that the directory itself has to stay."""
    opened_up: bool = False

    @property
    def held_bytes(self) -> int:
        """Memory that it takes while it waits."""
        return _DIRECTORY_BYTES + sys.getsizeof(self.name) + sys.getsizeof(self.handle)

    @property
    def route(self) -> list[str]:
        """The names from the top directory, inclusive, down to this one."""
        names, current = [self.name], self.parent
        while current is not None:
            names.append(current.name)
            current = current.parent
        return names[::-1]

    def named(self) -> str:
        """Return its name for messages."""
        return endless.named(tuple(self.route))

    def may_reread(self, limit: int = REREADS_LIMIT) -> bool:
        """Start a new pass if the directory has shrunk.

        Some servers skip entries of a directory that shrinks.
        """
        if not self.shrank or self.rereads >= limit:
            return False
        self.reading, self.at_end, self.shrank = None, False, False
        self.rereads += 1
        return True


@dataclass(frozen=True, slots=True)
class _RemoveFiles:
    directory: _Directory
    names: Sequence[str]
    held_bytes: int


@dataclass(frozen=True, slots=True)
class _RemoveDirectories:
    parent: _Directory
    children: Sequence[_Directory]


@dataclass(slots=True)
class TreeRemoval:
    """One removal; `removed` counts the removed entries, and all removals share `budget`."""

    client: Client
    limited: Limited
    on_progress: OnProgress | None = None
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    removed: int = 0
    _ending: bool = False
    """Whether the removal stops early and starts no further job."""
    _backlog: Backlog[_Directory, _RemoveFiles | _RemoveDirectories] = field(init=False)
    _top: _Directory = field(init=False)
    _fsid: Fsid = (0, 0)
    _refusal: ExportError | None = None
    _refusals: int = 0
    _delays: int = 0
    """How often the server has asked to try later since the last entry was removed."""

    async def remove(self, place: Place, found: Found) -> None:
        """Remove the directory that was found at this place, until `on_progress` returns False.

        Raises Cause.SYMLINK if it is not a directory, and the first refusal if an entry stays.
        """
        if found.attributes.type != "directory":
            raise ExportError(Cause.SYMLINK, f"{place} is a {found.attributes.type}")
        self._fsid = found.attributes.fsid
        self._top = _Directory(found.handle, str(place))
        self._backlog = Backlog(self.budget)
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(WORKERS)]
                await self._remove_top(place)
                for worker in workers:
                    worker.cancel()
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        finally:
            self._backlog.close()

    async def _remove_top(self, place: Place) -> None:
        """Run passes over the top directory until it is empty, and remove it."""
        while True:
            self._backlog.read(self._top)
            await self._backlog.until_empty()
            if self._ending:
                return
            if self._top.stays and self._refusal is not None:
                raise self._refusal
            try:
                await self.limited(lambda deadline: self.client.remove_directory(deadline, place))
            except NotEmpty:
                if not self._top.may_reread():
                    raise
            else:
                self._count(1)
                return

    def _count(self, removed: int) -> None:
        self.removed += removed
        if removed:
            self._delays = 0
        if self.on_progress is not None and not self.on_progress(removed):
            self._ending = True

    async def _work(self) -> None:
        while True:
            directory, change = await self._backlog.take()
            if self._ending:
                pass
            elif directory is not None:
                await self._read(directory)
            elif isinstance(change, _RemoveFiles):
                await self._remove_files(change)
            elif change is not None:
                await self._remove_directories(change.parent, change.children)
            self._backlog.done(directory)

    # ------------------------------------------------------------------------------------------- reading

    async def _read(self, directory: _Directory) -> None:
        """Read the next page and add the jobs for it."""
        reading = directory.reading = directory.reading or Reading(ENTRIES_LIMIT)
        try:
            page = self._fit(await self._page(directory, reading))
            directory.at_end = not reading.advance(page, directory.named)
        except ExportError as exc:
            await self._not_read(directory, reading, exc)
        else:
            self._count(0)  # report progress: a deep tree is read for long before the first entry is removed
            self._plan(directory, page.entries)
        self._advance(directory)

    async def _page(self, directory: _Directory, reading: Reading) -> DirectoryPage:
        place = Place(directory.handle)
        size_bytes = max(SMALLEST_PAGE_BYTES, min(PAGE_BYTES, self._backlog.share_bytes))
        return await self.limited(
            lambda deadline: self.client.read_directory(deadline, place, reading.position, size_bytes)
        )

    def _fit(self, page: DirectoryPage) -> DirectoryPage:
        """Cut a page to the memory that is left now, with at least one entry."""
        left_bytes = self._backlog.share_bytes
        if left_bytes >= _MOST_BYTES * len(page.entries):
            return page
        for count, entry in enumerate(page.entries):
            left_bytes -= sys.getsizeof(entry.name) + _NAME_BYTES
            if entry.attributes is not None and entry.attributes.type == "directory":
                left_bytes -= _DIRECTORY_BYTES + sys.getsizeof(entry.handle)
            if left_bytes < 0:
                return page.first(max(1, count))
        return page

    async def _not_read(self, directory: _Directory, reading: Reading, exc: ExportError) -> None:
        if exc.cause in _GONE:
            directory.at_end = True  # Another client has removed it.
        elif _may_be_lost(exc) and reading.position.cookie and directory.may_reread(LOST_LIMIT):
            pass  # The next job reads it again from its beginning.
        elif not await self._open_up(directory, exc):
            directory.at_end = True
            self._refuse(directory, exc)

    def _plan(self, directory: _Directory, entries: Iterable[DirectoryEntry]) -> None:
        names: list[str] = []
        deep: list[_Directory] = []
        for entry in entries:
            if entry.attributes is None or entry.handle is None or entry.attributes.type != "directory":
                names.append(entry.name)
            elif entry.attributes.fsid != self._fsid:
                self._refuse(directory, ExportError(Cause.NESTED, entry.name, hint=NESTED_INSIDE))
            else:
                child = _Directory(entry.handle, entry.name, directory, directory.depth + 1)
                directory.open_jobs += 1
                self._backlog.hold_memory(child.held_bytes)
                if child.depth > DEPTH_LIMIT:
                    deep.append(child)  # not read: removed if it is empty, hoisted if not
                else:
                    self._backlog.read(child)
        for children in _batches(deep, self.client.max_names_per_call):
            self._backlog.change(_RemoveDirectories(directory, children))
        for batch in _batches(names, self.client.max_names_per_call):
            held_bytes = _BATCH_BYTES + _NAME_BYTES * len(batch) + sum(map(sys.getsizeof, batch))
            directory.open_jobs += 1
            self._backlog.hold_memory(held_bytes)
            self._backlog.change(_RemoveFiles(directory, batch, held_bytes))

    # ------------------------------------------------------------------------------------------- removing

    async def _remove_files(self, files: _RemoveFiles) -> None:
        directory, names = files.directory, files.names
        while names:
            removal = await self._remove_names(directory, names, directories=False)
            names = names[removal.removed :]
            if removal.refusal is None:
                break
            if not await self._open_up(directory, removal.refusal):
                names = names[1:]
                self._refuse(directory, removal.refusal)
        directory.open_jobs -= 1
        self._backlog.release_memory(files.held_bytes)
        self._advance(directory)

    async def _remove_directories(self, parent: _Directory, children: Sequence[_Directory]) -> None:
        while children:
            removal = await self._remove_names(parent, [child.name for child in children], directories=True)
            for child in children[: removal.removed]:
                self._settle(child, parent)
            children = children[removal.removed :]
            if removal.refusal is None:
                break
            if await self._open_up(parent, removal.refusal):
                continue
            # The server refused the first of the remaining names. Decide what to do with it, and go on with the rest.
            child, children = children[0], children[1:]
            if removal.refusal.cause is not Cause.NOT_EMPTY:
                self._refuse(parent, removal.refusal)
            elif child.depth > DEPTH_LIMIT:
                # A deep directory was never read: this was a try whether it is empty.
                await self._hoist(child, parent)
            elif child.may_reread():
                # It still has entries that its last pass did not see. It stays a job of the parent.
                self._backlog.read(child)
                continue
            else:
                self._refuse(parent, removal.refusal)
            self._settle(child, parent)
        self._advance(parent)

    def _settle(self, child: _Directory, parent: _Directory) -> None:
        """Mark a subdirectory as done, removed or not."""
        parent.open_jobs -= 1
        self._backlog.release_memory(child.held_bytes)

    async def _remove_names(self, directory: _Directory, names: Sequence[str], *, directories: bool) -> Removal:
        removal = await self.limited(
            lambda deadline: self.client.remove_names(deadline, directory.handle, names, directories=directories)
        )
        self._count(removal.removed)
        directory.shrank = directory.shrank or removal.removed > 0
        return removal

    async def _hoist(self, child: _Directory, parent: _Directory) -> None:
        """Rename a deep directory into the top directory, where the next pass finds it.

        The target is the handle of the top directory, so that the directory cannot end up anywhere else.
        """
        name = f".deep-{secrets.token_hex(8)}"
        while True:
            try:
                await self.limited(
                    lambda deadline: self.client.move(deadline, parent.handle, child.name, self._top.handle, name)
                )
            except ExportError as exc:
                # A rename changes `..` inside the directory, so it needs write permission on it.
                if not (await self._open_up(child, exc) or await self._open_up(self._top, exc)):
                    self._refuse(parent, exc)
                    return
            else:
                parent.shrank = self._top.shrank = True
                self._top.rereads = 0
                self._count(0)
                return

    async def _open_up(self, directory: _Directory, refusal: ExportError) -> bool:
        """After a denied call, add permissions to the directory, once.

        Returns True if a retry makes sense.
        """
        if refusal.cause is not Cause.DENIED or directory.opened_up:
            return False
        directory.opened_up = True
        try:
            await self.limited(lambda deadline: self.client.set_access(deadline, Place(directory.handle), _OPEN))
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            return False
        return True

    def _refuse(self, directory: _Directory, refusal: ExportError) -> None:
        """Remember why an entry stays; an entry that no longer exists does not count.

        Raises the refusal if it would also meet all other entries, or if too many entries stay.
        """
        if refusal.cause in _GONE:
            directory.shrank = True
            return
        directory.stays = True
        self._refusal = self._refusal or _with_path(directory, refusal)
        self._refusals += 1
        self._delays += refusal.cause is Cause.NOT_YET
        if refusal.cause is Cause.UNREACHABLE or self._delays > WORKERS:
            raise refusal
        if self._refusals > REFUSALS_LIMIT:
            raise self._refusal

    # ------------------------------------------------------------------------------------------- going on

    def _advance(self, directory: _Directory) -> None:
        """Add the next job of a directory, and continue upwards while directories are complete."""
        current: _Directory | None = directory
        while current is not None:
            current = self._next(current)

    def _next(self, directory: _Directory) -> _Directory | None:
        # Remove the empty subdirectories together, once a batch is full or the page has no other open job.
        ready = len(directory.emptied or ())
        if directory.emptied and (ready == directory.open_jobs or ready >= self.client.max_names_per_call):
            batch, directory.emptied = directory.emptied, None
            self._backlog.change(_RemoveDirectories(directory, batch))
            return None
        if directory.open_jobs:
            return None
        if not directory.at_end:
            self._backlog.read(directory)
            return None
        # The last page is done, so the directory is empty, unless an entry stays. Hand it over to its parent.
        parent = directory.parent
        if parent is None:
            return None
        if directory.stays:
            parent.stays = True
            self._settle(directory, parent)
        elif parent.emptied is None:
            parent.emptied = [directory]
        else:
            parent.emptied.append(directory)
        return parent


def _may_be_lost(exc: ExportError) -> bool:
    """Return True if the server has possibly lost the position in the directory."""
    return exc.cause is Cause.OTHER and not isinstance(exc, Endless)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _with_path(directory: _Directory, refusal: ExportError) -> ExportError:
    """Add the path below the top directory to a refusal, so that an admin finds the entry."""
    names = directory.route[1:]
    found = inside([*names, *refusal.detail.partition(":")[:1]], refusal)
    where = f"in {'/'.join(names)}: " if names else ""
    return ExportError(found.cause, where + found.detail, hint=found.hint, answer=found.answer)
