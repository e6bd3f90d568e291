"""The connection to the API server: configuration, credentials, TLS and session of kubernetes.aio; bodies are bytes.

The library's generated methods cost 0.6 ms of CPU per request, its session alone a fifth of that. So the library finds
the server and the credentials and renews them, and `Connection` sends requests through the library's session.
Nothing here limits the rate: the API server does (API Priority and Fairness), and its 429 with Retry-After is obeyed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog
from yarl import URL

import provisioner
from provisioner.core import checks
from provisioner.core.archives import PROMPT_S
from provisioner.core.errors import InvalidSettings
from provisioner.kube import errors, kubeconfig
from provisioner.kube.library import ConfigException, Configuration, RESTClientObject
from provisioner.ports.cluster import ApiUnavailable

log = structlog.get_logger(__name__)

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
_NO_LIMIT = aiohttp.ClientTimeout(total=None)
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
        options: Mapping[str, Any],
        observe: Observe,
    ) -> None:
        """Use a configuration that `load` has filled, with credentials that `expire`, if that is known.

        `load` runs again shortly before the expiry, and when the server refuses the credentials. `options` are aiohttp
        arguments for each request.
        """
        rest = RESTClientObject(configuration)
        # The library creates its session in its first own request, with this factory, which it documents.
        self._session: aiohttp.ClientSession = rest._create_pool_manager()
        self._configuration = configuration
        self._load = load
        self._observe = observe
        self._base = str(configuration.host).rstrip("/")
        self._options = options
        self._expire = expire
        self._renewal: asyncio.Task[None] | None = None
        self._not_renewed: InvalidSettings | None = None
        """The error of the latest renewal, if it failed."""
        self._renew_at_s = 0.0
        self._dated: tuple[str, float] | None = None
        """The `Date` of the latest prompt answer (RFC 9110, 6.6.1), and the loop time of its arrival."""

    def server_time(self) -> datetime | None:
        """See Cluster.server_time."""
        if self._dated is None:
            return None
        text, at_s = self._dated
        try:
            date = parsedate_to_datetime(text).astimezone(UTC)
        except ValueError:
            return None
        return date + timedelta(seconds=asyncio.get_running_loop().time() - at_s)

    async def close(self) -> None:
        """Close all connections, and kill a plugin that still runs."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._session.close()

    async def request(self, call: Call) -> bytes:
        """Send a call and return the body of the answer. Retries on 429 with Retry-After, within `timeout_s`."""
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                response = await self._answer(call, limit, _NO_LIMIT)
                return await response.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise self._no_answer(call, exc) from exc

    async def stream(self, call: Call, *, silence_s: float) -> AsyncGenerator[bytes, None]:
        """Send a call and yield the chunks of its endless answer; `timeout_s` limits the time to the headers.

        Raises ApiUnavailable if nothing arrives for `silence_s`, which reveals a half-open connection.
        """
        try:
            async with asyncio.timeout(call.timeout_s) as limit:
                timeout = aiohttp.ClientTimeout(total=None, sock_read=silence_s)
                response = await self._answer(call, limit, timeout)
            async with response:
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise self._no_answer(call, exc) from exc

    async def _answer(
        self, call: Call, limit: asyncio.Timeout, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Return the open response of an accepted call; renew refused credentials once, and wait out 429s."""
        may_renew = True
        if self._expire is not None and datetime.now(UTC) >= self._expire - _EARLY:
            self._begin_renewal()
        while True:
            authorization = await self._authorization(call)
            response = await self._send(call, authorization, timeout)
            self._observe(call.verb, call.resource, response.status)
            if response.status < 300:
                return response
            body = await response.read()
            if response.status == 401 and may_renew:
                may_renew = False
                if await self._renew(call, authorization):
                    continue
            error = errors.refused(
                str(call),
                response.status,
                body,
                retry_after=response.headers.get("Retry-After"),
                source=checks.source(call.verb, call.resource),
            )
            # Only 429 proves that the server did nothing; the outcome of a write after a 503 is unknown.
            if response.status != 429 or not isinstance(error, ApiUnavailable) or error.retry_after_s is None:
                raise error
            # With jitter: a server that throttles one worker throttles many, and they must not return together.
            pause_s = error.retry_after_s * random.uniform(1.0, 1.25)
            if asyncio.get_running_loop().time() + pause_s >= (limit.when() or 0.0):
                raise error
            await asyncio.sleep(pause_s)

    async def _send(self, call: Call, authorization: str, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        headers = {"Content-Type": call.content_type} if call.body is not None else {}
        if authorization:
            headers["Authorization"] = authorization
        url = f"{self._base}{call.path}?{call.query}" if call.query else self._base + call.path
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        response = await self._session.request(
            _METHODS[call.verb],
            URL(url, encoded=True),
            data=call.body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            **self._options,
        )
        if "Date" in response.headers and loop.time() - asked_s <= PROMPT_S:
            self._dated = response.headers["Date"], loop.time()
        return response

    async def _authorization(self, call: Call) -> str:
        """Return the header with the credentials; in a pod, the library rereads the token file once per minute."""
        try:
            settings = await self._configuration.auth_settings()
        except (ConfigException, OSError) as exc:
            raise errors.failed(str(call), exc) from exc
        # A token file can end in a newline, which is illegal in a header.
        return str(settings["BearerToken"]["value"] or "").strip() if "BearerToken" in settings else ""

    async def _renew(self, call: Call, refused: str) -> bool:
        """Reload the credentials, once for all calls that were refused with them; return True if they changed.

        This renews exec plugins, OIDC and token files of a kubeconfig, and a pod's token before its minute is over.
        """
        if await self._authorization(call) == refused:
            self._begin_renewal()
            if self._renewal is not None:
                # Other calls wait for the renewal too, so a timeout of this one must not cancel it.
                await asyncio.shield(self._renewal)
            if self._not_renewed is not None:
                raise errors.failed(str(call), self._not_renewed) from self._not_renewed
        return await self._authorization(call) != refused

    def _begin_renewal(self) -> None:
        """Start a renewal, unless one is running or has just ended."""
        loop = asyncio.get_running_loop()
        if (self._renewal is None or self._renewal.done()) and loop.time() >= self._renew_at_s:
            self._renewal = loop.create_task(self._load_again())

    async def _load_again(self) -> None:
        try:
            self._expire = await self._load()
            self._not_renewed = None
        except InvalidSettings as exc:
            log.warning("credentials_not_renewed", error=str(exc))
            self._not_renewed = exc
        finally:
            self._renew_at_s = asyncio.get_running_loop().time() + _RENEWAL_PAUSE_S

    def _no_answer(self, call: Call, exc: Exception) -> ApiUnavailable:
        self._observe(call.verb, call.resource, 0)
        if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ClientError):
            return errors.failed(f"{call} on {self._base}", TimeoutError(f"no answer within {call.timeout_s:g} s"))
        if isinstance(exc, aiohttp.ClientConnectionError) and not isinstance(exc, aiohttp.ServerTimeoutError):
            return errors.unreachable(self._base, exc)
        return errors.failed(str(call), exc)


@asynccontextmanager
async def open_connection(path: str | None, *, observe: Observe, connections: int) -> AsyncIterator[Connection]:
    """Open a connection with a kubeconfig (or several, as KUBECONFIG lists them), or from inside a pod.

    Makes no call yet. Raises InvalidSettings with one line that says what to change.
    """
    configuration = Configuration(connection_pool_maxsize=connections, client_session_kwargs=_session_options())
    # The strict mode of X.509, Python's default since 3.13, refuses cluster certificates that Go and kubectl accept.
    configuration.disable_strict_ssl_verification = True

    async def load() -> datetime | None:
        return await kubeconfig.load(configuration, path)

    expire = await load()
    try:
        options = _request_options(configuration, _proxy(configuration, in_pod=path is None))
        connection = Connection(configuration, load, expire=expire, options=options, observe=observe)
    except (OSError, ValueError) as exc:
        reason = errors.reason(exc)
        raise InvalidSettings(f"cannot use the certificates of {path or 'the service account'}: {reason}") from exc
    try:
        yield connection
    finally:
        await connection.close()


def _session_options() -> dict[str, Any]:
    return {
        "cookie_jar": aiohttp.DummyCookieJar(),
        # Otherwise aiohttp reads the environment's proxies and ~/.netrc for each request, in a thread.
        "trust_env": False,
        # Compressing a page of a list costs both sides more time than the cluster's network.
        "headers": {
            "Accept": JSON,
            "Accept-Encoding": "identity",
            "User-Agent": f"nfs-provisioner/{provisioner.__version__}",
        },
    }


def _proxy(configuration: Configuration, *, in_pod: bool) -> str | None:
    """Return the proxy of the kubeconfig, or of the environment. A pod always reaches its API server directly."""
    if configuration.proxy or in_pod:
        return cast("str | None", configuration.proxy)
    host = URL(configuration.host)
    return None if proxy_bypass(host.host or "") else getproxies().get(host.scheme)


def _request_options(configuration: Configuration, proxy: str | None) -> dict[str, Any]:
    """Return the arguments of each request: proxy and TLS server name, as configured."""
    options = {
        "proxy": proxy,
        "proxy_headers": configuration.proxy_headers,
        "server_hostname": configuration.tls_server_name,
    }
    return {name: value for name, value in options.items() if value}
