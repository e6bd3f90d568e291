"""kube.errors: answers of the API server and network failures become errors of the port."""

from __future__ import annotations

import errno
import json
import ssl

import pytest

from provisioner.kube import errors
from provisioner.kube.dial import ProxyFailed, TunnelRefused, UnknownName
from provisioner.kube.http import Disconnected, Incomplete
from provisioner.ports.cluster import (
    AlreadyExists,
    ApiUnavailable,
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    KindMissing,
    NotFound,
    Rejected,
)

UNTRUSTED = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
UNTRUSTED.verify_message = "expired"


def status(reason: str, code: int, message: str = "", **details: object) -> bytes:
    return json.dumps(
        {"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("code", "body", "expected"),
    [
        (404, status("NotFound", 404, name="a", kind="persistentvolumes"), NotFound),
        (404, b"404 page not found\n", KindMissing),
        (404, b"<html>no such site</html>", Rejected),
        (404, status("NotFound", 404), KindMissing),
        (404, b'{"reason": "NotFound", "details": {"name": "a"}}', Rejected),
        (409, status("AlreadyExists", 409, name="a"), AlreadyExists),
        (409, status("Conflict", 409, name="a"), Conflict),
        (409, b"", Conflict),
        (410, status("Expired", 410), Expired),
        (410, status("Gone", 410), Expired),
        (400, status("BadRequest", 400), Rejected),
        (401, status("Unauthorized", 401), Rejected),
        (403, status("Forbidden", 403), Forbidden),
        (422, status("Invalid", 422), Rejected),
        (422, status("Invalid", 422, name="a", causes=[{"field": "spec.capacity"}]), Rejected),
        (422, status("Invalid", 422, name="a", causes=[{"field": "metadata.uid"}]), Conflict),
        (301, b"", Rejected),
        (408, b"", ApiUnavailable),
        (429, status("TooManyRequests", 429), ApiUnavailable),
        (500, status("InternalError", 500), ApiUnavailable),
        (502, b"<html>Bad gateway</html>", ApiUnavailable),
        (503, b"", ApiUnavailable),
        (504, status("Timeout", 504), ApiUnavailable),
        (504, status("Timeout", 504, causes=[{"reason": "ResourceVersionTooLarge"}]), Expired),
        (599, b"\xff\xfe", ApiUnavailable),
    ],
)
def test_each_refusal_has_one_error(code: int, body: bytes, expected: type[ClusterError]) -> None:
    """Status and reason choose the error, and only a Status that names the object means NotFound."""
    error = errors.refused("get /x", code, body)
    assert type(error) is expected
    assert str(error).startswith(f"get /x: {code} ")


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ("7", b"", 7.0),
        (None, status("Timeout", 504, retryAfterSeconds=3), 3.0),
        ("2", status("Timeout", 504, retryAfterSeconds=3), 2.0),
        (None, b"", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", b"", None),
        ("-1", b"", None),
        ("0", b"", None),
    ],
)
def test_retry_after(header: str | None, body: bytes, expected: float | None) -> None:
    """Retry-After in seconds, or the Status's own field, reaches the caller."""
    error = errors.refused("create /x", 503, body, retry_after=header)
    assert isinstance(error, ApiUnavailable)
    assert error.retry_after_s == expected


def test_a_text_is_short_and_one_line() -> None:
    """A whole HTML page becomes one line of at most 300 characters."""
    text = str(errors.refused("get /x", 502, b"<html>\n<p>\r\n" + b"long " * 10_000))
    assert len(text) == errors.TEXT_LIMIT
    assert "\n" not in text
    assert "\r" not in text


@pytest.mark.parametrize(
    "leak",
    [
        "url='http://me:hunter2@proxy.example:3128'",
        "header Authorization: Bearer hunter2",
        "header Authorization: basic hunter2",
    ],
)
def test_no_text_holds_credentials(leak: str) -> None:
    """Passwords and tokens in the error of a library or a server never reach the error message."""
    for error in (errors.failed("get /x", OSError(leak)), errors.refused("get /x", 400, leak.encode())):
        assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    "exc",
    [TimeoutError(), Disconnected(), ssl.SSLError("bad"), Incomplete("cut short")],
)
def test_a_message_is_never_empty(exc: Exception) -> None:
    """A call without an answer has an unknown outcome, and its message is never empty."""
    text = str(errors.failed("get /x", exc))
    assert text.removeprefix("get /x: ").strip()


@pytest.mark.parametrize(
    ("exc", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused"),
        (OSError("[Errno 111] Connect call failed, [Errno 113] x"), "connection refused, no route to host"),
        (Disconnected(), "it closed the connection without an answer"),
        (UnknownName("api.example"), "the name api.example cannot be resolved"),
        (UNTRUSTED, "its certificate is not accepted: expired"),
        (ssl.SSLError(1, "wrong version"), "no TLS connection: wrong version"),
        (ProxyFailed(ConnectionRefusedError(errno.ECONNREFUSED, "x")), "the proxy: connection refused"),
        (ProxyFailed(TunnelRefused("it answers CONNECT with status 407")), "the proxy: it answers CONNECT"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
    ids=["refused", "several addresses", "closed", "name", "certificate", "TLS", "proxy", "tunnel", "else"],
)  # fmt: skip
def test_an_unreachable_server(exc: Exception, words: str) -> None:
    """The error for an unreachable server has its address and a short reason, without the library's wording."""
    error = errors.unreachable("https://me:hunter2@api.example:6443", exc)
    assert isinstance(error, ApiUnavailable)
    assert str(error).startswith("cannot reach the API server https://…api.example:6443: ")
    assert words in str(error)
    assert "\n" not in str(error)


def test_a_missing_right() -> None:
    """The error for a missing right names the role that grants it."""
    error = errors.refused("list /x", 403, status("Forbidden", 403, "no"), source="the chart gives it")
    assert isinstance(error, Forbidden)
    assert error.advice == "the chart gives it"
    assert "credentials" in getattr(errors.refused("list /x", 401, b""), "advice", "")


def test_an_expired_watch_differs_from_a_failed_one() -> None:
    """Only code 410 in an ERROR line asks for a new list; everything else is retried from the same version."""
    assert isinstance(errors.watch_failed("watch /x", status("Expired", 410, "too old")), Expired)
    for body in (status("InternalError", 500, "etcd"), status("", 0), b'"?"', b"{}"):
        assert isinstance(errors.watch_failed("watch /x", body), ApiUnavailable)
