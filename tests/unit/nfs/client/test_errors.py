"""What servers answer, in words for people."""

from __future__ import annotations

import errno
import socket

import pytest

from provisioner.nfs.client import errors
from provisioner.nfs.protocol import nfs3, nfs4
from provisioner.nfs.protocol.rpc import CallRejected, CredentialRejected, Credentials
from provisioner.ports.tree import Cause, ExportError, NotEmpty, PathExists, PathMissing

pytestmark = pytest.mark.timeout(60)

SOMEBODY = Credentials(uid=1000, gid=100)


@pytest.mark.parametrize("status", [*nfs3.Status, 99999])
def test_every_status_of_nfs3_has_an_error(status: int) -> None:
    """Each nfsstat3, an unknown one too, is an ExportError that names what it is about."""
    assert "volume" in errors.refused3(status, "volume", SOMEBODY).detail


@pytest.mark.parametrize("status", [*nfs4.Status, 99999])
def test_every_status_of_nfs4_has_an_error(status: int) -> None:
    """Each nfsstat4, an unknown one too, is an ExportError that names what it is about."""
    assert "volume" in errors.refused4(status, "volume", SOMEBODY).detail


@pytest.mark.parametrize(("status", "kind"), [(2, PathMissing), (17, PathExists), (66, NotEmpty)])
def test_the_port_has_classes_for_three_of_them(status: int, kind: type[ExportError]) -> None:
    """ENOENT, EEXIST and ENOTEMPTY are classes of their own, in each version."""
    assert type(errors.refused3(status, "x", SOMEBODY)) is kind
    assert type(errors.refused4(status, "x", SOMEBODY)) is kind


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
    """What NFSv3 and NFSv4 both have means the same in both."""
    assert errors.refused3(status, "x", SOMEBODY).cause is cause
    assert errors.refused4(status, "x", SOMEBODY).cause is cause


def test_a_squashed_root_is_told_apart() -> None:
    """Denied as root speaks of root_squash, denied as somebody else names who that is."""
    assert "no_root_squash" in errors.refused4(13, "x", Credentials()).hint
    assert "uid 1000 and gid 100" in errors.refused3(13, "x", SOMEBODY).hint


def test_kerberos_is_told_apart() -> None:
    """NFS4ERR_WRONGSEC, and AUTH_TOOWEAK to somebody with a low source port, say that Kerberos is needed."""
    assert errors.refused4(10016, "x", SOMEBODY).cause is Cause.KERBEROS
    assert errors.credential_rejected(CredentialRejected(5), "nas", reserved_port=True).cause is Cause.KERBEROS


def test_a_high_source_port_is_suspected() -> None:
    """Whoever is turned away and came from a port above 1023 is told that this may be why, others are not."""
    for error in (
        errors.credential_rejected(CredentialRejected(5), "nas", reserved_port=False),
        errors.no_such_export("nas", "/x", reserved_port=False),
        errors.access_denied("nas", "/x", reserved_port=False, detail=""),
    ):
        assert "insecure" in error.hint
    assert "insecure" not in errors.no_such_export("nas", "/x", reserved_port=True).hint


def test_a_missing_version_is_told() -> None:
    """PROG_MISMATCH says which version is missing and what to do about it."""
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
def test_a_connection_that_is_not_made_says_why(exc: OSError, words: str) -> None:
    """Name not found, refused, no route and silence are told apart, and each is UNREACHABLE."""
    error = errors.dial_failed(exc, "nas", 2049)
    assert error.cause is Cause.UNREACHABLE
    assert words in error.hint
