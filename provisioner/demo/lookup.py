"""A directory asked for over NFSv4.0: one COMPOUND that needs no session, no mount and no state (RFC 7530)."""

from __future__ import annotations

import os
import socket
import struct

_XID = 1
_ACCEPTED = struct.pack(">6I", _XID, 1, 0, 0, 0, 0)
"""Our xid, REPLY, MSG_ACCEPTED, an empty verifier, SUCCESS (RFC 5531, section 9)."""
_PUTROOTFH, _LOOKUP, _GETATTR = 24, 15, 9
_FILEID = 1 << 20


def file_id(port: int, path: str, *, timeout_s: float = 5.0) -> int | None:
    """The fileid, an inode number, that a server on 127.0.0.1 gives an absolute path; None when it finds no such path.

    Raises OSError when no sensible answer comes.
    """
    answer = _ask(port, _call(_compound(path)), timeout_s)
    if answer[:24] != _ACCEPTED or len(answer) < 28:
        raise OSError(f"the NFS server on port {port} does not accept the call")
    (status,) = struct.unpack_from(">I", answer, 24)
    # GETATTR is the last operation and fileid its only attribute: the answer's last eight bytes.
    return int.from_bytes(answer[-8:], "big") if status == 0 else None


def _compound(path: str) -> bytes:
    names = [part for part in path.split("/") if part]
    operations = [
        struct.pack(">I", _PUTROOTFH),
        *(struct.pack(">I", _LOOKUP) + _opaque(name.encode()) for name in names),
        struct.pack(">III", _GETATTR, 1, _FILEID),
    ]
    return _opaque(b"") + struct.pack(">II", 0, len(operations)) + b"".join(operations)


def _call(compound: bytes) -> bytes:
    """The COMPOUND procedure as AUTH_SYS's root."""
    user = struct.pack(">I", 0) + _opaque(b"demo") + struct.pack(">III", 0, 0, 0)
    header = struct.pack(">6I", _XID, 0, 2, 100_003, 4, 1)
    return header + struct.pack(">I", 1) + _opaque(user) + struct.pack(">II", 0, 0) + compound


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def _ask(port: int, call: bytes, timeout_s: float) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(struct.pack(">I", 0x8000_0000 | len(call)) + call)
        with connection.makefile("rb") as stream:
            size = int.from_bytes(stream.read(4), "big") & 0x7FFF_FFFF
            return stream.read(size)


def is_same(port: int, path: str, directory: str) -> bool:
    """Whether the server's `path` and the local `directory` are one: the same inode, as FSAL VFS hands it on."""
    return file_id(port, path) == os.stat(directory).st_ino
