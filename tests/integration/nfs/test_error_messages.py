"""Errors between client and server tell an admin what to do."""

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
    """Return the error of creating a directory."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(("made",), Ownership())
    return caught.value


async def test_a_missing_export(tree: MakeTree, version: str) -> None:
    """A missing export is reported as missing, or as denied if the server does not tell."""
    error = await refusal(tree("/nowhere", version=version))
    assert error.cause in (Cause.MISSING, Cause.DENIED)
    assert "/nowhere" in error.hint


async def test_a_squashed_root(tree: MakeTree, version: str) -> None:
    """A squashed root is denied, and the hint mentions no_root_squash."""
    error = await refusal(tree("/squashed", version=version))
    assert error.cause is Cause.DENIED
    assert "no_root_squash" in error.hint


async def test_a_read_only_export(tree: MakeTree, version: str) -> None:
    """A read-only export is reported as read-only."""
    assert (await refusal(tree("/readonly", version=version))).cause is Cause.READ_ONLY


async def test_a_user_without_permission(tree: MakeTree, version: str) -> None:
    """A user other than root is denied, and the hint has its UID."""
    other_user = ConnectionPool(Credentials(uid=4321, gid=4321), timeout_s=TIMEOUT_S)
    error = await refusal(tree("/plain", version=version, registry=other_user))
    assert error.cause is Cause.DENIED
    assert "uid 4321" in error.hint


async def test_a_missing_server(pool: ConnectionPool, version: str) -> None:
    """A port without a listener is reported as refused, with the port."""
    port = free_port()
    tree = DirectTree(location("127.0.0.1", "/x"), pool, version=version, port=port)
    error = await refusal(tree)
    assert error.cause is Cause.UNREACHABLE
    assert f"refuses connections on port {port}" in error.hint
    await tree.close()


async def test_an_unknown_server_name(pool: ConnectionPool, version: str) -> None:
    """A server name that DNS does not know is reported as not found."""
    tree = DirectTree(location("no-such-server.invalid", "/x"), pool, version=version)
    error = await refusal(tree)
    assert error.cause is Cause.UNREACHABLE
    assert "no-such-server.invalid" in error.hint
    await tree.close()


async def test_the_best_version_is_selected(tree: MakeTree) -> None:
    """A tree works without a version in the class, and with `4`, which selects the best minor version."""
    await tree().make_directory(("best",), Ownership())
    assert not await tree(version="4").is_empty(())


async def test_a_server_of_one_version(server: Ganesha, pool: ConnectionPool, tmp_path: Path) -> None:
    """A server without NFSv3 refuses a class that asks for it, and serves a class without a version."""
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


def test_an_unknown_version_is_refused(pool: ConnectionPool) -> None:
    """An unknown version is refused before any call, with a list of the known versions."""
    with pytest.raises(InvalidSettings, match=r"4\.1"):
        DirectTree(location("127.0.0.1", "/x"), pool, version="5")
