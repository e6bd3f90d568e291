"""The port mapper, version 2 (RFC 1833 section 3): look up the port of a program on a server."""

from __future__ import annotations

from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

PORT = 111
PROGRAM = 100000
VERSION = 2
IPPROTO_TCP = 6


def getport(program: int, version: int) -> Procedure[int]:
    """PMAPPROC_GETPORT (section 3.2): the TCP port of a program, or 0 if it is not registered."""
    arguments = xdr.uint(program) + xdr.uint(version) + xdr.uint(IPPROTO_TCP) + xdr.uint(0)
    return Procedure(PROGRAM, VERSION, 3, arguments, _port)


def _port(reply: Cursor) -> int:
    port = reply.uint()
    reply.finish()
    if port > 0xFFFF:
        raise MalformedReply(f"port {port}")
    return port
