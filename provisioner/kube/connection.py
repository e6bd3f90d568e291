"""The connection to the API server: configuration, credentials, TLS, retries and metrics; bodies are bytes.

The `kubernetes` library finds the server and the credentials and renews them. Its client costs 0.6 ms of CPU per
request, and aiohttp's session below that a fifth; the connections of this package cost a fifth of the session. Nothing
here limits the rate: the API server does (API Priority and Fairness), and its 429 with Retry-After is obeyed.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Literal, TypeVar
from urllib.request import getproxies, proxy_bypass

import structlog

import provisioner
from provisioner.core import checks
from provisioner.core.archives import PROMPT_S
from provisioner.core.errors import InvalidSettings
from provisioner.kube import dial, errors, kubeconfig
from provisioner.kube.http import Answer, Disconnected, HttpError
from provisioner.kube.library import ConfigException, Configuration
from provisioner.kube.pool import Pool, Stream
from provisioner.ports.cluster import ApiUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T", Answer, Stream)

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete"]
Observe = Callable[[str, str, int], None]
"""Called for each answer: verb and resource as in RBAC, and the HTTP status; 0 for no or an incomplete answer."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

_METHODS: dict[Verb, str] = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
_USER_AGENT = f"nfs-provisioner/{provisioner.__version__}"
_RENEWAL_PAUSE_S = 10.0
"""Pause between two attempts to renew credentials, because each attempt can start a plugin process."""
_EARLY = timedelta(seconds=60)
"""How long before their expiry credentials are renewed, while calls continue with the old ones."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `path` and `query` are quoted; `resource` is for metrics; `timeout_s` covers all attempts."""

    verb: Verb
    resource: str
    path: str
    timeout_s: float
    query: str = ""
    body: bytes | None = None
    content_type: str = JSON

    def __str__(self) -> str:
        """The call as error messages name it."""
        return f"{self.verb} {self.path}"


class Connection:
    """Sends calls to one API server. Raises ClusterError only."""

    def __init__(
        self,
        configuration: Configuration,
        load: Callable[[], Awaitable[datetime | None]],
        *,
        expire: datetime | None,
        route: dial.Route,
        certificate: bytes,
        observe: Observe,
        connections: int,
    ) -> None:
        """Use a configuration that `load` has filled, with credentials that `expire`, if that is known.

        `certificate` is the client certificate with its key that the TLS of the route has, or empty. `load` runs again
        shortly before the expiry, and when the server refuses the credentials.
        """
        self._configuration = configuration
        self._load = load
        self._observe = observe
        self._route = route
        self._pool = Pool(route.dial, limit=connections)
        self._base = configuration.host.rstrip("/")
        self._target = _target(route)
        self._certificate = certificate
        self._headers = _Headers(route)
        self._expire = expire
        self._renewal: asyncio.Task[None] | None = None
        self._not_renewed: InvalidSettings | None = None
        """The error of the latest renewal, if it failed."""
        self._renew_at_s = 0.0
        self._dated: tuple[str, float] | None = None
        """The `Date` of the latest prompt answer (RFC 9110, 6.6.1), and the monotonic time of its arrival."""

    def server_time(self) -> datetime | None:
        """See Cluster.server_time."""
        if self._dated is None:
            return None
        text, at_s = self._dated
        date = _date(text)
        if date is None:
            return None
        return date + timedelta(seconds=time.monotonic() - at_s)

    async def close(self) -> None:
        """Close all connections, and kill a plugin that still runs."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._pool.close()

    async def request(self, call: Call) -> bytes:
        """Send a call and return the body of the answer. Retries on 429 with Retry-After, within `timeout_s`."""
        repeatable = _METHODS[call.verb] == "GET"
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                answer = await self._accepted(call, limit, partial(self._pool.exchange, repeatable=repeatable))
                return answer.body
        except (HttpError, OSError) as exc:
            raise self._no_answer(call, exc) from exc

    async def stream(self, call: Call, *, silence_s: float) -> AsyncGenerator[bytes, None]:
        """Send a call and yield the chunks of its endless answer; `timeout_s` limits the time to the headers.

        Raises ApiUnavailable if nothing arrives for `silence_s`, which reveals a half-open connection.
        """
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                stream = await self._accepted(call, limit, self._pool.stream)
            try:
                async with aclosing(stream.chunks(silence_s)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                stream.close()
        except (HttpError, OSError) as exc:
            raise self._no_answer(call, exc) from exc

    async def _accepted(self, call: Call, limit: asyncio.Timeout, send: Callable[[bytes], Awaitable[T]]) -> T:
        """Send a call until it is accepted: renew refused credentials once, and wait out 429s."""
        may_renew = True
        if self._expire is not None and datetime.now(UTC) >= self._expire - _EARLY:
            self._begin_renewal()
        while True:
            authorization, certificate = self._authorization(call), self._certificate
            answer = await self._sent(call, authorization, send)
            self._observe(call.verb, call.resource, answer.status)
            if answer.status < 300:
                return answer
            if isinstance(answer, Stream):
                try:
                    await answer.finish()
                finally:
                    answer.close()
            if answer.status == 401 and may_renew:
                may_renew = False
                if await self._renew(call, authorization, certificate):
                    continue
            error = errors.refused(
                str(call),
                answer.status,
                answer.body,
                retry_after=answer.retry_after,
                source=checks.source(call.verb, call.resource),
            )
            # Only 429 proves that the server did nothing; the outcome of a write after a 503 is unknown.
            if answer.status != 429 or not isinstance(error, ApiUnavailable) or error.retry_after_s is None:
                raise error
            # With jitter: a server that throttles one worker throttles many, and they must not return together.
            pause_s = error.retry_after_s * random.uniform(1.0, 1.25)
            if asyncio.get_running_loop().time() + pause_s >= (limit.when() or 0.0):
                raise error
            await asyncio.sleep(pause_s)

    async def _sent(self, call: Call, authorization: str, send: Callable[[bytes], Awaitable[T]]) -> T:
        target = f"{self._target}{call.path}?{call.query}" if call.query else self._target + call.path
        head = f"{_METHODS[call.verb]} {target} HTTP/1.1\r\n{self._headers.text(authorization)}"
        if call.body is None:
            request = f"{head}\r\n".encode("latin-1")
        else:
            sized = f"{head}Content-Type: {call.content_type}\r\nContent-Length: {len(call.body)}\r\n\r\n"
            request = sized.encode("latin-1") + call.body
        asked_s = time.monotonic()
        answer = await send(request)
        if answer.date is not None and (now_s := time.monotonic()) - asked_s <= PROMPT_S:
            self._dated = answer.date, now_s
        return answer

    def _authorization(self, call: Call) -> str:
        """Return the header with the credentials, as the configuration has them now."""
        try:
            return self._configuration.authorization()
        except (ConfigException, OSError) as exc:
            raise errors.failed(str(call), exc) from exc

    async def _renew(self, call: Call, refused: str, certificate: bytes) -> bool:
        """Reload the credentials, once for all calls that were refused with them; return True if they changed.

        This renews exec plugins, OIDC and token files of a kubeconfig, and a pod's token before its minute is over.
        """
        if self._authorization(call) == refused and self._certificate == certificate:
            self._begin_renewal()
            if self._renewal is not None:
                # Other calls wait for the renewal too, so a timeout of this one must not cancel it.
                await asyncio.shield(self._renewal)
            if self._not_renewed is not None:
                raise errors.failed(str(call), self._not_renewed) from self._not_renewed
        return self._authorization(call) != refused or self._certificate != certificate

    def _begin_renewal(self) -> None:
        """Start a renewal, unless one is running or has just ended."""
        loop = asyncio.get_running_loop()
        if (self._renewal is None or self._renewal.done()) and loop.time() >= self._renew_at_s:
            self._renewal = loop.create_task(self._load_again())

    async def _load_again(self) -> None:
        try:
            self._expire = await self._load()
            found = kubeconfig.tls(self._configuration)
            self._route.tls = found.context
            if found.certificate != self._certificate:
                self._certificate = found.certificate
                self._pool.retire(in_use=True)
            self._not_renewed = None
        except (InvalidSettings, OSError, ValueError) as exc:
            failure = exc if isinstance(exc, InvalidSettings) else InvalidSettings(errors.reason(exc))
            log.warning("credentials_not_renewed", error=str(failure))
            self._not_renewed = failure
        finally:
            self._renew_at_s = asyncio.get_running_loop().time() + _RENEWAL_PAUSE_S

    def _no_answer(self, call: Call, exc: Exception) -> ApiUnavailable:
        self._observe(call.verb, call.resource, 0)
        if isinstance(exc, TimeoutError) and not exc.errno:
            return errors.failed(f"{call} on {self._base}", TimeoutError(f"no answer within {call.timeout_s:g} s"))
        if isinstance(exc, OSError | Disconnected | dial.UnknownName | dial.ProxyFailed):
            return errors.unreachable(self._base, exc)
        return errors.failed(str(call), exc)


class _Headers:
    """The headers that all requests share, as text; rebuilt only when the credentials change."""

    def __init__(self, route: dial.Route) -> None:
        # Compressing a page of a list costs both sides more time than the cluster's network.
        self._fixed = (
            f"Host: {route.server.header}\r\nAccept: {JSON}\r\nAccept-Encoding: identity\r\n"
            f"User-Agent: {_USER_AGENT}\r\n"
        )
        if route.proxy is not None and route.proxy.authorization and not route.server.tls:
            self._fixed += f"Proxy-Authorization: {route.proxy.authorization}\r\n"
        self._in_url = route.server.authorization
        self._authorization: str | None = None
        self._text = ""

    def text(self, authorization: str) -> str:
        """Return the header lines. Raises InvalidHeader."""
        if authorization != self._authorization:
            value = authorization or self._in_url
            if not (value.isascii() and value.isprintable()):
                raise InvalidHeader
            self._text = f"{self._fixed}Authorization: {value}\r\n" if value else self._fixed
            self._authorization = authorization
        return self._text


class InvalidHeader(HttpError):
    """The credentials cannot be sent in a header."""

    def __init__(self) -> None:
        super().__init__("the token contains a character that a header cannot have: write another token")


def _target(route: dial.Route) -> str:
    """Return what precedes each path in a request target: a proxy without a tunnel needs the whole URL."""
    if route.proxy is None or route.server.tls:
        return route.server.prefix
    return f"http://{route.server.header}{route.server.prefix}"


@asynccontextmanager
async def open_connection(
    path: str | None, *, observe: Observe, connections: int, context: str | None = None
) -> AsyncIterator[Connection]:
    """Open a connection with a kubeconfig (or several, as KUBECONFIG lists them), or from inside a pod.

    `context` is a context of the kubeconfig; without it, the current one counts.

    Makes no call yet. Raises InvalidSettings with one line that says what to change.
    """
    configuration = Configuration()

    async def load() -> datetime | None:
        return await kubeconfig.load(configuration, path, context)

    expire = await load()
    try:
        tls = kubeconfig.tls(configuration)
    except (OSError, ValueError) as exc:
        reason = errors.reason(exc)
        raise InvalidSettings(f"cannot use the certificates of {path or 'the service account'}: {reason}") from exc
    connection = Connection(
        configuration,
        load,
        expire=expire,
        route=_route(configuration, tls.context, in_pod=path is None),
        certificate=tls.certificate,
        observe=observe,
        connections=connections,
    )
    try:
        yield connection
    finally:
        await connection.close()


def _route(configuration: Configuration, tls: ssl.SSLContext, *, in_pod: bool) -> dial.Route:
    try:
        server = dial.parse(configuration.host)
    except ValueError as exc:
        raise InvalidSettings(f"cannot use the server {errors.one_line(configuration.host)}: {exc}") from exc
    url = _proxy(configuration, server, in_pod=in_pod)
    try:
        proxy = dial.parse(url) if url else None
    except ValueError as exc:
        raise InvalidSettings(f"cannot use the proxy {errors.one_line(url or '')}: {exc}") from exc
    return dial.Route(server, proxy, tls, configuration.tls_server_name or server.host)


def _proxy(configuration: Configuration, server: dial.Server, *, in_pod: bool) -> str | None:
    """Return the proxy of the kubeconfig, or of the environment. A pod always reaches its API server directly."""
    if configuration.proxy or in_pod:
        return configuration.proxy
    return None if proxy_bypass(server.host) else getproxies().get("https" if server.tls else "http")


@lru_cache(maxsize=2)
def _date(text: str) -> datetime | None:
    """Parse the header `Date`, which many answers of one second share; None if it is no date."""
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None
