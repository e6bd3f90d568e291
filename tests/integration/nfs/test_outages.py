"""Servers that stop, crash, restart and answer late."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists, PathMissing
from testbed.ganesha import Export, Ganesha
from testbed.waiting import eventually
from tests.integration.nfs.conftest import TIMEOUT_S, MakeTree

pytestmark = pytest.mark.timeout(90)

RECOVERY_S = 15.0


async def in_time(call: Callable[[], Awaitable[object]], *, late: bool = False) -> None:
    """Repeat a call until it succeeds, within the recovery time; `late` if it depends on a late call."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            await call()
        except ExportError as exc:
            waits = exc.cause in (Cause.UNREACHABLE, Cause.BUSY, Cause.NOT_YET) or (
                # The server may answer a newer call before the one that it has had all the time.
                late and isinstance(exc, PathMissing)
            )
            if not waits or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return


def pause(server: Ganesha) -> None:
    """Freeze the server, and wait until all of its threads have stopped."""
    server.pause()
    threads = Path(f"/proc/{server.pid}/task")
    eventually(lambda: all(_stands_still(thread) for thread in threads.iterdir()), "the server stands still")


def _stands_still(thread: Path) -> bool:
    """Return True if a thread is stopped: in proc_pid_stat(5), the state follows the name in brackets."""
    return thread.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_stopped_server(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A change without a reply is UNREACHABLE, and its path is BUSY until it has returned and taken effect."""
    one = tree(version=version)
    await one.make_directory(("before",), Ownership())
    pause(server)
    with pytest.raises(ExportError) as caught:
        await one.make_directory(("late",), Ownership())
    assert caught.value.cause is Cause.UNREACHABLE
    with pytest.raises(ExportError) as caught:
        await one.remove_directory(("late",))
    assert caught.value.cause is Cause.BUSY
    server.resume()
    await in_time(lambda: one.is_empty(("late",)), late=True)
    await in_time(lambda: one.remove_directory(("late",)))


async def test_closing_under_a_stopped_server(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A tree on a server that hangs closes immediately, and running calls end with UNREACHABLE."""
    one = tree(version=version)
    await one.root_id()
    pause(server)
    call = asyncio.create_task(one.make_directory(("late",), Ownership()))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(1):
        await one.close()
        with pytest.raises(ExportError) as caught:
            await call
    assert caught.value.cause is Cause.UNREACHABLE
    server.resume()


async def test_a_cancelled_change_keeps_its_path_busy(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A cancelled change keeps its path BUSY until the server has answered."""
    one = tree(version=version)
    await one.root_id()
    pause(server)
    call = asyncio.create_task(one.make_symlink(("late",), "target"))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(ExportError) as caught:
        await one.remove_symlink(("late",))
    assert caught.value.cause is Cause.BUSY
    server.resume()
    await in_time(lambda: one.remove_symlink(("late",)), late=True)


async def test_a_server_that_comes_back(server: Ganesha, tree: MakeTree, version: str) -> None:
    """After a crash and a restart, everything works again in time, including file handles and sessions."""
    one = tree(version=version)
    await one.make_directory(("kept",), Ownership())
    server.kill()
    with pytest.raises(ExportError) as caught:
        await one.make_directory(("lost",), Ownership())
    assert caught.value.cause is Cause.UNREACHABLE
    server.start()
    await in_time(lambda: one.list(()))
    assert [entry.name for entry in await one.list(())] == ["kept"]


async def test_a_restart_between_two_calls_has_no_effect(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A call that changes nothing is repeated automatically if its connection broke."""
    one = tree(version=version)
    await one.make_directory(("kept",), Ownership())
    server.restart()
    assert [entry.name for entry in await one.list(())] == ["kept"]


async def test_a_restart_in_the_middle_of_creations(server: Ganesha, tree: MakeTree, version: str) -> None:
    """Of 300 directories created during a crash, all exist in the end, after repeating calls with unknown outcome."""
    one = tree(version=version)

    async def make(number: int) -> None:
        with contextlib.suppress(PathExists):
            await one.make_directory((f"volume-{number}",), Ownership())

    async def remove(number: int) -> None:
        with contextlib.suppress(PathMissing):
            await one.remove_directory((f"volume-{number}",))

    for work, names in ((make, {f"volume-{number}" for number in range(300)}), (remove, set[str]())):
        calls = [asyncio.create_task(in_time(functools.partial(work, number))) for number in range(300)]
        await asyncio.sleep(0.05)
        server.kill()
        server.start()
        await asyncio.gather(*calls)
        assert {entry.name for entry in await one.list(())} == names


async def test_another_server_is_not_affected(server: Ganesha, tree: MakeTree, version: str, tmp_path: Path) -> None:
    """While one server is stopped and another one is gone, all calls to a third server succeed."""
    directory = tmp_path / "healthy"
    directory.mkdir()
    stopped = tree(version=version)
    await stopped.root_id()
    pause(server)
    with Ganesha([Export(directory, "/healthy")], versions=(3, 4)) as other:
        healthy = DirectTree(
            location("127.0.0.1", "/healthy"),
            ConnectionPool(Credentials(), timeout_s=TIMEOUT_S),
            version=version,
            port=other.port,
            mount_port=other.mount_port,
        )
        hung = [asyncio.create_task(stopped.make_directory((str(number),), Ownership())) for number in range(64)]
        await asyncio.gather(*(healthy.make_directory((str(number),), Ownership()) for number in range(64)))
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert {outcome.cause for outcome in outcomes if isinstance(outcome, ExportError)} == {Cause.UNREACHABLE}
        await healthy.close()
    server.resume()
