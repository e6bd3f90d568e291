"""The walk that gives the content of a directory its project id, on open descriptors.

A tenant can work in the directory while the walk runs. Directories come before their content, so that new entries have
the id already. Nothing is followed: each entry is opened beneath its own directory, without symlinks and mount points.
An entry that another process holds or moves is counted or skipped, and never stops the walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from provisioner.ports.quota import Walked
from provisioner.quota import linux

_SLICE = 512
"""Entries between two yields."""
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO)
_REFUSED = (errno.EPERM, errno.EACCES)
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class _Walk:
    """One walk, with the directories that are open on the way down."""

    def __init__(self, root: int, project: int) -> None:
        self._project = project
        self._open = [(root, os.scandir(root))]
        self.entries = self.special = self.busy = 0

    def step(self) -> bool:
        """Look at one entry; return False at the end."""
        while self._open:
            directory, names = self._open[-1]
            entry = next(names, None)
            if entry is not None:
                self.entries += 1
                self._enter(directory, entry)
                return True
            self._leave()
        return False

    def _enter(self, directory: int, entry: os.DirEntry[str]) -> None:
        if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            # Opening a device can have effects, and a symlink cannot be opened.
            self.special += not linux.set_project_of_special(directory, entry.name, self._project)
            return
        try:
            descriptor = linux.open_beneath(directory, entry.name, _OPEN)
        except OSError as exc:
            self._unopened(exc)
            return
        try:
            if self._labelled(descriptor):
                self._open.append((descriptor, os.scandir(descriptor)))
        finally:
            if self._open[-1][0] != descriptor:
                os.close(descriptor)

    def _labelled(self, descriptor: int) -> bool:
        """Label an open entry; return whether it is a directory to walk through."""
        mode = os.fstat(descriptor).st_mode
        is_directory = stat.S_ISDIR(mode)
        if not is_directory and not stat.S_ISREG(mode):
            self.special += 1  # it was replaced after it was listed
            return False
        try:
            linux.set_project(descriptor, self._project, inherits=is_directory)
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
            self.special += 1  # immutable
        return is_directory

    def _unopened(self, exc: OSError) -> None:
        if exc.errno == errno.EAGAIN:  # an NFS client holds a delegation, and the server recalls it
            self.busy += 1
        elif exc.errno in (errno.EXDEV, *_REFUSED):
            self.special += 1
        elif exc.errno not in _GONE:
            raise exc

    def _leave(self) -> None:
        directory, names = self._open.pop()
        names.close()
        if self._open:  # the first one belongs to the caller
            os.close(directory)

    def close(self) -> None:
        """Close all directories but the first."""
        while self._open:
            self._leave()


def label_content(root: int, project: int) -> Iterator[Walked]:
    """Label all that is below an open directory; yield the counts after each slice, and at the end. Raises OSError."""
    walk = _Walk(root, project)
    try:
        while walk.step():
            if walk.entries % _SLICE == 0:
                yield Walked(walk.entries, walk.special, walk.busy)
    finally:
        walk.close()
    yield Walked(walk.entries, walk.special, walk.busy)
