"""nfs.client.errors: errors of servers become errors of the port."""

from __future__ import annotations

import errno
import socket

import pytest

from provisioner.nfs.client import errors
from provisioner.nfs.protocol import nfs3, nfs4
from provisioner.nfs.protocol.rpc import CallRejected, CredentialRejected, Credentials
from provisioner.ports.tree import Cause, ExportError, NotEmpty, PathExists, PathMissing

pytestmark = pytest.mark.timeout(60)

OTHER_USER = Credentials(uid=1000, gid=100)


@pytest.mark.parametrize("status", [*nfs3.Status, 99999])
def test_every_status_of_nfs3_has_an_error(status: int) -> None:
    """Each nfsstat3, unknown values included, becomes an ExportError with the path."""
    assert "volume" in errors.refused3(status, "volume", OTHER_USER).detail


@pytest.mark.parametrize("status", [*nfs4.Status, 99999])
def test_every_status_of_nfs4_has_an_error(status: int) -> None:
    """Each nfsstat4, unknown values included, becomes an ExportError with the path."""
    assert "volume" in errors.refused4(status, "volume", OTHER_USER).detail


@pytest.mark.parametrize(("status", "kind"), [(2, PathMissing), (17, PathExists), (66, NotEmpty)])
def test_three_errors_have_their_own_types(status: int, kind: type[ExportError]) -> None:
    """ENOENT, EEXIST and ENOTEMPTY have their own error types in all versions."""
    assert type(errors.refused3(status, "x", OTHER_USER)) is kind
    assert type(errors.refused4(status, "x", OTHER_USER)) is kind


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (1, Cause.DENIED),
        (13, Cause.DENIED),
        (20, Cause.SYMLINK),
        (28, Cause.NO_SPACE),
        (30, Cause.READ_ONLY),
        (63, Cause.NAME_TOO_LONG),
        (69, Cause.QUOTA),
        (70, Cause.STALE),
        (10008, Cause.NOT_YET),
    ],
)
def test_both_versions_agree_on_causes(status: int, cause: Cause) -> None:
    """Errors that NFSv3 and NFSv4 share have the same cause."""
    assert errors.refused3(status, "x", OTHER_USER).cause is cause
    assert errors.refused4(status, "x", OTHER_USER).cause is cause


def test_a_squashed_root_has_its_own_hint() -> None:
    """Denied access as root mentions root_squash; for another user it names that user."""
    assert "no_root_squash" in errors.refused4(13, "x", Credentials()).hint
    assert "uid 1000 and gid 100" in errors.refused3(13, "x", OTHER_USER).hint


def test_kerberos_has_its_own_cause() -> None:
    """NFS4ERR_WRONGSEC, and AUTH_TOOWEAK with a source port below 1024, mean that Kerberos is required."""
    assert errors.refused4(10016, "x", OTHER_USER).cause is Cause.KERBEROS
    assert errors.credential_rejected(CredentialRejected(5), "nas", reserved_port=True).cause is Cause.KERBEROS


def test_a_high_source_port_is_suspected() -> None:
    """If access is denied to a source port above 1023, the hint mentions the port as a possible reason."""
    for error in (
        errors.credential_rejected(CredentialRejected(5), "nas", reserved_port=False),
        errors.no_such_export("nas", "/x", reserved_port=False),
        errors.access_denied("nas", "/x", reserved_port=False, detail=""),
    ):
        assert "insecure" in error.hint
    assert "insecure" not in errors.no_such_export("nas", "/x", reserved_port=True).hint


def test_a_missing_version_has_a_hint() -> None:
    """PROG_MISMATCH names the missing version and the advice."""
    error = errors.call_rejected(CallRejected(2, lowest=3, highest=3), "nas", 4)
    assert error.cause is Cause.VERSION
    assert "nfsvers=" in error.hint


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the name nas is not found"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refuses connections on port 2049"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to nas"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "no route to nas"),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), "is not responding on port 2049"),
    ],
)
def test_a_failed_connection_has_a_hint(exc: OSError, words: str) -> None:
    """An unknown name, a refused connection, no route and silence have different hints, and all are UNREACHABLE."""
    error = errors.dial_failed(exc, "nas", 2049)
    assert error.cause is Cause.UNREACHABLE
    assert words in error.hint
