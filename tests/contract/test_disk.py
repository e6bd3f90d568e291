"""The contract of `Disk`. The kernel's driver passes the same cases in tests/integration/quota, on XFS and ext4."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provisioner.core.locations import RelPath
from provisioner.ports.quota import Disk
from tests.contract.disk_cases import CASES, DiskSite
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
