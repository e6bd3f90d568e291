"""Opens connections to the API server: names, addresses, proxies and TLS.

All addresses of a name are tried, the next one when the previous has not answered for a quarter of a second (RFC 8305).
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from provisioner.kube.http import HttpConnection, HttpError

_NEXT_ADDRESS_S = 0.25
_PORTS = {"http": 80, "https": 443}


class UnknownName(HttpError):
    """The name of the server cannot be resolved."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class ProxyFailed(HttpError):
    """The proxy cannot be reached, or does not open a tunnel."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class TunnelRefused(HttpError):
    """The proxy answers CONNECT with another status than 200."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server or a proxy, as a URL names it."""

    tls: bool
    host: str
    port: int
    prefix: str
    """The path of the URL, without a slash at the end."""
    authorization: str
    """The Authorization header for the user and password in the URL; empty without."""

    @property
    def authority(self) -> str:
        """Host and port as in a request target (RFC 3986, 3.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def header(self) -> str:
        """The Host header, which leaves out the usual port."""
        usual = _PORTS["https" if self.tls else "http"]
        return self.authority.removesuffix(f":{usual}") if self.port == usual else self.authority


def parse(url: str) -> Server:
    """Parse the URL of a server or a proxy. Raises ValueError for anything but http or https."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{parts.scheme or 'the URL'} is not supported: use http://HOST:PORT or https://HOST:PORT")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    return Server(
        tls=parts.scheme == "https",
        host=host,
        port=_PORTS[parts.scheme] if parts.port is None else parts.port,
        prefix=quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"),
        authorization=_basic(parts.username, parts.password),
    )


def _basic(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


@dataclass(slots=True)
class Route:
    """How to reach a server: through a proxy or directly, and with which TLS."""

    server: Server
    proxy: Server | None
    tls: ssl.SSLContext
    server_name: str
    """The name that the server's certificate must have."""

    async def dial(self) -> HttpConnection:
        """Open a connection. Raises HttpError and OSError."""
        if self.proxy is None:
            return await _connect(self.server, self.tls, self.server_name)
        try:
            connection = await _connect(self.proxy, self.tls, self.proxy.host)
            if not self.server.tls:
                return connection
            transport = await _tunnel(connection, self.server, self.proxy)
        except (HttpError, OSError) as exc:
            raise ProxyFailed(exc) from exc
        return await self._start_tls(transport)

    async def _start_tls(self, transport: asyncio.Transport) -> HttpConnection:
        """Start TLS with the server, inside the tunnel."""
        connection = HttpConnection()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, connection, self.tls, server_hostname=self.server_name
            )
        except BaseException:
            transport.abort()
            raise
        if secured is None:
            raise ConnectionResetError
        connection.connection_made(secured)
        return connection


async def _connect(server: Server, tls: ssl.SSLContext, server_name: str) -> HttpConnection:
    loop = asyncio.get_running_loop()
    sock = await _socket(server.host, server.port)
    try:
        # A request is one write; the kernel reveals a peer that is gone.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if server.tls:
            _, connection = await loop.create_connection(
                HttpConnection, sock=sock, ssl=tls, server_hostname=server_name
            )
        else:
            _, connection = await loop.create_connection(HttpConnection, sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection


async def _socket(host: str, port: int) -> socket.socket:
    """Connect to the address of a name that answers first."""
    addresses = await _addresses(host, port)
    return await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1)


async def _addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:
        raise UnknownName(host) from exc


async def _tunnel(connection: HttpConnection, server: Server, proxy: Server) -> asyncio.Transport:
    """Ask the proxy for a connection to the server (RFC 9110, 9.3.6)."""
    authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    request = f"CONNECT {server.authority} HTTP/1.1\r\nHost: {server.authority}\r\n{authorization}\r\n"
    try:
        answer = await connection.begin(request.encode("latin-1"))
        if answer.status != 200:
            raise TunnelRefused(f"it answers CONNECT with status {answer.status}")
    except BaseException:
        connection.abort()
        raise
    return connection.detach()
