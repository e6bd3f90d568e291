"""Removal of a directory with its content, in bounded memory, with few descriptors, never through a symlink.

A removal works in portions, and each portion starts again at the top. Nothing stays open between portions, so a crash,
a remount or a changed tree needs no special handling.

A portion holds one descriptor per level. A tenant can nest directories without limit, so the removal first renames
directories below `DEPTH_LIMIT` into the top directory. A chain of 100,000 directories then needs no more descriptors
than any other tree.

If another file system is mounted inside the directory, nothing is removed from that file system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.core.locations import RelPath
from provisioner.core.reserved import is_servers
from provisioner.mounted import syscalls
from provisioner.mounted.errnos import refused
from provisioner.mounted.syscalls import Root, Step
from provisioner.ports import endless
from provisioner.ports.refusals import NESTED_INSIDE, inside
from provisioner.ports.tree import Cause, ExportError

DEPTH_LIMIT = 32

# Refusals of a single entry, after which the removal continues: a file that a client holds open (EBUSY, NFS), a file of
# another user on a server that squashes root, an entry whose type changes during the removal.
_STAYS = (
    errno.EACCES,
    errno.EBUSY,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
)


class _TimeUp(Exception):
    """The time of the portion is up."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Result of a portion: the number of removed entries, and whether the directory is gone."""

    removed: int
    done: bool


def remove_portion(root: Root, step: Step, path: RelPath, portion_s: float) -> Portion:
    """Remove entries for about `portion_s` seconds, at least one.

    A missing directory counts as done.

    Entries that cannot be removed stay while all others are removed. Once nothing else is left, the first refusal is
    raised.
    """
    try:
        with syscalls.opened_parent(root, path) as parent:
            portion = _Removal(step, time.monotonic() + portion_s, os.fstat(parent).st_dev, endless.named(path))
            try:
                portion.remove(path[-1], parent)
            except _TimeUp:
                return portion.so_far(done=False)
            return portion.so_far(done=True)
    except FileNotFoundError:
        return Portion(0, done=True)


class _Removal:
    """The state of one portion."""

    def __init__(self, step: Step, deadline: float, device: int, named: str) -> None:
        self._step = step
        self._deadline = deadline
        self._device = device
        self._named = named
        self._removed = 0
        self._failure: ExportError | None = None
        self._top = -1
        self._trail: list[str] = []
        """The names from the top down to the current directory."""

    def so_far(self, *, done: bool) -> Portion:
        """Return the result; raises the first refusal if the portion removed nothing."""
        if not self._removed and self._failure is not None:
            raise self._failure
        return Portion(self._removed, done)

    def remove(self, name: str, parent: int) -> None:
        """Remove the directory. Raises _TimeUp, and the first OSError or ExportError if it stays."""
        try:
            self._remove_directory(name, parent)
        except OSError as exc:
            if self._failure is None:
                raise
            raise self._failure from exc

    def _remove_directory(self, name: str, parent: int) -> None:
        depth = len(self._trail)
        self._open_up(name, parent)
        with syscalls.opened(name, parent) as directory, self._below(name):
            if depth == 0:
                self._top = directory
            if os.fstat(directory).st_dev != self._device:
                raise ExportError(Cause.NESTED, "/".join(self._trail), hint=NESTED_INSIDE)
            while True:
                before = self._removed
                self._empty(directory, depth)
                self._step()
                try:
                    os.rmdir(name, dir_fd=parent)
                except OSError as exc:
                    # Some file systems skip entries of a directory that shrinks while it is read: read it again.
                    if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST) or self._removed == before:
                        raise
                else:
                    self._count()
                    return

    def _empty(self, directory: int, depth: int) -> None:
        """Remove the entries of a directory, except for those that are refused."""
        with syscalls.scanned(directory, self._named) as entries:
            for entry in entries:
                try:
                    self._remove_entry(entry, directory, depth)
                except FileNotFoundError:
                    # Another client removed the entry, or the directory lists entries that do not exist.
                    self._look_at_clock()
                except ExportError as exc:
                    self._failure = self._failure or exc
                    self._look_at_clock()
                except OSError as exc:
                    names = (*self._trail, entry.name)
                    failure = inside(names, refused(exc, "/".join(names), "remove"))
                    if exc.errno not in _STAYS and failure.cause is not Cause.DENIED:
                        raise
                    self._failure = self._failure or failure
                    self._look_at_clock()

    def _remove_entry(self, entry: os.DirEntry[str], directory: int, depth: int) -> None:
        self._step()
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=directory)
            self._count()
        elif is_servers(entry.name) and self._is_removed(entry.name, directory):
            self._count()
        elif depth < DEPTH_LIMIT:
            self._remove_directory(entry.name, directory)
        else:
            # A rename changes `..` inside the directory, so it needs write permission on it.
            self._open_up(entry.name, directory)
            os.rename(entry.name, f".deep-{entry.inode()}", src_dir_fd=directory, dst_dir_fd=self._top)

    def _is_removed(self, name: str, parent: int) -> bool:
        """Try to remove a directory without reading it: it can be a snapshot that the server shows."""
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _open_up(self, name: str, parent: int) -> None:
        """Add the owner's permissions to a directory that lacks them, if the provisioner owns it."""
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            self._step()
            with contextlib.suppress(OSError):  # if the mode matters, the next call is refused and names the entry
                syscalls.open_up(name, parent)

    @contextlib.contextmanager
    def _below(self, name: str) -> Iterator[None]:
        """Add a name to the trail while its directory is being processed."""
        self._trail.append(name)
        try:
            yield
        finally:
            self._trail.pop()

    def _count(self) -> None:
        self._removed += 1
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        if time.monotonic() >= self._deadline:
            raise _TimeUp
