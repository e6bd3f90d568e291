"""What servers and networks answer, in the port's words: one table for each NFS version, and hints for admins.

A hint never changes between two attempts at the same thing: it becomes part of an event. Where none is given, what the
port advises for the cause is all that can be said.
"""

from __future__ import annotations

import errno
import socket

from provisioner.nfs.protocol import nfs3, nfs4
from provisioner.nfs.protocol.mount3 import MountRefused, MountStatus
from provisioner.nfs.protocol.nfs4_sessions import Channel
from provisioner.nfs.protocol.rpc import AcceptStatus, AuthStatus, CallRejected, CredentialRejected, Identity
from provisioner.ports import Cause, ExportError, NotEmpty, PathExists, PathMissing

S3 = nfs3.Status
S4 = nfs4.Status

CAUSES3 = {
    S3.NFS3ERR_PERM: Cause.DENIED,
    S3.NFS3ERR_ACCES: Cause.DENIED,
    S3.NFS3ERR_NOTDIR: Cause.SYMLINK,
    S3.NFS3ERR_ISDIR: Cause.SYMLINK,
    S3.NFS3ERR_NOSPC: Cause.NO_SPACE,
    S3.NFS3ERR_ROFS: Cause.READ_ONLY,
    S3.NFS3ERR_NAMETOOLONG: Cause.NAME_TOO_LONG,
    S3.NFS3ERR_DQUOT: Cause.QUOTA,
    S3.NFS3ERR_STALE: Cause.STALE,
    S3.NFS3ERR_BADHANDLE: Cause.STALE,
    S3.NFS3ERR_JUKEBOX: Cause.NOT_YET,
}

CAUSES4 = {
    S4.NFS4ERR_PERM: Cause.DENIED,
    S4.NFS4ERR_ACCESS: Cause.DENIED,
    S4.NFS4ERR_NOTDIR: Cause.SYMLINK,
    S4.NFS4ERR_ISDIR: Cause.SYMLINK,
    S4.NFS4ERR_SYMLINK: Cause.SYMLINK,
    S4.NFS4ERR_NOT_SAME: Cause.SYMLINK,
    S4.NFS4ERR_WRONG_TYPE: Cause.SYMLINK,
    S4.NFS4ERR_NOSPC: Cause.NO_SPACE,
    S4.NFS4ERR_ROFS: Cause.READ_ONLY,
    S4.NFS4ERR_NAMETOOLONG: Cause.NAME_TOO_LONG,
    S4.NFS4ERR_DQUOT: Cause.QUOTA,
    S4.NFS4ERR_STALE: Cause.STALE,
    S4.NFS4ERR_BADHANDLE: Cause.STALE,
    S4.NFS4ERR_FHEXPIRED: Cause.STALE,
    S4.NFS4ERR_DELAY: Cause.NOT_YET,
    S4.NFS4ERR_GRACE: Cause.NOT_YET,
    S4.NFS4ERR_FILE_OPEN: Cause.NOT_YET,
    S4.NFS4ERR_WRONGSEC: Cause.KERBEROS,
    S4.NFS4ERR_MINOR_VERS_MISMATCH: Cause.VERSION,
}

_GRACE_HINT = "it waits for its clients after a restart; nothing needs to be done"
_HINTS4 = {
    S4.NFS4ERR_GRACE: _GRACE_HINT,
    S4.NFS4ERR_BADOWNER: "the server does not take numeric owners: let its idmapping do so, or give no uid and gid",
    S4.NFS4ERR_MOVED: "it has moved to another server: name that one in the class",
}


class Lost(ExportError):
    """The connection ended before the answer came: the outcome is unknown."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(Cause.UNREACHABLE, detail, hint=hint)


def refused3(status: int, what: str, identity: Identity) -> ExportError:
    """The port's error for an nfsstat3 about `what`."""
    if status == S3.NFS3ERR_NOENT:
        return PathMissing(what)
    if status == S3.NFS3ERR_EXIST:
        return PathExists(what)
    if status == S3.NFS3ERR_NOTEMPTY:
        return NotEmpty(what)
    cause = CAUSES3.get(S3(status), Cause.OTHER) if status in list(S3) else Cause.OTHER
    hint = _permission_hint(identity) if cause is Cause.DENIED else ""
    return ExportError(cause, f"{what}: {nfs3.Nfs3Error(status)}", hint=hint)


def refused4(status: int, what: str, identity: Identity) -> ExportError:
    """The port's error for an nfsstat4 about `what`."""
    if status == S4.NFS4ERR_NOENT:
        return PathMissing(what)
    if status == S4.NFS4ERR_EXIST:
        return PathExists(what)
    if status == S4.NFS4ERR_NOTEMPTY:
        return NotEmpty(what)
    known = S4(status) if status in list(S4) else None
    cause = CAUSES4.get(known, Cause.OTHER) if known is not None else Cause.OTHER
    hint = _HINTS4.get(known, "") if known is not None else ""
    if cause is Cause.DENIED:
        hint = _permission_hint(identity)
    return ExportError(cause, f"{what}: {nfs4.status_name(status)}", hint=hint)


def no_such_export(server: str, path: str, *, reserved_port: bool) -> ExportError:
    """The server has no export under that path, or hides it from us."""
    hint = f"{server} exports no {path} to this client: export it, or correct the path" + _port_hint(reserved_port)
    return ExportError(Cause.MISSING, f"{server}:{path}", hint=hint)


def not_let_in(server: str, path: str, *, reserved_port: bool, detail: str) -> ExportError:
    """The server does not let this client at the export at all."""
    hint = f"{server} denies this client access to {path}: add its address to the export's clients"
    return ExportError(Cause.DENIED, f"{server}:{path}: {detail}", hint=hint + _port_hint(reserved_port))


def mount_refused(exc: MountRefused, server: str, path: str, *, reserved_port: bool) -> ExportError:
    """The port's error for a mountstat3 (RFC 1813 section 5.1.5)."""
    if exc.status in (MountStatus.NOENT, MountStatus.NOTDIR):
        return no_such_export(server, path, reserved_port=reserved_port)
    if exc.status in (MountStatus.PERM, MountStatus.ACCES):
        return not_let_in(server, path, reserved_port=reserved_port, detail=str(exc))
    return ExportError(Cause.OTHER, f"mount of {server}:{path}: {exc}")


def kerberos_needed(server: str, path: str) -> ExportError:
    """The export takes no AUTH_SYS."""
    return ExportError(Cause.KERBEROS, f"{server}:{path}")


def version_missing(server: str, version: str, detail: str) -> ExportError:
    """The server does not have the version, or the minor version, of NFS."""
    hint = f"{server} does not serve NFS version {version}: turn it on there, or choose another one with nfsvers="
    return ExportError(Cause.VERSION, detail, hint=hint)


def session_too_small(server: str, version: str, granted: Channel, needed: Channel) -> ExportError:
    """The server's limits for the sessions of NFS 4.1 and 4.2 leave no room for what we ask."""
    short = ", ".join(
        f"{has} {what} ({needs} are needed)"
        for has, needs, what in (
            (granted.requests, needed.requests, "slots"),
            (granted.operations, needed.operations, "operations a request"),
            (granted.request_bytes, needed.request_bytes, "bytes a request"),
            (granted.response_bytes, needed.response_bytes, "bytes an answer"),
        )
        if has < needs
    )
    hint = f"{server} allows an NFS {version} session {short}: raise its limits, or choose nfsvers=4.0 or nfsvers=3"
    return ExportError(Cause.VERSION, f"{server}: a session with {short}", hint=hint)


def copies_nothing(server: str, what: str, detail: str) -> ExportError:
    """The server does not copy files by itself."""
    hint = f"{server} copies no files by itself: that takes NFS 4.2 with CLONE or COPY, which some servers can turn on"
    return ExportError(Cause.OTHER, f"{what}: {detail}", hint=hint)


def call_rejected(exc: CallRejected, server: str, version: int) -> ExportError:
    """The port's error for an accept_stat (RFC 5531 section 9)."""
    if exc.status in (AcceptStatus.PROG_UNAVAIL, AcceptStatus.PROG_MISMATCH):
        return version_missing(server, str(version), f"{exc}: it has {exc.lowest} to {exc.highest}")
    return ExportError(Cause.OTHER, f"{server}: {exc}")


def credential_rejected(exc: CredentialRejected, server: str, *, reserved_port: bool) -> ExportError:
    """The port's error for an auth_stat (RFC 5531 section 9).

    AUTH_TOOWEAK should mean that another flavor is needed; Ganesha also says so of a source port above 1023.
    """
    if exc.status == AuthStatus.AUTH_TOOWEAK and reserved_port:
        return ExportError(Cause.KERBEROS, f"{server}: {exc}")
    return not_let_in(server, "the export", reserved_port=reserved_port, detail=str(exc))


def dial_failed(exc: OSError, server: str, port: int) -> ExportError:
    """The port's error for a name that is not found and a connection that was not made."""
    detail = f"{server} port {port}: {exc.strerror or exc}"
    return ExportError(Cause.UNREACHABLE, detail, hint=network_hint(exc, server, port))


def name_hangs(server: str) -> ExportError:
    """The look-up of a name has not returned in time."""
    hint = f"the look-up of the name {server} does not return: check the name servers that this pod uses"
    return ExportError(Cause.UNREACHABLE, f"no address of {server} in time", hint=hint)


def network_hint(exc: OSError, server: str, port: int) -> str:
    """What to look at when the network does not let us at the server, now or any more."""
    if isinstance(exc, socket.gaierror):
        return f"the name {server} is not found: correct it, or its DNS"
    if isinstance(exc, ConnectionRefusedError):
        return f"{server} refuses connections on port {port}: start its NFS server, or correct the port"
    if exc.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return f"there is no route to {server}: check its address and the network"
    return silent_hint(server, port)


def silent_hint(server: str, port: int) -> str:
    """What to look at when nothing comes back at all."""
    return f"{server} does not answer on port {port}: check that it runs and that no firewall is in between"


def hangs_up_hint(server: str) -> str:
    """What to look at when connections are taken and ended."""
    return f"{server} ends each connection without an answer: check that its NFS server runs, and the port"


def not_nfs_hint(server: str) -> str:
    """What to look at when what comes back makes no sense."""
    return f"{server} answers with what is not NFS: check the server's name and port"


def _port_hint(reserved_port: bool) -> str:
    """What a server may also mean when it turns away somebody who comes from a port above 1023."""
    if reserved_port:
        return ""
    return (
        "; or else let the export take source ports above 1023 (insecure in exports(5)), or let us use lower ones"
        " (sysctl net.ipv4.ip_unprivileged_port_start=512)"
    )


def _permission_hint(identity: Identity) -> str:
    if identity.uid == 0:
        return "the server squashes root: export with no_root_squash, or set --nfs-uid and --nfs-gid to the owner's"
    return f"uid {identity.uid} and gid {identity.gid} need write permission there"
