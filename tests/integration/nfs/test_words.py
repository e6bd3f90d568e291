"""What goes wrong between us and a server is said in words that tell an admin what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError, Ownership
from testbed.ganesha import Export, Ganesha
from testbed.processes import free_port
from tests.integration.nfs.conftest import TIMEOUT_S, MakeTree

pytestmark = pytest.mark.timeout(60)


async def refusal(tree: DirectTree) -> ExportError:
    """What making a directory is refused with."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(("made",), Ownership())
    return caught.value


async def test_an_export_that_is_not_there(tree: MakeTree, version: str) -> None:
    """An export that the server does not have is told as missing, or as denied where the server will not say which."""
    error = await refusal(tree("/nowhere", version=version))
    assert error.cause in (Cause.MISSING, Cause.DENIED)
    assert "/nowhere" in error.hint


async def test_a_squashed_root(tree: MakeTree, version: str) -> None:
    """A root that the server squashes is denied, and told about no_root_squash."""
    error = await refusal(tree("/squashed", version=version))
    assert error.cause is Cause.DENIED
    assert "no_root_squash" in error.hint


async def test_a_read_only_export(tree: MakeTree, version: str) -> None:
    """An export that is exported read-only is told as that."""
    assert (await refusal(tree("/readonly", version=version))).cause is Cause.READ_ONLY


async def test_somebody_without_permission(tree: MakeTree, version: str) -> None:
    """Another user than root is denied, and told by number."""
    somebody = ConnectionPool(Credentials(uid=4321, gid=4321), timeout_s=TIMEOUT_S)
    error = await refusal(tree("/plain", version=version, registry=somebody))
    assert error.cause is Cause.DENIED
    assert "uid 4321" in error.hint


async def test_a_server_that_is_not_there(pool: ConnectionPool, version: str) -> None:
    """A port on which nothing listens is told as refused, with the port."""
    port = free_port()
    tree = DirectTree(location("127.0.0.1", "/x"), pool, version=version, port=port)
    error = await refusal(tree)
    assert error.cause is Cause.UNREACHABLE
    assert f"refuses connections on port {port}" in error.hint
    await tree.close()


async def test_a_name_that_is_not_there(pool: ConnectionPool, version: str) -> None:
    """A server's name that DNS does not have is told as not found."""
    tree = DirectTree(location("no-such-server.invalid", "/x"), pool, version=version)
    error = await refusal(tree)
    assert error.cause is Cause.UNREACHABLE
    assert "no-such-server.invalid" in error.hint
    await tree.close()


async def test_the_best_version_is_taken(tree: MakeTree) -> None:
    """Without a version in the class a tree works, and so it does with `4`, the best of 4."""
    await tree().make_directory(("best",), Ownership())
    assert not await tree(version="4").is_empty(())


async def test_a_server_of_one_version(server: Ganesha, pool: ConnectionPool, tmp_path: Path) -> None:
    """A server without NFSv3 says so to a class that wants it, and serves one that leaves the choice."""
    directory = tmp_path / "only4"
    directory.mkdir()
    with Ganesha([Export(directory, "/only4")], versions=(4,)) as only4:
        where = location("127.0.0.1", "/only4")
        old = DirectTree(where, pool, version="3", port=only4.port, mount_port=server.mount_port)
        error = await refusal(old)
        assert error.cause is Cause.VERSION
        assert "version 3" in error.hint
        either = DirectTree(where, pool, port=only4.port)
        assert await either.is_empty(())
        await old.close()
        await either.close()


def test_an_unknown_version_is_refused_at_once(pool: ConnectionPool) -> None:
    """A version that does not exist is refused before anything is called, with those that do."""
    with pytest.raises(InvalidSettings, match=r"4\.1"):
        DirectTree(location("127.0.0.1", "/x"), pool, version="5")
