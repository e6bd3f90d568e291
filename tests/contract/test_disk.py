"""The contract of `Disk`. The kernel's driver passes the same cases in tests/integration/quota, on XFS and ext4."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.core.locations import RelPath
from provisioner.ports.quota import Disk, DiskError
from provisioner.quota import linux
from provisioner.quota.kernel import KernelDisk
from tests.contract import disk_cases
from tests.contract.disk_cases import CASES, DiskSite, LocalDiskSite
from tests.support.fakes.disk import MemoryDisk
from tests.support.fakes.tree import Directory, File, Symlink
from tests.support.quota_world import QuotaWorld


class MemoryDiskSite:
    """A site in memory."""

    def __init__(self) -> None:
        self.world = QuotaWorld()
        self.disk: Disk = self.another()
        self.make_directory("a")

    def another(self) -> Disk:
        """See `DiskSite`."""
        return MemoryDisk(self.world.quotas, self.world.tree)

    def make_directory(self, path: str) -> None:
        """See `DiskSite`."""
        self.world.make(path)

    def write_file(self, path: str, size_bytes: int) -> None:
        """See `DiskSite`."""
        self._parent(path).entries[path.split("/")[-1]] = File(b"x" * size_bytes)
        self.world.quotas.settle()

    def plant_symlink(self, path: str, target: str) -> None:
        """See `DiskSite`."""
        self._parent(path).entries[path.split("/")[-1]] = Symlink(target)
        self.world.quotas.settle()

    def rename(self, source: str, target: str) -> None:
        """See `DiskSite`."""
        self.world.move(source, target)

    def project(self, path: str) -> int:
        """See `DiskSite`."""
        node = self.world.tree.look(tuple(path.split("/")))
        assert node is not None
        return self.world.quotas.project(node)[0]

    def _parent(self, path: str) -> Directory:
        where: RelPath = tuple(path.split("/"))[:-1]
        node = self.world.tree.look(where)
        assert isinstance(node, Directory)
        return node


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_memory(case: Callable[[DiskSite], None]) -> None:
    """The fake passes each case."""
    case(MemoryDiskSite())


WITHOUT_QUOTAS = [
    disk_cases.records_are_written_and_removed,
    disk_cases.a_label_needs_a_directory,
    disk_cases.a_stale_label_is_refused,
    disk_cases.one_process_has_the_lock,
    disk_cases.changes_of_records_are_seen,
]
"""The cases that need no project quotas, so that they run on this machine too."""


@pytest.mark.parametrize("case", WITHOUT_QUOTAS, ids=lambda case: case.__name__)
def test_kernel(case: Callable[[DiskSite], None], tmp_path: Path) -> None:
    """The kernel's driver passes the cases that need no project quotas, on a local directory."""
    site = LocalDiskSite(tmp_path, KernelDisk)
    try:
        site.disk.label(("a",))
    except DiskError as exc:
        pytest.skip(f"the file system of this machine has no project ids: {exc}")
    case(site)
    site.disk.release()


def test_kernel_without_inotify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no room for another watch, the driver notices that records have changed."""

    def refuse() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(linux, "inotify", refuse)
    site = LocalDiskSite(tmp_path, KernelDisk)
    site.disk.facts()
    assert site.disk.events() is None
    assert site.disk.changed() is None
    assert site.disk.changed() == set()
    site.plant_symlink(".provisioner/volumes/v", "text")
    assert site.disk.changed() is None
    assert site.disk.changed() == set()
    site.disk.release()


def test_a_disk_without_quotas(tmp_path: Path) -> None:
    """A file system without project quotas says so, with what to type."""
    site = LocalDiskSite(tmp_path, KernelDisk)
    lacks = " ".join(site.disk.facts().lacks)
    if not lacks:
        pytest.skip("the file system of this machine has project quotas")
    assert any(words in lacks for words in ("prjquota", "no project quotas", "quotactl_fd"))
    site.disk.release()
    assert site.disk.read((".provisioner", "export")) == ""
