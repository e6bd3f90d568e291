"""Unusual exports: without chmod, behind a symlink, at a pseudo root, with other file systems inside."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.core.locations import location
from provisioner.ledger.export import Export
from provisioner.ledger.selftest import trial_run
from provisioner.mounted.tree import MountedTree
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Cause, ExportError, ModeRefused, Ownership, Tree
from testbed import fuse
from testbed.ganesha import Export as GaneshaExport
from testbed.ganesha import Ganesha
from tests.integration.nfs.conftest import MakeTree

pytestmark = pytest.mark.timeout(120)


async def refusal(tree: DirectTree, *path: str) -> ExportError:
    """Return the error of creating a directory."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(path or ("made",), Ownership())
    return caught.value


# ------------------------------------------------------------------------------------------- modes and owners


@pytest.fixture
def no_chmod(tmp_path: Path) -> Iterator[Path]:
    """A file system that refuses chmod and chown, as some with NFSv4 ACLs do."""
    if reason := fuse.missing() or ("" if os.geteuid() == 0 else "the tests do not run as root"):
        pytest.skip(f"this machine cannot mount one: {reason}")
    with fuse.without_chmod(tmp_path) as place:
        yield place


@pytest.fixture
def old_umask() -> Iterator[None]:
    """A umask that removes bits from the modes of new directories."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(params=["mounted", "3", "4.0", "4.1", "4.2"])
async def without_chmod(request: pytest.FixtureRequest, no_chmod: Path, pool: ConnectionPool, old_umask: None) -> Tree:
    """A tree that refuses chmod, mounted and in each NFS version."""
    if request.param == "mounted":
        return MountedTree(str(no_chmod), require_mount=True, timeout_s=30.0)
    server: Ganesha = request.getfixturevalue("server_without_chmod")
    return DirectTree(
        location("127.0.0.1", "/x"), pool, version=request.param, port=server.port, mount_port=server.mount_port
    )


@pytest.fixture
def server_without_chmod(no_chmod: Path) -> Iterator[Ganesha]:
    """A server of that file system."""
    with Ganesha([GaneshaExport(no_chmod, "/x")], versions=(3, 4)) as running:
        yield running


async def test_a_ledger_and_a_volume_where_chmod_is_refused(without_chmod: Tree) -> None:
    """If chmod is refused, a ledger and a volume with the default mode are created, and `check` passes."""
    export = Export(location("127.0.0.1", "/x"), without_chmod)
    await export.open()
    assert await trial_run(without_chmod)
    await without_chmod.close()


async def test_chmod_is_not_needed_without_a_mode(without_chmod: Tree, no_chmod: Path) -> None:
    """If the class leaves the mode to the server, nothing is refused, including new parents."""
    await without_chmod.make_directory(("a", "b", "c"), Ownership(mode=None))
    assert (no_chmod / "a" / "b" / "c").is_dir()
    await without_chmod.close()


async def test_a_refused_chown_is_reported(without_chmod: Tree) -> None:
    """A refused owner is an error about owners, and not about modes or root."""
    with pytest.raises(ExportError) as caught:
        await without_chmod.make_directory(("made",), Ownership(uid=5, gid=6))
    assert not isinstance(caught.value, ModeRefused)
    assert caught.value.cause is Cause.DENIED
    assert "chown" in caught.value.detail
    assert "leave uid and gid out" in caught.value.advice
    await without_chmod.close()


async def test_a_refused_chmod_is_reported(without_chmod: Tree, no_chmod: Path) -> None:
    """A refused change of mode is ModeRefused, with the call and the advice."""
    (no_chmod / "made").mkdir(mode=0o700)
    with pytest.raises(ModeRefused) as caught:
        await without_chmod.set_access(("made",), Ownership(mode=0o770))
    assert "chmod" in caught.value.answer
    assert 'mode: "0"' in caught.value.advice
    await without_chmod.close()


# ------------------------------------------------------------------------------------------- shares


async def test_a_share_through_a_symlink(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A share that is a symlink is not followed; the error names its target and the right share."""
    root = server.exports[0].directory
    (root / "real" / "k8s").mkdir(parents=True)
    (root / "link").symlink_to("real/k8s")
    error = await refusal(tree("/plain/link", version=version))
    assert error.cause is Cause.SYMLINK
    assert "'real/k8s'" in error.advice
    assert "'/plain/real/k8s'" in error.advice


async def test_a_symlink_on_the_way_to_a_share(server: Ganesha, tree: MakeTree) -> None:
    """A symlink in the middle of a share's path is named, together with the complete right share."""
    root = server.exports[0].directory
    (root / "real" / "k8s").mkdir(parents=True)
    (root / "link").symlink_to("real")
    error = await refusal(tree("/plain/link/k8s", version="4.1"))
    assert error.cause is Cause.SYMLINK
    assert "/plain/link on 127.0.0.1 is a symbolic link to 'real'" in error.advice
    assert "'/plain/real/k8s'" in error.advice


async def test_a_share_that_is_a_file(server: Ganesha, tree: MakeTree, version: str) -> None:
    """A share that is a file is reported as a file."""
    (server.exports[0].directory / "file").touch()
    error = await refusal(tree("/plain/file", version=version))
    assert error.cause in (Cause.MISSING, Cause.DENIED)
    assert "/plain/file" in error.advice


async def test_a_pseudo_root(tree: MakeTree) -> None:
    """The pseudo root of an NFSv4 server is reported as such, with the exports below it."""
    error = await refusal(tree("/", version="4.1"))
    assert "name one of them as the share: /plain, /readonly, /squashed" in error.advice


async def test_a_root_that_is_not_writable(tree: MakeTree, version: str) -> None:
    """If root is squashed, the advice suggests a directory below the export."""
    assert "name a directory below it" in (await refusal(tree("/squashed", version=version))).advice


# ------------------------------------------------------------------------------------------- what is inside


@pytest.fixture
def worm(server: Ganesha) -> Iterator[Path]:
    """A file that cannot be removed, beside other files."""
    root = server.exports[0].directory
    (root / "gone" / "deep").mkdir(parents=True)
    for name in ("deep/worm", "other"):
        (root / "gone" / name).touch()
    path = root / "gone" / "deep" / "worm"
    if not shutil.which("chattr") or subprocess.run(["chattr", "+i", str(path)], capture_output=True).returncode:
        pytest.skip("this machine has no immutable files")
    yield path
    subprocess.run(["chattr", "-i", str(path)], check=True)


async def test_a_file_that_cannot_be_removed(worm: Path, tree: MakeTree, version: str) -> None:
    """Everything else is removed, and the error names the path of the file that stays and possible reasons."""
    with pytest.raises(ExportError) as caught:
        await tree(version=version).remove_tree(("gone",))
    assert caught.value.cause is Cause.DENIED
    assert "deep" in caught.value.detail
    assert "worm" in caught.value.detail
    assert "immutable" in caught.value.advice
    assert os.listdir(worm.parents[1]) == ["deep"]


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A file system that is mounted inside another directory, with a file in it."""
    place = tmp_path / "outer" / "gone" / "nested"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a tmpfs: the tests do not run as root")
    (place / "file").touch()
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def outer(nested: Path) -> Iterator[Ganesha]:
    """A server for the outer directory, started after the mount, because it has its own mount table."""
    with Ganesha([GaneshaExport(nested.parents[1], "/outer")], versions=(3, 4)) as running:
        yield running


async def test_a_directory_that_is_a_file_system_stays(
    outer: Ganesha, nested: Path, pool: ConnectionPool, version: str
) -> None:
    """A directory that is a file system is neither moved nor emptied, and the advice says what to do."""
    where = location("127.0.0.1", "/outer")
    direct = DirectTree(where, pool, version=version, port=outer.port, mount_port=outer.mount_port)
    with pytest.raises(ExportError) as caught:
        await direct.rename(("gone", "nested"), ("elsewhere",))
    assert caught.value.cause is Cause.NESTED
    assert "unmount it" in caught.value.advice
    with pytest.raises(ExportError) as caught:
        await direct.remove_tree(("gone",))
    assert caught.value.cause is Cause.NESTED
    assert "nested" in caught.value.detail
    assert (nested / "file").exists()
    await direct.close()
