"""direct.resolver and direct.dial: names that hang, fail and come back, and servers of several addresses.

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
    """What the system says of names: addresses, an exception, or nothing until `go_on`."""

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

    def on_progress(self) -> None:
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
    names.on_progress()


async def found(resolver: Resolver, name: str) -> list[str]:
    """The addresses of a name."""
    return [address[0] for _, address in await resolver.addresses(name)]


async def test_a_name_that_hangs_delays_only_itself(names: Names) -> None:
    """While the look-up of one name hangs, however many ask for it, others are found, and one thread hangs."""
    names.hanging = {"dead"}
    names.known = {f"nas-{number}": ["10.0.0.1"] for number in range(100)}
    resolver = Resolver()
    hung = [asyncio.create_task(found(resolver, "dead")) for _ in range(50)]
    await asyncio.sleep(0)
    for name in names.known:
        assert await found(resolver, name) == ["10.0.0.1"]
    assert names.looked_up.count("dead") == 1
    names.known["dead"] = ["10.0.0.2"]
    names.on_progress()
    assert await asyncio.gather(*hung) == [["10.0.0.2"]] * 50


async def test_names_that_hang_leave_threads_to_the_others(names: Names) -> None:
    """However many names hang, the threads are limited, and a name that was found before is looked up again."""
    resolver = Resolver()
    names.known = {"nas": ["10.0.0.1"]}
    assert await found(resolver, "nas") == ["10.0.0.1"]
    names.hanging = {f"forged-{number}" for number in range(200)}
    hung = [asyncio.create_task(found(resolver, name)) for name in sorted(names.hanging)]
    await asyncio.sleep(0.1)
    names.known = {"nas": ["10.0.0.2"]}
    assert await found(resolver, "nas") == ["10.0.0.2"]
    assert names.most_threads <= resolvers.THREADS
    names.on_progress()
    await asyncio.gather(*hung, return_exceptions=True)
    assert names.most_a_name == 1


async def test_names_that_failed_leave_threads_to_new_ones(names: Names) -> None:
    """Names that were not found last time, and hang now, do not keep a new name from being looked up."""
    resolver = Resolver()
    failing = {f"forged-{number}" for number in range(200)}
    await asyncio.gather(*(found(resolver, name) for name in failing), return_exceptions=True)
    names.hanging = failing
    hung = [asyncio.create_task(found(resolver, name)) for name in sorted(failing)]
    await asyncio.sleep(0.1)
    names.known = {"new": ["10.0.0.1"]}
    assert await found(resolver, "new") == ["10.0.0.1"]
    names.on_progress()
    await asyncio.gather(*hung, return_exceptions=True)


async def test_the_last_known_addresses_while_a_lookup_hangs(names: Names) -> None:
    """Where a name was found before, its addresses are used while a further look-up hangs, and the new ones after."""
    resolver = Resolver()
    names.known = {"nas": ["10.0.0.1"]}
    await found(resolver, "nas")
    names.hanging = {"nas"}
    assert await found(resolver, "nas") == ["10.0.0.1"]
    assert await found(resolver, "nas") == ["10.0.0.1"]
    assert names.looked_up.count("nas") == 2
    names.known = {"nas": ["10.0.0.2"]}
    names.on_progress()
    async with asyncio.timeout(30):
        while await found(resolver, "nas") != ["10.0.0.2"]:  # noqa: ASYNC110 - nothing tells when the thread is done
            await asyncio.sleep(0.01)


async def test_the_last_known_addresses_while_name_servers_are_down(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary failure never takes an address away; that a name does not exist does so after a while."""
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
    """Whatever the system's resolver raises for a name is an ExportError with words when a server is dialled."""
    with pytest.raises(ExportError) as caught:
        await dial(Endpoint(name, 1, PROGRAM, VERSION), Resolver(), timeout_s=10.0)
    assert caught.value.cause is Cause.UNREACHABLE
    assert caught.value.detail


async def test_a_port_out_of_range() -> None:
    """A port that there cannot be is an ExportError too."""
    with pytest.raises(ExportError):
        await dial(Endpoint("127.0.0.1", 70_000, PROGRAM, VERSION), Resolver(), timeout_s=10.0)


async def test_a_name_that_hangs_is_told(names: Names) -> None:
    """A server whose name is not looked up in time is not said to be silent: the hint names the look-up."""
    names.hanging = {"nas"}
    with pytest.raises(ExportError) as caught:
        await dial(Endpoint("nas", 2049, PROGRAM, VERSION), Resolver(), timeout_s=0.5)
    assert "look-up of the name nas" in caught.value.hint


async def test_addresses_are_literals_without_a_lookup(names: Names) -> None:
    """An address needs no name server, and no thread."""
    names.known = {"127.0.0.1": ["127.0.0.1"], "::1": ["::1"]}
    resolver = Resolver()
    assert await found(resolver, "127.0.0.1") == ["127.0.0.1"]
    assert await found(resolver, "::1") == ["::1"]
    assert names.in_threads == {threading.main_thread()}


async def test_an_address_that_refuses_is_followed_by_the_next(names: Names) -> None:
    """Of several addresses the first that takes the connection is used."""
    script = Script()
    async with listening(script) as port:
        names.known = {"nas": ["127.0.0.3", "127.0.0.2", "127.0.0.1"]}
        transport = await dial(Endpoint("nas", port, PROGRAM, VERSION), Resolver(), timeout_s=30.0)
        transport.close()


async def test_an_address_that_is_dead_is_followed_by_the_next(names: Names) -> None:
    """An address from which nothing comes back is left after its share of the time."""
    script = Script()
    async with listening(script) as port:
        with silent("127.0.0.2", port):
            names.known = {"nas": ["127.0.0.2", "127.0.0.1"]}
            transport = await dial(Endpoint("nas", port, PROGRAM, VERSION), Resolver(), timeout_s=30.0)
            transport.close()


@contextlib.contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """An address at which connections hang: its queue of those that nobody accepts is full (listen(2))."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((address, port))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield
