"""Encoded replies of servers, for the tests of the decoders."""

from __future__ import annotations

from provisioner.nfs.protocol import nfs3, xdr
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.values import Attributes, DirectoryPage, Position
from provisioner.nfs.protocol.xdr import Cursor
from provisioner.ports.tree import EntryType

KINDS: dict[EntryType, int] = {"directory": 2, "symlink": 5, "file": 1}


def words(*numbers: int) -> bytes:
    """Encode unsigned integers."""
    return b"".join(map(xdr.uint, numbers))


def accepted(result: bytes, *, xid: int = 1) -> bytes:
    """Encode a reply message with a procedure's result."""
    return words(xid, 1, 0, 0, 0, 0) + result


def fattr3(found: Attributes) -> bytes:
    """Encode `fattr3` (RFC 1813 section 2.6)."""
    head = words(KINDS[found.type], found.mode, 1, found.uid or 0, found.gid or 0)
    return head + bytes(24) + xdr.hyper(found.fsid[0]) + bytes(32)


def page3(page: DirectoryPage) -> bytes:
    """Encode READDIRPLUS3resok, with `.` and `..` before the entries."""
    entries = b""
    cookie = 2
    for name, handle, found, own_cookie in (
        (".", None, None, 0),
        ("..", None, None, 0),
        *((entry.name, entry.handle, entry.attributes, entry.cookie) for entry in page.entries),
    ):
        cookie = own_cookie or (page.next.cookie if page.next is not None else cookie + 1)
        attributes = xdr.optional(None if found is None else fattr3(found))
        encoded_handle = xdr.optional(None if handle is None else xdr.opaque(handle))
        entries += words(1) + bytes(8) + xdr.string(name) + xdr.hyper(cookie) + attributes + encoded_handle
    verifier = page.next.verifier if page.next is not None else bytes(8)
    return words(0, 0) + verifier + entries + words(0, page.next is None)


def fattr4(found: Attributes, handle: bytes) -> bytes:
    """Encode `fattr4` as READDIR returns it."""
    values = words(KINDS[found.type]) + xdr.hyper(found.fsid[0]) + xdr.hyper(found.fsid[1])
    values += xdr.opaque(handle) + words(found.mode)
    numbers = (attributes4.TYPE, attributes4.FSID, attributes4.FILEHANDLE, attributes4.MODE)
    return attributes4.bitmap(*numbers) + xdr.opaque(values)


def page4(page: DirectoryPage) -> bytes:
    """Encode READDIR4resok."""
    verifier = page.next.verifier if page.next is not None else bytes(8)
    entries = b""
    for entry in page.entries:
        assert entry.attributes is not None
        assert entry.handle is not None
        cookie = entry.cookie or (page.next.cookie if page.next is not None else 3)
        entries += words(1) + xdr.hyper(cookie) + xdr.string(entry.name) + fattr4(entry.attributes, entry.handle)
    return verifier + entries + words(0, page.next is None)


def decoded(procedure: Procedure[object], result: bytes) -> object:
    """Decode a result with a procedure."""
    return procedure.decode(Cursor(result))


PROCEDURES3: tuple[Procedure[object], ...] = (
    nfs3.null(),
    nfs3.getattr(b"h"),
    nfs3.setattr(b"h", mode=0o755, uid=1, gid=None),
    nfs3.lookup(b"h", "name"),
    nfs3.readlink(b"h"),
    nfs3.mkdir(b"h", "name", mode=0o777),
    nfs3.symlink(b"h", "name", "target"),
    nfs3.remove(b"h", "name"),
    nfs3.rmdir(b"h", "name"),
    nfs3.rename(b"h", "a", b"i", "b"),
    nfs3.readdirplus(b"h", Position(), 4096),
    nfs3.fsstat(b"h"),
    nfs3.largest_sizes(b"handle"),
)
