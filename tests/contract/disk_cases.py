"""The contract of `Disk`: cases that each driver passes. Without pytest, as the virtual machine runs them too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quota import ANSWERS, HEARTBEAT, answer_path, is_limit
from provisioner.ports.quota import Disk, DiskError, Usage, Walked

PROJECT = 4321
MI = 1 << 20


class DiskSite(Protocol):
    """An export with a ledger, and an empty directory `a`."""

    disk: Disk

    def another(self) -> Disk:
        """Return the disk of another process."""
        ...

    def make_directory(self, path: str) -> None:
        """Create a directory."""
        ...

    def write_file(self, path: str, size_bytes: int) -> None:
        """Write a file."""
        ...

    def plant_symlink(self, path: str, target: str) -> None:
        """Create a symlink, or replace one."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename a directory."""
        ...

    def project(self, path: str) -> int:
        """Return the project of a file or directory."""
        ...


def facts_say_that_limits_work(site: DiskSite) -> None:
    """The site lacks nothing, and two disks of one file system have one device."""
    facts = site.disk.facts()
    assert facts.filesystem
    assert facts.lacks == (), facts.lacks
    assert facts.device == site.another().facts().device


def records_are_written_and_removed(site: DiskSite) -> None:
    """A record is read back as it was written, is replaced in one step, and can be removed twice."""
    site.disk.facts()
    assert site.disk.names(ANSWERS) == []
    for text in ("one", "two"):
        site.disk.write(answer_path("v"), text)
        assert site.disk.read(answer_path("v")) == text
    site.disk.write(HEARTBEAT, "beat")
    assert site.disk.read(HEARTBEAT) == "beat"
    assert [name for name in site.disk.names(ANSWERS) if not name.startswith(".")] == ["v"]
    site.disk.remove(answer_path("v"))
    site.disk.remove(answer_path("v"))
    assert site.disk.read(answer_path("v")) == ""
    assert site.disk.read((LEDGER, "volumes", "none")) == ""
    assert site.disk.read((LEDGER, "volumes")) == ""


def a_label_needs_a_directory(site: DiskSite) -> None:
    """What is no directory, or is reached through a symlink, has no label."""
    site.make_directory("b")
    site.make_directory("b/below")
    site.write_file("file", 1)
    site.plant_symlink("link", "b")
    found = site.disk.label(("a",))
    assert found is not None
    assert (found.project, found.inherits) == (0, False)
    other = site.disk.label(("b",))
    assert other is not None
    assert other.inode != found.inode
    paths: list[RelPath] = [("none",), ("file",), ("link",), ("link", "below"), ("none", "below")]
    assert [site.disk.label(path) for path in paths] == [None] * 5


def new_entries_inherit_a_label(site: DiskSite) -> None:
    """What is created in a labelled directory has its project, at any depth; what was there keeps its own."""
    site.write_file("a/old", 1)
    label(site, "a")
    site.make_directory("a/new")
    site.write_file("a/new/file", 1)
    assert [site.project(path) for path in ("a", "a/old", "a/new", "a/new/file")] == [PROJECT, 0, PROJECT, PROJECT]


def a_stale_label_is_refused(site: DiskSite) -> None:
    """Nothing is labelled if the directory was replaced after it was looked at."""
    was = site.disk.label(("a",))
    assert was is not None
    site.rename("a", "aside")
    site.make_directory("a")
    assert refuses(lambda: site.disk.set_label(("a",), PROJECT, was=was))
    assert (site.project("a"), site.project("aside")) == (0, 0)


def a_walk_labels_content(site: DiskSite) -> None:
    """A walk labels files and directories at any depth, and a second one finds nothing to change."""
    for path in ("a/b", "a/b/c", "a/d"):
        site.make_directory(path)
    for number in range(20):
        site.write_file(f"a/b/c/{number}", 10)
    label(site, "a")
    for _ in range(2):
        met = walk(site, "a")
        assert (met.entries, met.special, met.busy) == (23, 0, 0)
    assert {site.project(path) for path in ("a/b", "a/b/c", "a/d", "a/b/c/7")} == {PROJECT}
    site.make_directory("a/d/new")
    assert site.project("a/d/new") == PROJECT


def a_walk_leaves_at_no_symlink(site: DiskSite) -> None:
    """A walk does not follow symlinks, and counts those that it cannot label."""
    site.make_directory("b")
    site.write_file("b/file", 1)
    site.plant_symlink("a/link", "../b")
    site.plant_symlink("a/up", "..")
    label(site, "a")
    assert walk(site, "a").special in (0, 2)  # Linux 6.17 can label symlinks
    assert (site.project("b"), site.project("b/file")) == (0, 0)


def a_walk_needs_its_own_directory(site: DiskSite) -> None:
    """A directory without the project is not walked: it is another one."""
    assert refuses(lambda: walk(site, "a"))
    assert refuses(lambda: walk(site, "none"))
    label(site, "a")
    site.rename("a", "aside")
    site.plant_symlink("a", "aside")
    assert refuses(lambda: walk(site, "a"))


def usage_is_counted(site: DiskSite) -> None:
    """Usage has what was written to a project, and a project that nothing has is free."""
    assert site.disk.usage(PROJECT) == Usage()
    assert site.disk.usage(PROJECT).is_free
    label(site, "a")
    site.write_file("a/file", MI)
    usage = site.disk.usage(PROJECT)
    assert MI <= usage.used_bytes < MI + 65536, usage
    assert usage.inodes == 2
    assert site.disk.usages()[PROJECT] == usage


def limits_are_set_and_lifted(site: DiskSite) -> None:
    """A limit is read back, raised, and lifted; it is the limit of one project."""
    label(site, "a")
    for limit in (5 * MI, 7 * MI, 3 * MI + 4096, 0):
        site.disk.set_limit(PROJECT, limit)
        assert is_limit(site.disk.usage(PROJECT).limit_bytes, limit)
        assert is_limit(site.disk.usages()[PROJECT].limit_bytes, limit)
    assert not any(usage.limit_bytes for usage in site.disk.usages().values())


def one_process_has_the_lock(site: DiskSite) -> None:
    """A second process gets the lock when the first one has released it."""
    other = site.another()
    for disk in (site.disk, other):
        disk.facts()
    assert site.disk.lock()
    assert site.disk.lock()
    assert not other.lock()
    site.disk.release()
    site.disk.facts()
    assert other.lock()
    assert not site.disk.lock()


def changes_of_records_are_seen(site: DiskSite) -> None:
    """A record that is created, replaced, moved or removed is named, once."""
    site.disk.facts()
    site.disk.events()
    site.disk.changed()
    assert site.disk.changed() == set()
    site.plant_symlink(f"{LEDGER}/pending/v", "text")
    assert site.disk.changed() == {"v"}
    assert site.disk.changed() == set()
    site.plant_symlink(f"{LEDGER}/volumes/v", "more")
    site.plant_symlink(f"{LEDGER}/volumes/v", "other")
    assert site.disk.changed() == {"v"}


def label(site: DiskSite, path: str) -> None:
    """Give a directory the project."""
    where = tuple(path.split("/"))
    was = site.disk.label(where)
    assert was is not None
    site.disk.set_label(where, PROJECT, was=was)


def walk(site: DiskSite, path: str) -> Walked:
    """Walk to the end, and return the counts."""
    return list(site.disk.walk(tuple(path.split("/")), PROJECT))[-1]


def refuses(call: Callable[[], object]) -> bool:
    """Return True if a call raises DiskError."""
    try:
        call()
    except DiskError:
        return True
    return False


CASES: list[Callable[[DiskSite], None]] = [
    facts_say_that_limits_work,
    records_are_written_and_removed,
    a_label_needs_a_directory,
    new_entries_inherit_a_label,
    a_stale_label_is_refused,
    a_walk_labels_content,
    a_walk_leaves_at_no_symlink,
    a_walk_needs_its_own_directory,
    usage_is_counted,
    limits_are_set_and_lifted,
    one_process_has_the_lock,
    changes_of_records_are_seen,
]


class LocalDiskSite:
    """A site on a real file system."""

    def __init__(self, root: Path, disk: Callable[[str], Disk]) -> None:
        self.root = root
        self._new = disk
        self.disk = disk(str(root))
        for path in (LEDGER, f"{LEDGER}/pending", f"{LEDGER}/volumes", "a"):
            (root / path).mkdir()

    def another(self) -> Disk:
        """See `DiskSite`."""
        return self._new(str(self.root))

    def make_directory(self, path: str) -> None:
        """See `DiskSite`."""
        (self.root / path).mkdir()

    def write_file(self, path: str, size_bytes: int) -> None:
        """See `DiskSite`."""
        with (self.root / path).open("wb") as file:
            file.write(b"x" * size_bytes)
            file.flush()
            os.fsync(file.fileno())

    def plant_symlink(self, path: str, target: str) -> None:
        """See `DiskSite`."""
        draft = self.root / "draft"
        draft.symlink_to(target)
        draft.rename(self.root / path)

    def rename(self, source: str, target: str) -> None:
        """See `DiskSite`."""
        (self.root / source).rename(self.root / target)

    def project(self, path: str) -> int:
        """See `DiskSite`."""
        from provisioner.quota import linux

        descriptor = os.open(self.root / path, os.O_RDONLY)
        try:
            return linux.project_of(descriptor).id
        finally:
            os.close(descriptor)
