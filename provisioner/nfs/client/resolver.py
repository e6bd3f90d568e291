"""Look-up of server names: one thread per name, with the last known addresses while a look-up hangs or fails.

getaddrinfo follows /etc/hosts, nsswitch.conf and search domains, like every other program in the pod. It cannot be
interrupted, and returns only when the resolver gives up, after 10 to 40 s. So each look-up runs in its own daemon
thread, and a name whose look-up hangs delays only the exports of that name. The default executor of asyncio is not an
option: it looks up the name of the API server as well, and it joins its threads at exit.

Every user who can create PersistentVolumes can make the daemon look up names. So the number of threads is limited, with
a higher limit for names that were found before and a lower one for names whose last look-up failed.
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
"""How long to wait for a look-up before using the last known addresses."""
GONE_AFTER_S = 300.0
"""How long to use the last known addresses of a name that no longer exists.

DNS caches keep a negative answer for minutes, even if the name has already been restored. After that time, the name was
removed on purpose.
"""

Address = tuple[int, tuple[Any, ...]]
"""Family and socket address, with port 0."""
Found = tuple[Address, ...] | OSError


@dataclass(slots=True, eq=False)
class _Name:
    """State of one name."""

    server: str
    addresses: tuple[Address, ...] = ()
    failing: bool = False
    missing_since_s: float | None = None
    lookup: asyncio.Future[Found] | None = None
    """The look-up that runs or waits for a thread."""

    @property
    def threads(self) -> int:
        """A look-up of this name can start while fewer threads than this run."""
        if self.failing:
            return THREADS_FOR_FAILING
        return THREADS if self.addresses else THREADS_FOR_NEW


class Resolver:
    """Addresses by name, with a cache. For use by one event loop."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._waiting: list[_Name] = []
        self._running = 0

    async def addresses(self, server: str) -> tuple[Address, ...]:
        """Return the addresses of a server, in the order in which to try them (RFC 6724).

        Raises OSError.

        While a look-up hangs or fails, these are the addresses of the last successful one. If the name no longer
        exists, they are returned until GONE_AFTER_S after the first such answer.
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
        """Return the state of a name, and forget the least recently used name if there are too many."""
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
        """Start look-ups while there are threads; names with the highest limit go first."""
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
        except RuntimeError as exc:  # the process cannot start more threads
            loop.call_soon(self._ended, name, OSError(str(exc)))

    def _ended(self, name: _Name, found: Found) -> None:
        """Store the result of a look-up; called on the event loop."""
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
        """Forget the last known addresses of a name that has not existed for GONE_AFTER_S."""
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
    """Look up one name; the body of each thread."""
    found = _look_up(server)
    with contextlib.suppress(RuntimeError):  # The event loop can be closed already.
        loop.call_soon_threadsafe(ended, found)


def _look_up(server: str, flags: int = 0) -> Found:
    """Return the addresses of a name, or the error."""
    try:
        found = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM, flags=flags)
    except OSError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - UnicodeError, ValueError, …: the name is unusable in any case
        return socket.gaierror(socket.EAI_NONAME, str(exc))
    addresses = tuple((int(family), address) for family, _, _, _, address in found[:ADDRESSES_LIMIT])
    return addresses or OSError("the name has no address")
