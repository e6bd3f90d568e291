"""Looks up the names of servers: one thread per name, and the last known addresses while a look-up hangs or fails.

getaddrinfo goes by /etc/hosts, nsswitch.conf and search domains as everything else in the pod does, and cannot be
interrupted: it returns when the resolver gives up, after 10 to 40 s. So each look-up has a daemon thread of its own.
asyncio's default executor is no place for it: the API server's name is looked up there, and its threads are joined at
the end. A name whose look-up hangs delays nothing but that name.

Anyone who may create a PersistentVolume can have names looked up. So there is a limit to the threads, and it is
higher for names that were found before, lower for those that were not found last time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THREADS = 32
THREADS_FOR_NEW = 24
THREADS_FOR_FAILING = 12
NAMES_LIMIT = 1024
ADDRESSES_LIMIT = 8

FRESH_WITHIN_S = 1.0
"""How long a look-up may take before the last known addresses are used instead."""
GONE_AFTER_S = 300.0
"""How long the last known addresses outlive a name that does not exist any more. DNS caches keep such an answer for
minutes, even where the name came back at once; after that the name was removed on purpose."""

Address = tuple[int, tuple[Any, ...]]
"""Family and socket address, with port 0."""
Found = tuple[Address, ...] | OSError


@dataclass(slots=True, eq=False)
class _Name:
    """What is known of one name."""

    server: str
    addresses: tuple[Address, ...] = ()
    failing: bool = False
    missing_since_s: float | None = None
    lookup: asyncio.Future[Found] | None = None
    """The look-up that waits for a thread, or runs."""

    @property
    def threads(self) -> int:
        """A look-up of this name starts while fewer threads than this run."""
        if self.failing:
            return THREADS_FOR_FAILING
        return THREADS if self.addresses else THREADS_FOR_NEW


class Resolver:
    """Addresses by name. Used by one event loop."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._waiting: list[_Name] = []
        self._running = 0

    async def addresses(self, server: str) -> tuple[Address, ...]:
        """The addresses of a server, in the order in which to try them (RFC 6724). Raises OSError.

        Those of the last successful look-up while a further one hangs or fails; where the answer is that the name does
        not exist, for GONE_AFTER_S after that was first said.
        """
        if _is_literal(server):
            return _usable(_look_up(server, flags=socket.AI_NUMERICHOST))
        name = self._name(server)
        lookup = name.lookup or self._begin(name)
        limit_s = FRESH_WITHIN_S if name.addresses else None
        await asyncio.wait({lookup}, timeout=limit_s)
        if name.addresses:
            return name.addresses
        return _usable(lookup.result())

    def _name(self, server: str) -> _Name:
        """What is known of a name; the one that was asked for last is the last to be forgotten."""
        name = self._names.pop(server, None) or _Name(server)
        self._names[server] = name
        if len(self._names) > NAMES_LIMIT:
            oldest = next((each for each in self._names.values() if each.lookup is None), name)
            del self._names[oldest.server]
        return name

    def _begin(self, name: _Name) -> asyncio.Future[Found]:
        lookup = name.lookup = asyncio.get_running_loop().create_future()
        self._waiting.append(name)
        self._start()
        return lookup

    def _start(self) -> None:
        """Start the look-ups for which there is a thread: those of names that may have most threads go first."""
        self._waiting.sort(key=lambda name: -name.threads)
        while self._waiting and self._running < self._waiting[0].threads:
            self._run(self._waiting.pop(0))

    def _run(self, name: _Name) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(
            target=_work, args=(name.server, loop, lambda found: self._ended(name, found)), name="lookup", daemon=True
        )
        self._running += 1
        try:
            thread.start()
        except RuntimeError as exc:  # the process may have no more threads
            loop.call_soon(self._ended, name, OSError(str(exc)))

    def _ended(self, name: _Name, found: Found) -> None:
        """A look-up has returned; on the event loop."""
        self._running -= 1
        lookup, name.lookup = name.lookup, None
        assert lookup is not None
        name.failing = isinstance(found, OSError)
        if isinstance(found, OSError):
            self._failed(name, found)
        else:
            name.addresses, name.missing_since_s = found, None
        lookup.set_result(found)
        self._start()

    def _failed(self, name: _Name, exc: OSError) -> None:
        """Forget the last known addresses of a name that has been missing for long."""
        if not (isinstance(exc, socket.gaierror) and exc.errno in (socket.EAI_NONAME, socket.EAI_NODATA)):
            return
        now_s = asyncio.get_running_loop().time()
        if name.missing_since_s is None:
            name.missing_since_s = now_s
        elif now_s - name.missing_since_s >= GONE_AFTER_S:
            name.addresses = ()


def _usable(found: Found) -> tuple[Address, ...]:
    if isinstance(found, OSError):
        raise found
    return found


def _is_literal(server: str) -> bool:
    try:
        ipaddress.ip_address(server)
    except ValueError:
        return False
    return True


def _work(server: str, loop: asyncio.AbstractEventLoop, ended: Callable[[Found], None]) -> None:
    """What a thread does."""
    found = _look_up(server)
    with contextlib.suppress(RuntimeError):  # The event loop may be closed by now.
        loop.call_soon_threadsafe(ended, found)


def _look_up(server: str, flags: int = 0) -> Found:
    """The addresses of a name, or why there are none."""
    try:
        found = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM, flags=flags)
    except OSError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - UnicodeError, ValueError, …: whatever it is, the name is of no use
        return socket.gaierror(socket.EAI_NONAME, str(exc))
    addresses = tuple((int(family), address) for family, _, _, _, address in found[:ADDRESSES_LIMIT])
    return addresses or OSError("it has no address")
