"""Directory calls relative to open descriptors: one component at a time, and no symbolic link is ever followed.

Each function runs in a thread, takes the descriptor of the export's root and works its way down from it with openat(2).
`step` raises when the caller has given up; it is called before each system call that changes something. What the kernel
refuses leaves as OSError, for `errnos.translated`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

from provisioner.core.locations import RelPath
from provisioner.mounted import errnos
from provisioner.ports import endless, refusals
from provisioner.ports.tree import (
    PARENT_MODE,
    Cause,
    Entry,
    EntryType,
    ExportError,
    FilesystemStats,
    Ownership,
    PathExists,
    Proof,
)

Step = Callable[[], None]

_CLOSE = os.O_DIRECTORY | os.O_CLOEXEC
# Search permission is enough to pass through a directory; O_RDONLY would need read permission as well. With O_DIRECTORY
# a symlink is refused (ENOTDIR) and not opened itself (open(2), O_PATH).
_PASS = os.O_PATH | os.O_NOFOLLOW | _CLOSE
_READ = os.O_RDONLY | os.O_NOFOLLOW | _CLOSE


@contextlib.contextmanager
def opened_root(directory: str, pinned: str, *, require_mount: bool) -> Iterator[int]:
    """The export's root, opened anew, so that an unmount or a remount is noticed; symlinks on the way to it count.

    Raises Cause.MISSING, Cause.NOT_MOUNTED where a mount is required and the directory is not one, and Cause.CHANGED
    where it is not the one whose root_id() is `pinned`.
    """
    try:
        root = os.open(directory, os.O_PATH | _CLOSE)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ExportError(Cause.MISSING, f"{directory}: {exc.strerror}", hint="mount the export there") from exc
    try:
        if require_mount and not _is_mount_point(root):
            raise ExportError(Cause.NOT_MOUNTED, directory, hint="mount the export there")
        if pinned and (found := root_id(root)) != pinned:
            raise ExportError(Cause.CHANGED, f"{directory} is {found} and was {pinned}")
        yield root
    finally:
        os.close(root)


def root_id(root: int, _step: Step | None = None) -> str:
    """Device and inode of the root."""
    seen = os.fstat(root)
    return f"{seen.st_dev}:{seen.st_ino}"


def make_directory(root: int, step: Step, path: RelPath, ownership: Ownership) -> None:
    """Tree.make_directory."""
    if not path:
        raise PathExists("the export's root")
    with opened_parent(root, path, make_with=step) as parent:
        step()
        os.mkdir(path[-1], _first_mode(ownership), dir_fd=parent)
        with opened(path[-1], parent) as made:
            _set_access(made, step, path, ownership)


def set_access(root: int, step: Step, path: RelPath, ownership: Ownership) -> None:
    """Tree.set_access."""
    with _opened_directory(root, path) as directory:
        _set_access(directory, step, path, ownership)


def rename(root: int, step: Step, source: RelPath, target: RelPath, proofs: Sequence[Proof] = ()) -> None:
    """Tree.rename: a directory, onto nothing.

    Over NFS there is no RENAME_NOREPLACE, so we look first. Where somebody is faster than that, rename(2) itself lets a
    directory replace nothing but an empty directory; and the `/` behind the source's name makes the kernel refuse
    (ENOTDIR) whatever else the source has become.
    """
    with opened_parent(root, source) as above_source, opened_parent(root, target) as above_target:
        if not stat.S_ISDIR(_look(source, above_source)):
            raise ExportError(Cause.SYMLINK, f"{'/'.join(source)} is not a directory")
        _expect_nothing(target, above_target)
        _expect_proofs(root, proofs)
        step()
        os.rename(f"{source[-1]}/", target[-1], src_dir_fd=above_source, dst_dir_fd=above_target)


def remove_directory(root: int, step: Step, path: RelPath) -> None:
    """Tree.remove_directory."""
    with opened_parent(root, path) as parent:
        step()
        os.rmdir(path[-1], dir_fd=parent)


def make_symlink(root: int, step: Step, path: RelPath, target: str) -> None:
    """Tree.make_symlink."""
    with opened_parent(root, path) as parent:
        step()
        os.symlink(target, path[-1], dir_fd=parent)


def move_symlink(
    root: int, step: Step, source: RelPath, target: RelPath, proofs: Sequence[Proof] = (), *, replace: bool
) -> None:
    """Tree.move_symlink: onto nothing, unless it is to replace; a link that appears after we looked is replaced."""
    with opened_parent(root, source) as above_source, opened_parent(root, target) as above_target:
        _expect_symlink(source, above_source)
        if not replace:
            _expect_nothing(target, above_target)
        _expect_proofs(root, proofs)
        step()
        os.rename(source[-1], target[-1], src_dir_fd=above_source, dst_dir_fd=above_target)


def read_symlink(root: int, _step: Step, path: RelPath) -> str:
    """Tree.read_symlink."""
    with opened_parent(root, path) as parent:
        return _read_link(path[-1], parent)


def remove_symlink(root: int, step: Step, path: RelPath) -> None:
    """Tree.remove_symlink."""
    with opened_parent(root, path) as parent:
        _expect_symlink(path, parent)
        step()
        os.unlink(path[-1], dir_fd=parent)


def list_directory(root: int, step: Step, path: RelPath, at_most: int | None) -> list[Entry]:
    """Tree.list."""
    found = []
    with _opened_directory(root, path) as directory, scanned(directory, endless.named(path)) as entries:
        for entry in itertools.islice(entries, at_most):
            step()
            found.append(Entry(entry.name, _entry_type(entry)))
            if len(found) > endless.LISTING_LIMIT:
                raise endless.too_many(endless.named(path), endless.LISTING_LIMIT)
    return found


def read_symlinks(root: int, step: Step, path: RelPath, names: Iterable[str]) -> dict[str, str]:
    """The targets of those of the names that are there and are symlinks."""
    targets = {}
    with _opened_directory(root, path) as directory:
        for name in names:
            step()
            _check(name)
            with contextlib.suppress(FileNotFoundError):
                targets[name] = _read_link(name, directory)
    return targets


def is_empty(root: int, _step: Step, path: RelPath) -> bool:
    """Tree.is_empty."""
    with _opened_directory(root, path) as directory, scanned(directory, endless.named(path)) as entries:
        return next(entries, None) is None


def space(root: int, _step: Step) -> FilesystemStats:
    """Tree.space; free is what others than root may still use."""
    seen = os.fstatvfs(root)
    return FilesystemStats.counted(
        size_bytes=seen.f_blocks * seen.f_frsize,
        free_bytes=seen.f_bavail * seen.f_frsize,
        inodes=seen.f_files,
        free_inodes=seen.f_favail,
    )


@contextlib.contextmanager
def opened_parent(root: int, path: RelPath, *, make_with: Step | None = None) -> Iterator[int]:
    """The directory that holds the path's last component; with `make_with`, missing ones on the way there are made.

    Raises Cause.SYMLINK (as ENOTDIR) for a component that is not a directory, Cause.OTHER for the root's own parent.
    """
    if not path:
        raise ExportError(Cause.OTHER, "the export's root itself stays as it is")
    for name in path:
        _check(name)
    current = os.dup(root)
    try:
        for name in path[:-1]:
            below = _pass(name, current, make_with)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


@contextlib.contextmanager
def opened(name: str, parent: int) -> Iterator[int]:
    """A directory opened for reading."""
    descriptor = os.open(name, _READ, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scanned(directory: int, name: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of an open directory, as they come.

    The kernel's NFS client says ELOOP where the server repeats a position; no symbolic link has to do with it.
    """

    def one_by_one(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
        while True:
            try:
                entry = next(entries, None)
            except OSError as exc:
                if exc.errno == errno.ELOOP:
                    raise endless.repeats(name) from exc
                raise
            if entry is None:
                return
            yield entry

    with os.scandir(directory) as entries:
        yield one_by_one(entries)


def open_up(name: str, parent: int) -> None:
    """Give the owner of a directory all permissions on it, without following a symlink and without read permission.

    chmod(2) follows symlinks and fchmod(2) refuses O_PATH, so the way is /proc/self/fd, as glibc's own
    fchmodat(AT_SYMLINK_NOFOLLOW) has it.
    """
    descriptor = os.open(name, _PASS, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


def _pass(name: str, parent: int, make_with: Step | None) -> int:
    """The descriptor of a directory on the way down."""
    try:
        return os.open(name, _PASS, dir_fd=parent)
    except FileNotFoundError:
        if make_with is None:
            raise
    make_with()
    # Where it exists by now, another call was faster: that one sees to the mode.
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, PARENT_MODE, dir_fd=parent)
        with opened(name, parent) as made, contextlib.suppress(OSError):  # a server may refuse it
            if stat.S_IMODE(os.fstat(made).st_mode) != PARENT_MODE:
                os.fchmod(made, PARENT_MODE)  # The umask may have taken from it.
    return os.open(name, _PASS, dir_fd=parent)


@contextlib.contextmanager
def _opened_directory(root: int, path: RelPath) -> Iterator[int]:
    """The directory at a path, `()` among them, opened for reading."""
    if not path:
        with opened(".", root) as directory:
            yield directory
    else:
        with opened_parent(root, path) as parent, opened(path[-1], parent) as directory:
            yield directory


def _first_mode(ownership: Ownership) -> int:
    """The mode to make a directory with: as it is to be, for a server may refuse to change it; but closed to others

    until it has its owner.
    """
    if ownership.mode is None:
        return PARENT_MODE
    return ownership.mode if ownership.uid is None and ownership.gid is None else 0o700


def _set_access(directory: int, step: Step, path: RelPath, ownership: Ownership) -> None:
    if ownership.uid is not None or ownership.gid is not None:
        step()
        with _refusals(path, "chown"):
            os.fchown(directory, _or_unchanged(ownership.uid), _or_unchanged(ownership.gid))
    if ownership.mode is not None:
        step()
        with _refusals(path, "chmod"):
            os.fchmod(directory, ownership.mode)  # After fchown, which clears the set-id bits (chown(2)).


def _or_unchanged(number: int | None) -> int:
    """An owner or group for chown(2), which takes -1 for "leave it"."""
    return -1 if number is None else number


@contextlib.contextmanager
def _refusals(path: RelPath, call: refusals.Call) -> Iterator[None]:
    """Name the call, where it is one of several on the way, when the kernel refuses it."""
    try:
        yield
    except OSError as exc:
        if exc.errno in errnos.UNREACHABLE:
            raise
        raise errnos.refused(exc, "/".join(path), call) from exc


def _look(path: RelPath, parent: int) -> int:
    """The type and mode of what a path names, links themselves among them. Raises FileNotFoundError."""
    return os.stat(path[-1], dir_fd=parent, follow_symlinks=False).st_mode


def _expect_symlink(path: RelPath, parent: int) -> None:
    if not stat.S_ISLNK(_look(path, parent)):
        raise ExportError(Cause.SYMLINK, f"{'/'.join(path)} is not a symbolic link")


def _expect_nothing(path: RelPath, parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        _look(path, parent)
        raise PathExists("/".join(path))


def _expect_proofs(root: int, proofs: Sequence[Proof]) -> None:
    """Look at what a rename relies on, right before it."""
    for proof in proofs:
        try:
            with opened_parent(root, proof.path) as parent:
                text = os.readlink(proof.path[-1], dir_fd=parent)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            text = ""
        if text != proof.text:
            raise refusals.unproven(proof)


def _read_link(name: str, parent: int) -> str:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise ExportError(Cause.SYMLINK, f"{name} is not a symbolic link") from exc
        raise


def _check(name: str) -> None:
    """Refuse a name that the kernel would take for more or less than one component of its own directory."""
    if name in ("", ".", "..") or "/" in name:
        raise ExportError(Cause.OTHER, f"{name!r} is not a name")


def _entry_type(entry: os.DirEntry[str]) -> EntryType:
    if entry.is_symlink():
        return "symlink"
    return "directory" if entry.is_dir(follow_symlinks=False) else "file"


def _is_mount_point(directory: int) -> bool:
    """Whether something is mounted here, as os.path.ismount() has it: another device than `..`, or the root of all."""
    here, above = os.fstat(directory), os.stat("..", dir_fd=directory)
    return here.st_dev != above.st_dev or here.st_ino == above.st_ino
