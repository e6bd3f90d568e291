"""Two exports of one server, one of which hangs because the process of its file system is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Cause, ExportError, Ownership
from testbed import fuse, ganesha
from testbed.fuse import HangingMount
from testbed.ganesha import Export, Ganesha
from tests.integration.nfs.conftest import TIMEOUT_S
from tests.integration.nfs.test_outages import in_time
from tests.support.connections import connections_to

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(fuse.missing()), reason=f"this machine cannot mount FUSE: {fuse.missing()}"),
]

PLAIN = Ownership(mode=0o755)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[HangingMount]:
    """A directory that can be made to hang."""
    source, place = tmp_path / "source", tmp_path / "hanging"
    source.mkdir()
    place.mkdir()
    with HangingMount(source, place) as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path, mount: HangingMount) -> Iterator[Ganesha]:
    """A server with that directory and another one; skips the test if no server can run."""
    healthy = tmp_path / "healthy"
    healthy.mkdir()
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(healthy) or ganesha.vfs_problem(mount.place)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    with Ganesha([Export(mount.place, "/hanging"), Export(healthy, "/healthy")], versions=(3, 4)) as running:
        yield running
        mount.go_on()


async def test_the_other_export_continues(
    mount: HangingMount, shared: Ganesha, pool: ConnectionPool, version: str
) -> None:
    """While one export hangs, all calls of the other export work; afterwards both work.

    In between, new calls move to another connection, because the connection with unanswered calls is replaced.
    """

    def tree(path: str) -> DirectTree:
        where = location("127.0.0.1", path)
        return DirectTree(where, pool, version=version, port=shared.port, mount_port=shared.mount_port)

    hanging, healthy = tree("/hanging"), tree("/healthy")
    await hanging.make_directory(("before",), PLAIN)
    await healthy.make_directory(("before",), PLAIN)
    mount.hang()
    outcomes: list[Cause] = []

    async def try_on(number: int) -> None:
        for attempt in range(4):
            try:
                await hanging.make_directory((f"volume-{number}-{attempt}",), PLAIN)
            except ExportError as exc:
                outcomes.append(exc.cause)

    calls = [asyncio.create_task(try_on(number)) for number in range(8)]
    made = most = 0
    while made < 200 or most < 2:
        await healthy.make_directory((f"volume-{made}",), PLAIN)
        made, most = made + 1, max(most, connections_to(shared.port))
        await asyncio.sleep(4 * TIMEOUT_S / 200)
    await asyncio.gather(*calls)
    assert set(outcomes) == {Cause.UNREACHABLE}
    assert most <= 4
    mount.go_on()
    await in_time(lambda: hanging.make_directory(("after",), PLAIN))
    assert len(await healthy.list(())) == 1 + made
    await hanging.close()
    await healthy.close()
