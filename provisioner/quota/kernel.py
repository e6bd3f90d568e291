"""The `Disk` driver for XFS and ext4: records, project ids and limits by system calls on open descriptors."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quota import ANSWERS
from provisioner.ports.quota import DiskError, Facts, Label, NoRoom, Unable, Usage, Walked
from provisioner.quota import capabilities, linux
from provisioner.quota.labelling import label_content

_WATCHED: tuple[RelPath, ...] = ((LEDGER, "pending"), (LEDGER, "volumes"))
_DRAFT = ".draft"
"""The name of an answer right before it replaces another one; no volume can have it."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_QUOTA_FILESYSTEMS = ("xfs", "ext4")


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount of a root (proc(5), mountinfo)."""

    filesystem: str
    mount_point: str
    source: str


class KernelDisk:
    """The file system of one export, as a local directory."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[RelPath, int] = {}
        """Descriptors of the root and of the directories of records, since the last facts()."""
        self._locked: int | None = None
        self._inotify: int | None = None
        self._modified: list[int] = []

    # ------------------------------------------------------------------------------------------- the file system

    def facts(self) -> Facts:
        """See `Disk`. Opens the root again, so that a mount in its place is noticed."""
        self._close()
        with self._reported("the root"):
            descriptor = self._directory(())
            seen = os.fstat(descriptor)
            device = f"{os.major(seen.st_dev)}:{os.minor(seen.st_dev)}"
            mount = _mount_of(device, self._root)
            lacks = (*self.lacks_quota(descriptor, mount), *self._lacks_rights(descriptor))
        return Facts(filesystem=mount.filesystem, device=device, lacks=lacks)

    def lacks_quota(self, descriptor: int, mount: Mount) -> list[str]:
        """Return what the file system lacks to enforce limits of projects."""
        at, source = mount.mount_point, mount.source
        if mount.filesystem not in _QUOTA_FILESYSTEMS:
            return [
                f"{self._root} is on {mount.filesystem or 'an unknown file system'}, which has no project quotas that"
                " the agent can use: put the export on XFS or ext4"
            ]
        try:
            state = linux.quota_state(descriptor)
        except OSError as exc:
            # A file system that was built without quotas answers ENOSYS too.
            if exc.errno == errno.ENOSYS and _kernel() < (5, 14):
                return ["the kernel has no quotactl_fd(2): upgrade to Linux 5.14 or newer"]
            if exc.errno == errno.EPERM:
                return ["the kernel or a seccomp profile refuses quotactl_fd(2): allow it for the agent"]
            state = linux.QuotaState(is_accounted=False, is_enforced=False)
        if state.is_enforced:
            return []
        if mount.filesystem == "xfs":
            return [
                f"{at} is mounted without prjquota: add prjquota to its options in /etc/fstab, then stop the NFS server"
                f" and run umount {at} && mount {at}; a remount is not enough"
                " (root file system: rootflags=prjquota on the kernel's command line)"
            ]
        return [
            f"{at} has no project quotas: add prjquota to its options in /etc/fstab, then stop the NFS server and run"
            f" umount {at} && tune2fs -O project,quota -Q prjquota {source} && mount {at}"
        ]

    def _lacks_rights(self, descriptor: int) -> list[str]:
        """Return what the process lacks."""
        found = []
        if capabilities.is_in_user_namespace():
            found.append(
                "the agent is in a user namespace, where it has no rights on file systems: run it as a service of the"
                " host or in a container without user namespaces"
            )
        if missing := capabilities.missing():
            found.append(
                f"the agent lacks {', '.join(missing)}: run it as root, or grant them (systemd: AmbientCapabilities=;"
                " containers: capabilities.add)"
            )
        if os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
            found.append(f"{self._root} is read-only: mount it, or pass it to the container, writable")
        return found

    def lock(self) -> bool:
        """See `Disk`."""
        with self._reported("/".join(ANSWERS)):
            current = self._answers()
            if self._locked is not None:
                if os.path.sameopenfile(self._locked, current):
                    return True
                os.close(self._locked)
                self._locked = None
            locked = linux.open_beneath(current, ".")  # a lock belongs to one open file description
            try:
                fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(locked)
                return False
            self._locked = locked
        return True

    def release(self) -> None:
        """See `Disk`."""
        self._close()
        for descriptor in (self._locked, self._inotify):
            if descriptor is not None:
                os.close(descriptor)
        self._locked = self._inotify = None

    # ------------------------------------------------------------------------------------------- records

    def names(self, path: RelPath) -> list[str]:
        """See `Disk`."""
        with self._reported("/".join(path)):
            try:
                return os.listdir(self._directory(path))
            except OSError as exc:
                if exc.errno == errno.ENOENT:
                    return []
                raise

    def read(self, path: RelPath) -> str:
        """See `Disk`."""
        with self._reported("/".join(path)):
            try:
                return os.readlink(path[-1], dir_fd=self._directory(path[:-1]))
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.EINVAL):  # EINVAL: it is no symlink
                    return ""
                raise

    def write(self, path: RelPath, text: str) -> None:
        """See `Disk`."""
        with self._reported("/".join(path)):
            drafts, target = self._answers(), self._directory(path[:-1])
            try:
                os.symlink(text, _DRAFT, dir_fd=drafts)
            except FileExistsError:  # of an agent that was killed
                os.unlink(_DRAFT, dir_fd=drafts)
                os.symlink(text, _DRAFT, dir_fd=drafts)
            os.rename(_DRAFT, path[-1], src_dir_fd=drafts, dst_dir_fd=target)

    def remove(self, path: RelPath) -> None:
        """See `Disk`."""
        with self._reported("/".join(path)), suppress(FileNotFoundError):
            os.unlink(path[-1], dir_fd=self._directory(path[:-1]))

    # ------------------------------------------------------------------------------------------- projects

    def label(self, path: RelPath) -> Label | None:
        """See `Disk`."""
        with self._reported("/".join(path)):
            try:
                descriptor = self._opened(path)
            except OSError as exc:
                if exc.errno in _NOT_THERE:
                    return None
                raise
            try:
                return _label(descriptor)
            finally:
                os.close(descriptor)

    def set_label(self, path: RelPath, project: int, *, was: Label) -> None:
        """See `Disk`."""
        with self._reported("/".join(path)), self._held(path) as descriptor:
            if _label(descriptor) != was:
                raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
            linux.set_project(descriptor, project, inherits=True)

    def walk(self, path: RelPath, project: int) -> Iterator[Walked]:
        """See `Disk`."""
        with self._reported("/".join(path)), self._held(path) as descriptor:
            label = _label(descriptor)
            if label.project != project or not label.inherits:
                raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
            yield from label_content(descriptor, project)

    # ------------------------------------------------------------------------------------------- limits

    def usages(self) -> Mapping[int, Usage]:
        """See `Disk`."""
        with self._reported("usage of projects"):
            return dict(linux.usages(self._directory(())))

    def usage(self, project: int) -> Usage:
        """See `Disk`."""
        with self._reported(f"usage of project {project}"):
            return linux.usage_of(self._directory(()), project)

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """See `Disk`."""
        with self._reported(f"limit of project {project}"):
            linux.set_limit(self._directory(()), project, limit_bytes)

    # ------------------------------------------------------------------------------------------- events

    def events(self) -> int | None:
        """See `Disk`. The watches follow the directories: it is asked again after each pass."""
        if self._inotify is None:
            with suppress(OSError):
                self._inotify = linux.inotify()
        if self._inotify is None:
            return None
        for path in _WATCHED:
            with suppress(OSError):  # a second watch of the same directory is the first one
                linux.watch(self._inotify, self._directory(path))
        return self._inotify

    def changed(self) -> set[str] | None:
        """See `Disk`."""
        names: set[str] = set()
        with self._reported("changes of records"):
            if self._inotify is None:
                return None if self._have_moved() else names
            for flags, name in linux.events(self._inotify):
                if flags & linux.IN_Q_OVERFLOW:
                    return None
                if name and not flags & linux.IN_IGNORED:
                    names.add(name)
        return names

    def _have_moved(self) -> bool:
        """Return True if names in the directories of records have changed, without inotify."""
        was, self._modified = self._modified, [os.fstat(self._directory(path)).st_mtime_ns for path in _WATCHED]
        return self._modified != was

    # ------------------------------------------------------------------------------------------- descriptors

    def _close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _directory(self, path: RelPath) -> int:
        """Return a descriptor of a directory that stays open until the next facts()."""
        if path not in self._open:
            self._open[path] = self._opened(path) if path else os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        return self._open[path]

    def _answers(self) -> int:
        """Return the directory of answers; create it in an existing ledger."""
        with suppress(FileExistsError):
            if ANSWERS not in self._open:
                os.mkdir(ANSWERS[-1], 0o700, dir_fd=self._directory(ANSWERS[:-1]))
        return self._directory(ANSWERS)

    def _opened(self, path: RelPath) -> int:
        return linux.open_beneath(self._directory(()), "/".join(path) or ".")

    @contextmanager
    def _held(self, path: RelPath) -> Iterator[int]:
        descriptor = self._opened(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Translate OSError into errors of the port."""
        try:
            yield
        except OSError as exc:
            raise _error(exc, what) from exc


def _error(exc: OSError, what: str) -> DiskError:
    why = exc.strerror or str(exc)
    if exc.errno in _FULL:
        return NoRoom(f"{what}: {why}: free some space on the file system")
    if exc.errno in (errno.EPERM, errno.EACCES):
        return Unable(f"{what}: {why}: run the agent as root, or as the owner of the ledger with its capabilities")
    if exc.errno == errno.EROFS:
        return Unable(f"{what}: {why}: mount the file system writable")
    return DiskError(f"{what}: {why}")


def _label(descriptor: int) -> Label:
    project = linux.project_of(descriptor)
    return Label(project.id, project.inherits, os.fstat(descriptor).st_ino)


def _kernel() -> tuple[int, ...]:
    """Return the version of the running kernel, such as (6, 12)."""
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _mount_of(device: str, root: str) -> Mount:
    """Return the mount whose device a root is on; the one nearest above it if there are several."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return find_mount(file.read(), device, os.path.realpath(root))


def find_mount(mountinfo: str, device: str, root: str) -> Mount:
    """Return the mount of a device nearest above a root, from the text of mountinfo (proc(5))."""
    best = Mount("", root, "")
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(more) < 2 or fields[2] != device:
            continue
        at = _unescaped(fields[4])
        is_above = root == at or root.startswith(at.rstrip("/") + "/")
        if not best.filesystem or (is_above and len(at) >= len(best.mount_point)):
            best = Mount(more[0], at, _unescaped(more[1]))
    return best


def _unescaped(text: str) -> str:
    """Return a path of mountinfo, which writes a blank as a backslash and 040."""
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text
