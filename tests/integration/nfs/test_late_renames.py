"""A RENAME that reaches the server after the next leader has done the same and a new claim has the directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.ledger.export import Export
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol import xdr
from provisioner.ports.tree import Cause, ExportError, Ownership
from testbed.ganesha import Ganesha
from tests.integration.nfs.conftest import MakeTree
from tests.support.ledger_faults import record
from tests.support.nfs.relay import Relay, relay_to

pytestmark = pytest.mark.timeout(90)

V1, V2 = "pvc-1", "pvc-2"
NFS3_RENAME, NFS4_RENAME = 14, 29
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def relay(server: Ganesha) -> AsyncIterator[Relay]:
    async with relay_to(server.port) as relay:
        yield relay


@pytest.fixture
async def first(server: Ganesha, relay: Relay, pool: ConnectionPool, version: str) -> AsyncIterator[Export]:
    """The export of a leader whose calls go through the relay, with one volume in use."""
    where = location("127.0.0.1", "/plain")
    tree = DirectTree(where, pool, version=version, port=relay.port, mount_port=server.mount_port)
    yield await used(Export(where, tree), V1)
    await tree.close()


@pytest.fixture
async def second(first: Export, tree: MakeTree, version: str) -> Export:
    """The export of the next leader, also open."""
    export = Export(location("127.0.0.1", "/plain"), tree(version=version))
    await export.open()
    return export


async def used(export: Export, volume: str) -> Export:
    """Provision a volume on the directory `team/data`."""
    await export.open()
    await export.provision(volume, record("team/data", volume), Ownership())
    await export.settle(volume)
    return export


def is_rename(call: bytes) -> bool:
    """Return True if a call renames the volume's directory (RFC 5531 section 9: mark, xid, type, 2, program, ...)."""
    version, procedure = (int.from_bytes(call[start : start + 4]) for start in (20, 24))
    if version == 3:
        return procedure == NFS3_RENAME
    return xdr.uint(NFS4_RENAME) + xdr.string("data") in call


def held(relay: Relay) -> tuple[asyncio.Event, asyncio.Event]:
    """Make the relay hold a RENAME; returns events for "it holds one" and "pass it on"."""
    holds, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(call: bytes) -> None:
        if is_rename(call):
            holds.set()
            await goes_on.wait()

    relay.hold = hold
    return holds, goes_on


Reclaim = Callable[[Export], Awaitable[object]]
RECLAIMS: dict[str, Reclaim] = {
    "delete": lambda export: export.move_to_trash(V1),
    "archive": lambda export: export.archive(V1, AT),
}


@pytest.mark.parametrize("rule", RECLAIMS)
async def test_a_late_rename_moves_nothing(
    first: Export, second: Export, relay: Relay, tmp_path: Path, version: str, rule: str
) -> None:
    """A late RENAME moves nothing: NFSv4 verifies the record in the same compound; else the target name is taken."""
    holds, goes_on = held(relay)
    (tmp_path / "plain/team/data/first").write_text("first")
    late = asyncio.ensure_future(RECLAIMS[rule](first))
    await holds.wait()
    await RECLAIMS[rule](second)
    await second.forget(V1)
    for name in await second.trash.names():
        assert second.trash.may_come_late(name) is (version == "3")
        await second.trash.purge(name, taken=second.trash.may_come_late(name))
    await used(second, V2)
    (tmp_path / "plain/team/data/precious").write_text("precious")
    goes_on.set()
    with pytest.raises(ExportError) as caught:
        await late
    if version != "3":
        assert caught.value.cause is Cause.RECORD
    assert (tmp_path / "plain/team/data/precious").read_text() == "precious"
    archives = await second.archives()
    assert len(archives) == (rule == "archive")
    assert set(archives) <= second.archived.keys()


async def test_a_deletion_takes_two_calls(first: Export, relay: Relay, version: str) -> None:
    """In NFSv4, a deletion checks the record and both paths, and renames; verifying costs no extra call."""
    calls: list[bytes] = []

    async def count(call: bytes) -> None:
        calls.append(call)

    relay.hold = count
    assert await first.move_to_trash(V1)
    if version != "3":
        assert len(calls) == 2
