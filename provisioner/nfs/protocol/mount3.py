"""The MOUNT protocol, version 3 (RFC 1813 appendix I): the file handle of an NFSv3 export."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.xdr import Cursor

PROGRAM = 100005
VERSION = 3
HANDLE_LIMIT_BYTES = 64


class MountStatus(enum.IntEnum):
    """`mountstat3`: the errors that need their own message."""

    PERM = 1
    NOENT = 2
    IO = 5
    ACCES = 13
    NOTDIR = 20
    INVAL = 22
    NAMETOOLONG = 63
    NOTSUPP = 10004
    SERVERFAULT = 10006


class MountRefused(ProvisionerError):
    """The server answered MNT with an error."""

    def __init__(self, status: int) -> None:
        known = status in list(MountStatus)
        super().__init__(f"MNT3ERR_{MountStatus(status).name}" if known else f"mountstat3 {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Mounted:
    """File handle of the export's root, and the RPC authentication flavors that the export accepts."""

    handle: bytes
    flavors: tuple[int, ...]


def mnt(path: str) -> Procedure[Mounted]:
    """MOUNTPROC3_MNT (section 5.2.1). The result raises MountRefused."""
    return Procedure(PROGRAM, VERSION, 1, xdr.string(path), _mounted)


def _mounted(reply: Cursor) -> Mounted:
    status = reply.uint()
    if status:
        raise MountRefused(status)
    mounted = Mounted(reply.opaque(HANDLE_LIMIT_BYTES), tuple(reply.array(Cursor.uint)))
    reply.finish()
    return mounted
