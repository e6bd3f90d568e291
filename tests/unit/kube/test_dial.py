"""kube.dial: URLs, addresses, TLS and proxies."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from provisioner.kube import dial
from provisioner.kube.dial import ProxyFailed, Route, TunnelRefused, UnknownName
from provisioner.kube.http import Disconnected
from tests.support import certificates
from tests.unit.kube.server import OK, Reader, Writer, answering, read_request, serving

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix", "header"),
    [
        ("https://api.example", "api.example", 443, "", "api.example"),
        ("https://api.example:443/", "api.example", 443, "", "api.example"),
        ("https://api.example:6443", "api.example", 6443, "", "api.example:6443"),
        ("http://api.example", "api.example", 80, "", "api.example"),
        ("http://api.example:443", "api.example", 443, "", "api.example:443"),
        ("https://[2001:db8::1]:6443", "2001:db8::1", 6443, "", "[2001:db8::1]:6443"),
        ("https://[2001:db8::1]", "2001:db8::1", 443, "", "[2001:db8::1]"),
        ("https://rancher.example/k8s/clusters/c-1/", "rancher.example", 443, "/k8s/clusters/c-1", "rancher.example"),
        ("https://a.example/with space%20x", "a.example", 443, "/with%20space%20x", "a.example"),
        ("https://bücher.example", "xn--bcher-kva.example", 443, "", "xn--bcher-kva.example"),
    ],
)
def test_the_url_of_a_server(url: str, host: str, port: int, prefix: str, header: str) -> None:
    """Host, port, path and Host header of every form of URL that a kubeconfig can have."""
    server = dial.parse(url)
    assert (server.host, server.port, server.prefix, server.header) == (host, port, prefix, header)
    assert server.tls == url.startswith("https:")


def test_the_credentials_of_a_url() -> None:
    """User and password are unquoted, and can contain what separates them from the host."""
    assert dial.parse("http://me:p%40ss@proxy.example:3128").authorization == "Basic bWU6cEBzcw=="
    assert dial.parse("http://proxy.example:3128").authorization == ""


@pytest.mark.parametrize("url", ["socks5://h:1", "h:1", "https://", "https:///x", "https://h:x", "https://h:99999", ""])
def test_a_url_that_names_no_server(url: str) -> None:
    """Other schemes and broken ports raise ValueError."""
    with pytest.raises(ValueError, match=r"."):
        dial.parse(url)


def route(server: str, proxy: str | None = None, *, client: ssl.SSLContext | None = None, name: str = "") -> Route:
    parsed = dial.parse(server)
    context = client or ssl.create_default_context(cadata=certificates.certificate(certificates.SERVER))
    return Route(parsed, dial.parse(proxy) if proxy else None, context, name or parsed.host)


async def answered(through: Route) -> bytes:
    async with asyncio.timeout(20):
        connection = await through.dial()
        try:
            return (await connection.exchange(GET)).body
        finally:
            connection.abort()


async def test_tls(tmp_path: Path) -> None:
    """The certificate must belong to the name and come from the CA."""
    async with serving(answering(OK), tls=certificates.server_context(tmp_path)) as port:
        assert await answered(route(f"https://localhost:{port}")) == b"ok"
        assert await answered(route(f"https://127.0.0.1:{port}")) == b"ok"
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(route(f"https://localhost:{port}", name="other.example"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(route(f"https://localhost:{port}", client=ssl.create_default_context()))


async def test_no_tls() -> None:
    """A server that answers TLS with something else is an error of TLS."""

    async def serve(reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with serving(serve) as port:
        with pytest.raises(ssl.SSLError):
            await answered(route(f"https://localhost:{port}"))


async def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that does not answer and one that refuses delay the connection by less than a second."""
    async with serving(answering(OK)) as port:
        silent = socket.socket()
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # a full queue, in which a connection waits for a minute
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
        addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

        async def found(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with monkeypatch.context() as patched:
            patched.setattr(dial, "_addresses", found)
            assert await answered(route(f"http://api.example:{port}")) == b"ok"
        assert loop.time() - began_s < 5
        for each in (silent, *fillers):
            each.close()


async def test_a_port_that_refuses() -> None:
    """The operating system's error arrives as it is."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await answered(route(f"http://127.0.0.1:{unused.getsockname()[1]}"))


async def test_a_name_that_does_not_exist() -> None:
    """The error has the name."""
    with pytest.raises(UnknownName, match=r"does-not-exist\.invalid"):
        await answered(route("http://does-not-exist.invalid"))


# ------------------------------------------------------------------------------------------------ proxies


@asynccontextmanager
async def proxying(
    seen: list[str],
    *,
    tls: ssl.SSLContext | None = None,
    opened: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
) -> AsyncIterator[int]:
    """Open tunnels for CONNECT, and answer other requests."""

    async def serve(reader: Reader, writer: Writer) -> None:
        head, _ = await read_request(reader)
        seen.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        writer.write(opened if method == "CONNECT" else OK)
        if method != "CONNECT" or b" 200 " not in opened:
            await reader.read()
            return
        _, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(port))
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()

    async with serving(serve, tls=tls) as port:
        yield port


async def pump(reader: Reader, writer: Writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def test_a_tunnel_through_a_proxy(tmp_path: Path) -> None:
    """An https server is reached by CONNECT, with the proxy's credentials; TLS is with the server, end to end."""
    seen: list[str] = []
    context = certificates.server_context(tmp_path)
    async with serving(answering(OK), tls=context) as port, proxying(seen) as proxy:
        found = await answered(route(f"https://localhost:{port}", f"http://me:secret@127.0.0.1:{proxy}"))
    assert found == b"ok"
    assert seen == [
        f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n"
        "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    ]


async def test_a_tunnel_through_a_proxy_with_tls(tmp_path: Path) -> None:
    """The proxy itself can require TLS."""
    context = certificates.server_context(tmp_path)
    async with serving(answering(OK), tls=context) as port, proxying([], tls=context) as proxy:
        assert await answered(route(f"https://localhost:{port}", f"https://localhost:{proxy}")) == b"ok"


async def test_a_proxy_without_a_tunnel() -> None:
    """An http server's requests go to the proxy."""
    seen: list[str] = []
    async with proxying(seen) as proxy:
        assert await answered(route("http://api.invalid", f"http://127.0.0.1:{proxy}")) == b"ok"
    assert seen[0].startswith("GET ")


@pytest.mark.parametrize(
    ("opened", "cause"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", TunnelRefused),
        (b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nsorry", TunnelRefused),
    ],
)
async def test_a_proxy_that_refuses(opened: bytes, cause: type[Exception]) -> None:
    """Whatever the proxy answers is an error of the proxy, not of the server."""
    async with proxying([], opened=opened) as proxy:
        with pytest.raises(ProxyFailed) as caught:
            await answered(route("https://api.invalid", f"http://127.0.0.1:{proxy}"))
    assert isinstance(caught.value.cause, cause)


async def test_a_proxy_that_hangs_up() -> None:
    """A proxy that closes the connection, or is not there, is an error of the proxy."""
    async with serving(answering(b"")) as port:
        with pytest.raises(ProxyFailed) as caught:
            await answered(route("https://api.invalid", f"http://127.0.0.1:{port}"))
        assert isinstance(caught.value.cause, Disconnected)
    with pytest.raises(ProxyFailed) as caught:
        await answered(route("https://api.invalid", f"http://127.0.0.1:{port}"))
    assert isinstance(caught.value.cause, ConnectionRefusedError)


async def test_a_server_behind_a_proxy_that_is_not_trusted(tmp_path: Path) -> None:
    """The error of TLS inside a tunnel is the server's."""
    context = certificates.server_context(tmp_path)
    async with serving(answering(OK), tls=context) as port, proxying([]) as proxy:
        untrusting = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(route(f"https://localhost:{port}", f"http://127.0.0.1:{proxy}", client=untrusting))


async def test_giving_up_leaves_no_connection() -> None:
    """A caller that gives up while the server is silent in TLS closes the connection."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.read(1)
        begun.set()
        await reader.read()
        ended.set()

    async with serving(serve) as port, asyncio.timeout(20):
        dialing = asyncio.create_task(route(f"https://localhost:{port}").dial())
        await begun.wait()
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        await ended.wait()
