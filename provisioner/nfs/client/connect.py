"""Opens a TCP connection to a server: look-up of name and port, and a source port below 1024 if permitted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from provisioner.nfs.client import errors
from provisioner.nfs.client.errors import Lost
from provisioner.nfs.client.resolver import Address, Resolver
from provisioner.nfs.client.transport import RpcTransport
from provisioner.nfs.protocol import portmap, rpc
from provisioner.ports.tree import Cause, ExportError

RESERVED_PORTS = range(512, 1024)
RESERVED_TRIES = 32
_ANY_PORT = 0

LOOKUP_LIMIT_S = 3.0
"""Time limit for a look-up without last known addresses.

The look-up continues after that, and the next attempt uses its result. The limit is below the 4 s of a probe, so that
the probe can report that the name is the problem.
"""
ADDRESS_LIMIT_S = 2.0
"""Time limit for one of several addresses: long enough for one lost packet."""

# Detect a dead machine within 15 s. Without keep-alive, TCP would take a quarter of an hour to notice.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 6),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An RPC program on a server.

    Without a port, the client asks the port mapper, and uses `usual_port` if the port mapper does not answer.
    """

    server: str
    port: int | None
    program: int
    version: int
    usual_port: int | None = None


@dataclass(frozen=True, slots=True)
class _Host:
    """The addresses of a server, and until when to connect.

    `limit_s` is the time limit of later calls.
    """

    name: str
    addresses: Sequence[Address]
    limit_s: float
    deadline: float


async def dial(endpoint: Endpoint, resolver: Resolver, timeout_s: float) -> RpcTransport:
    """Look up the server and connect to the program.

    Raises ExportError(UNREACHABLE) with a hint.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    port = endpoint.port or endpoint.usual_port or portmap.PORT
    addresses = await _look_up(resolver, endpoint.server, port, min(LOOKUP_LIMIT_S, timeout_s / 2))
    host = _Host(endpoint.server, addresses, timeout_s, deadline)
    try:
        async with asyncio.timeout_at(deadline):
            if endpoint.port is None:
                port = await _mapped_port(endpoint, host)
            return await _connect(host, port)
    except TimeoutError as exc:
        hint = errors.silent_hint(endpoint.server, port)
        raise ExportError(Cause.UNREACHABLE, f"no connection within {timeout_s:g} s", hint=hint) from exc


async def _look_up(resolver: Resolver, server: str, port: int, limit_s: float) -> Sequence[Address]:
    try:
        async with asyncio.timeout(limit_s):
            return await resolver.addresses(server)
    except TimeoutError as exc:
        raise errors.lookup_timed_out(server) from exc
    except OSError as exc:
        raise errors.dial_failed(exc, server, port) from exc


async def _mapped_port(endpoint: Endpoint, host: _Host) -> int:
    """Ask the port mapper for the program's port (RFC 1833).

    If there is a usual port to fall back on, half of the time is left for it.
    """
    left_s = host.deadline - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(left_s if endpoint.usual_port is None else left_s / 2):
            transport = await _connect(host, portmap.PORT)
            try:
                port = await transport.send(
                    portmap.getport(endpoint.program, endpoint.version), rpc.NO_CREDENTIAL
                ).answer
            finally:
                transport.close()
    except (ExportError, TimeoutError, rpc.CallRejected, rpc.CredentialRejected) as exc:
        if endpoint.usual_port is not None:
            return endpoint.usual_port
        if isinstance(exc, ExportError) and not isinstance(exc, Lost):
            raise
        hint = errors.silent_hint(endpoint.server, portmap.PORT)
        raise ExportError(Cause.UNREACHABLE, f"port mapper of {endpoint.server}: {exc}", hint=hint) from exc
    if not port:
        detail = f"program {endpoint.program} is not registered with the port mapper"
        raise errors.version_missing(endpoint.server, str(endpoint.version), detail)
    return port


async def _connect(host: _Host, port: int) -> RpcTransport:
    """Try the server's addresses in turn.

    Each but the last gets its share of the remaining time.
    """
    loop = asyncio.get_running_loop()
    failure = OSError("the name has no address")
    for number, (family, address) in enumerate(host.addresses):
        left = len(host.addresses) - number
        share_s = min(ADDRESS_LIMIT_S, (host.deadline - loop.time()) / left) if left > 1 else None
        try:
            async with asyncio.timeout(share_s):
                sock, reserved = await _connected(family, (address[0], port, *address[2:]))
        except TimeoutError:
            failure = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except OSError as exc:
            failure = exc
        except OverflowError as exc:
            failure = OSError(str(exc))
        else:
            new_transport = functools.partial(RpcTransport, host.name, port, reserved=reserved, limit_s=host.limit_s)
            return (await loop.create_connection(new_transport, sock=sock))[1]
    raise errors.dial_failed(failure, host.name, port) from failure


async def _connected(family: int, address: tuple[object, ...]) -> tuple[socket.socket, bool]:
    """Connect a socket; return it and whether its source port is below 1024. Raises OSError.

    Many servers accept only clients with a source port below 1024 (`secure` in exports(5)). The code tries random ports
    in that range and skips those in use. Without the privilege for such ports it uses any other one.
    """
    for source_port in random.sample(RESERVED_PORTS, RESERVED_TRIES):
        try:
            return await _connected_from(source_port, family, address), True
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EPERM):
                break
            if exc.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    return await _connected_from(_ANY_PORT, family, address), False


async def _connected_from(source_port: int, family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        sock.setblocking(False)
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        if source_port != _ANY_PORT:
            # Use one port for several servers, and again right after a connection has ended (tcp(7)).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source_port))
        await asyncio.get_running_loop().sock_connect(sock, address)
        stack.pop_all()
    return sock
