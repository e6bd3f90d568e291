"""Extended attributes in NFSv4.2 (RFC 8276): those of the `user` namespace, under names without that prefix."""

from __future__ import annotations

from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_attributes import VALUES_LIMIT_BYTES
from provisioner.nfs.protocol.values import NAME_LIMIT_BYTES
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

XATTR_SUPPORT = 82
"""Attribute of a file system: whether it has extended attributes (section 8.2.1)."""
VALUE_LIMIT_BYTES = 64 << 10
"""The largest value on Linux (xattr(7))."""
NAMES_BYTES = 32 << 10
SETXATTR4_EITHER = 0


def support() -> Operation[bool]:
    """GETATTR of `xattr_support`; False from a server that does not know the attribute."""
    return Operation(9, attributes4.bitmap(XATTR_SUPPORT), _support, call="getattr")


def list_names(cookie: int) -> Operation[tuple[tuple[str, ...], int | None]]:
    """LISTXATTRS (section 8.4.3): names, and the cookie of the next ones, None at the end."""
    return Operation(74, xdr.hyper(cookie) + xdr.uint(NAMES_BYTES), _listxattrs4resok)


def get(name: str) -> Operation[bytes]:
    """GETXATTR (section 8.4.1)."""
    return Operation(72, xdr.string(name), lambda reply: reply.opaque(VALUE_LIMIT_BYTES))


def set(name: str, value: bytes) -> Operation[None]:
    """SETXATTR (section 8.4.2), whether or not the attribute exists."""
    arguments = xdr.uint(SETXATTR4_EITHER) + xdr.string(name) + xdr.opaque(value)
    return Operation(73, arguments, _change_info4, changes=True)


def _support(reply: Cursor) -> bool:
    present = attributes4.numbers(reply)
    values = Cursor(reply.opaque(VALUES_LIMIT_BYTES))
    if not present <= {XATTR_SUPPORT}:
        raise MalformedReply(f"attributes {sorted(present)}, which were not asked for")
    return bool(present) and values.bool()


def _listxattrs4resok(reply: Cursor) -> tuple[tuple[str, ...], int | None]:
    cookie = reply.hyper()
    names = tuple(reply.array(lambda each: each.string(NAME_LIMIT_BYTES)))
    at_end = reply.bool()
    if not names and not at_end:
        raise MalformedReply("no names of extended attributes, and more to come")
    return names, None if at_end else cookie


def _change_info4(reply: Cursor) -> None:
    reply.bool()
    reply.fixed(8 + 8)
