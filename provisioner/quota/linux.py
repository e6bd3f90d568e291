"""The system calls of project quotas by ctypes and fcntl: no quota tools, and the same calls for XFS and ext4.

Numbers and layouts are in docs/development/sizes.md, "System calls"; x86-64 and arm64 have the same ones. Each function
raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.ports.quota import Usage

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_OPENAT2, _QUOTACTL_FD = 437, 443
_FILE_GETATTR, _FILE_SETATTR = 468, 469  # Linux 6.17
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_AT_SYMLINK_NOFOLLOW = 0x100

_FSXATTR = struct.Struct("=5I8x")
"""struct fsxattr: xflags, extsize, nextents, projid, cowextsize."""
_FILE_ATTR = struct.Struct("=Q4I")
"""struct file_attr: the same, with 64 bits of xflags."""
_GET_XATTR, _SET_XATTR = 0x801C581F, 0x401C5820
_PROJINHERIT = 0x200

_PRJQUOTA = 2
_GET_QUOTA, _SET_LIMIT, _GET_STATE, _GET_NEXT = 0x5803, 0x5804, 0x5808, 0x5809
_DISK_QUOTA = struct.Struct("=bbHI6QiiHH4b3QiHh8x")
"""struct fs_disk_quota: version, flags, fields, id, six limits, usage of blocks and inodes, and more."""
_VERSION, _IS_PROJECT = 1, 2
_BLOCK_SOFT, _BLOCK_HARD = 4, 8
_UNIT_BYTES = 512
_STATE = struct.Struct("=bBH156x")
"""struct fs_quota_statv: version, padding, flags."""
_ACCOUNTED, _ENFORCED = 0x10, 0x20
_LAST_ID = 0xFFFFFFFF
_NOTHING = (errno.ENOENT, errno.ESRCH)


def _call(number: int, *arguments: ctypes._SimpleCData[int] | ctypes.Array[ctypes.c_char] | bytes) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def open_beneath(root: int, path: str, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> int:
    """Open what is below a directory: through no symlink, into no other file system, and never outside."""
    resolve = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | _NO_XDEV
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, resolve)
    return _call(_OPENAT2, ctypes.c_int(root), os.fsencode(path), how, ctypes.c_size_t(len(how)))


@dataclass(frozen=True, slots=True)
class Project:
    """The project id of an inode, and whether new entries of a directory get it."""

    id: int
    inherits: bool


def project_of(descriptor: int) -> Project:
    """Return the project of an open file or directory."""
    flags, _, _, project, _ = _attributes(descriptor)
    return Project(project, bool(flags & _PROJINHERIT))


def set_project(descriptor: int, project: int, *, inherits: bool) -> None:
    """Set the project of an open file or directory, unless it has it already."""
    flags, extent, extents, was, copy_extent = _attributes(descriptor)
    wanted = flags | _PROJINHERIT if inherits else flags & ~_PROJINHERIT
    if (was, flags) != (project, wanted):
        fcntl.ioctl(descriptor, _SET_XATTR, _FSXATTR.pack(wanted, extent, extents, project, copy_extent))


def _attributes(descriptor: int) -> tuple[int, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(descriptor, _GET_XATTR, bytes(_FSXATTR.size)))


def set_project_of_special(directory: int, name: str, project: int) -> bool:
    """Set the project of a symlink, fifo, socket or device; return False where the kernel has no call for that."""
    entry, size, nofollow = os.fsencode(name), ctypes.c_size_t(_FILE_ATTR.size), ctypes.c_uint(_AT_SYMLINK_NOFOLLOW)
    buffer = ctypes.create_string_buffer(_FILE_ATTR.size)
    try:
        _call(_FILE_GETATTR, ctypes.c_int(directory), entry, buffer, size, nofollow)
        flags, extent, extents, was, copy_extent = _FILE_ATTR.unpack(buffer.raw)
        if was != project:
            wanted = _FILE_ATTR.pack(flags, extent, extents, project, copy_extent)
            _call(_FILE_SETATTR, ctypes.c_int(directory), entry, wanted, size, nofollow)
    except OSError as exc:
        return exc.errno == errno.ENOENT
    return True


# ---------------------------------------------------------------------------------------------------- quotas


def _quotactl(descriptor: int, command: int, project: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    _call(
        _QUOTACTL_FD,
        ctypes.c_uint(descriptor),
        ctypes.c_uint(command << 8 | _PRJQUOTA),
        ctypes.c_uint(project),
        buffer,
    )


@dataclass(frozen=True, slots=True)
class QuotaState:
    """What a file system does with project quotas."""

    is_accounted: bool
    is_enforced: bool


def quota_state(descriptor: int) -> QuotaState:
    """Return the state of project quotas; needs no capability."""
    buffer = ctypes.create_string_buffer(bytes((_VERSION,)), _STATE.size)
    _quotactl(descriptor, _GET_STATE, 0, buffer)
    _, _, flags = _STATE.unpack(buffer.raw)
    return QuotaState(bool(flags & _ACCOUNTED), bool(flags & _ENFORCED))


def usage_of(descriptor: int, project: int) -> Usage:
    """Return the usage of a project; needs CAP_SYS_ADMIN."""
    buffer = ctypes.create_string_buffer(_DISK_QUOTA.size)
    try:
        _quotactl(descriptor, _GET_QUOTA, project, buffer)
    except OSError as exc:
        if exc.errno in _NOTHING:
            return Usage()
        raise
    return _read(buffer.raw)[1]


def usages(descriptor: int) -> Iterator[tuple[int, Usage]]:
    """Iterate over the usage of all projects that the file system knows."""
    project, buffer = 0, ctypes.create_string_buffer(_DISK_QUOTA.size)
    while True:
        try:
            _quotactl(descriptor, _GET_NEXT, project, buffer)
        except OSError as exc:
            if exc.errno in _NOTHING:
                return
            raise
        found, usage = _read(buffer.raw)
        yield found, usage
        if found >= _LAST_ID or found < project:  # the kernel wraps
            return
        project = found + 1


def _read(data: bytes) -> tuple[int, Usage]:
    fields = _DISK_QUOTA.unpack(data)
    project, hard, blocks, inodes = fields[3], fields[4], fields[8], fields[9]
    return project, Usage(used_bytes=blocks * _UNIT_BYTES, inodes=inodes, limit_bytes=hard * _UNIT_BYTES)


def set_limit(descriptor: int, project: int, limit_bytes: int) -> None:
    """Set the hard limit of a project and no soft one; needs CAP_SYS_ADMIN."""
    limits = (limit_bytes // _UNIT_BYTES, 0, 0, 0)
    data = _DISK_QUOTA.pack(_VERSION, _IS_PROJECT, _BLOCK_HARD | _BLOCK_SOFT, project, *limits, *([0] * 16))
    _quotactl(descriptor, _SET_LIMIT, project, ctypes.create_string_buffer(data, len(data)))


# ---------------------------------------------------------------------------------------------------- inotify

IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_MOVED_FROM = 0x80, 0x100, 0x200, 0x40
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
_IN_ONLYDIR = 0x0100_0000
_EVENT = struct.Struct("=iIII")


def inotify() -> int:
    """Return a new inotify descriptor."""
    descriptor = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def watch(descriptor: int, directory: int) -> int:
    """Watch the names in an open directory; return the watch."""
    mask = IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVED_FROM | _IN_ONLYDIR
    path = f"/proc/self/fd/{directory}".encode()
    found = int(_libc.inotify_add_watch(descriptor, path, ctypes.c_uint32(mask)))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def events(descriptor: int) -> Iterator[tuple[int, str]]:
    """Iterate over the events that wait: their flags, and the name that changed."""
    while True:
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            _, flags, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            yield flags, os.fsdecode(data[position : position + length].rstrip(b"\0"))
            position += length
