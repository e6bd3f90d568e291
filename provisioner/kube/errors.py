"""Translates refusals of the API server and network failures to errors of the port; the only place that does.

The server answers a refusal with a `Status` (Kubernetes API Conventions, "Response Status Kind"): its HTTP code says
what happened, and its `reason` distinguishes the two kinds of 409. A 404 counts only if a `Status` names the object:
the 404 of a proxy, or of an API that is not served, must never pass for "the claim is gone", because volumes are
destroyed on that.
"""

from __future__ import annotations

import os
import re
import ssl
from http import HTTPStatus

import msgspec
from msgspec import Struct

from provisioner.kube.dial import ProxyFailed, UnknownName
from provisioner.kube.http import Disconnected
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

TEXT_LIMIT = 300
"""Characters of an error message: an answer can be a whole HTML page, and a log line must stay one line."""

_CREDENTIALS = "use a kubeconfig, or a ServiceAccount, whose credentials this API server accepts"
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_SECRETS = re.compile(r"(?<=//)[^/@\s]+@|(?<=bearer )[^\s'\"]+|(?<=basic )[^\s'\"]+", re.IGNORECASE)


class _Cause(Struct):
    field: str | None = None
    reason: str | None = None


class _Details(Struct, rename="camel"):
    name: str | None = None
    retry_after_seconds: int | None = None
    causes: list[_Cause] | None = None


class Status(Struct):
    """The fields of a `Status` that are used here."""

    kind: str = ""
    reason: str | None = None
    message: str | None = None
    code: int | None = None
    details: _Details | None = None


_decoder = msgspec.json.Decoder(Status)
_NO_SUCH_PATH = b"404 page not found"
"""The answer of an API server without the group of a kind (Go, net/http, NotFound)."""


def refused(call: str, code: int, body: bytes, *, retry_after: str | None = None, source: str = "") -> ClusterError:
    """Return the error for an HTTP status of 300 or more. `call` names the request.

    `source` names the role that grants the call, for a caller without that right.
    """
    status = _status(body)
    message = one_line(status.message or "") if status else one_line(body.decode("utf-8", "replace"))
    text = one_line(f"{call}: {code} {message or _phrase(code)}")
    reason = status.reason if status else None
    match code:
        case 401:
            return Rejected(text, advice=_CREDENTIALS)
        case 403:
            return Forbidden(text, advice=source)
        case 404:
            return _absent(text, body, status)
        case 409:
            return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
        case 410:
            return Expired(text)
        case 422 if status is not None and _is_uid_mismatch(status):
            return Conflict(text)
        case 504 if status is not None and _is_future_version(status):
            return Expired(text)
        case 408 | 429:
            return ApiUnavailable(text, retry_after_s=_retry_after_s(retry_after, status))
        case _ if code >= 500:
            return ApiUnavailable(text, retry_after_s=_retry_after_s(retry_after, status))
    return Rejected(text)


def _absent(text: str, body: bytes, status: Status | None) -> ClusterError:
    """Return the error for a 404: the object or its kind is missing, or a proxy answers."""
    if status is not None and status.reason == "NotFound":
        return NotFound(text) if status.details is not None and status.details.name else KindMissing(text)
    return KindMissing(text) if body.strip() == _NO_SUCH_PATH else Rejected(text)


def watch_failed(call: str, body: bytes) -> ClusterError:
    """Return the error for an ERROR line of a watch; everything but an expired version can be retried."""
    status = _status(body)
    if status is not None and (status.code == HTTPStatus.GONE or _is_future_version(status)):
        return Expired(one_line(f"{call}: {status.message or 'the version is gone'}"))
    message = status.message if status is not None and status.message else body.decode("utf-8", "replace")
    return ApiUnavailable(one_line(f"{call}: {message}"))


def unreachable(server: str, exc: Exception) -> ApiUnavailable:
    """Return the error for a call that could not reach the API server at the URL `server`."""
    return ApiUnavailable(one_line(f"cannot reach the API server {server}: {_why(exc)}"))


def _why(exc: Exception) -> str:
    """Return why there is no connection, in the words of the operating system."""
    if isinstance(exc, ProxyFailed):
        return f"the proxy: {_why(exc.cause)}"
    if isinstance(exc, UnknownName):
        return f"the name {exc.host} cannot be resolved"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {getattr(exc, 'verify_message', '') or exc}"
    if isinstance(exc, ssl.SSLError):
        return f"no TLS connection: {exc.strerror or exc}"
    if isinstance(exc, Disconnected):
        return "it closed the connection without an answer"
    # For a host with several addresses, asyncio joins all errors to one text and sets no errno.
    numbers = [exc.errno] if isinstance(exc, OSError) and exc.errno else _ERRNO.findall(str(exc))
    reasons = dict.fromkeys(os.strerror(int(number)).lower() for number in numbers)
    return ", ".join(reasons) or str(exc) or type(exc).__name__


def failed(call: str, exc: BaseException) -> ApiUnavailable:
    """Return the error for a call without a complete answer: no connection, timeout, TLS, a truncated body."""
    message = str(exc) or type(exc).__name__
    return ApiUnavailable(one_line(f"{call}: {message}"))


def undecodable(call: str, exc: BaseException) -> ApiUnavailable:
    """Return the error for an answer with status 200 that does not come from the Kubernetes API."""
    return ApiUnavailable(one_line(f"{call}: the answer is not of the Kubernetes API: {exc}"))


def _status(body: bytes) -> Status | None:
    """Return the `Status` in an answer, or None: proxies and early refusals of the server answer with other texts."""
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" else None


def _is_uid_mismatch(status: Status) -> bool:
    """Return True if a patch failed its uid precondition, which the server reports as an immutable field."""
    causes = status.details.causes if status.details else None
    return any(cause.field == "metadata.uid" for cause in causes or ())


def _is_future_version(status: Status) -> bool:
    """Return True if the requested version is above the server's own, which happens after a restore of etcd."""
    causes = status.details.causes if status.details else None
    return any(cause.reason == "ResourceVersionTooLarge" for cause in causes or ())


def _retry_after_s(header: str | None, status: Status | None) -> float | None:
    """Return Retry-After in seconds, or None. The API server writes whole seconds; an HTTP date and 0 are ignored."""
    if header is not None and header.isascii() and header.isdigit():
        return float(header) or None
    if status is not None and status.details is not None and status.details.retry_after_seconds:
        return float(status.details.retry_after_seconds)
    return None


def reason(exc: BaseException) -> str:
    """Return the message of a library or the operating system, without its error number."""
    if isinstance(exc, OSError) and exc.strerror:
        message = f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror
        return one_line(message)
    return one_line(str(exc) or type(exc).__name__)


def one_line(message: str) -> str:
    """Shorten a text to one line, without the credentials that a URL or a header can carry."""
    line = " ".join(_SECRETS.sub("…", message).split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "an unknown status"
