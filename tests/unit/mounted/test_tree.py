"""mounted.tree: what the driver promises beyond the port about root, removals, errors and measurements."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import pathlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from provisioner.mounted.errnos import translated
from provisioner.mounted.removal import DEPTH_LIMIT, remove_portion
from provisioner.mounted.syscalls import Root
from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import Cause, ExportError, NotEmpty, Ownership, PathExists, PathMissing

pytestmark = pytest.mark.timeout(120)

PLAIN = Ownership(mode=0o755)


@pytest.fixture
async def tree(tmp_path: pathlib.Path) -> AsyncIterator[MountedTree]:
    """A tree on tmp_path/export, which does not exist yet."""
    made = MountedTree(str(tmp_path / "export"), require_mount=False, timeout_s=30.0)
    yield made
    await made.close()


async def cause_of(tree: MountedTree) -> Cause:
    """Return the cause for which the tree refuses to create a directory."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(("a",), PLAIN)
    return caught.value.cause


async def test_a_missing_root_is_never_created(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """If the directory is missing or is a file, every call is Cause.MISSING and creates nothing."""
    assert await cause_of(tree) is Cause.MISSING
    assert os.listdir(tmp_path) == []
    (tmp_path / "export").write_text("a file")
    assert await cause_of(tree) is Cause.MISSING


async def test_each_call_opens_the_root_again(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """The next call notices a root that appears, disappears or is replaced."""
    root = tmp_path / "export"
    root.mkdir()
    first = await tree.root_id()
    await tree.make_directory(("a",), PLAIN)
    root.rename(tmp_path / "away")
    assert await cause_of(tree) is Cause.MISSING
    root.mkdir()
    assert await tree.root_id() != first
    assert await tree.is_empty(())
    tree.pin(first)
    assert await cause_of(tree) is Cause.CHANGED


async def test_the_root_may_be_a_symlink(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """The path to the root, which the admin chooses, can contain symlinks."""
    (tmp_path / "real").mkdir()
    (tmp_path / "export").symlink_to("real")
    await tree.make_directory(("a",), PLAIN)
    assert (tmp_path / "real" / "a").is_dir()


async def test_a_plain_directory_is_not_a_mount(tmp_path: pathlib.Path) -> None:
    """If a mount is required, a plain directory is Cause.NOT_MOUNTED and nothing is created in it."""
    tree = MountedTree(str(tmp_path), require_mount=True, timeout_s=30.0)
    assert await cause_of(tree) is Cause.NOT_MOUNTED
    assert os.listdir(tmp_path) == []
    await tree.close()


@pytest.mark.parametrize("mount_point", ["/proc", "/"])
async def test_a_mount_point_is_a_mount(mount_point: str) -> None:
    """If a mount is required, a mount point is accepted, and so is the root directory."""
    tree = MountedTree(mount_point, require_mount=True, timeout_s=30.0)
    assert await tree.root_id()
    await tree.close()


async def test_modes_do_not_depend_on_the_umask(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """Parents get mode 0755 and the directory its own mode, even with a umask of 077."""
    (tmp_path / "export").mkdir()
    before = os.umask(0o077)
    try:
        await tree.make_directory(("a", "b"), Ownership(mode=0o2777))
    finally:
        os.umask(before)
    assert (tmp_path / "export" / "a").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "export" / "a" / "b").stat().st_mode & 0o7777 == 0o2777


async def test_every_call_is_measured(tmp_path: pathlib.Path) -> None:
    """`observe` receives name and duration of each call, failed calls included."""
    seen: list[tuple[str, float]] = []
    tree = MountedTree(
        str(tmp_path), require_mount=False, timeout_s=30.0, observe=lambda name, took_s: seen.append((name, took_s))
    )
    await tree.make_directory(("a",), PLAIN)
    with pytest.raises(PathExists):
        await tree.make_directory(("a",), PLAIN)
    await tree.remove_tree(("a",))
    assert [name for name, _ in seen] == ["make_directory", "make_directory", "remove_tree"]
    assert all(took_s > 0 for _, took_s in seen)
    await tree.close()


async def test_names_that_are_not_utf8(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """Names and targets that are not UTF-8 are listed, read, written and removed as surrogate escapes."""
    root = os.fsencode(tmp_path / "export")
    os.mkdir(root)
    os.symlink(b"target-\xff", root + b"/link-\xfe")
    assert await tree.read_symlink(("link-\udcfe",)) == "target-\udcff"
    assert [entry.name for entry in await tree.list(())] == ["link-\udcfe"]
    await tree.make_symlink(("other",), "target-\udcff")
    assert os.readlink(root + b"/other") == b"target-\xff"
    await tree.remove_symlink(("link-\udcfe",))


@pytest.mark.parametrize("name", ["nul\0byte", "lone\ud800surrogate"])
async def test_invalid_names(tree: MountedTree, tmp_path: pathlib.Path, name: str) -> None:
    """A NUL or a lone surrogate in a name or a target raises ExportError."""
    (tmp_path / "export").mkdir()
    with pytest.raises(ExportError):
        await tree.make_directory((name,), PLAIN)
    with pytest.raises(ExportError):
        await tree.make_symlink(("link",), name)


# ---------------------------------------------------------------------------------------------------- removals


def chain(root: pathlib.Path, depth: int) -> None:
    """Create a directory `gone` with a chain of directories that is too long for any path."""
    current = os.open(root, os.O_PATH)
    for name in ("gone", *itertools.repeat("d" * 50, depth)):
        os.mkdir(name, dir_fd=current)
        below = os.open(name, os.O_PATH, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)


async def test_a_chain_of_any_depth_is_removed(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """A chain of 5,000 directories is removed and counted like any other tree."""
    root = tmp_path / "export"
    root.mkdir()
    await asyncio.to_thread(chain, root, 5000)
    assert await tree.remove_tree(("gone",)) == 5001
    assert await tree.is_empty(())


def test_a_portion_holds_few_descriptors(tmp_path: pathlib.Path) -> None:
    """A removal of a tree of any depth holds two descriptors per level, for at most DEPTH_LIMIT levels."""
    chain(tmp_path, 500)
    before, most = len(os.listdir("/proc/self/fd")), 0

    def step() -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))

    root = Root(str(tmp_path), require_mount=False)
    assert remove_portion(root, step, ("gone",), 60.0).done
    root.close()
    assert most - before <= 2 * DEPTH_LIMIT + 10


def test_a_portion_without_time_removes_one_entry(tmp_path: pathlib.Path) -> None:
    """A portion without time removes one entry, and enough portions remove the tree."""
    for number in range(20):
        (tmp_path / "gone" / str(number) / "deep").mkdir(parents=True)
    root = Root(str(tmp_path), require_mount=False)
    portions = [remove_portion(root, lambda: None, ("gone",), 0.0) for _ in range(41)]
    root.close()
    assert [portion.removed for portion in portions] == [1] * 41
    assert not (tmp_path / "gone").exists()


@pytest.fixture
def busy(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory that cannot be removed because a file system is mounted on it."""
    place = tmp_path / "export" / "gone" / "busy"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a tmpfs: the tests do not run as root")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_an_entry_that_stays_is_named(tree: MountedTree, busy: pathlib.Path) -> None:
    """A removal removes all other entries, then fails with the name and cause of the entry that stays."""
    for name in ("another", "last"):
        await tree.make_directory(("gone", name, "deep"), PLAIN)
    with pytest.raises(ExportError) as caught:
        await tree.remove_tree(("gone",))
    assert (caught.value.cause, caught.value.detail) == (Cause.NESTED, "gone/busy")
    assert os.listdir(busy.parent) == ["busy"]


async def test_reserved_names_in_a_plain_directory_are_removed(tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """A tenant's directories with names that servers reserve are removed with their content."""
    (tmp_path / "export").mkdir()
    await tree.make_directory(("gone", ".snapshot", "deep"), PLAIN)
    await tree.make_directory(("gone", "@eaDir"), PLAIN)
    assert await tree.remove_tree(("gone",)) == 4


@pytest.fixture
def snapshot(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory of snapshots that a server shows, which cannot be removed."""
    place = tmp_path / "export" / "gone" / ".snapshot"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a tmpfs: the tests do not run as root")
    (place / "hourly").mkdir()
    yield place
    subprocess.run(["umount", place], check=True)


async def test_snapshots_are_not_read(tree: MountedTree, snapshot: pathlib.Path) -> None:
    """Snapshots are not read; everything else is removed, and the error names the directory of snapshots."""
    (snapshot.parent / "file").touch()
    with pytest.raises(NotEmpty) as caught:
        await tree.remove_tree(("gone",))
    assert caught.value.detail == "gone/.snapshot is in use"
    assert ".snapshot" in caught.value.advice
    assert os.listdir(snapshot) == ["hourly"]
    assert os.listdir(snapshot.parent) == [".snapshot"]


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EROFS, Cause.READ_ONLY),
        (errno.EDQUOT, Cause.QUOTA),
        (errno.EACCES, Cause.DENIED),
        (errno.EPERM, Cause.DENIED),
        (errno.ESTALE, Cause.STALE),
        (errno.ELOOP, Cause.SYMLINK),
        (errno.ENOTDIR, Cause.SYMLINK),
        (errno.ENAMETOOLONG, Cause.NAME_TOO_LONG),
        (errno.EIO, Cause.UNREACHABLE),
        (errno.ETIMEDOUT, Cause.UNREACHABLE),
        (errno.EHOSTDOWN, Cause.UNREACHABLE),
        (errno.ENOTCONN, Cause.UNREACHABLE),
        (errno.ENOSPC, Cause.NO_SPACE),
        (errno.EXDEV, Cause.NESTED),
        (errno.EBUSY, Cause.NESTED),
        (errno.EUCLEAN, Cause.OTHER),
        (errno.EDOM, Cause.OTHER),
    ],
)
def test_an_errno_has_a_cause(tmp_path: pathlib.Path, number: int, cause: Cause) -> None:
    """Each refusal of the kernel becomes an error of the port, with the path and the kernel's text as detail."""
    error = translated(OSError(number, os.strerror(number)), "a/b", str(tmp_path), "rename")
    assert error.cause is cause
    assert error.detail.startswith("a/b: ")
    assert os.strerror(number) in error.detail
    assert error.advice
    if cause is Cause.OTHER:
        assert errno.errorcode[number] in error.event_message("nas:/x")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, PathMissing),
        (errno.EEXIST, PathExists),
        (errno.ENOTEMPTY, NotEmpty),
        (errno.EBUSY, NotEmpty),
    ],
)
def test_an_errno_has_a_type(tmp_path: pathlib.Path, number: int, kind: type[ExportError]) -> None:
    """The errors that callers catch by type have their own types."""
    assert type(translated(OSError(number, os.strerror(number)), "a/b", str(tmp_path))) is kind
