"""NFS version 3 (RFC 1813): the directory procedures, each as a `Procedure` to send.

The result is the procedure's `resok`; an nfsstat3 other than NFS3_OK raises Nfs3Error.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable, Mapping
from typing import TypeVar

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import rpc, xdr
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.values import (
    NAME_LIMIT_BYTES,
    NANOSECONDS,
    SYMLINK_KEPT,
    SYMLINK_LIMIT_BYTES,
    Attributes,
    DirectoryEntry,
    DirectoryPage,
    Facts,
    Position,
)
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.files import Kept, Kind
from provisioner.ports.refusals import Call
from provisioner.ports.tree import EntryType, FilesystemStats

T = TypeVar("T")

PROGRAM = 100003
VERSION = 3
HANDLE_LIMIT_BYTES = 64
NF3REG, NF3DIR, NF3LNK, NF3SOCK, NF3FIFO = 1, 2, 5, 6, 7
_DONT_CHANGE_TIME, _SET_TO_CLIENT_TIME = xdr.uint(0), xdr.uint(2)
GUARDED, UNSTABLE, FILE_SYNC = 1, 0, 2
READ_LIMIT_BYTES = 1 << 20
_KINDS: Mapping[int, Kind] = {NF3REG: "file", NF3DIR: "directory", NF3LNK: "symlink", NF3FIFO: "fifo"}

# `fattr3` (section 2.6): type, mode, links, owner, group; size, used; device; filesystem, file; three times.
_FATTR3 = struct.Struct(">5I 2Q 2I 2Q 6I")


class Status(enum.IntEnum):
    """`nfsstat3` (section 2.6)."""

    NFS3ERR_PERM = 1
    NFS3ERR_NOENT = 2
    NFS3ERR_IO = 5
    NFS3ERR_NXIO = 6
    NFS3ERR_ACCES = 13
    NFS3ERR_EXIST = 17
    NFS3ERR_XDEV = 18
    NFS3ERR_NODEV = 19
    NFS3ERR_NOTDIR = 20
    NFS3ERR_ISDIR = 21
    NFS3ERR_INVAL = 22
    NFS3ERR_FBIG = 27
    NFS3ERR_NOSPC = 28
    NFS3ERR_ROFS = 30
    NFS3ERR_MLINK = 31
    NFS3ERR_NAMETOOLONG = 63
    NFS3ERR_NOTEMPTY = 66
    NFS3ERR_DQUOT = 69
    NFS3ERR_STALE = 70
    NFS3ERR_REMOTE = 71
    NFS3ERR_BADHANDLE = 10001
    NFS3ERR_NOT_SYNC = 10002
    NFS3ERR_BAD_COOKIE = 10003
    NFS3ERR_NOTSUPP = 10004
    NFS3ERR_TOOSMALL = 10005
    NFS3ERR_SERVERFAULT = 10006
    NFS3ERR_BADTYPE = 10007
    NFS3ERR_JUKEBOX = 10008


CALLS: Mapping[int, Call] = {
    1: "getattr", 3: "lookup", 5: "readlink", 8: "open", 9: "mkdir", 10: "symlink", 12: "remove", 13: "rmdir",
    14: "rename", 17: "readdir", 18: "statfs",
}  # fmt: skip
"""Procedure numbers as calls, for error messages; SETATTR (2) is missing because it depends on the arguments."""


class Nfs3Error(ProvisionerError):
    """The server answered a procedure with an nfsstat3 other than NFS3_OK."""

    def __init__(self, status: int) -> None:
        super().__init__(Status(status).name if status in list(Status) else f"nfsstat3 {status}")
        self.status = status


def null() -> Procedure[None]:
    """NULL (section 3.3.0): do nothing; shows whether the server supports version 3."""
    return rpc.null(PROGRAM, VERSION)


def getattr(handle: bytes) -> Procedure[Attributes]:
    """GETATTR (section 3.3.1)."""
    return _procedure(1, xdr.opaque(handle), _fattr3)


def setattr(handle: bytes, *, mode: int | None, uid: int | None, gid: int | None) -> Procedure[None]:
    """SETATTR (section 3.3.2), without a guard."""
    arguments = xdr.opaque(handle) + sattr3(mode=mode, uid=uid, gid=gid) + xdr.uint(0)
    return _procedure(2, arguments, _wcc_data, changes=True)


def lookup(directory: bytes, name: str) -> Procedure[tuple[bytes, Attributes | None]]:
    """LOOKUP (section 3.3.3): handle, and attributes if the server adds them."""
    return _procedure(3, _diropargs3(directory, name), _lookup3resok)


def readlink(handle: bytes) -> Procedure[str]:
    """READLINK (section 3.3.5)."""
    return _procedure(5, xdr.opaque(handle), _readlink3resok)


def mkdir(directory: bytes, name: str, *, mode: int) -> Procedure[tuple[bytes | None, Attributes | None]]:
    """MKDIR (section 3.3.9): handle and attributes of the new directory, if the server adds them."""
    arguments = _diropargs3(directory, name) + sattr3(mode=mode, uid=None, gid=None)
    return _procedure(9, arguments, _create3resok, changes=True)


def symlink(directory: bytes, name: str, target: str) -> Procedure[tuple[bytes | None, Attributes | None]]:
    """SYMLINK (section 3.3.10)."""
    arguments = _diropargs3(directory, name) + sattr3(mode=0o777, uid=None, gid=None) + xdr.string(target)
    return _procedure(10, arguments, _create3resok, changes=True)


def remove(directory: bytes, name: str) -> Procedure[None]:
    """REMOVE (section 3.3.12): remove an entry that is not a directory."""
    return _procedure(12, _diropargs3(directory, name), _wcc_data, changes=True)


def rmdir(directory: bytes, name: str) -> Procedure[None]:
    """RMDIR (section 3.3.13)."""
    return _procedure(13, _diropargs3(directory, name), _wcc_data, changes=True)


def rename(source: bytes, source_name: str, target: bytes, target_name: str) -> Procedure[None]:
    """RENAME (section 3.3.14)."""
    arguments = _diropargs3(source, source_name) + _diropargs3(target, target_name)
    return _procedure(14, arguments, _rename3res, changes=True)


def readdirplus(directory: bytes, position: Position, size_bytes: int) -> Procedure[DirectoryPage]:
    """READDIRPLUS (section 3.3.17): one page of at most `size_bytes`, with handles and attributes.

    If the server sends more, the rest is ignored and read again with the next page.
    """
    arguments = (
        xdr.opaque(directory)
        + xdr.hyper(position.cookie)
        + position.verifier
        + xdr.uint(size_bytes)
        + xdr.uint(size_bytes)
    )
    return _procedure(17, arguments, functools.partial(_readdirplus3resok, position, size_bytes))


def facts(handle: bytes) -> Procedure[Facts]:
    """GETATTR (section 3.3.1), for a copy."""
    return _procedure(1, xdr.opaque(handle), _facts)


def list_facts(directory: bytes, position: Position, size_bytes: int) -> Procedure[DirectoryPage]:
    """READDIRPLUS (section 3.3.17), for a copy."""
    where = xdr.opaque(directory) + xdr.hyper(position.cookie) + position.verifier
    arguments = where + xdr.uint(size_bytes) + xdr.uint(size_bytes)
    return _procedure(17, arguments, functools.partial(_readdirplus3resok, position, size_bytes, facts=True))


def whole_link(handle: bytes) -> Procedure[str]:
    """READLINK (section 3.3.5), with the whole target."""
    return _procedure(5, xdr.opaque(handle), _whole_link)


def create(directory: bytes, name: str, *, mode: int) -> Procedure[tuple[bytes | None, Attributes | None]]:
    """CREATE (section 3.3.8) of a file that must not exist."""
    arguments = _diropargs3(directory, name) + xdr.uint(GUARDED) + sattr3(mode=mode, uid=None, gid=None)
    return _procedure(8, arguments, _create3resok, changes=True)


def make_fifo(directory: bytes, name: str, *, mode: int) -> Procedure[tuple[bytes | None, Attributes | None]]:
    """MKNOD (section 3.3.11)."""
    arguments = _diropargs3(directory, name) + xdr.uint(NF3FIFO) + sattr3(mode=mode, uid=None, gid=None)
    return _procedure(11, arguments, _create3resok, changes=True)


def link(handle: bytes, directory: bytes, name: str) -> Procedure[None]:
    """LINK (section 3.3.15)."""
    return _procedure(15, xdr.opaque(handle) + _diropargs3(directory, name), _link3res, changes=True)


def read(handle: bytes, offset_bytes: int, size_bytes: int) -> Procedure[bytes]:
    """READ (section 3.3.6)."""
    return _procedure(6, xdr.opaque(handle) + xdr.hyper(offset_bytes) + xdr.uint(size_bytes), _read3resok)


def write(handle: bytes, offset_bytes: int, data: bytes, *, stable: bool) -> Procedure[tuple[int, bytes]]:
    """WRITE (section 3.3.7): how many bytes were written, and the verifier."""
    how = xdr.uint(len(data)) + xdr.uint(FILE_SYNC if stable else UNSTABLE)
    return _procedure(
        7, xdr.opaque(handle) + xdr.hyper(offset_bytes) + how + xdr.opaque(data), _write3resok, changes=True
    )


def commit(handle: bytes) -> Procedure[bytes]:
    """COMMIT (section 3.3.21) of the whole file: the verifier."""
    return _procedure(21, xdr.opaque(handle) + xdr.hyper(0) + xdr.uint(0), _commit3resok, changes=True)


def set_size(handle: bytes, size_bytes: int) -> Procedure[None]:
    """SETATTR (section 3.3.2) of the size."""
    unset = xdr.optional(None)
    attributes = unset * 3 + xdr.optional(xdr.hyper(size_bytes)) + _DONT_CHANGE_TIME * 2
    return _procedure(2, xdr.opaque(handle) + attributes + xdr.uint(0), _wcc_data, changes=True)


def set_times(handle: bytes, *, mode: int | None, accessed_ns: int, modified_ns: int) -> Procedure[None]:
    """SETATTR (section 3.3.2) of the times and a mode."""
    unset = xdr.optional(None)
    first = xdr.optional(None if mode is None else xdr.uint(mode)) + unset * 3
    times = b"".join(_SET_TO_CLIENT_TIME + _nfstime3(each) for each in (accessed_ns, modified_ns))
    return _procedure(2, xdr.opaque(handle) + first + times + xdr.uint(0), _wcc_data, changes=True)


def fsstat(root: bytes) -> Procedure[FilesystemStats]:
    """FSSTAT (section 3.3.18): free space is what this user can use."""
    return _procedure(18, xdr.opaque(root), _fsstat3resok)


def largest_sizes(handle: bytes) -> Procedure[tuple[int, int]]:
    """FSINFO (section 3.3.19): the largest READ and the largest WRITE."""
    return _procedure(19, xdr.opaque(handle), _fsinfo3resok)


def sattr3(*, mode: int | None, uid: int | None, gid: int | None) -> bytes:
    """`sattr3` (section 2.6): the attributes to set; None leaves an attribute unchanged."""
    numbers = (xdr.optional(None if value is None else xdr.uint(value)) for value in (mode, uid, gid))
    size = xdr.optional(None)
    return b"".join((*numbers, size, _DONT_CHANGE_TIME, _DONT_CHANGE_TIME))


def _procedure(number: int, arguments: bytes, decode: Callable[[Cursor], T], *, changes: bool = False) -> Procedure[T]:
    def result(reply: Cursor) -> T:
        status = reply.uint()
        if status:
            raise Nfs3Error(status)
        value = decode(reply)
        reply.finish()
        return value

    return Procedure(PROGRAM, VERSION, number, arguments, result, changes)


def _diropargs3(directory: bytes, name: str) -> bytes:
    return xdr.opaque(directory) + xdr.string(name)


def _handle(reply: Cursor) -> bytes:
    return reply.opaque(HANDLE_LIMIT_BYTES)


def _fattr3(reply: Cursor) -> Attributes:
    kind, mode, _links, uid, gid, _size, _used, _major, _minor, fsid, *_ = reply.unpack(_FATTR3)
    if not 1 <= kind <= NF3FIFO:
        raise MalformedReply(f"ftype3 {kind}")
    return _attributes(_type(kind), mode & 0o7777, fsid, uid, gid)


@functools.lru_cache(maxsize=64)
def _attributes(kind: EntryType, mode: int, fsid: int, uid: int, gid: int) -> Attributes:
    """Create attributes.

    Most entries of a directory have equal ones, which the cache holds once.
    """
    return Attributes(kind, mode, (fsid, 0), uid, gid)


def _type(kind: int) -> EntryType:
    return "directory" if kind == NF3DIR else "symlink" if kind == NF3LNK else "file"


def _facts(reply: Cursor) -> Facts:
    kind, mode, links, uid, gid, size, used, _major, _minor, fsid, fileid, *times = reply.unpack(_FATTR3)
    accessed_s, accessed_ns, modified_s, modified_ns, *_ = times
    return Facts(
        _KINDS.get(kind, "other"),
        (fsid, 0),
        fileid,
        links,
        size,
        used,
        Kept(
            mode & 0o7777,
            str(uid),
            str(gid),
            _signed(accessed_s) * NANOSECONDS + accessed_ns,
            _signed(modified_s) * NANOSECONDS + modified_ns,
        ),
    )


def _signed(seconds: int) -> int:
    """Return seconds as servers mean them: `nfstime3` is unsigned, and times before 1970 arrive as large numbers."""
    return seconds - 2**32 if seconds >> 31 else seconds


def _nfstime3(time_ns: int) -> bytes:
    """`nfstime3` (section 2.6): a time beyond its limits becomes the nearest one."""
    seconds, nanoseconds = divmod(min(max(time_ns, -(2**31) * NANOSECONDS), 2**32 * NANOSECONDS - 1), NANOSECONDS)
    return xdr.uint(seconds % 2**32) + xdr.uint(nanoseconds)


def _whole_link(reply: Cursor) -> str:
    reply.optional(_fattr3)
    return reply.string(SYMLINK_LIMIT_BYTES)


def _link3res(reply: Cursor) -> None:
    reply.optional(_fattr3)
    _wcc_data(reply)


def _read3resok(reply: Cursor) -> bytes:
    reply.optional(_fattr3)
    reply.uint()  # count
    reply.bool()  # eof
    return reply.opaque(READ_LIMIT_BYTES)


def _write3resok(reply: Cursor) -> tuple[int, bytes]:
    _wcc_data(reply)
    size_bytes = reply.uint()
    reply.uint()  # stable_how
    return size_bytes, reply.fixed(8)


def _commit3resok(reply: Cursor) -> bytes:
    _wcc_data(reply)
    return reply.fixed(8)


def _wcc_data(reply: Cursor) -> None:
    if reply.bool():
        reply.fixed(8 + 8 + 8)  # size, mtime, ctime before
    reply.optional(_fattr3)


def _rename3res(reply: Cursor) -> None:
    _wcc_data(reply)
    _wcc_data(reply)


def _lookup3resok(reply: Cursor) -> tuple[bytes, Attributes | None]:
    handle, attributes = _handle(reply), reply.optional(_fattr3)
    reply.optional(_fattr3)
    return handle, attributes


def _readlink3resok(reply: Cursor) -> str:
    reply.optional(_fattr3)
    return reply.string(SYMLINK_LIMIT_BYTES)[:SYMLINK_KEPT]


def _create3resok(reply: Cursor) -> tuple[bytes | None, Attributes | None]:
    handle, attributes = reply.optional(_handle), reply.optional(_fattr3)
    _wcc_data(reply)
    return handle, attributes


def _readdirplus3resok(position: Position, size_bytes: int, reply: Cursor, *, facts: bool = False) -> DirectoryPage:
    reply.optional(_fattr3)
    verifier = reply.fixed(8)
    entries: list[DirectoryEntry] = []
    cookie, begin = position.cookie, reply.left
    while reply.bool():
        reply.hyper()  # fileid
        name, cookie = reply.string(NAME_LIMIT_BYTES), reply.hyper()
        attributes, found = (None, reply.optional(_facts)) if facts else (reply.optional(_fattr3), None)
        handle = reply.optional(_handle)
        if name not in (".", ".."):
            entries.append(DirectoryEntry(name, handle, attributes, cookie, found))
        if begin - reply.left >= size_bytes:
            reply.skip()
            return DirectoryPage(tuple(entries), Position(cookie, verifier), verifier)
    end = reply.bool()
    return DirectoryPage(tuple(entries), None if end else Position(cookie, verifier), verifier)


def _fsinfo3resok(reply: Cursor) -> tuple[int, int]:
    reply.optional(_fattr3)
    rtmax, _rtpref, _rtmult, wtmax = (reply.uint() for _ in range(4))
    reply.fixed(3 * 4 + 8 + 8 + 4)  # wtpref, wtmult, dtpref, maxfilesize, time_delta, properties
    return rtmax, wtmax


def _fsstat3resok(reply: Cursor) -> FilesystemStats:
    reply.optional(_fattr3)
    size, _free, available, files, _files_free, files_available = (reply.hyper() for _ in range(6))
    reply.uint()  # invarsec
    return FilesystemStats.counted(size, available, files, files_available)
