"""What the API server refuses and what the network does to us, as errors of the port; translated here and only here.

The server answers a refusal with a `Status` (Kubernetes API Conventions, "Response Status Kind"): its HTTP code says
what happened, its `reason` tells the two kinds of 409 apart. A 404 is believed only when a `Status` names the object:
the 404 of a proxy, or of an API that is not served, must never pass for "the claim is gone", on which volumes are
destroyed.
"""

from __future__ import annotations

import os
import re
from http import HTTPStatus

import aiohttp
import msgspec
from msgspec import Struct

from provisioner.ports.cluster import (
    AlreadyExists,
    ApiUnavailable,
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    Rejected,
)

TEXT_LIMIT = 300
"""Characters of an error's text: an answer may be a whole page of HTML, and a log line must stay one."""

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
    """A `Status`, as far as we read it."""

    kind: str = ""
    reason: str | None = None
    message: str | None = None
    code: int | None = None
    details: _Details | None = None


_decoder = msgspec.json.Decoder(Status)


def refused(call: str, code: int, body: bytes, *, retry_after: str | None = None, source: str = "") -> ClusterError:
    """The error for an answer of 300 or more. `call` says in a few words what was asked.

    `source` says where the right to that call comes from, for a caller who lacks it.
    """
    status = _status(body)
    said = one_line(status.message or "") if status else one_line(body.decode("utf-8", "replace"))
    text = one_line(f"{call}: {code} {said or _phrase(code)}")
    reason = status.reason if status else None
    match code:
        case 401:
            return Rejected(text, advice=_CREDENTIALS)
        case 403:
            return Forbidden(text, advice=source)
        case 404 if reason == "NotFound" and status and status.details and status.details.name:
            return NotFound(text)
        case 409:
            return AlreadyExists(text) if reason == "AlreadyExists" else Conflict(text)
        case 410:
            return Expired(text)
        case 422 if status is not None and _is_of_another(status):
            return Conflict(text)
        case 504 if status is not None and _is_yet_to_come(status):
            return Expired(text)
        case 408 | 429:
            return ApiUnavailable(text, retry_after_s=_retry_after_s(retry_after, status))
        case _ if code >= 500:
            return ApiUnavailable(text, retry_after_s=_retry_after_s(retry_after, status))
    return Rejected(text)


def watch_failed(call: str, body: bytes) -> ClusterError:
    """The error for the `Status` in an ERROR line of a watch; all but a version that is gone is worth another try."""
    status = _status(body)
    if status is not None and (status.code == HTTPStatus.GONE or _is_yet_to_come(status)):
        return Expired(one_line(f"{call}: {status.message or 'the version is gone'}"))
    said = status.message if status is not None and status.message else body.decode("utf-8", "replace")
    return ApiUnavailable(one_line(f"{call}: {said}"))


def unreachable(server: str, exc: Exception) -> ApiUnavailable:
    """The error for a call that found no way to the API server at `server`, its URL."""
    return ApiUnavailable(one_line(f"cannot reach the API server {server}: {_why(exc)}"))


def _why(exc: Exception) -> str:
    """Why there is no connection, in the system's own few words."""
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return f"the name {exc.host} cannot be resolved"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        reason = getattr(exc.certificate_error, "verify_message", "") or exc.certificate_error
        return f"its certificate is not accepted: {reason}"
    if isinstance(exc, aiohttp.ClientSSLError):
        return f"no TLS connection: {exc.os_error.strerror or exc.os_error}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    # Of a host with several addresses the library gives all errors as one text, without a number of its own.
    numbers = [exc.errno] if isinstance(exc, OSError) and exc.errno else _ERRNO.findall(str(exc))
    reasons = dict.fromkeys(os.strerror(int(number)).lower() for number in numbers)
    through = "the proxy: " if isinstance(exc, aiohttp.ClientProxyConnectionError) else ""
    return through + (", ".join(reasons) or str(exc) or type(exc).__name__)


def failed(call: str, exc: BaseException) -> ApiUnavailable:
    """The error for a call without a whole answer: no connection, a time limit, TLS, a body cut short."""
    said = str(exc) or type(exc).__name__
    return ApiUnavailable(one_line(f"{call}: {said}"))


def undecodable(call: str, exc: BaseException) -> ApiUnavailable:
    """The error for an answer that says 200 and is not what the API server would have said."""
    return ApiUnavailable(one_line(f"{call}: the answer is not of the Kubernetes API: {exc}"))


def _status(body: bytes) -> Status | None:
    """The `Status` in an answer, or None: proxies and the server's own early refusals answer with other texts."""
    try:
        status = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" else None


def _is_of_another(status: Status) -> bool:
    """Whether a patch is refused for the uid in it: a precondition that failed, said as a field that is immutable."""
    causes = status.details.causes if status.details else None
    return any(cause.field == "metadata.uid" for cause in causes or ())


def _is_yet_to_come(status: Status) -> bool:
    """Whether the version that we named is above the server's own: its state was put back since we read it."""
    causes = status.details.causes if status.details else None
    return any(cause.reason == "ResourceVersionTooLarge" for cause in causes or ())


def _retry_after_s(header: str | None, status: Status | None) -> float | None:
    """The server's wish in seconds, or None. The API server writes whole seconds; an HTTP date and 0 are no wish."""
    if header is not None and header.isascii() and header.isdigit():
        return float(header) or None
    if status is not None and status.details is not None and status.details.retry_after_seconds:
        return float(status.details.retry_after_seconds)
    return None


def reason(exc: BaseException) -> str:
    """What a library or the system says, without the number of its error."""
    if isinstance(exc, OSError) and exc.strerror:
        said = f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror
        return one_line(said)
    return one_line(str(exc) or type(exc).__name__)


def one_line(said: str) -> str:
    """One line, short, without the credentials that a URL or a header may carry."""
    line = " ".join(_SECRETS.sub("…", said).split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "an unknown status"
