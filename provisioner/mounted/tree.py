"""`Tree` over an export that is mounted already, or over a local directory."""

from __future__ import annotations

import functools
import itertools
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from provisioner.core.locations import RelPath
from provisioner.mounted import syscalls
from provisioner.mounted.errnos import translated
from provisioner.mounted.files import MountedFiles
from provisioner.mounted.removal import remove_portion
from provisioner.mounted.syscalls import Root, Step
from provisioner.mounted.threads import ThreadCall, ThreadPool
from provisioner.ports import endless, refusals
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import (
    Cause,
    Change,
    Entry,
    ExportError,
    FilesystemStats,
    MakeDirectory,
    MakeSymlink,
    MoveSymlink,
    OnProgress,
    Ownership,
    Proof,
    Rename,
    Tree,
)

Observe = Callable[[str, float], None]
Result = TypeVar("Result")
Work = Callable[[Root, Step], Result]
Job = Callable[[ThreadCall[Result]], Result]

_PURGE_THREADS = 2
_LINKS_PER_BATCH = 256
_BATCHES_IN_PARALLEL = 8
_FRUITLESS_LIMIT = 20
"""Consecutive portions of a removal that removed nothing although the directory still listed entries."""
_CALLS: dict[str, refusals.Call] = {
    "root_id": "open",
    "make_directory": "mkdir",
    "set_access": "open",  # `syscalls` names chmod and chown itself
    "rename": "rename",
    "remove_directory": "rmdir",
    "make_symlink": "symlink",
    "move_symlink": "rename",
    "read_symlink": "readlink",
    "remove_symlink": "remove",
    "list": "readdir",
    "read_symlinks": "readlink",
    "is_empty": "readdir",
    "remove_tree": "remove",
    "space": "statfs",
    # of `files`
    "look": "getattr",
    "make": "open",
    "link": "call",
    "remove": "remove",
    "read": "open",
    "write": "open",
    "flush": "call",
    "seek": "open",
    "set_size": "call",
    "clone": "call",
    "copy_range": "call",
    "copy_whole": "open",
    "keep": "call",
}
"""The system call of each job, for error messages."""
_CHANGES: dict[type[Change], str] = {
    MakeDirectory: "make_directory",
    MakeSymlink: "make_symlink",
    MoveSymlink: "move_symlink",
    Rename: "rename",
}


class _Opened(threading.local):
    """The root that a thread has open."""

    root: Root | None = None


class MountedTree:
    """A `Tree` over a directory on which any call can hang.

    Each call is one job in one thread (see `threads`), also one of several changes. Removals of whole trees have two
    threads of their own, so that they never delay other calls. `observe` receives the name and duration in seconds of
    each job, failed ones included.
    """

    def __init__(
        self,
        directory: str,
        *,
        require_mount: bool,
        timeout_s: float,
        observe: Observe | None = None,
        threads: int = 16,
    ) -> None:
        self._directory = directory
        self._timeout_s = timeout_s
        self._require_mount = require_mount
        self._observe = observe
        self._opened = _Opened()
        self._pool = ThreadPool(f"export {directory}", threads=threads, timeout_s=timeout_s, rests=self._close_root)
        self._purge_pool = ThreadPool(
            f"purge {directory}", threads=_PURGE_THREADS, timeout_s=timeout_s, rests=self._close_root
        )
        # A portion ends well before its time limit, so that only a call that hangs reaches the limit.
        self._portion_s = timeout_s / 4
        self._pinned = ""
        self._files = MountedFiles(self)

    @property
    def files(self) -> MountedFiles:
        """See `Tree`."""
        return self._files

    @property
    def unreachable_hint(self) -> str:
        """See `Tree`; empty, because a hung mount does not say why it hangs."""
        return ""

    @property
    def verifies(self) -> bool:
        """See `Tree`; False, because no system call checks one name and renames another."""
        return False

    async def root_id(self) -> str:
        """See `Tree`: device and inode, which change with each mount."""
        return await self._run(self._pool, "root_id", self._job("root_id", (), syscalls.root_id, pinned=""), ())

    def pin(self, root_id: str) -> None:
        """Make every call except root_id() fail if the root is another one; see `Tree`."""
        self._pinned = root_id

    async def make_directory(self, path: RelPath, ownership: Ownership) -> None:
        """Create a directory and missing parents; see `Tree`."""
        await self.change_job(
            "make_directory", (path,), lambda root, step: syscalls.make_directory(root, step, path, ownership)
        )

    async def set_access(self, path: RelPath, ownership: Ownership) -> None:
        """Set the owner and then the mode of a directory; see `Tree`."""
        await self.change_job(
            "set_access", (path,), lambda root, step: syscalls.set_access(root, step, path, ownership)
        )

    async def rename(self, source: RelPath, target: RelPath, *, proofs: Sequence[Proof] = ()) -> None:
        """Rename a directory to a path that has no entry; see `Tree`."""
        await self.change_job(
            "rename", (source, target), lambda root, step: syscalls.rename(root, step, source, target, proofs)
        )

    async def remove_directory(self, path: RelPath) -> None:
        """Remove an empty directory; see `Tree`."""
        await self.change_job(
            "remove_directory", (path,), lambda root, step: syscalls.remove_directory(root, step, path)
        )

    async def make_symlink(self, path: RelPath, target: str) -> None:
        """Create a symlink in an existing directory; see `Tree`."""
        await self.change_job(
            "make_symlink", (path,), lambda root, step: syscalls.make_symlink(root, step, path, target)
        )

    async def move_symlink(
        self, source: RelPath, target: RelPath, *, replace: bool = False, proofs: Sequence[Proof] = ()
    ) -> None:
        """See `Tree`; raises Cause.SYMLINK if the source is not a symlink."""
        await self.change_job(
            "move_symlink",
            (source, target),
            lambda root, step: syscalls.move_symlink(root, step, source, target, proofs, replace=replace),
        )

    async def carry_out(self, *changes: Change) -> None:
        """Carry out changes in one job; see `Tree`."""
        paths = tuple(path for change in changes for path in change.paths)

        def job(call: ThreadCall[None]) -> None:
            for done, change in enumerate(changes):
                work = functools.partial(syscalls.carry_out, change=change)
                try:
                    self._do(_CHANGES[type(change)], change.paths[0], work, call, self._pinned)
                except ExportError as exc:
                    exc.done = done
                    raise

        name = _CHANGES[type(changes[0])] if len(changes) == 1 else "carry_out"
        await self._run(self._pool, name, job, paths)

    async def read_symlink(self, path: RelPath) -> str:
        """Return the target of a symlink; see `Tree`."""
        return await self.read_job("read_symlink", path, lambda root, step: syscalls.read_symlink(root, step, path))

    async def remove_symlink(self, path: RelPath) -> None:
        """Remove a symlink; see `Tree`."""
        await self.change_job("remove_symlink", (path,), lambda root, step: syscalls.remove_symlink(root, step, path))

    async def list(self, path: RelPath, *, at_most: int | None = None) -> list[Entry]:
        """Return the entries of a directory; see `Tree`."""
        work = functools.partial(syscalls.list_directory, path=path, at_most=at_most)
        return await self.read_job("list", path, work)

    async def read_symlinks(self, path: RelPath, names: Iterable[str]) -> dict[str, str]:
        """See `Tree`; each batch of names has its own time limit."""
        rest = iter(names)
        batches = iter(lambda: tuple(itertools.islice(rest, _LINKS_PER_BATCH)), ())
        targets: dict[str, str] = {}

        async def read_batch(batch: tuple[str, ...]) -> None:
            work = functools.partial(syscalls.read_symlinks, path=path, names=batch)
            targets.update(await self.read_job("read_symlinks", path, work))

        await map_bounded(read_batch, batches, limit=_BATCHES_IN_PARALLEL)
        return targets

    async def is_empty(self, path: RelPath) -> bool:
        """Return True if a directory is empty; see `Tree`."""
        return await self.read_job("is_empty", path, lambda root, step: syscalls.is_empty(root, step, path))

    async def remove_tree(self, path: RelPath, *, on_progress: OnProgress | None = None) -> int:
        """See `Tree`; each portion has its own time limit.

        Raises NotEmpty if a client holds a file open, and Cause.DENIED if the provisioner has no permission to remove
        an entry.
        """
        removed = fruitless = 0
        while True:
            portion = await self.change_job(
                "remove_tree",
                (path,),
                lambda root, step: remove_portion(root, step, path, self._portion_s),
                pool=self._purge_pool,
            )
            removed += portion.removed
            wanted = on_progress is None or on_progress(portion.removed)
            if portion.done or not wanted:
                return removed
            fruitless = 0 if portion.removed else fruitless + 1
            if fruitless > _FRUITLESS_LIMIT:
                raise endless.vanishing(endless.named(path))

    async def space(self) -> FilesystemStats:
        """Return size and free space of the export; see `Tree`."""
        return await self.read_job("space", (), syscalls.space)

    def above(self) -> Iterator[tuple[str, Tree, RelPath]]:
        """See `Tree`: the directories above the mount point; those on the server are not visible."""
        directory = pathlib.PurePath(self._directory)
        for parent in directory.parents if directory.is_absolute() else ():
            tree = MountedTree(str(parent), require_mount=False, timeout_s=self._timeout_s, threads=1)
            yield str(parent), tree, directory.relative_to(parent).parts

    async def close(self) -> None:
        """See `Tree`.

        A hung thread ends when its call returns and does not keep the process from exiting.
        """
        self._pool.close()
        self._purge_pool.close()

    async def read_job(self, name: str, path: RelPath, work: Work[Result]) -> Result:
        """Run a job that changes nothing."""
        return await self._run(self._pool, name, self._job(name, path, work, pinned=self._pinned), ())

    async def change_job(
        self, name: str, paths: tuple[RelPath, ...], work: Work[Result], pool: ThreadPool | None = None
    ) -> Result:
        """Run a job that changes these paths."""
        job = self._job(name, paths[0], work, pinned=self._pinned)
        return await self._run(pool or self._pool, name, job, paths)

    async def _run(self, pool: ThreadPool, name: str, job: Job[Result], changes: tuple[RelPath, ...]) -> Result:
        started = time.perf_counter()
        try:
            return await pool.run(job, changes=changes)
        finally:
            if self._observe is not None:
                self._observe(name, time.perf_counter() - started)

    def _job(self, name: str, path: RelPath, work: Work[Result], *, pinned: str) -> Job[Result]:
        return lambda call: self._do(name, path, work, call, pinned)

    # ------------------------------------------------------------------------------------------- in a thread

    def _do(self, name: str, path: RelPath, work: Work[Result], call: ThreadCall[Result], pinned: str) -> Result:
        """Do a part of a job. Turn refusals of the kernel into errors that name the path."""
        try:
            root = self._open_root(call.queued_s)
            root.require(pinned)
            return work(root, call.step)
        except OSError as exc:
            self._close_root()  # The refusal can be about what is open: the next job opens it again.
            raise translated(exc, "/".join(path), self._directory, _CALLS[name]) from exc
        except ValueError as exc:
            raise ExportError(Cause.OTHER, f"{path!r} is not a valid file name: {exc}") from exc

    def _open_root(self, queued_s: float) -> Root:
        """Return the root that this thread has open, if it was opened after the job was queued; else open it again."""
        root = self._opened.root
        if root is not None and queued_s <= root.opened_s:
            return root
        self._close_root()
        root = self._opened.root = Root(self._directory, require_mount=self._require_mount)
        return root

    def _close_root(self) -> None:
        """Close what this thread has open."""
        root, self._opened.root = self._opened.root, None
        if root is not None:
            root.close()
