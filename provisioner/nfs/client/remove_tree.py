"""Removing a directory with all that is in it: many calls in flight, by handle, in memory that is bounded in all.

A directory is read page by page. The names of a page that are no directories are removed in batches, its directories
are emptied first; only when nothing of a page is left to do is the next one read. Of a page no more is kept than there
is room for (see `backlog`): the rest is read again later. A directory that lies deeper than `DEPTH_LIMIT` and holds
something is renamed into the top, under a name that nobody can guess, and read from there: a tenant may nest
directories without end, and what we hold is never more than one way down and the pages along it.

What is refused stays, and all else goes; the first refusal is raised at the end. Nothing is removed from another
filesystem that is mounted inside. Nothing but the tree itself knows how far a removal is: after a crash, or beside
another removal of the same directory, it goes on with what is there.
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
"""A name of 255 bytes with its handle fits in."""
DEPTH_LIMIT = 32
ENTRIES_LIMIT = 10_000_000
"""Entries of one directory that are read in one go; what is left has to wait for the next attempt."""
REFUSALS_LIMIT = 1_000_000
"""Entries that may stay before a removal ends early."""
LOST_LIMIT = 10_000
"""How often a directory may be read again because the server has lost the place as entries went."""
REREADS_LIMIT = 100
"""How often it may be read again because something was in it after its end."""
_DIRECTORY_BYTES = 200
_BATCH_BYTES = 150
_NAME_BYTES = 16
"""What we hold for a directory, for a batch of names and for each name, beside its text and its handle."""
_MOST_BYTES = 1536
"""What an entry takes at most: a name of 255 bytes may take four times that as text."""
_OPEN = Ownership(mode=0o700)
_GONE = (Cause.NOT_FOUND, Cause.STALE, Cause.MISSING)


class Limited(Protocol):
    """Gives one step a time limit of its own."""

    async def __call__(self, step: Callable[[Deadline], Awaitable[T]]) -> T:
        """Run the step. Raises what it raises, and Cause.UNREACHABLE when it takes too long."""
        ...


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory on its way out."""

    handle: bytes
    name: str = ""
    parent: _Directory | None = None
    depth: int = 0
    reading: Reading | None = None
    """Where its reading goes on; None before it has begun."""
    at_end: bool = False
    """Whether its last page was read."""
    open_jobs: int = 0
    """Batches of names of this page that are not removed, and subdirectories that are not."""
    emptied: list[_Directory] | None = None
    """Subdirectories that hold nothing any more, to be removed together."""
    shrank: bool = False
    """Whether anything went, or came from below, since it was last read from its beginning."""
    rereads: int = 0
    stays: bool = False
    """Whether something in it was refused, so that it cannot go itself."""
    opened_up: bool = False

    @property
    def held_bytes(self) -> int:
        """What it takes in memory while it waits."""
        return _DIRECTORY_BYTES + sys.getsizeof(self.name) + sys.getsizeof(self.handle)

    @property
    def route(self) -> list[str]:
        """The names from the top, whose own comes first, down to it."""
        names, current = [self.name], self.parent
        while current is not None:
            names.append(current.name)
            current = current.parent
        return names[::-1]

    def named(self) -> str:
        """Its name for messages."""
        return endless.named(tuple(self.route))

    def may_reread(self, limit: int = REREADS_LIMIT) -> bool:
        """Begin again, where that is worth it: some servers skip entries of a directory that shrinks meanwhile."""
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
    """One removal at work; `removed` counts the entries that went. `room` is shared with the other removals."""

    client: Client
    limited: Limited
    on_progress: OnProgress | None = None
    budget: MemoryBudget = field(default_factory=MemoryBudget)
    removed: int = 0
    _ending: bool = False
    """Whether it ends early: what waits is not begun any more."""
    _backlog: Backlog[_Directory, _RemoveFiles | _RemoveDirectories] = field(init=False)
    _top: _Directory = field(init=False)
    _fsid: Fsid = (0, 0)
    _refusal: ExportError | None = None
    _refusals: int = 0
    _delays: int = 0
    """How often the server has asked us to wait since anything went."""

    async def remove(self, place: Place, found: Found) -> None:
        """Remove the directory that was found there, or as much of it as `go_on` wants.

        Raises Cause.SYMLINK, and the first refusal if something stays.
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
        """Read the next page and plan what is to be done for it."""
        reading = directory.reading = directory.reading or Reading(ENTRIES_LIMIT)
        try:
            page = self._fit(await self._page(directory, reading))
            directory.at_end = not reading.advance(page, directory.named)
        except ExportError as exc:
            await self._not_read(directory, reading, exc)
        else:
            self._count(0)  # a deep tree is read for long before anything of it goes
            self._plan(directory, page.entries)
        self._advance(directory)

    async def _page(self, directory: _Directory, reading: Reading) -> DirectoryPage:
        place = Place(directory.handle)
        size_bytes = max(SMALLEST_PAGE_BYTES, min(PAGE_BYTES, self._backlog.share_bytes))
        return await self.limited(
            lambda deadline: self.client.read_directory(deadline, place, reading.position, size_bytes)
        )

    def _fit(self, page: DirectoryPage) -> DirectoryPage:
        """As much of a page as there is room for by now, and one entry in any case."""
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
            directory.at_end = True
        elif _may_be_lost(exc) and reading.position.cookie and directory.may_reread(LOST_LIMIT):
            pass
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
                    deep.append(child)
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
            child, children = children[0], children[1:]
            if removal.refusal.cause is not Cause.NOT_EMPTY:
                self._refuse(parent, removal.refusal)
            elif child.depth > DEPTH_LIMIT:
                await self._hoist(child, parent)
            elif child.may_reread():
                self._backlog.read(child)
                continue
            else:
                self._refuse(parent, removal.refusal)
            self._settle(child, parent)
        self._advance(parent)

    def _settle(self, child: _Directory, parent: _Directory) -> None:
        """Nothing is left to do for a subdirectory."""
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
        """Rename a directory that lies deep into the top, to be found when that is read again.

        The top is the very directory that is being removed, by its handle, so that nothing leaves it.
        """
        name = f".deep-{secrets.token_hex(8)}"
        while True:
            try:
                await self.limited(
                    lambda deadline: self.client.move(deadline, parent.handle, child.name, self._top.handle, name)
                )
            except ExportError as exc:
                # It cannot be moved without write permission on it: `..` changes in it.
                if not (await self._open_up(child, exc) or await self._open_up(self._top, exc)):
                    self._refuse(parent, exc)
                    return
            else:
                parent.shrank = self._top.shrank = True
                self._top.rereads = 0
                self._count(0)
                return

    async def _open_up(self, directory: _Directory, refusal: ExportError) -> bool:
        """Give ourselves all permissions on a directory, once; whether it is worth another try."""
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
        """Remember why something stays. What is gone already is none of it.

        Raises it where all else would meet it as well, or where so much stays that there may be no end of it.
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
        """Go on with a directory whose jobs have changed, and with those above it that this completes."""
        current: _Directory | None = directory
        while current is not None:
            current = self._next(current)

    def _next(self, directory: _Directory) -> _Directory | None:
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
    """Whether the server may no longer know the place where a directory goes on."""
    return exc.cause is Cause.OTHER and not isinstance(exc, Endless)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _with_path(directory: _Directory, refusal: ExportError) -> ExportError:
    """The refusal with the way from the top to the directory that it was met in, so that an admin finds the entry."""
    names = directory.route[1:]
    found = inside([*names, *refusal.detail.partition(":")[:1]], refusal)
    where = f"in {'/'.join(names)}: " if names else ""
    return ExportError(found.cause, where + found.detail, hint=found.hint, answer=found.answer)
