"""Connections to one server, kept for the next request: how many there are, who waits, and when an idle one closes.

A caller takes the connection that was used last, so that surplus ones become idle and close. If all are in use, callers
wait in order. A server closes idle connections too, and a request can be under way at that moment. Only a request that
changes nothing is then sent again; for others, the caller must find out what happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from provisioner.kube.http import BODY_BYTES, Answer, Disconnected, HttpConnection, Incomplete

IDLE_S = 15.0
"""How long an idle connection stays open; servers and load balancers close them after a minute or more."""

Dial = Callable[[], Awaitable[HttpConnection]]
"""Opens a connection. Raises HttpError and OSError."""


class Stream(Answer):
    """An answer whose body is read while it arrives. It must be closed."""

    def __init__(self, answer: Answer, connection: HttpConnection, release: Callable[[HttpConnection], None]) -> None:
        super().__init__(answer.status, answer.date, answer.retry_after, answer.body)
        self._connection: HttpConnection | None = connection
        self._release = release

    async def chunks(self, silence_s: float) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises Incomplete if nothing arrives for `silence_s`."""
        assert self._connection is not None
        self._connection.expect(silence_s)
        while chunk := await self._connection.read():
            yield chunk

    async def finish(self) -> None:
        """Read the whole body into `body`: the answer is a refusal and not endless."""
        assert self._connection is not None
        while chunk := await self._connection.read():
            self.body += chunk
            if len(self.body) > BODY_BYTES:
                raise Incomplete(f"the answer is larger than {BODY_BYTES >> 20} MiB")

    def close(self) -> None:
        """Give the connection back, or close it if the body has not ended."""
        if self._connection is not None:
            self._release(self._connection)
            self._connection = None


class Pool:
    """At most `limit` connections that `dial` opens."""

    def __init__(self, dial: Dial, *, limit: int, idle_s: float = IDLE_S) -> None:
        self._dial = dial
        self._limit = limit
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._open: set[HttpConnection] = set()
        self._dialling = 0
        self._idle: deque[tuple[HttpConnection, float]] = deque()
        """Idle connections and since when, the longest idle one first."""
        self._waiting: deque[asyncio.Future[HttpConnection | None]] = deque()
        """Callers in order. Each gets a connection, or None: then it opens one."""
        self._sweep: asyncio.TimerHandle | None = None
        self._stale: set[HttpConnection] = set()
        """Connections in use that must not be used again."""

    async def exchange(self, request: bytes, *, repeatable: bool) -> Answer:
        """Send a request and return its answer. Raises HttpError and OSError.

        `repeatable` allows to send it a second time if the server closes the connection without an answer.
        """
        connection = await self._take()
        try:
            return await connection.exchange(request)
        except (Disconnected, OSError):
            if not repeatable or connection.requests == 1 or connection.heard:
                raise
        finally:
            self._give_back(connection)
        # What ended this connection has probably ended the other idle ones too.
        self.retire(in_use=False)
        connection = await self._take()
        try:
            return await connection.exchange(request)
        finally:
            self._give_back(connection)

    async def stream(self, request: bytes) -> Stream:
        """Send a request, which changes nothing, and return its answer with the body to read."""
        connection = await self._take()
        try:
            try:
                answer = await connection.begin(request)
            except (Disconnected, OSError):
                if connection.requests == 1 or connection.heard:
                    raise
                self._give_back(connection)
                self.retire(in_use=False)
                connection = await self._take()
                answer = await connection.begin(request)
        except BaseException:
            self._give_back(connection)
            raise
        return Stream(answer, connection, self._give_back)

    def retire(self, *, in_use: bool) -> None:
        """Close the idle connections; those `in_use` close after their answer: the credentials have changed."""
        idle, self._idle = self._idle, deque()
        for connection, _ in idle:
            connection.abort()
        if in_use:
            self._stale |= self._open

    async def close(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # the transports close in the next iteration of the event loop

    # ------------------------------------------------------------------------------------------- one caller

    async def _take(self) -> HttpConnection:
        """Return an open connection: the idle one that was used last, or a new one, or another caller's."""
        while self._idle and not self._waiting:
            connection, _ = self._idle.pop()
            if connection.open:
                return connection
        if len(self._open) + self._dialling < self._limit:
            self._dialling += 1
        elif (handed := await self._wait()) is not None:
            # It can have ended since it was given back; nothing was sent on it yet.
            return handed if handed.open else await self._take()
        try:
            connection = await self._dial()
        except BaseException:
            self._dialling -= 1
            self._admit()
            raise
        self._dialling -= 1
        self._open.add(connection)
        connection.on_lost = self._forget
        return connection

    async def _wait(self) -> HttpConnection | None:
        """Wait for a turn: a connection of another caller, or None and the right to open one."""
        turn: asyncio.Future[HttpConnection | None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                handed = turn.result()
                if handed is not None:
                    self._give_back(handed)
                else:
                    self._dialling -= 1
                    self._admit()
            raise

    def _give_back(self, connection: HttpConnection) -> None:
        if not connection.reusable or connection in self._stale:
            connection.abort()
            self._forget(connection)
            return
        turn = self._next()
        if turn is not None:
            turn.set_result(connection)
            return
        self._idle.append((connection, self._loop.time()))
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._idle_s, self._close_idle)

    def _forget(self, connection: HttpConnection) -> None:
        """Remove an ended connection, and let the next caller open one."""
        if connection in self._open:
            self._open.remove(connection)
            self._stale.discard(connection)
            self._admit()

    def _admit(self) -> None:
        if len(self._open) + self._dialling < self._limit and (turn := self._next()) is not None:
            self._dialling += 1
            turn.set_result(None)

    def _next(self) -> asyncio.Future[HttpConnection | None] | None:
        """Return the first caller that still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn
        return None

    def _close_idle(self) -> None:
        self._sweep = None
        now_s = self._loop.time()
        while self._idle and (not self._idle[0][0].open or now_s - self._idle[0][1] >= self._idle_s):
            self._idle.popleft()[0].abort()
        if self._idle:
            self._sweep = self._loop.call_later(self._idle[0][1] + self._idle_s - now_s, self._close_idle)
