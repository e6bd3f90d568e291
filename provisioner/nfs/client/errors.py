"""Translation of errors of servers and networks into errors of the port, with hints for admins.

`ports.refusals` has the table for the errors of file systems. A hint is part of an event and never changes between two
attempts at the same thing. Errors without a hint use the advice of their cause.
"""

from __future__ import annotations

import errno
import posixpath
import socket
from collections.abc import Sequence

from provisioner.core.locations import RelPath
from provisioner.nfs.protocol import nfs3, nfs4
from provisioner.nfs.protocol.mount3 import MountRefused, MountStatus
from provisioner.nfs.protocol.nfs4_sessions import Channel
from provisioner.nfs.protocol.rpc import AcceptStatus, AuthStatus, CallRejected, CredentialRejected, Credentials
from provisioner.ports.refusals import Call, refusal
from provisioner.ports.tree import Cause, ExportError

_EXPORTS_NAMED = 8


class Lost(ExportError):
    """The connection ended before the reply: the outcome of the call is unknown."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(Cause.UNREACHABLE, detail, hint=hint)


def refused3(status: int, what: str, identity: Credentials, call: Call = "call") -> ExportError:
    """Return the error for an nfsstat3 of a call on `what`."""
    return refusal(str(nfs3.Nfs3Error(status)), call, what, uid=identity.uid, gid=identity.gid)


def refused4(status: int, what: str, identity: Credentials, call: Call = "call") -> ExportError:
    """Return the error for an nfsstat4 of a call on `what`."""
    return refusal(nfs4.status_name(status), call, what, uid=identity.uid, gid=identity.gid)


def no_such_export(server: str, path: str, *, reserved_port: bool) -> ExportError:
    """The server has no export at this path, or hides it from this client."""
    hint = f"{server} does not export {path} to this client: export it, or correct the path"
    hint += _port_hint(reserved_port)
    return ExportError(Cause.MISSING, f"{server}:{path}", hint=hint)


def access_denied(server: str, path: str, *, reserved_port: bool, detail: str) -> ExportError:
    """The server denies this client all access to the export."""
    hint = f"{server} denies this client access to {path}: add its address to the export's clients, or correct the path"
    return ExportError(Cause.DENIED, f"{server}:{path}: {detail}", hint=hint + _port_hint(reserved_port))


def mount_refused(exc: MountRefused, server: str, path: str, *, reserved_port: bool) -> ExportError:
    """Return the error for a mountstat3 (RFC 1813 section 5.1.5)."""
    match exc.status:
        case MountStatus.NOENT:
            return no_such_export(server, path, reserved_port=reserved_port)
        case MountStatus.NOTDIR:
            hint = f"{path} on {server} is not a directory: name a directory or, for a symbolic link, its target"
            return ExportError(Cause.MISSING, f"{server}:{path}: {exc}", hint=hint)
        case MountStatus.PERM | MountStatus.ACCES:
            return access_denied(server, path, reserved_port=reserved_port, detail=str(exc))
        case MountStatus.NAMETOOLONG | MountStatus.INVAL:
            hint = f"{server} does not accept {path} as the path of an export: correct the path"
            return ExportError(Cause.MISSING, f"{server}:{path}: {exc}", hint=hint)
        case MountStatus.NOTSUPP:
            hint = f"{server} does not serve {path} over NFS 3: enable NFS 3 there, or set nfsvers=4.1 in mountOptions"
            return ExportError(Cause.VERSION, f"{server}:{path}: {exc}", hint=hint)
    return refusal(str(exc), "mount", f"{server}:{path}", uid=0, gid=0)


def is_symlink(server: str, link: str, target: str, rest: RelPath) -> ExportError:
    """The first part `link` of an export's path is a symlink on the server.

    `rest` is the remaining path.

    The client does not follow it, because an export must have exactly one path by which volumes are compared.
    """
    real = posixpath.normpath(posixpath.join(posixpath.dirname(link), target, *rest))
    hint = f"{link} on {server} is a symbolic link to {target!r}: change the share to {real!r}"
    return ExportError(Cause.SYMLINK, f"{server}:{link} -> {target}", hint=hint)


def path_missing(server: str, path: RelPath, depth: int) -> ExportError:
    """The first `depth` components of a path below an export do not exist."""
    missing = "/" + "/".join(path[:depth])
    hint = f"{missing} does not exist on {server}: create that directory, or correct the path"
    return ExportError(Cause.MISSING, f"{server}:/{'/'.join(path)}", hint=hint)


def not_a_directory(server: str, path: str) -> ExportError:
    """The path of an export leads to a file."""
    hint = f"{path} on {server} is not a directory: name a directory"
    return ExportError(Cause.MISSING, f"{server}:{path} is not a directory", hint=hint)


def pseudo_root_only(error: ExportError, path: str, exports: Sequence[str]) -> ExportError:
    """The directory only leads to the server's exports, which is why the server refuses changes in it."""
    named = ", ".join(exports[:_EXPORTS_NAMED]) + (", …" if len(exports) > _EXPORTS_NAMED else "")
    hint = f"{path} only leads to the server's exports (NFSv4 pseudo-root): name one of them as the share: {named}"
    return ExportError(error.cause, error.detail, hint=hint, answer=error.answer)


def kerberos_needed(server: str, path: str) -> ExportError:
    """The export does not accept AUTH_SYS."""
    return ExportError(Cause.KERBEROS, f"{server}:{path}")


def version_missing(server: str, version: str, detail: str) -> ExportError:
    """The server does not support the version, or minor version, of NFS."""
    hint = f"{server} does not serve NFS version {version}: enable it there, or choose another version with nfsvers="
    return ExportError(Cause.VERSION, detail, hint=hint)


def session_too_small(server: str, version: str, granted: Channel, needed: Channel) -> ExportError:
    """The server's limits for sessions (NFS 4.1 and 4.2) are too low for the calls of this client."""
    short = ", ".join(
        f"{has} {what} ({needs} are needed)"
        for has, needs, what in (
            (granted.requests, needed.requests, "slots"),
            (granted.operations, needed.operations, "operations per request"),
            (granted.request_bytes, needed.request_bytes, "bytes per request"),
            (granted.response_bytes, needed.response_bytes, "bytes per reply"),
        )
        if has < needs
    )
    hint = f"{server} allows an NFS {version} session {short}: raise its limits, or choose nfsvers=4.0 or nfsvers=3"
    return ExportError(Cause.VERSION, f"{server}: a session with {short}", hint=hint)


def call_rejected(exc: CallRejected, server: str, version: int) -> ExportError:
    """Return the error for an accept_stat (RFC 5531 section 9)."""
    if exc.status in (AcceptStatus.PROG_UNAVAIL, AcceptStatus.PROG_MISMATCH):
        return version_missing(server, str(version), f"{exc}: the server has {exc.lowest} to {exc.highest}")
    return ExportError(Cause.OTHER, f"{server}: {exc}", answer=str(exc))


def credential_rejected(exc: CredentialRejected, server: str, *, reserved_port: bool) -> ExportError:
    """Return the error for an auth_stat (RFC 5531 section 9).

    AUTH_TOOWEAK should mean that the server requires another flavor. Ganesha also sends it to clients with a source
    port above 1023.
    """
    if exc.status == AuthStatus.AUTH_TOOWEAK and reserved_port:
        return ExportError(Cause.KERBEROS, f"{server}: {exc}")
    return access_denied(server, "the export", reserved_port=reserved_port, detail=str(exc))


def dial_failed(exc: OSError, server: str, port: int) -> ExportError:
    """Return the error for a failed look-up or a failed connection."""
    detail = f"{server} port {port}: {exc.strerror or exc}"
    return ExportError(Cause.UNREACHABLE, detail, hint=network_hint(exc, server, port))


def lookup_timed_out(server: str) -> ExportError:
    """The look-up of a name did not return in time."""
    hint = f"the look-up of the name {server} does not return: check the name servers that this pod uses"
    return ExportError(Cause.UNREACHABLE, f"the look-up of {server} timed out", hint=hint)


def network_hint(exc: OSError, server: str, port: int) -> str:
    """Return the hint for an error of the network, while connecting or later."""
    if isinstance(exc, socket.gaierror):
        return f"the name {server} is not found: correct the name or its DNS entry"
    if isinstance(exc, ConnectionRefusedError):
        return f"{server} refuses connections on port {port}: start its NFS server, or correct the port"
    if exc.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return f"there is no route to {server}: check its address and the network"
    return silent_hint(server, port)


def silent_hint(server: str, port: int) -> str:
    """Return the hint for a server that sends nothing at all."""
    return f"{server} is not responding on port {port}: check that it runs and that no firewall blocks the port"


def hangs_up_hint(server: str) -> str:
    """Return the hint for a server that accepts connections and closes them."""
    return f"{server} closes each connection without a reply: check that its NFS server runs, and check the port"


def not_nfs_hint(server: str) -> str:
    """Return the hint for replies that are not NFS."""
    return f"{server} sends replies that are not NFS: check the server's name and port"


def _port_hint(reserved_port: bool) -> str:
    """Return a second possible reason for denied access: a source port above 1023."""
    if reserved_port:
        return ""
    return (
        "; or the export rejects source ports above 1023: allow them (insecure in exports(5)), or allow the pod to use"
        " lower ports (sysctl net.ipv4.ip_unprivileged_port_start=512)"
    )
