"""Removing a directory with all that is in it: many calls in flight, by handle, in memory that a page bounds.

A directory is read page by page. The names of a page that are no directories are removed in batches, its directories
are emptied first; only when nothing of a page is left to do is the next one read. The jobs that this makes lie on a
stack for a fixed number of workers, so that the newest and deepest are done first, and what is held at once is a page
for each level and worker. There is no recursion: a tenant may nest directories without end.

What is refused stays, and all else goes; the first refusal is raised at the end. Nothing is removed from another
filesystem that is mounted inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from provisioner.nfs.direct.attempt import Attempt
from provisioner.nfs.direct.client import Client, Place, Removal
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Found, Fsid, Position
from provisioner.nfs.refusals import NESTED_INSIDE, inside
from provisioner.ports import Access, Cause, ExportError, GoOn, NotEmpty, PathMissing

T = TypeVar("T")

WORKERS = 32
PAGE_BYTES = 32 << 10
_OPEN = Access(mode=0o700)
_GONE = (Cause.STALE, Cause.MISSING)


class Limited(Protocol):
    """Gives one step a time limit of its own."""

    async def __call__(self, step: Callable[[Attempt], Awaitable[T]]) -> T:
        """Run the step. Raises what it raises, and Cause.UNREACHABLE when it takes too long."""
        ...


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory on its way out."""

    handle: bytes
    name: str = ""
    parent: _Directory | None = None
    position: Position | None = field(default_factory=Position)
    """Where its reading goes on; None when its last page was read."""
    open_jobs: int = 0
    """Batches of names of this page that are not removed, and subdirectories that are not."""
    emptied: list[_Directory] = field(default_factory=list)
    """Subdirectories that hold nothing any more, to be removed together."""
    shrank: bool = False
    """Whether anything went since it was last read from its beginning."""
    stays: bool = False
    """Whether something in it was refused, so that it cannot go itself."""
    opened_up: bool = False

    def reread(self) -> None:
        """Begin again: some servers skip entries of a directory that shrinks while it is read."""
        self.position = Position()
        self.shrank = False


@dataclass(frozen=True, slots=True)
class _Read:
    directory: _Directory


@dataclass(frozen=True, slots=True)
class _RemoveFiles:
    directory: _Directory
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class _RemoveDirectories:
    parent: _Directory
    children: Sequence[_Directory]


class Purge:
    """One removal at work; `removed` counts the entries that went."""

    def __init__(self, client: Client, limited: Limited, go_on: GoOn) -> None:
        self.removed = 0
        self._client = client
        self._limited = limited
        self._go_on = go_on
        self._ending = False
        """Whether it ends early: what is on the stack is not begun any more."""
        self._stack: asyncio.LifoQueue[_Read | _RemoveFiles | _RemoveDirectories] = asyncio.LifoQueue()
        self._fsid: Fsid = (0, 0)
        self._refusal: ExportError | None = None

    async def remove(self, place: Place, found: Found) -> None:
        """Remove the directory that was found there, or as much of it as `go_on` wants.

        Raises Cause.SYMLINK, and the first refusal if something stays.
        """
        if found.attributes.type != "directory":
            raise ExportError(Cause.SYMLINK, f"{place} is a {found.attributes.type}")
        self._fsid = found.attributes.fsid
        top = _Directory(found.handle)
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work()) for _ in range(WORKERS)]
                await self._remove_top(top, place)
                for worker in workers:
                    worker.cancel()
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc

    async def _remove_top(self, top: _Directory, place: Place) -> None:
        while True:
            self._stack.put_nowait(_Read(top))
            await self._stack.join()
            if self._ending:
                return
            if top.stays and self._refusal is not None:
                raise self._refusal
            try:
                await self._limited(lambda attempt: self._client.remove_directory(attempt, place))
            except NotEmpty:
                if not top.shrank:
                    raise
                top.reread()
            else:
                self._count(1)
                return

    def _count(self, removed: int) -> None:
        self.removed += removed
        self._ending = not self._go_on(removed) or self._ending

    async def _work(self) -> None:
        while True:
            job = await self._stack.get()
            if self._ending:
                pass
            elif isinstance(job, _Read):
                await self._read(job.directory)
            elif isinstance(job, _RemoveFiles):
                await self._remove_files(job.directory, job.names)
            else:
                await self._remove_directories(job.parent, job.children)
            self._stack.task_done()

    async def _read(self, directory: _Directory) -> None:
        """Read the next page and put what is to be done for it on the stack."""
        position = directory.position or Position()
        try:
            page = await self._page(directory, position)
        except ExportError as exc:
            if exc.cause in _GONE or isinstance(exc, PathMissing):
                directory.position = None
            elif exc.cause is Cause.OTHER and position.cookie and directory.shrank:
                directory.reread()  # The server no longer knows the cookie.
            elif not await self._open_up(directory, exc):
                directory.position = None
                self._refuse(directory, exc)
        else:
            directory.position = page.next
            self._count(0)  # a deep tree is read for long before anything of it goes
            self._plan(directory, page.entries)
        self._advance(directory)

    async def _page(self, directory: _Directory, position: Position) -> DirectoryPage:
        place = Place(directory.handle)
        return await self._limited(lambda attempt: self._client.read_directory(attempt, place, position, PAGE_BYTES))

    def _plan(self, directory: _Directory, entries: Iterable[DirectoryEntry]) -> None:
        files: list[str] = []
        for entry in entries:
            if entry.attributes is None or entry.handle is None or entry.attributes.type != "directory":
                files.append(entry.name)
            elif entry.attributes.fsid != self._fsid:
                self._refuse(directory, ExportError(Cause.NESTED, entry.name, hint=NESTED_INSIDE))
            else:
                directory.open_jobs += 1
                self._stack.put_nowait(_Read(_Directory(entry.handle, entry.name, directory)))
        batch = self._client.names_a_call
        for start in range(0, len(files), batch):
            directory.open_jobs += 1
            self._stack.put_nowait(_RemoveFiles(directory, files[start : start + batch]))

    async def _remove_files(self, directory: _Directory, names: Sequence[str]) -> None:
        while names:
            removal = await self._remove_names(directory, names, directories=False)
            names = names[removal.removed :]
            if removal.refusal is None:
                break
            if not await self._open_up(directory, removal.refusal):
                names = names[1:]
                self._refuse(directory, removal.refusal)
        directory.open_jobs -= 1
        self._advance(directory)

    async def _remove_directories(self, parent: _Directory, children: Sequence[_Directory]) -> None:
        while children:
            removal = await self._remove_names(parent, [child.name for child in children], directories=True)
            parent.open_jobs -= removal.removed
            children = children[removal.removed :]
            if removal.refusal is None:
                break
            if await self._open_up(parent, removal.refusal):
                continue
            child, children = children[0], children[1:]
            if isinstance(removal.refusal, NotEmpty) and child.shrank:
                child.reread()
                self._stack.put_nowait(_Read(child))
                continue
            parent.open_jobs -= 1
            self._refuse(parent, removal.refusal)
        self._advance(parent)

    async def _remove_names(self, directory: _Directory, names: Sequence[str], *, directories: bool) -> Removal:
        removal = await self._limited(
            lambda attempt: self._client.remove_names(attempt, directory.handle, names, directories=directories)
        )
        self._count(removal.removed)
        directory.shrank = directory.shrank or removal.removed > 0
        return removal

    async def _open_up(self, directory: _Directory, refusal: ExportError) -> bool:
        """Give ourselves all permissions on a directory, once; whether it is worth another try."""
        if refusal.cause is not Cause.DENIED or directory.opened_up:
            return False
        directory.opened_up = True
        try:
            await self._limited(lambda attempt: self._client.set_access(attempt, Place(directory.handle), _OPEN))
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            return False
        return True

    def _refuse(self, directory: _Directory, refusal: ExportError) -> None:
        """Remember why something stays. What is gone already is none of it."""
        if refusal.cause is Cause.UNREACHABLE:
            raise refusal
        if isinstance(refusal, PathMissing) or refusal.cause in _GONE:
            directory.shrank = True
            return
        directory.stays = True
        self._refusal = self._refusal or _with_the_way(directory, refusal)

    def _advance(self, directory: _Directory) -> None:
        """Go on with a directory whose jobs have changed, and with those above it that this completes."""
        current: _Directory | None = directory
        while current is not None:
            current = self._next(current)

    def _next(self, directory: _Directory) -> _Directory | None:
        ready = len(directory.emptied)
        if ready and (ready == directory.open_jobs or ready >= self._client.names_a_call):
            batch, directory.emptied = directory.emptied, []
            self._stack.put_nowait(_RemoveDirectories(directory, batch))
            return None
        if directory.open_jobs:
            return None
        if directory.position is not None:
            self._stack.put_nowait(_Read(directory))
            return None
        parent = directory.parent
        if parent is None:
            return None
        if directory.stays:
            parent.stays = True
            parent.open_jobs -= 1
        else:
            parent.emptied.append(directory)
        return parent


def _with_the_way(directory: _Directory, refusal: ExportError) -> ExportError:
    """The refusal with the way from the top to the directory that it was met in, so that an admin finds the entry."""
    names: list[str] = []
    current: _Directory | None = directory
    while current is not None and current.parent is not None:
        names.append(current.name)
        current = current.parent
    found = inside([*names, *refusal.detail.partition(":")[:1]], refusal)
    where = f"in {'/'.join(reversed(names))}: " if names else ""
    return ExportError(found.cause, where + found.detail, hint=found.hint, answer=found.answer)
