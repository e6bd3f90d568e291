"""Removing a directory with all that is in it, in bounded memory, with few descriptors, and never past a symlink.

A removal goes on in portions, each of which starts anew at the top: nothing stays open between them, and a crash, a
remount or a changed tree needs no special care. A portion holds one descriptor a level; what lies deeper than
`DEPTH_LIMIT` is hoisted to the top first, so that a tenant's chain of 100,000 directories costs us no more than others.
Nothing is removed from another filesystem that is mounted inside.
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
from provisioner.mounted.syscalls import Step
from provisioner.ports import endless
from provisioner.ports.refusals import NESTED_INSIDE, inside
from provisioner.ports.tree import Cause, ExportError

DEPTH_LIMIT = 32

# Refusals that concern one entry only, so that the rest can go: a file held open (EBUSY, NFS), somebody else's file on
# a server that squashes root, a name that changes its type under our hands.
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
    """The portion has lasted long enough."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What a portion did: entries removed, and whether the directory is gone."""

    removed: int
    done: bool


def remove_portion(root: int, step: Step, path: RelPath, portion_s: float) -> Portion:
    """Remove what can be removed in about `portion_s` seconds, at least one entry. A missing directory is done.

    What cannot be removed stays, and all else goes; the first reason for it is raised when nothing else is left.
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
    """One portion at work."""

    def __init__(self, step: Step, deadline: float, device: int, named: str) -> None:
        self._step = step
        self._deadline = deadline
        self._device = device
        self._named = named
        self._removed = 0
        self._failure: ExportError | None = None
        self._top = -1
        self._trail: list[str] = []
        """The names from the top down to the directory at work."""

    def so_far(self, *, done: bool) -> Portion:
        """What was done; raises the failure when nothing was."""
        if not self._removed and self._failure is not None:
            raise self._failure
        return Portion(self._removed, done)

    def remove(self, name: str, parent: int) -> None:
        """Remove the directory. Raises _TimeUp, and OSError or ExportError when it stays: the first reason for it."""
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
                    # Some file systems skip entries in a directory that shrinks while it is read: once more.
                    if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST) or self._removed == before:
                        raise
                else:
                    self._count()
                    return

    def _empty(self, directory: int, depth: int) -> None:
        """Remove what is in a directory, as far as it lets us."""
        with syscalls.scanned(directory, self._named) as entries:
            for entry in entries:
                try:
                    self._remove_entry(entry, directory, depth)
                except FileNotFoundError:
                    self._look_at_clock()  # Others remove it too, or there is no end of what is not there.
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
            self._open_up(entry.name, directory)  # It cannot be moved without write permission: `..` changes in it.
            os.rename(entry.name, f".deep-{entry.inode()}", src_dir_fd=directory, dst_dir_fd=self._top)

    def _is_removed(self, name: str, parent: int) -> bool:
        """Try to remove a directory as if it were empty: snapshots that a server shows must not be read through."""
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _open_up(self, name: str, parent: int) -> None:
        """Give ourselves all permissions on a directory where its mode withholds some, as far as it is ours."""
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            self._step()
            with contextlib.suppress(OSError):  # if it matters, what comes next is refused and names the entry
                syscalls.open_up(name, parent)

    @contextlib.contextmanager
    def _below(self, name: str) -> Iterator[None]:
        """Be at work in the directory of that name."""
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
