"""nfs.client.resolver and connect: names that hang, fail and come back, and servers with several addresses.

getaddrinfo is the system's; here it answers as a script says, in the resolver's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from provisioner.nfs.client import resolver as resolvers
from provisioner.nfs.client.connect import Endpoint, dial
from provisioner.nfs.client.resolver import Resolver
from provisioner.ports.tree import Cause, ExportError
from tests.support.nfs.scripted import PROGRAM, VERSION, Script, listening

pytestmark = pytest.mark.timeout(60)

GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
DOWN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Names:
    """The system's answers for names: addresses, an exception, or no answer until `answer`."""

    def __init__(self) -> None:
        self.known: dict[str, list[str] | Exception] = {}
        self.hanging: set[str] = set()
        self.most_threads = 0
        self.most_a_name = 0
        self.looked_up: list[str] = []
        self.in_threads: set[threading.Thread] = set()
        self._names: list[str] = []
        self._lock = threading.Lock()
        self._answer = threading.Event()

    def answer(self) -> None:
        """Answer the look-ups that hang."""
        self.hanging.clear()
        self._answer.set()

    def getaddrinfo(self, host: str, port: object, **_: object) -> list[tuple[Any, ...]]:
        """See socket.getaddrinfo."""
        with self._lock:
            self.looked_up.append(host)
            self._names.append(host)
            self.in_threads.add(threading.current_thread())
            self.most_threads = max(self.most_threads, len(self._names))
            self.most_a_name = max(self.most_a_name, self._names.count(host))
        if host in self.hanging:
            self._answer.wait()
        with self._lock:
            self._names.remove(host)
        found = self.known.get(host, GONE)
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """The names that the system knows."""
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answer()


async def found(resolver: Resolver, name: str) -> list[str]:
    """Return the addresses of a name."""
    return [address[0] for _, address in await resolver.addresses(name)]


async def test_a_name_that_hangs_delays_only_itself(names: Names) -> None:
    """While the look-up of one name hangs, other names are found, and only one thread hangs."""
    names.hanging = {"dead"}
    names.known = {f"nas-{number}": ["10.0.0.1"] for number in range(100)}
    resolver = Resolver()
    hung = [asyncio.create_task(found(resolver, "dead")) for _ in range(50)]
    await asyncio.sleep(0)
    for name in names.known:
        assert await found(resolver, name) == ["10.0.0.1"]
    assert names.looked_up.count("dead") == 1
    names.known["dead"] = ["10.0.0.2"]
    names.answer()
    assert await asyncio.gather(*hung) == [["10.0.0.2"]] * 50


async def test_hanging_names_leave_threads_for_others(names: Names) -> None:
    """If many names hang, the threads are limited, and a name that was found before is still looked up."""
    resolver = Resolver()
    names.known = {"nas": ["10.0.0.1"]}
    assert await found(resolver, "nas") == ["10.0.0.1"]
    names.hanging = {f"forged-{number}" for number in range(200)}
    hung = [asyncio.create_task(found(resolver, name)) for name in sorted(names.hanging)]
    await asyncio.sleep(0.1)
    names.known = {"nas": ["10.0.0.2"]}
    assert await found(resolver, "nas") == ["10.0.0.2"]
    assert names.most_threads <= resolvers.THREADS
    names.answer()
    await asyncio.gather(*hung, return_exceptions=True)
    assert names.most_a_name == 1


async def test_failed_names_leave_threads_for_new_ones(names: Names) -> None:
    """Names whose last look-up failed and that hang now do not block the look-up of a new name."""
    resolver = Resolver()
    failing = {f"forged-{number}" for number in range(200)}
    await asyncio.gather(*(found(resolver, name) for name in failing), return_exceptions=True)
    names.hanging = failing
    hung = [asyncio.create_task(found(resolver, name)) for name in sorted(failing)]
    await asyncio.sleep(0.1)
    names.known = {"new": ["10.0.0.1"]}
    assert await found(resolver, "new") == ["10.0.0.1"]
    names.answer()
    await asyncio.gather(*hung, return_exceptions=True)


async def test_the_last_known_addresses_while_a_lookup_hangs(names: Names) -> None:
    """While a look-up hangs, the last known addresses are used, and then the new ones."""
    resolver = Resolver()
    names.known = {"nas": ["10.0.0.1"]}
    await found(resolver, "nas")
    names.hanging = {"nas"}
    assert await found(resolver, "nas") == ["10.0.0.1"]
    assert await found(resolver, "nas") == ["10.0.0.1"]
    assert names.looked_up.count("nas") == 2
    names.known = {"nas": ["10.0.0.2"]}
    names.answer()
    async with asyncio.timeout(30):
        while await found(resolver, "nas") != ["10.0.0.2"]:  # noqa: ASYNC110 - nothing tells when the thread is done
            await asyncio.sleep(0.01)


async def test_the_last_known_addresses_while_name_servers_are_down(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary failure keeps the last known addresses; a name that does not exist loses them after a while."""
    resolver = Resolver()
    names.known = {"nas": ["10.0.0.1"]}
    await found(resolver, "nas")
    names.known = {"nas": DOWN}
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock() + 86_400)
    assert await found(resolver, "nas") == ["10.0.0.1"]
    names.known = {}
    assert await found(resolver, "nas") == ["10.0.0.1"]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock() + 86_400 + resolvers.GONE_AFTER_S)
    with pytest.raises(OSError, match="not known"):
        await found(resolver, "nas")


@pytest.mark.parametrize(
    "name", ["nas..example.com", "x" * 64 + ".example.com", ".", "a\0b", "\ud800", "b\u00fccher..example", ""]
)
async def test_names_that_cannot_be_looked_up(name: str) -> None:
    """Every exception of the system's resolver becomes an ExportError with a hint."""
    with pytest.raises(ExportError) as caught:
        await dial(Endpoint(name, 1, PROGRAM, VERSION), Resolver(), timeout_s=10.0)
    assert caught.value.cause is Cause.UNREACHABLE
    assert caught.value.detail


async def test_a_port_out_of_range() -> None:
    """An invalid port is an ExportError."""
    with pytest.raises(ExportError):
        await dial(Endpoint("127.0.0.1", 70_000, PROGRAM, VERSION), Resolver(), timeout_s=10.0)


async def test_a_lookup_that_times_out_is_named(names: Names) -> None:
    """If the look-up of a name times out, the hint names the look-up and not the server."""
    names.hanging = {"nas"}
    with pytest.raises(ExportError) as caught:
        await dial(Endpoint("nas", 2049, PROGRAM, VERSION), Resolver(), timeout_s=0.5)
    assert "look-up of the name nas" in caught.value.hint


async def test_addresses_are_literals_without_a_lookup(names: Names) -> None:
    """An IP address needs no look-up and no thread."""
    names.known = {"127.0.0.1": ["127.0.0.1"], "::1": ["::1"]}
    resolver = Resolver()
    assert await found(resolver, "127.0.0.1") == ["127.0.0.1"]
    assert await found(resolver, "::1") == ["::1"]
    assert names.in_threads == {threading.main_thread()}


async def test_an_address_that_refuses_is_followed_by_the_next(names: Names) -> None:
    """Of several addresses, the first one that accepts the connection is used."""
    script = Script()
    async with listening(script) as port:
        names.known = {"nas": ["127.0.0.3", "127.0.0.2", "127.0.0.1"]}
        transport = await dial(Endpoint("nas", port, PROGRAM, VERSION), Resolver(), timeout_s=30.0)
        transport.close()


async def test_an_address_that_is_dead_is_followed_by_the_next(names: Names) -> None:
    """An address that does not answer is skipped after its share of the time."""
    script = Script()
    async with listening(script) as port:
        with silent("127.0.0.2", port):
            names.known = {"nas": ["127.0.0.2", "127.0.0.1"]}
            transport = await dial(Endpoint("nas", port, PROGRAM, VERSION), Resolver(), timeout_s=30.0)
            transport.close()


@contextlib.contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """An address at which connections hang, because its backlog is full (listen(2))."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((address, port))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield
