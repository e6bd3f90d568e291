"""The `Files` of a mounted export: objects with their content, by system calls in threads.

Each job walks to its object without following a symlink, as those of `syscalls` do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from provisioner.core.locations import RelPath
from provisioner.mounted import syscalls
from provisioner.mounted.syscalls import Root, Step
from provisioner.ports.files import NO_DATA, Files, Item, Kept, Kind, Made, Page, number_of
from provisioner.ports.tree import Cause, ExportError, PathMissing

Result = TypeVar("Result")
Work = Callable[[Root, Step], Result]

CHUNK_BYTES = 256 << 10
RANGE_BYTES = 64 << 20
"""Size of one copy_file_range: small enough that a slow disk returns within the time limit."""
_NAMES_PER_PAGE = 256
_FICLONE = 0x40049409

_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# The file system cannot share data, or cannot copy between these two files.
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EBADF, errno.EPERM)
# The file system keeps no such attribute, not from this user, or not of this size.
_CANNOT_KEEP = (
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EACCES,
    errno.E2BIG,
    errno.ERANGE,
    errno.EINVAL,
    errno.ENAMETOOLONG,
)
_ATTRIBUTES = ("user.", "trusted.", "system.posix_acl_")
"""Beginnings of the names of attributes that a copy keeps; all others are the system's own."""
# Instead of a regular file, open(2) finds a symlink, a directory, or a socket or a FIFO without a reader.
_REPLACED = (errno.ELOOP, errno.EISDIR, errno.ENXIO)
_KINDS: tuple[tuple[Callable[[int], bool], Kind], ...] = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
)


class Jobs(Protocol):
    """Runs jobs in threads, for reads and for changes of paths; `MountedTree` does."""

    async def read_job(self, name: str, path: RelPath, work: Work[Result]) -> Result:
        """Run a job that changes nothing."""
        ...

    async def change_job(self, name: str, paths: tuple[RelPath, ...], work: Work[Result]) -> Result:
        """Run a job that changes these paths."""
        ...


@dataclass(frozen=True, slots=True)
class _Rest:
    """The names of a directory behind a page."""

    names: Sequence[str]
    begin: int


class MountedFiles:
    """See `Files`."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._has_attributes = True
        """False once the kernel has refused to list extended attributes."""

    async def chunk_bytes(self, directory: Item) -> int:
        """See `Files`."""
        return CHUNK_BYTES

    def shares(self, other: Files) -> bool:
        """See `Files`: within the same mount."""
        return other is self

    async def look(self, path: RelPath) -> Item:
        """See `Files`."""
        return await self._jobs.read_job("look", path, lambda root, _: _look(root, path))

    async def page(self, directory: Item, more: object | None = None) -> Page:
        """See `Files`; the names are listed once, and kept until the last page."""
        path = directory.path
        if isinstance(more, _Rest):
            rest = more
        else:
            list_names = functools.partial(syscalls.list_directory, path=path, at_most=None)
            listed = await self._jobs.read_job("list", path, list_names)
            rest = _Rest([entry.name for entry in listed], 0)
        end = rest.begin + _NAMES_PER_PAGE
        names = rest.names[rest.begin : end]
        items = await self._jobs.read_job("look", path, lambda root, step: _look_at_names(root, step, path, names))
        return Page(items, _Rest(rest.names, end) if end < len(rest.names) else None)

    async def read_link(self, symlink: Item) -> str:
        """See `Files`."""
        path = symlink.path
        return await self._jobs.read_job(
            "read_symlink", path, lambda root, step: syscalls.read_symlink(root, step, path)
        )

    async def make(self, parent: Item, name: str, kind: Made, target: str = "") -> Item:
        """See `Files`."""
        path = (*parent.path, name)
        work = functools.partial(_make, path=path, kind=kind, target=target)
        return await self._jobs.change_job("make", (path,), work)

    async def link(self, item: Item, parent: Item, name: str) -> None:
        """See `Files`."""
        source, path = item.path, (*parent.path, name)
        await self._jobs.change_job("link", (path,), lambda root, step: _link(root, step, source, path))

    async def remove(self, parent: Item, name: str) -> None:
        """See `Files`."""
        path = (*parent.path, name)
        await self._jobs.change_job("remove", (path,), lambda root, step: _remove(root, step, path))

    async def read(self, file: Item, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Files`."""

        def work(root: Root, _step: Step) -> bytes:
            with _opened(root, file, os.O_RDONLY) as descriptor:
                return os.pread(descriptor, size_bytes, offset_bytes)

        return await self._jobs.read_job("read", file.path, work)

    async def write(self, file: Item, offset_bytes: int, data: bytes, *, stable: bool) -> bytes:
        """See `Files`."""

        def work(root: Root, step: Step) -> bytes:
            with _opened(root, file, os.O_WRONLY) as descriptor:
                step()
                left, offset = memoryview(data), offset_bytes
                while left:
                    written = os.pwrite(descriptor, left, offset)
                    left, offset = left[written:], offset + written
                if stable:
                    os.fsync(descriptor)
            return NO_DATA

        return await self._jobs.change_job("write", (file.path,), work)

    async def flush(self, file: Item) -> bytes:
        """See `Files`: fsync(2), which fails if data was lost."""

        def work(root: Root, step: Step) -> bytes:
            with _opened(root, file, os.O_WRONLY) as descriptor:
                step()
                os.fsync(descriptor)
            return NO_DATA

        return await self._jobs.change_job("flush", (file.path,), work)

    async def next_data(self, file: Item, offset_bytes: int) -> tuple[int, int] | None:
        """See `Files`."""
        return await self._jobs.read_job("seek", file.path, lambda root, _: _next_data(root, file, offset_bytes))

    async def set_size(self, file: Item, size_bytes: int) -> None:
        """See `Files`."""

        def work(root: Root, step: Step) -> None:
            with _opened(root, file, os.O_WRONLY) as descriptor:
                step()
                os.ftruncate(descriptor, size_bytes)

        await self._jobs.change_job("set_size", (file.path,), work)

    async def clone(self, source: Item, file: Item) -> bool:
        """See `Files`: FICLONE."""

        def work(root: Root, step: Step) -> bool:
            with _opened(root, source, os.O_RDONLY) as origin, _opened(root, file, os.O_WRONLY) as made:
                step()
                try:
                    fcntl.ioctl(made, _FICLONE, origin)
                    os.fsync(made)
                except OSError as exc:
                    if exc.errno not in _CANNOT:
                        raise
                    return False
            return True

        return await self._jobs.change_job("clone", (file.path,), work)

    async def copy_range(
        self, source: Item, file: Item, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """See `Files`: copy_file_range."""
        most_bytes = min(size_bytes, RANGE_BYTES)

        def work(root: Root, step: Step) -> tuple[int, bytes] | None:
            with _opened(root, source, os.O_RDONLY) as origin, _opened(root, file, os.O_WRONLY) as made:
                step()
                try:
                    copied = os.copy_file_range(origin, made, most_bytes, offset_bytes, offset_bytes)
                except OSError as exc:
                    if exc.errno not in _CANNOT:
                        raise
                    return None
            return copied, NO_DATA

        return await self._jobs.change_job("copy_range", (file.path,), work)

    async def copy_whole(self, source: Item, parent: Item, name: str, kept: Kept) -> int | None:
        """See `Files`: one job instead of five."""
        path = (*parent.path, name)
        work = functools.partial(_copy_whole, file=source, path=path, kept=kept)
        return await self._jobs.change_job("copy_whole", (path,), work)

    async def attributes(self, item: Item) -> Mapping[str, bytes]:
        """See `Files`; access control lists are among them, and trusted ones if the process can see them."""
        if not self._has_attributes:
            return {}
        found = await self._jobs.read_job("attributes", item.path, lambda root, _: _attributes(root, item))
        self._has_attributes = found is not None
        return found or {}

    async def set_attribute(self, item: Item, name: str, value: bytes) -> bool:
        """See `Files`."""

        def work(root: Root, step: Step) -> bool:
            with _opened_any(root, item) as descriptor:
                step()
                try:
                    os.setxattr(descriptor, name, value)
                except OSError as exc:
                    if exc.errno not in _CANNOT_KEEP:
                        raise
                    return False
            return True

        return await self._jobs.change_job("set_attribute", (item.path,), work)

    async def keep(self, item: Item, kept: Kept) -> None:
        """See `Files`."""
        await self._jobs.change_job("keep", (item.path,), lambda root, step: _keep(root, step, item, kept))


# ------------------------------------------------------------------------------------------------ in a thread


def _look(root: Root, path: RelPath) -> Item:
    if not path:
        return _item(path, os.fstat(root.descriptor))
    with syscalls.opened_parent(root, path) as parent:
        return _item(path, os.stat(path[-1], dir_fd=parent, follow_symlinks=False))


def _look_at_names(root: Root, step: Step, path: RelPath, names: Sequence[str]) -> list[Item]:
    """Look at entries of a directory; those that are gone are left out."""
    items: list[Item] = []
    with syscalls.opened_directory(root, path) as directory:
        for name in names:
            step()
            with contextlib.suppress(FileNotFoundError):
                items.append(_item((*path, name), os.stat(name, dir_fd=directory, follow_symlinks=False)))
    return items


def _item(path: RelPath, seen: os.stat_result) -> Item:
    return Item(
        path,
        next((kind for is_kind, kind in _KINDS if is_kind(seen.st_mode)), "other"),
        _id(seen),
        f"{seen.st_dev:x}",
        seen.st_nlink,
        seen.st_size,
        seen.st_blocks * 512,
        Kept(stat.S_IMODE(seen.st_mode), str(seen.st_uid), str(seen.st_gid), seen.st_atime_ns, seen.st_mtime_ns),
    )


def _make(root: Root, step: Step, *, path: RelPath, kind: Made, target: str) -> Item:
    with syscalls.opened_parent(root, path) as parent:
        step()
        name = path[-1]
        match kind:
            case "directory":
                os.mkdir(name, 0o700, dir_fd=parent)
            case "symlink":
                os.symlink(target, name, dir_fd=parent)
            case "fifo":
                os.mkfifo(name, 0o600, dir_fd=parent)
            case "file":
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=parent))
        return _item(path, os.stat(name, dir_fd=parent, follow_symlinks=False))


def _link(root: Root, step: Step, source: RelPath, path: RelPath) -> None:
    with syscalls.opened_parent(root, source) as origin, syscalls.opened_parent(root, path) as parent:
        step()
        os.link(source[-1], path[-1], src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)


def _remove(root: Root, step: Step, path: RelPath) -> None:
    with syscalls.opened_parent(root, path) as parent, contextlib.suppress(FileNotFoundError):
        step()
        os.unlink(path[-1], dir_fd=parent)


def _next_data(root: Root, file: Item, offset: int) -> tuple[int, int] | None:
    with _opened(root, file, os.O_RDONLY) as descriptor:
        try:
            begin = os.lseek(descriptor, offset, os.SEEK_DATA)
            return begin, os.lseek(descriptor, begin, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return None
            if exc.errno == errno.EINVAL:
                return offset, file.size_bytes
            raise


def _copy_whole(root: Root, step: Step, *, file: Item, path: RelPath, kept: Kept) -> int:
    """Copy a file and its attributes; remove what a refusal has left of it."""
    with _opened(root, file, os.O_RDONLY) as origin, syscalls.opened_parent(root, path) as parent:
        step()
        made = os.open(path[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=parent)
        try:
            copied = _copy_bytes(origin, made, file.size_bytes)
            _keep_open(made, step, path, kept)
            os.fsync(made)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path[-1], dir_fd=parent)
            raise
        finally:
            os.close(made)
    return copied


def _copy_bytes(origin: int, made: int, size_bytes: int) -> int:
    """Copy the first bytes of an open file to an empty one; return how many there were."""
    copied, by_kernel = 0, True
    while copied < size_bytes:
        done = 0
        if by_kernel:
            try:
                done = os.copy_file_range(origin, made, size_bytes - copied, copied, copied)
            except OSError as exc:
                if exc.errno not in _CANNOT:
                    raise
            by_kernel = done > 0
        if not done:
            done = os.pwrite(made, os.pread(origin, size_bytes - copied, copied), copied)
            if not done:
                break  # the file has become shorter
        copied += done
    return copied


def _attributes(root: Root, item: Item) -> Mapping[str, bytes] | None:
    """Return the attributes that a copy keeps; None if the file system has no attributes at all."""
    found: dict[str, bytes] = {}
    with _opened_any(root, item) as descriptor:
        try:
            names = os.listxattr(descriptor)
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
            return None
        for name in names:
            if name.startswith(_ATTRIBUTES):
                try:
                    found[name] = os.getxattr(descriptor, name)
                except OSError as exc:
                    if exc.errno != errno.ENODATA:  # removed since
                        raise
    return found


def _keep_open(made: int, step: Step, path: RelPath, kept: Kept) -> None:
    """`_keep` for an open file that was just created."""
    seen = os.fstat(made)
    if (kept.owner, kept.group) != (str(seen.st_uid), str(seen.st_gid)):
        uid, gid = (number_of(owner, "/".join(path)) for owner in (kept.owner, kept.group))
        step()
        with syscalls.refusals_of(path, "chown"):
            os.fchown(made, uid, gid)
    step()
    with syscalls.refusals_of(path, "chmod"):
        os.fchmod(made, kept.mode)
    os.utime(made, ns=(kept.accessed_ns, kept.modified_ns))


def _keep(root: Root, step: Step, item: Item, kept: Kept) -> None:
    """Set the owner, which clears the set-ID bits, then the mode, then the times."""
    path, name = item.path, item.path[-1]
    with syscalls.opened_parent(root, path) as parent:
        if (kept.owner, kept.group) != (item.kept.owner, item.kept.group):
            uid, gid = (number_of(owner, "/".join(path)) for owner in (kept.owner, kept.group))
            step()
            with syscalls.refusals_of(path, "chown"):
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if item.kind != "symlink":
            step()
            with syscalls.refusals_of(path, "chmod"):
                _set_mode(name, parent, kept.mode)
        step()
        os.utime(name, ns=(kept.accessed_ns, kept.modified_ns), dir_fd=parent, follow_symlinks=False)


def _set_mode(name: str, parent: int, mode: int) -> None:
    """chmod(2) without following a symlink; see `syscalls.open_up`."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            raise ExportError(Cause.SYMLINK, f"{name} is a symlink")
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(root: Root, file: Item, flags: int) -> Iterator[int]:
    """Open a regular file. Raises PathMissing if another object has its name now.

    A part of a file and a part of the one that replaces it must not get into one copy. An object of another type is
    refused without waiting for it, as a FIFO would.
    """
    path = file.path
    with syscalls.opened_parent(root, path) as parent:
        try:
            descriptor = os.open(path[-1], flags | _OPEN, dir_fd=parent)
        except OSError as exc:
            if exc.errno in _REPLACED:
                raise PathMissing("/".join(path)) from exc
            raise
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode) or _id(seen) != file.id:
                raise PathMissing("/".join(path))
            yield descriptor
        finally:
            os.close(descriptor)


def _opened_any(root: Root, item: Item) -> contextlib.AbstractContextManager[int]:
    """Open a directory or a regular file for reading."""
    if item.kind == "directory":
        return syscalls.opened_directory(root, item.path)
    return _opened(root, item, os.O_RDONLY)


def _id(seen: os.stat_result) -> str:
    return f"{seen.st_dev:x}-{seen.st_ino:x}"
