"""The `Tree` driver that speaks NFS itself, without a mount.

What happens to a change whose time limit has passed, or whose connection was lost? Its outcome is unknown, and the
server can still run it later. So the call stays registered with its connection (see `transport`). Until the server has
answered it or the connection has ended, every other operation that would change the same path fails with Cause.BUSY.
This takes about a minute at most: a connection with an unanswered call is replaced, and closes once its other calls
have their replies (see `connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from provisioner.core.locations import NFS_PORT, Location, RelPath, label
from provisioner.core.mount_options import MountOptions
from provisioner.core.paths import COMPONENT_LIMIT_BYTES
from provisioner.nfs.client import errors
from provisioner.nfs.client.deadline import Deadline, Sent
from provisioner.nfs.client.interface import Client, Place
from provisioner.nfs.client.pool import Address, ConnectionPool
from provisioner.nfs.client.reading import Reading
from provisioner.nfs.client.remove_tree import TreeRemoval
from provisioner.nfs.client.tree_files import DirectFiles
from provisioner.nfs.protocol.values import DirectoryPage, Found, Position
from provisioner.ports import endless
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import (
    Cause,
    Change,
    Entry,
    EntryType,
    ExportError,
    FilesystemStats,
    MakeSymlink,
    OnProgress,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Tree,
    one_by_one,
)

T = TypeVar("T")
Observe = Callable[[str, float], None]
Operation = Callable[[Client, Deadline, Place], Awaitable[T]]

PAGE_BYTES = 64 << 10
SMALL_PAGE_BYTES = 4 << 10
LINK_READERS = 16
LINKS_PER_BATCH = 32
PSEUDO_DIRECTORIES = 16
"""How many directories of a pseudo file system are searched for exports."""
_CAUSES_OF_NESTED = (Cause.DENIED, Cause.NOT_YET, Cause.OTHER, Cause.UNSUPPORTED)
"""How servers refuse to rename a directory that is a file system itself, besides XDEV and BUSY."""


class DirectTree:
    """A `Tree` over NFS.

    `version` is the value of `nfsvers=` (None for the best version of the server), `port` and `mount_port` those of
    `port=` and `mountport=`. All trees of the same server share a connection of `pool`. `observe` receives the name and
    duration in seconds of each step, failed ones included. Raises InvalidSettings for an unknown version.
    """

    def __init__(
        self,
        location: Location,
        pool: ConnectionPool,
        *,
        version: str | None = None,
        port: int | None = None,
        mount_port: int | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._location = location
        self._pool = pool
        self._routes = [Address(location.server, version, port, mount_port)]
        self._server = pool.acquire(self._address)
        self._timeout_s = pool.timeout_s
        self._observe = observe
        self._root: tuple[Client, Found] | None = None
        self._reaching = asyncio.Lock()
        self._pinned = ""
        self._unsettled: dict[RelPath, list[Sent]] = {}
        self._listed = 0
        """Number of entries that running lists hold in memory."""
        self._closed = False
        self._files = DirectFiles(self)

    @property
    def files(self) -> DirectFiles:
        """See `Tree`."""
        return self._files

    def offloads_with(self, other: DirectTree) -> bool:
        """Whether the server can copy from a file of another tree into one of this tree."""
        return self._server is other._server and self._root is not None and self._root[0].files.offloads

    def set_routes(self, routes: Sequence[MountOptions]) -> None:
        """Use the first of these routes to the service.

        Until one has worked, each failure moves on to the next.

        Routes differ in the NFS version and in the port of the mount service. The classes that name an export can
        disagree about them.
        """
        self._take([replace(self._address, version=route.version, mount_port=route.mount_port) for route in routes])

    def _take(self, routes: list[Address]) -> None:
        server = self._pool.acquire(routes[0])
        self._pool.release(self._address)
        self._routes, self._server, self._root = routes, server, None

    @property
    def _address(self) -> Address:
        return self._routes[0]

    @property
    def unreachable_hint(self) -> str:
        """What an admin should check while the export is not responding; see `Tree`."""
        return errors.silent_hint(self._location.server, self._address.port or NFS_PORT)

    @property
    def verifies(self) -> bool:
        """See `Tree`; True with NFSv4."""
        return self._root is not None and self._root[0].verifies

    async def root_id(self) -> str:
        """See `Tree`: file system and file handle of the root, by a new look-up.

        A replaced export has others.
        """

        async def look_up(deadline: Deadline) -> str:
            client = await self._server.client(deadline)
            root = await client.root(deadline, self._location.components)
            self._root = client, root
            return _id(root)

        tried = self._address
        try:
            return await self._limited("root_id", look_up)
        except (ExportError, asyncio.CancelledError):  # callers can give up before the time limit
            if tried is self._address and not (self._pinned or self._closed):
                self._take([*self._routes[1:], tried])
            raise

    def pin(self, root_id: str) -> None:
        """See `Tree`.

        Costs no call, because each operation already has the root's file handle to compare.
        """
        self._pinned = root_id

    async def make_directory(self, path: RelPath, ownership: Ownership) -> None:
        """Create a directory and missing parents; see `Tree`."""
        if not path:
            raise PathExists("the export's root")
        await self._change(
            "make_directory", path, lambda client, deadline, place: client.make_directory(deadline, place, ownership)
        )

    async def set_access(self, path: RelPath, ownership: Ownership) -> None:
        """Set the owner and then the mode of a directory; see `Tree`."""
        await self._change(
            "set_access", path, lambda client, deadline, place: client.set_access(deadline, place, ownership)
        )

    async def rename(self, source: RelPath, target: RelPath, *, proofs: Sequence[Proof] = ()) -> None:
        """Rename a directory to a path that has no entry; see `Tree`."""
        await self._rename("rename", source, target, "directory", proofs)

    async def remove_directory(self, path: RelPath) -> None:
        """Remove an empty directory; see `Tree`."""
        await self._remove_directory("remove_directory", path)

    async def make_symlink(self, path: RelPath, target: str) -> None:
        """Create a symlink in an existing directory; see `Tree`."""
        text = _encodable(target)
        await self._change(
            "make_symlink",
            _below_root(path),
            lambda client, deadline, place: client.make_symlink(deadline, place, text),
        )

    async def move_symlink(
        self, source: RelPath, target: RelPath, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """Rename a symlink into an existing directory; see `Tree`."""
        await self._rename("move_symlink", source, target, "symlink", proofs, replace=replace)

    async def carry_out(self, *changes: Change) -> None:
        """See `Tree`; in one request, as far as the version allows."""
        done = 0
        if len(changes) > 1 and _are_valid(changes):
            done = await self.run(
                "carry_out",
                (),
                lambda client, deadline, place: client.carry_out(deadline, place.handle, changes),
                changes=tuple(path for change in changes for path in change.paths),
            )
        await one_by_one(self, changes, done=done)

    async def read_symlink(self, path: RelPath) -> str:
        """Return the target of a symlink; see `Tree`."""
        return await self.run(
            "read_symlink", _below_root(path), lambda client, deadline, place: client.read_symlink(deadline, place)
        )

    async def remove_symlink(self, path: RelPath) -> None:
        """Remove a symlink; see `Tree`."""
        await self._change(
            "remove_symlink", _below_root(path), lambda client, deadline, place: client.remove_symlink(deadline, place)
        )

    async def list(self, path: RelPath, *, at_most: int | None = None) -> list[Entry]:
        """See `Tree`; each page has its own time limit."""
        types: dict[str, EntryType] = {}
        read = 0
        try:
            async with contextlib.aclosing(self._pages("list", path, PAGE_BYTES)) as pages:
                async for page in pages:
                    read += len(page.entries)
                    self._listed += len(page.entries)
                    if self._listed > endless.LISTING_LIMIT:
                        raise endless.too_many(endless.named(path), endless.LISTING_LIMIT)
                    for entry in page.entries:
                        types[entry.name] = entry.attributes.type if entry.attributes is not None else "file"
                    if at_most is not None and len(types) >= at_most:
                        break
        finally:
            self._listed -= read
        return [Entry(*found) for found in itertools.islice(types.items(), at_most)]

    async def read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        """See `Tree`; each batch of names has its own time limit."""
        rest = iter(names)
        batches = iter(lambda: _checked(tuple(itertools.islice(rest, LINKS_PER_BATCH))), ())
        targets: dict[str, str] = {}

        async def read_batch(batch: tuple[str, ...]) -> None:
            targets.update(
                await self.run(
                    "read_symlinks", path, lambda client, deadline, place: client.read_symlinks(deadline, place, batch)
                )
            )

        await map_bounded(read_batch, batches, limit=LINK_READERS)
        return targets

    async def is_empty(self, path: RelPath) -> bool:
        """Return True if a directory is empty; see `Tree`."""
        async with contextlib.aclosing(self._pages("is_empty", path, SMALL_PAGE_BYTES)) as pages:
            async for page in pages:
                if page.entries:
                    return False
        return True

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """See `Tree`.

        Tries a plain removal first, because many volumes are empty: that takes one call.
        """
        _below_root(path)
        try:
            await self._remove_directory("remove_tree", path)
        except PathMissing:
            return 0
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
        else:
            if on_progress is not None:
                on_progress(1)
            return 1

        async def look_up(client: Client, deadline: Deadline, place: Place) -> tuple[Client, Place, Found]:
            return client, place, await client.look_up(deadline, place)

        async def limited(step: Callable[[Deadline], Awaitable[T]]) -> T:
            return await self._limited("remove_tree", step, changes=(path,))

        try:
            client, place, found = await self.run("remove_tree", path, look_up, changes=(path,))
        except PathMissing:
            return 0
        purge = TreeRemoval(client, limited, on_progress, self._pool.removals)
        with contextlib.suppress(PathMissing):
            await purge.remove(place, found)
        return purge.removed

    async def space(self) -> FilesystemStats:
        """Return size and free space of the export; see `Tree`."""
        return await self.run("space", (), lambda client, deadline, place: client.space(deadline, place.handle))

    def above(self) -> Iterator[tuple[str, Tree, RelPath]]:
        """See `Tree`: the directories above the export's path."""
        address, components = self._address, self._location.components
        for depth in range(len(components) - 1, -1, -1):
            where = Location(self._location.server, "/" + "/".join(components[:depth]))
            tree = DirectTree(
                where, self._pool, version=address.version, port=address.port, mount_port=address.mount_port
            )
            yield label(where, address.port), tree, components[depth:]

    async def close(self) -> None:
        """See `Tree`; the connection stays open while other trees of the server use it."""
        if not self._closed:
            self._closed = True
            self._pool.release(self._address)

    async def _rename(
        self,
        name: str,
        source: RelPath,
        target: RelPath,
        kind: EntryType,
        proofs: Sequence[Proof],
        *,
        replace: bool = False,
    ) -> None:
        for path in (target, *(proof.path for proof in proofs)):
            _checked(_below_root(path))
        await self.run(
            name,
            _below_root(source),
            lambda client, deadline, place: client.rename(
                deadline, place, Place(place.handle, target), kind, replace=replace, proofs=proofs
            ),
            changes=(source, target),
        )

    async def _remove_directory(self, name: str, path: RelPath) -> None:
        await self._change(
            name, _below_root(path), lambda client, deadline, place: client.remove_directory(deadline, place)
        )

    async def _pages(self, name: str, path: RelPath, size_bytes: int) -> AsyncGenerator[DirectoryPage, None]:
        """Yield the pages of a directory. Raises Endless if they have no end."""
        reading, more = Reading(endless.LISTING_LIMIT), True
        while more:
            page = await self._page(name, path, reading.position, size_bytes)
            more = reading.advance(page, functools.partial(endless.named, path))
            yield page

    async def _page(self, name: str, path: RelPath, position: Position, size_bytes: int) -> DirectoryPage:
        return await self.run(
            name,
            path,
            lambda client, deadline, place: client.read_directory(deadline, place, position, size_bytes),
        )

    async def _change(self, name: str, path: RelPath, operation: Operation[T]) -> T:
        """Run an operation that changes one path."""
        return await self.run(name, path, operation, changes=(path,))

    async def run(self, name: str, path: RelPath, operation: Operation[T], *, changes: tuple[RelPath, ...] = ()) -> T:
        """Run an operation at a path.

        If the root's handle is stale, look up the root again and retry once.
        """
        _checked(path)

        async def step(deadline: Deadline) -> T:
            client, root = await self._reach(deadline)
            try:
                return await operation(client, deadline, Place(root.handle, path))
            except ExportError as exc:
                if exc.cause is not Cause.STALE:
                    raise await self._explain(deadline, client, root, exc, name, path) from exc
            self._root = None
            client, root = await self._reach(deadline)
            return await operation(client, deadline, Place(root.handle, path))

        return await self._limited(name, step, changes=changes)

    async def _explain(
        self, deadline: Deadline, client: Client, root: Found, error: ExportError, name: str, path: RelPath
    ) -> ExportError:
        """Return a more specific error if a further call to the server can tell, else the same error.

        - A refused rename: the directory can be a file system itself, which its file system ID shows.
        - No space: only the free inodes show whether space or inodes are missing.
        - Read-only or denied: the root can be a pseudo root of NFSv4 that only leads to the exports.
        """
        try:
            if name == "rename" and error.cause in _CAUSES_OF_NESTED:
                found = await client.look_up(deadline, Place(root.handle, path))
                if found.attributes.fsid != root.attributes.fsid:
                    return ExportError(Cause.NESTED, error.detail, answer=error.answer)
            if error.cause is Cause.NO_SPACE:
                seen = await client.space(deadline, root.handle)
                return ExportError(Cause.NO_INODES, error.detail) if seen.inodes and not seen.free_inodes else error
            if error.cause in (Cause.READ_ONLY, Cause.DENIED) and client.version != "3":
                exports = await self._exports_below(deadline, client, root)
                return errors.pseudo_root_only(error, self._location.path, exports) if exports else error
        except ExportError:
            pass  # the first error is the one to report
        return error

    async def _exports_below(self, deadline: Deadline, client: Client, root: Found) -> Sequence[str]:
        """Return the paths of the exports below a pseudo root, or nothing for any other root.

        An NFSv4 server shows the directories that lead to its exports as a file system of its own (RFC 8881 section
        7.3). Such a file system has only directories, and each directory of another file system is an export.
        """
        exports: list[str] = []
        on_the_way: list[tuple[RelPath, bytes]] = [((), root.handle)]
        for path, handle in itertools.islice(on_the_way, PSEUDO_DIRECTORIES):  # the loop appends to it
            page = await client.read_directory(deadline, Place(handle), Position(), PAGE_BYTES)
            for entry in page.entries:
                if entry.handle is None or entry.attributes is None or entry.attributes.type != "directory":
                    return ()
                if entry.attributes.fsid == root.attributes.fsid:
                    on_the_way.append(((*path, entry.name), entry.handle))
                else:
                    exports.append(self._location.below((*path, entry.name)))
        return sorted(exports)

    async def _reach(self, deadline: Deadline) -> tuple[Client, Found]:
        """Return the client and the root of the export.

        Raises Cause.CHANGED if the root is not the pinned one.
        """
        client = await self._server.client(deadline)
        reached = self._root
        if reached is None or reached[0] is not client:
            async with self._reaching:
                reached = self._root
                if reached is None or reached[0] is not client:
                    reached = self._root = client, await client.root(deadline, self._location.components)
        found = _id(reached[1]) if self._pinned else ""
        if found != self._pinned:
            raise ExportError(Cause.CHANGED, f"{self._location} is {found} and was {self._pinned}")
        return reached

    async def _limited(
        self, name: str, step: Callable[[Deadline], Awaitable[T]], *, changes: tuple[RelPath, ...] = ()
    ) -> T:
        """Run a step with its time limit.

        Raises Cause.BUSY while an earlier change of these paths is running.
        """
        for path in changes:
            if any(not change.settled for change in self._unsettled.get(path, ())):
                raise ExportError(Cause.BUSY, "/".join(path))
        started = asyncio.get_running_loop().time()
        deadline = Deadline(started + self._timeout_s, self._location.path)
        try:
            async with asyncio.timeout_at(deadline.at_s):
                return await step(deadline)
        except TimeoutError as exc:
            detail = f"no answer within {self._timeout_s:g} s"
            raise ExportError(Cause.UNREACHABLE, detail, hint=self.unreachable_hint) from exc
        except ExportError as exc:
            if exc.cause is Cause.VERSION:
                self._server.close()  # The server has changed: the next operation negotiates again.
            raise
        finally:
            self._remember(deadline, changes)
            if self._observe is not None:
                self._observe(name, asyncio.get_running_loop().time() - started)

    def _remember(self, deadline: Deadline, changes: tuple[RelPath, ...]) -> None:
        """Remember the unanswered changes of these paths, for Cause.BUSY."""
        unsettled = deadline.unsettled
        if not unsettled:
            return
        for path in [path for path, sent in self._unsettled.items() if all(change.settled for change in sent)]:
            del self._unsettled[path]
        self._unsettled.update(dict.fromkeys(changes, unsettled))


def _id(root: Found) -> str:
    major, minor = root.attributes.fsid
    return f"{major:x}.{minor:x}.{hashlib.sha256(root.handle).hexdigest()[:32]}"


def _below_root(path: RelPath) -> RelPath:
    if not path:
        raise ExportError(Cause.OTHER, "the root of the export cannot be changed")
    return path


def _checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each name is one path component, because servers disagree about other names."""
    for name in names:
        if name in ("", ".", "..") or "/" in name:
            raise ExportError(Cause.OTHER, f"{name!r} is not a valid name")
        if len(_encodable(name).encode("utf-8", "surrogateescape")) > COMPONENT_LIMIT_BYTES:
            # Servers disagree about the error: Linux rejects an NFSv3 call with such a name as garbage.
            raise ExportError(Cause.NAME_TOO_LONG, name)
    return names


def _are_valid(changes: Sequence[Change]) -> bool:
    """Return True if each path and text can be sent; if not, the change's own call says why."""
    try:
        for change in changes:
            for path in (*change.paths, *(proof.path for proof in getattr(change, "proofs", ()))):
                _checked(_below_root(path))
            if isinstance(change, MakeSymlink):
                _encodable(change.target)
    except ExportError:
        return False
    return True


def _encodable(text: str) -> str:
    """Check that a name or symlink target can be encoded."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise ExportError(Cause.OTHER, f"{text!r} cannot be encoded: {exc}") from exc
    if "\0" in text:
        raise ExportError(Cause.OTHER, f"{text!r} contains a null character")
    return text
