"""Connection to one program of a server: opened on demand, and again after it broke.

A TCP connection that is stuck (see `transport`) is replaced while it still serves calls:

1. Open a new TCP connection.
2. Wait until the server answers a NULL call on it, which proves that the new connection works.
3. Send new calls on the new connection, and drain the old one.

At most DRAINING_LIMIT connections drain at a time. So a server never has more than DRAINING_LIMIT + 2 connections from
this client, because source ports below 1024 are scarce.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

from provisioner.core.backoff import Backoff
from provisioner.nfs.client import errors
from provisioner.nfs.client.connect import Endpoint, dial
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.errors import Lost
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.client.slots import Sharing, Slots, SlotsClosed
from provisioner.nfs.client.transport import CALLS_IN_FLIGHT, Pending, RpcTransport
from provisioner.nfs.protocol import rpc
from provisioner.nfs.protocol.rpc import CallRejected, CredentialRejected, Credentials, Procedure
from provisioner.ports.tree import ExportError

T = TypeVar("T")

_BACKOFF = Backoff(first_s=0.1, limit_s=5.0, jitter=0)
DRAINING_LIMIT = 2


class Connection:
    """Calls to one program, many in flight on one TCP connection, shared by the exports of the server.

    After a failed attempt to connect, the next attempt waits for a back-off of 0.1 to 5 s. Calls in between fail
    immediately with the last error, so that callers with work for other servers do not wait for this one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Credentials,
        resolver: Resolver,
        *,
        timeout_s: float,
        sharing: Sharing | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.identity = identity
        self._credential = identity.credential()
        self._resolver = resolver
        self._timeout_s = timeout_s
        self._sharing = Sharing() if sharing is None else sharing
        self._transport: RpcTransport | None = None
        self._draining: list[RpcTransport] = []
        self._connecting: asyncio.Task[RpcTransport] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._replace_at = 0.0
        self._failure: ExportError | None = None
        self._failures = 0
        self._retry_at = 0.0

    @property
    def reserved_port(self) -> bool:
        """Whether the current or last TCP connection uses a source port below 1024."""
        return self._transport is not None and self._transport.reserved

    async def call(self, deadline: Deadline, procedure: Procedure[T]) -> T:
        """Make a call once a slot is free.

        Raises ExportError, and the errors of the procedure's result.
        """
        while True:
            transport = await self.transport()
            try:
                slot = await transport.slots.take(deadline.export)
            except SlotsClosed:
                continue
            return await self.exchange(
                transport, deadline, procedure, functools.partial(_give_back, transport.slots, slot)
            )

    def slots(self, count: int) -> Slots:
        """Create slots that the exports of this server share fairly."""
        return Slots(count, self._sharing)

    async def exchange(
        self,
        transport: RpcTransport,
        deadline: Deadline,
        procedure: Procedure[T],
        on_settled: Callable[[T | None], None] | None = None,
    ) -> T:
        """Make a call on this TCP connection. Raises Lost if the connection ends before the reply."""
        pending = transport.send(procedure, self._credential, on_settled)
        if procedure.changes:
            deadline.note(pending)
        try:
            return await pending.answer
        except CallRejected as exc:
            raise errors.call_rejected(exc, self.endpoint.server, procedure.version) from exc
        except CredentialRejected as exc:
            raise errors.credential_rejected(exc, self.endpoint.server, reserved_port=transport.reserved) from exc
        finally:
            self._update_suspects(deadline.export, pending, transport)

    def post(self, transport: RpcTransport, procedure: Procedure[object]) -> None:
        """Send a call without waiting for the reply."""
        transport.send(procedure, self._credential).answer.cancel()

    async def transport(self) -> RpcTransport:
        """Return the TCP connection for new calls; open one if the last has ended.

        All callers share one attempt.
        """
        if self._transport is not None and not self._transport.closed:
            return self._transport
        if self._connecting is None:
            self._raise_during_backoff()
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            if connecting.cancelled():
                raise Lost(f"{self.endpoint.server}: the connection was closed") from None
            raise

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        for task in (self._connecting, self._replacing):
            if task is not None:
                task.cancel()
        for transport in (self._transport, *self._draining):
            if transport is not None:
                transport.close()

    async def _connect(self) -> RpcTransport:
        transport = await dial(self.endpoint, self._resolver, self._timeout_s)
        transport.slots = self.slots(CALLS_IN_FLIGHT)
        transport.on_stuck = functools.partial(self._replace, transport)
        return transport

    def _replace(self, stuck: RpcTransport) -> None:
        """Start to replace a stuck TCP connection, unless a replacement runs or has failed recently."""
        self._draining = [transport for transport in self._draining if not transport.closed]
        now = asyncio.get_running_loop().time()
        if self._replacing is None and now >= self._replace_at and len(self._draining) < DRAINING_LIMIT:
            self._replacing = asyncio.create_task(self._move_from(stuck))
            self._replacing.add_done_callback(self._replaced)

    async def _move_from(self, stuck: RpcTransport) -> None:
        """Open a new TCP connection, and move new calls to it once the server has answered on it."""
        transport = await self._connect()
        null = rpc.null(self.endpoint.program, self.endpoint.version)
        try:
            async with asyncio.timeout(self._timeout_s):
                with contextlib.suppress(CallRejected, CredentialRejected):  # A rejection is an answer too.
                    await transport.send(null, self._credential).answer
            if self._transport is stuck:
                stuck.drain()
                self._draining.append(stuck)
                self._transport = transport
        finally:
            if self._transport is not transport:
                transport.close()

    def _replaced(self, task: asyncio.Task[None]) -> None:
        self._replacing = None
        exc = None if task.cancelled() else task.exception()
        if exc is None:
            return
        # Keep using the old connection for the calls that it still answers.
        self._replace_at = asyncio.get_running_loop().time() + _BACKOFF.limit_s
        if not isinstance(exc, ExportError | TimeoutError):
            raise exc

    def _update_suspects(self, export: str, pending: Pending[T], transport: RpcTransport) -> None:
        """Mark the caller's export as suspect if its call got no answer, and clear it if it got one."""
        suspects = self._sharing.suspects
        if not pending.settled:
            suspects.add(export)
        elif pending.answered and export in suspects:
            suspects.remove(export)
            transport.slots.serve()

    def _connected(self, task: asyncio.Task[RpcTransport]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            self._transport = task.result()
        elif isinstance(exc, ExportError):
            self._record_failure(exc)

    def _raise_during_backoff(self) -> None:
        """Take note of how the last connection ended; raise its error again during the back-off."""
        last, self._transport = self._transport, None
        if last is not None and last.answered:
            self._failure, self._failures = None, 0
        elif last is not None:
            self._record_failure(last.reason)
        if self._failure is not None and asyncio.get_running_loop().time() < self._retry_at:
            raise ExportError(self._failure.cause, self._failure.detail, hint=self._failure.hint)

    def _record_failure(self, exc: ExportError) -> None:
        self._failure = exc
        self._failures += 1
        self._retry_at = asyncio.get_running_loop().time() + _BACKOFF.delay_s(self._failures, 0)


def _give_back(slots: Slots, slot: int, _: object) -> None:
    slots.give(slot)
