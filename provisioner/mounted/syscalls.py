"""Directory calls relative to open descriptors, one path component at a time, so that no symlink is ever followed.

Each function runs in a thread. It takes the open `Root` of the export and walks down from there with openat(2). `step`
raises if the caller no longer waits; it is called before each system call that changes something. Refusals of
the kernel leave as OSError, for `errnos.translated`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.mounted import errnos
from provisioner.ports import endless, refusals
from provisioner.ports.tree import (
    PARENT_MODE,
    Cause,
    Change,
    Entry,
    EntryType,
    ExportError,
    FilesystemStats,
    MakeDirectory,
    MakeSymlink,
    MoveSymlink,
    Ownership,
    PathExists,
    Proof,
    Rename,
)

Step = Callable[[], None]

_CLOSE = os.O_DIRECTORY | os.O_CLOEXEC
# O_PATH needs only search permission to walk through a directory; O_RDONLY would need read permission as well. O_PATH
# with O_NOFOLLOW would open a symlink itself; with O_DIRECTORY the kernel refuses the symlink with ENOTDIR (open(2)).
_PASS = os.O_PATH | os.O_NOFOLLOW | _CLOSE
_READ = os.O_RDONLY | os.O_NOFOLLOW | _CLOSE


_LEDGER_DEPTH = 2


class Root:
    """The export's root and the directories of its ledger, open for the jobs that one thread does in a row.

    Only the provisioner uses the directories of the ledger. All others are opened for each job, since a client can
    rename them at any time. Only jobs that were queued before `opened_s` may use it, and it is closed as soon as no job
    waits. So each job notices an unmount, a remount or a ledger that was replaced before.

    Symlinks on the way to the root are followed. Raises Cause.MISSING; Cause.NOT_MOUNTED if a mount is required and the
    directory is not a mount point.
    """

    def __init__(self, directory: str, *, require_mount: bool) -> None:
        self.opened_s = time.monotonic()
        try:
            self.descriptor = os.open(directory, os.O_PATH | _CLOSE)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ExportError(Cause.MISSING, f"{directory}: {exc.strerror}", hint="mount the export there") from exc
        self._ledger: dict[RelPath, int] = {}
        try:
            if require_mount and not _is_mount_point(self.descriptor):
                raise ExportError(Cause.NOT_MOUNTED, directory, hint="mount the export there")
            seen = os.fstat(self.descriptor)
        except BaseException:
            self.close()
            raise
        self._directory = directory
        self.id = f"{seen.st_dev}:{seen.st_ino}"
        """Device and inode."""

    def require(self, pinned: str) -> None:
        """Raise Cause.CHANGED if the root is not `pinned`; an empty text stands for any."""
        if pinned and self.id != pinned:
            raise ExportError(Cause.CHANGED, f"{self._directory} is {self.id} and was {pinned}")

    def directory_of_ledger(self, path: RelPath) -> int | None:
        """Return the descriptor of a directory of the ledger; None for any other directory."""
        if path[0] != LEDGER:
            return None
        known = self._ledger.get(path)
        if known is None:
            parent = self.descriptor if len(path) == 1 else self.directory_of_ledger(path[:-1])
            known = self._ledger[path] = os.open(path[-1], _PASS, dir_fd=parent)
        return known

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (*self._ledger.values(), self.descriptor):
            os.close(descriptor)


def root_id(root: Root, _step: Step | None = None) -> str:
    """Return device and inode of the root."""
    return root.id


def carry_out(root: Root, step: Step, change: Change) -> None:
    """Do one change of Tree.carry_out."""
    match change:
        case MakeDirectory(path, ownership):
            make_directory(root, step, path, ownership)
        case MakeSymlink(path, target):
            make_symlink(root, step, path, target)
        case MoveSymlink(source, target, replace, proofs):
            move_symlink(root, step, source, target, proofs, replace=replace)
        case Rename(source, target, proofs):
            rename(root, step, source, target, proofs)


def make_directory(root: Root, step: Step, path: RelPath, ownership: Ownership) -> None:
    """Tree.make_directory."""
    if not path:
        raise PathExists("the export's root")
    with opened_parent(root, path, make_with=step) as parent:
        step()
        os.mkdir(path[-1], _first_mode(ownership), dir_fd=parent)
        with opened(path[-1], parent) as made:
            _set_access(made, step, path, ownership)


def set_access(root: Root, step: Step, path: RelPath, ownership: Ownership) -> None:
    """Tree.set_access."""
    with opened_directory(root, path) as directory:
        _set_access(directory, step, path, ownership)


def rename(root: Root, step: Step, source: RelPath, target: RelPath, proofs: Sequence[Proof] = ()) -> None:
    """Tree.rename: rename a directory to a path without an entry.

    NFS has no RENAME_NOREPLACE, so the code checks source, target and proofs first. Another client can still change
    them before the rename. Two rules of rename(2) limit the damage: a directory can replace only an empty directory,
    and the `/` behind the source's name makes the kernel refuse (ENOTDIR) if the source is no longer a directory.
    """
    with opened_parent(root, source) as above_source, opened_parent(root, target) as above_target:
        if not stat.S_ISDIR(_look(source, above_source)):
            raise ExportError(Cause.SYMLINK, f"{'/'.join(source)} is not a directory")
        _expect_nothing(target, above_target)
        _expect_proofs(root, proofs)
        step()
        os.rename(f"{source[-1]}/", target[-1], src_dir_fd=above_source, dst_dir_fd=above_target)


def remove_directory(root: Root, step: Step, path: RelPath) -> None:
    """Tree.remove_directory."""
    with opened_parent(root, path) as parent:
        step()
        os.rmdir(path[-1], dir_fd=parent)


def make_symlink(root: Root, step: Step, path: RelPath, target: str) -> None:
    """Tree.make_symlink."""
    with opened_parent(root, path) as parent:
        step()
        os.symlink(target, path[-1], dir_fd=parent)


def move_symlink(
    root: Root, step: Step, source: RelPath, target: RelPath, proofs: Sequence[Proof] = (), *, replace: bool
) -> None:
    """Tree.move_symlink.

    Without `replace`, a link that appears after the check is still replaced.
    """
    with opened_parent(root, source) as above_source, opened_parent(root, target) as above_target:
        _expect_symlink(source, above_source)
        if not replace:
            _expect_nothing(target, above_target)
        _expect_proofs(root, proofs)
        step()
        os.rename(source[-1], target[-1], src_dir_fd=above_source, dst_dir_fd=above_target)


def read_symlink(root: Root, _step: Step, path: RelPath) -> str:
    """Tree.read_symlink."""
    with opened_parent(root, path) as parent:
        return _read_link(path[-1], parent)


def remove_symlink(root: Root, step: Step, path: RelPath) -> None:
    """Tree.remove_symlink."""
    with opened_parent(root, path) as parent:
        _expect_symlink(path, parent)
        step()
        os.unlink(path[-1], dir_fd=parent)


def list_directory(root: Root, step: Step, path: RelPath, at_most: int | None) -> list[Entry]:
    """Tree.list."""
    found = []
    with opened_directory(root, path) as directory, scanned(directory, endless.named(path)) as entries:
        for entry in itertools.islice(entries, at_most):
            step()
            found.append(Entry(entry.name, _entry_type(entry)))
            if len(found) > endless.LISTING_LIMIT:
                raise endless.too_many(endless.named(path), endless.LISTING_LIMIT)
    return found


def read_symlinks(root: Root, step: Step, path: RelPath, names: Iterable[str]) -> dict[str, str]:
    """Tree.read_symlinks: the targets of the names that exist."""
    targets = {}
    with opened_directory(root, path) as directory:
        for name in names:
            step()
            _check(name)
            with contextlib.suppress(FileNotFoundError):
                targets[name] = _read_link(name, directory)
    return targets


def is_empty(root: Root, _step: Step, path: RelPath) -> bool:
    """Tree.is_empty."""
    with opened_directory(root, path) as directory, scanned(directory, endless.named(path)) as entries:
        return next(entries, None) is None


def space(root: Root, _step: Step) -> FilesystemStats:
    """Tree.space; free space is what users other than root can use."""
    seen = os.fstatvfs(root.descriptor)
    return FilesystemStats.counted(
        size_bytes=seen.f_blocks * seen.f_frsize,
        free_bytes=seen.f_bavail * seen.f_frsize,
        inodes=seen.f_files,
        free_inodes=seen.f_favail,
    )


@contextlib.contextmanager
def opened_parent(root: Root, path: RelPath, *, make_with: Step | None = None) -> Iterator[int]:
    """Open the parent of a path; with `make_with`, create missing directories on the way.

    Raises ENOTDIR (Cause.SYMLINK) for a component that is not a directory, and Cause.OTHER for the root itself.
    """
    if not path:
        raise ExportError(Cause.OTHER, "the root of the export cannot be changed")
    for name in path:
        _check(name)
    parent = path[:-1]
    if not parent:
        yield root.descriptor
        return
    current, rest = _within_ledger(root, parent, make_with)
    if not rest:
        yield current
        return
    current = _pass(rest[0], current, make_with)
    try:
        for name in rest[1:]:
            below = _pass(name, current, make_with)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _within_ledger(root: Root, path: RelPath, make_with: Step | None) -> tuple[int, RelPath]:
    """Return the open directory of the ledger that a path leads through, or the root, and the rest of the path."""
    try:
        of_ledger = root.directory_of_ledger(path[:_LEDGER_DEPTH])
    except FileNotFoundError:
        if make_with is None:
            raise
        of_ledger = None
    return (root.descriptor, path) if of_ledger is None else (of_ledger, path[_LEDGER_DEPTH:])


@contextlib.contextmanager
def opened(name: str, parent: int) -> Iterator[int]:
    """Open a directory for reading."""
    descriptor = os.open(name, _READ, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scanned(directory: int, name: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Iterate over the entries of an open directory.

    The kernel's NFS client reports ELOOP if the server repeats a position; that is not about symlinks.
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
    """Give the owner of a directory all permissions, without following a symlink or needing read permission.

    chmod(2) follows symlinks and fchmod(2) refuses a descriptor with O_PATH. So this goes through /proc/self/fd, as
    fchmodat(AT_SYMLINK_NOFOLLOW) of glibc does.
    """
    descriptor = os.open(name, _PASS, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)


def _pass(name: str, parent: int, make_with: Step | None) -> int:
    """Open the next directory on the way down.

    Create it first if it is missing and `make_with` is given.
    """
    try:
        return os.open(name, _PASS, dir_fd=parent)
    except FileNotFoundError:
        if make_with is None:
            raise
    make_with()
    # If the directory exists now, another call was faster, and that call sets the mode.
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, PARENT_MODE, dir_fd=parent)
        with opened(name, parent) as made, contextlib.suppress(OSError):  # some servers refuse chmod
            if stat.S_IMODE(os.fstat(made).st_mode) != PARENT_MODE:
                os.fchmod(made, PARENT_MODE)  # The umask can have removed bits.
    return os.open(name, _PASS, dir_fd=parent)


@contextlib.contextmanager
def opened_directory(root: Root, path: RelPath) -> Iterator[int]:
    """Open the directory at a path for reading; `()` is the root."""
    if not path:
        with opened(".", root.descriptor) as directory:
            yield directory
    else:
        with opened_parent(root, path) as parent, opened(path[-1], parent) as directory:
            yield directory


def _first_mode(ownership: Ownership) -> int:
    """Return the mode for mkdir: the final mode, because some servers refuse to change it later.

    A directory that gets another owner is closed to other users until the owner is set.
    """
    if ownership.mode is None:
        return PARENT_MODE
    return ownership.mode if ownership.uid is None and ownership.gid is None else 0o700


def _set_access(directory: int, step: Step, path: RelPath, ownership: Ownership) -> None:
    if ownership.uid is not None or ownership.gid is not None:
        step()
        with refusals_of(path, "chown"):
            os.fchown(directory, _or_unchanged(ownership.uid), _or_unchanged(ownership.gid))
    if ownership.mode is not None:
        step()
        with refusals_of(path, "chmod"):
            os.fchmod(directory, ownership.mode)  # Last, because fchown clears the set-ID bits (chown(2)).


def _or_unchanged(number: int | None) -> int:
    """An owner or group for chown(2), which takes -1 for "leave it"."""
    return -1 if number is None else number


@contextlib.contextmanager
def refusals_of(path: RelPath, call: refusals.Call) -> Iterator[None]:
    """Translate a refusal here, where the call that met it is known."""
    try:
        yield
    except OSError as exc:
        if exc.errno in errnos.UNREACHABLE:
            raise
        raise errnos.refused(exc, "/".join(path), call) from exc


def _look(path: RelPath, parent: int) -> int:
    """Return type and mode of an entry, without following a symlink. Raises FileNotFoundError."""
    return os.stat(path[-1], dir_fd=parent, follow_symlinks=False).st_mode


def _expect_symlink(path: RelPath, parent: int) -> None:
    if not stat.S_ISLNK(_look(path, parent)):
        raise ExportError(Cause.SYMLINK, f"{'/'.join(path)} is not a symbolic link")


def _expect_nothing(path: RelPath, parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        _look(path, parent)
        raise PathExists("/".join(path))


def _expect_proofs(root: Root, proofs: Sequence[Proof]) -> None:
    """Check the proofs of a rename, right before it. Raises Cause.RECORD."""
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
    """Refuse a name that is not exactly one path component for the kernel."""
    if name in ("", ".", "..") or "/" in name:
        raise ExportError(Cause.OTHER, f"{name!r} is not a valid name")


def _entry_type(entry: os.DirEntry[str]) -> EntryType:
    if entry.is_symlink():
        return "symlink"
    return "directory" if entry.is_dir(follow_symlinks=False) else "file"


def _is_mount_point(directory: int) -> bool:
    """Return True for a mount point, like os.path.ismount(): another device than `..`, or the root directory."""
    here, above = os.fstat(directory), os.stat("..", dir_fd=directory)
    return here.st_dev != above.st_dev or here.st_ino == above.st_ino
