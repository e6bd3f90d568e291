"""nfs.client.connection and session against a server that answers some calls and never answers others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from provisioner.nfs.client.connect import Endpoint
from provisioner.nfs.client.connection import DRAINING_LIMIT, Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.errors import Lost
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.client.session import Sessions
from provisioner.nfs.client.slots import Sharing
from provisioner.nfs.protocol import nfs4
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import ExportError
from tests.support.nfs.scripted import PROGRAM, VERSION, Script, listening, named

pytestmark = pytest.mark.timeout(120)

LIMIT_S = 0.25
"""The time limit of a call, of which the limits of a connection are multiples. It is the callers' own to keep."""
LONG_S = 60.0
"""What a busy machine may take for anything that has to happen."""

Call = Callable[[str], Coroutine[Any, Any, object]]


@pytest.fixture
def script() -> Script:
    """The script that the server follows."""
    return Script()


@pytest.fixture(params=["calls", "sessions"])
async def call(request: pytest.FixtureRequest, script: Script) -> AsyncIterator[Call]:
    """Makes a call for an export: bare, as in NFS 3 and 4.0, and in a session, as in 4.1 and 4.2."""
    async with listening(script) as port:
        connection = connection_to(port)
        sessions = Sessions(connection, minor=1)

        async def bare(export: str) -> object:
            return await connection.call(attempt(export), named(export, changes=True))

        async def in_session(export: str) -> object:
            return await sessions.run(attempt(export), [nfs4.putfh(export.encode())])

        yield in_session if request.param == "sessions" else bare
        connection.close()


def connection_to(port: int) -> Connection:
    """Return a connection with short limits."""
    endpoint = Endpoint("127.0.0.1", port, PROGRAM, VERSION)
    return Connection(endpoint, Credentials(), Resolver(), timeout_s=LIMIT_S, sharing=Sharing(exports=2))


def attempt(export: str) -> Deadline:
    """Return a deadline that never expires."""
    return Deadline(asyncio.get_running_loop().time() + LONG_S, export)


async def given_up(call: Call, export: str) -> None:
    """Make a call whose caller gives up after a while."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            await call(export)


async def until(condition: Callable[[], bool], call: Call, export: str = "healthy") -> None:
    """Make calls for a healthy export, which all must succeed, until a condition holds."""
    async with asyncio.timeout(LONG_S):
        while not condition():
            await call(export)
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait without any call until a condition holds."""
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - the server knows nothing of events
            await asyncio.sleep(0.01)


async def test_a_dead_export_leaves_slots_to_its_neighbours(call: Call, script: Script) -> None:
    """300 calls for an export that hangs do not delay a call for another export."""
    script.deaf_to = {"dead"}
    calls = [asyncio.create_task(call("dead")) for _ in range(300)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(LONG_S):
        for _ in range(50):
            await call("healthy")
    assert script.connections == 1
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_new_calls_leave_a_stuck_connection(call: Call, script: Script) -> None:
    """If one call stays unanswered while others are answered, new calls use a new connection; the old one closes.

    Nothing is sent twice, and no slot is used again before it is answered (RFC 8881 sections 2.9.2 and 2.10.6.2).
    """
    await call("healthy")
    script.deaf_to = {"dead"}
    await given_up(call, "dead")
    await until(lambda: script.connections == 2, call)
    await until(lambda: script.open == 1, call)
    assert script.count("dead") == 1
    before = len(script.seen)
    await call("healthy")
    assert [number for number, _ in script.seen[before:]] == [2]
    assert not script.misused


async def test_a_lost_reply_is_settled_in_the_end(script: Script) -> None:
    """A change without a reply counts as settled once its connection is closed, even if other calls are answered."""
    async with listening(script) as port:
        connection = Connection(
            Endpoint("127.0.0.1", port, PROGRAM, VERSION), Credentials(), Resolver(), timeout_s=LIMIT_S
        )
        script.deaf_to = {"lost"}
        change = attempt("export")
        task = asyncio.create_task(connection.call(change, named("lost", changes=True)))
        await eventually(lambda: bool(script.seen))
        task.cancel()
        await asyncio.wait({task})
        assert change.unsettled

        async def call(export: str) -> object:
            return await connection.call(attempt(export), named(export))

        await until(lambda: not change.unsettled, call, "export")
        assert script.connections == 2
        connection.close()


async def test_the_old_connection_serves_until_the_new_one_has_answered(call: Call, script: Script) -> None:
    """If the server accepts new connections but never answers on them, the old connection stays in use."""
    await call("healthy")
    script.deaf_to, script.mute = {"dead"}, True
    await given_up(call, "dead")
    await until(lambda: script.connections == 2, call)
    await until(lambda: script.open == 1, call)  # the new one proved to be of no use
    assert {number for number, name in script.seen if name == "healthy"} == {1}


async def test_late_replies_still_arrive(call: Call, script: Script) -> None:
    """Calls that still wait on the old connection get their replies from it."""
    await call("healthy")
    script.deaf_to = {"dead"}
    await given_up(call, "dead")
    script.hold = True
    waiting = [asyncio.create_task(call("slow")) for _ in range(5)]
    await eventually(lambda: script.count("slow") == len(waiting))
    script.hold = False
    await until(lambda: script.connections == 2, call)
    await asyncio.sleep(5 * LIMIT_S)
    assert script.open == 2
    script.release()
    await asyncio.gather(*waiting)
    await until(lambda: script.open == 1, call)
    assert not script.misused


async def test_a_server_gets_few_connections(call: Call, script: Script) -> None:
    """An export that never answers causes new connections one after another, but only a few at a time."""
    await call("healthy")
    script.deaf_to = {"dead"}
    dead = asyncio.create_task(_again_and_again(call, "dead"))
    await until(lambda: script.connections == 5, call)
    dead.cancel()
    assert script.most_open <= DRAINING_LIMIT + 2
    assert not script.misused


async def _again_and_again(call: Call, export: str) -> None:
    while True:
        await asyncio.gather(asyncio.wait_for(call(export), LIMIT_S), return_exceptions=True)


async def test_an_export_recovers_after_an_outage(call: Call, script: Script) -> None:
    """After an outage of one export, hundreds of concurrent calls for it succeed."""
    await call("healthy")
    script.deaf_to = {"dead"}
    await asyncio.gather(*(given_up(call, "dead") for _ in range(100)))
    script.deaf_to = set()
    async with asyncio.timeout(LONG_S):
        await until(lambda: script.connections >= 2, call)
        await asyncio.gather(*(call("dead") for _ in range(300)))
    assert script.answered["dead"] == 300


async def test_replies_in_any_order(call: Call, script: Script) -> None:
    """Replies are matched to calls in any order."""
    await call("first")
    script.hold = True
    names = [f"export-{number}" for number in range(20)]
    calls = [asyncio.create_task(call(name)) for name in names]
    await eventually(lambda: len(script.seen) == len(names) + 1)
    script.release()
    await asyncio.gather(*calls)
    assert not script.misused


async def test_closing_ends_all_connections(script: Script) -> None:
    """Closing ends the calls on all connections, draining ones included."""
    async with listening(script) as port:
        connection = Connection(
            Endpoint("127.0.0.1", port, PROGRAM, VERSION), Credentials(), Resolver(), timeout_s=LIMIT_S
        )

        async def call(export: str) -> object:
            return await connection.call(attempt(export), named(export))

        script.deaf_to = {"dead", "waiting"}
        await call("healthy")
        await given_up(call, "dead")
        waiting = asyncio.create_task(call("waiting"))
        await until(lambda: script.connections == 2, call)
        connection.close()
        with pytest.raises(Lost):
            await waiting
        await eventually(lambda: not script.open)


# ------------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("call", ["sessions"], indirect=True)
async def test_a_draining_session_lives_until_it_is_destroyed(call: Call, script: Script) -> None:
    """While the old connection drains, the new session uses another owner, so that the server keeps the old session.

    Before the old connection is closed its session is destroyed, so that no request that the server has not begun is
    run later.
    """
    await call("healthy")
    script.deaf_to = {"dead"}
    await given_up(call, "dead")
    await until(lambda: script.open == 1 and script.connections == 2, call)
    assert len(set(script.owners)) == 2
    assert script.destroyed == [(1).to_bytes(16, "big")]


@pytest.mark.parametrize("call", ["sessions"], indirect=True)
async def test_a_session_of_one_slot(call: Call, script: Script) -> None:
    """If the server grants one slot and an export that hangs holds it, other exports get a new session."""
    script.slots = 1
    await call("healthy")
    script.deaf_to = {"dead"}
    await given_up(call, "dead")
    async with asyncio.timeout(LONG_S):
        await call("healthy")
    assert script.connections == 2
    assert not script.misused


@pytest.mark.parametrize("call", ["sessions"], indirect=True)
async def test_a_server_that_cannot_drop_the_previous_session(call: Call, script: Script) -> None:
    """If CREATE_SESSION gets NFS4ERR_DELAY because a call of the previous session still runs, a new owner is used."""
    await call("healthy")
    script.delayed_owners = set(script.owners)
    script.deaf_to = {"dead"}
    hung = asyncio.create_task(call("dead"))
    await eventually(lambda: script.count("dead") == 1)
    script.cut()
    with pytest.raises(ExportError):
        await hung
    await call("healthy")
    assert len(set(script.owners)) == 2
