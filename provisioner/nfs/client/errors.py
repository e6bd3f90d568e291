"""What servers and networks answer, in the port's words, and hints for admins; ports.refusals has the table.

A hint never changes between two attempts at the same thing: it becomes part of an event. Where none is given, what the
port advises for the cause is all that can be said.
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
    """The connection ended before the answer came: the outcome is unknown."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(Cause.UNREACHABLE, detail, hint=hint)


def refused3(status: int, what: str, identity: Credentials, call: Call = "call") -> ExportError:
    """The port's error for an nfsstat3 about `what`."""
    return refusal(str(nfs3.Nfs3Error(status)), call, what, uid=identity.uid, gid=identity.gid)


def refused4(status: int, what: str, identity: Credentials, call: Call = "call") -> ExportError:
    """The port's error for an nfsstat4 about `what`."""
    return refusal(nfs4.status_name(status), call, what, uid=identity.uid, gid=identity.gid)


def no_such_export(server: str, path: str, *, reserved_port: bool) -> ExportError:
    """The server has no export under that path, or hides it from us."""
    hint = f"{server} exports no {path} to this client: export it, or correct the path" + _port_hint(reserved_port)
    return ExportError(Cause.MISSING, f"{server}:{path}", hint=hint)


def access_denied(server: str, path: str, *, reserved_port: bool, detail: str) -> ExportError:
    """The server does not let this client at the export at all."""
    hint = f"{server} denies this client access to {path}: add its address to the export's clients, or correct the path"
    return ExportError(Cause.DENIED, f"{server}:{path}: {detail}", hint=hint + _port_hint(reserved_port))


def mount_refused(exc: MountRefused, server: str, path: str, *, reserved_port: bool) -> ExportError:
    """The port's error for a mountstat3 (RFC 1813 section 5.1.5)."""
    match exc.status:
        case MountStatus.NOENT:
            return no_such_export(server, path, reserved_port=reserved_port)
        case MountStatus.NOTDIR:
            hint = (
                f"{path} on {server} is not a directory: name one, and where it is a symbolic link the path it leads to"
            )
            return ExportError(Cause.MISSING, f"{server}:{path}: {exc}", hint=hint)
        case MountStatus.PERM | MountStatus.ACCES:
            return access_denied(server, path, reserved_port=reserved_port, detail=str(exc))
        case MountStatus.NAMETOOLONG | MountStatus.INVAL:
            hint = f"{server} does not take {path} for the path of an export: correct it"
            return ExportError(Cause.MISSING, f"{server}:{path}: {exc}", hint=hint)
        case MountStatus.NOTSUPP:
            hint = f"{server} does not serve {path} over NFS 3: let it do so, or write nfsvers=4.1 into mountOptions"
            return ExportError(Cause.VERSION, f"{server}:{path}: {exc}", hint=hint)
    return refusal(str(exc), "mount", f"{server}:{path}", uid=0, gid=0)


def is_symlink(server: str, link: str, target: str, rest: RelPath) -> ExportError:
    """The beginning `link` of an export's path is a symlink on the server, and `rest` comes after it.

    It is not followed: an export has one path, by which volumes of all classes are compared.
    """
    real = posixpath.normpath(posixpath.join(posixpath.dirname(link), target, *rest))
    hint = f"{link} on {server} is a symbolic link to {target!r}: write the share {real!r}"
    return ExportError(Cause.SYMLINK, f"{server}:{link} -> {target}", hint=hint)


def path_missing(server: str, path: RelPath, depth: int) -> ExportError:
    """Of a path below an export, its first `depth` components lead to nothing."""
    missing = "/" + "/".join(path[:depth])
    hint = f"there is no {missing} on {server}: make that directory, or correct the path"
    return ExportError(Cause.MISSING, f"{server}:/{'/'.join(path)}", hint=hint)


def not_a_directory(server: str, path: str) -> ExportError:
    """The path of an export leads to a file."""
    hint = f"{path} on {server} is not a directory: name one that is"
    return ExportError(Cause.MISSING, f"{server}:{path} is not a directory", hint=hint)


def pseudo_root_only(error: ExportError, path: str, exports: Sequence[str]) -> ExportError:
    """The refusal to change anything in a directory that a server shows only to lead to its exports."""
    named = ", ".join(exports[:_EXPORTS_NAMED]) + (", …" if len(exports) > _EXPORTS_NAMED else "")
    hint = f"{path} only leads to the server's exports (NFSv4 pseudo-root): name one of them as the share: {named}"
    return ExportError(error.cause, error.detail, hint=hint, answer=error.answer)


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


def copy_unsupported(server: str, what: str, detail: str) -> ExportError:
    """The server does not copy files by itself."""
    hint = f"{server} copies no files by itself: that takes NFS 4.2 with CLONE or COPY, which some servers can turn on"
    return ExportError(Cause.OTHER, f"{what}: {detail}", hint=hint)


def call_rejected(exc: CallRejected, server: str, version: int) -> ExportError:
    """The port's error for an accept_stat (RFC 5531 section 9)."""
    if exc.status in (AcceptStatus.PROG_UNAVAIL, AcceptStatus.PROG_MISMATCH):
        return version_missing(server, str(version), f"{exc}: it has {exc.lowest} to {exc.highest}")
    return ExportError(Cause.OTHER, f"{server}: {exc}", answer=str(exc))


def credential_rejected(exc: CredentialRejected, server: str, *, reserved_port: bool) -> ExportError:
    """The port's error for an auth_stat (RFC 5531 section 9).

    AUTH_TOOWEAK should mean that another flavor is needed; Ganesha also says so of a source port above 1023.
    """
    if exc.status == AuthStatus.AUTH_TOOWEAK and reserved_port:
        return ExportError(Cause.KERBEROS, f"{server}: {exc}")
    return access_denied(server, "the export", reserved_port=reserved_port, detail=str(exc))


def dial_failed(exc: OSError, server: str, port: int) -> ExportError:
    """The port's error for a name that is not found and a connection that was not made."""
    detail = f"{server} port {port}: {exc.strerror or exc}"
    return ExportError(Cause.UNREACHABLE, detail, hint=network_hint(exc, server, port))


def lookup_timed_out(server: str) -> ExportError:
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
