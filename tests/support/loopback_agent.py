"""A quota agent on a directory of this machine that has no project quotas: the real agent, with limits in memory."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from provisioner.core import times
from provisioner.core.locations import RelPath
from provisioner.ports.quota import DiskError, Facts, Label, Usage, Walked
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.kernel import KernelDisk
from provisioner.quota.rounds import POLL_S, Rounds


class LoopbackDisk(KernelDisk):
    """Records on the real file system; projects and limits by inode in memory, since its kernel has none."""

    def __init__(self, root: Path, *, filesystem: str = "xfs") -> None:
        super().__init__(str(root))
        self.root = root
        self.filesystem = filesystem
        self.lacks: tuple[str, ...] = ()
        self.limits: dict[int, int] = {}
        self._projects: dict[int, int] = {}

    def facts(self) -> Facts:
        """See `Disk`."""
        return Facts(filesystem=self.filesystem, device=super().facts().device, lacks=self.lacks)

    def label(self, path: RelPath) -> Label | None:
        """See `Disk`."""
        directory = self.root.joinpath(*path)
        if directory.is_symlink() or not directory.is_dir():
            return None
        inode = directory.stat().st_ino
        project = self._projects.get(inode, 0)
        return Label(project, bool(project), inode)

    def set_label(self, path: RelPath, project: int, *, was: Label) -> None:
        """See `Disk`."""
        if self.label(path) != was:
            raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
        self._projects[was.inode] = project

    def walk(self, path: RelPath, project: int) -> Iterator[Walked]:
        """See `Disk`."""
        label = self.label(path)
        if label is None or label.project != project:
            raise DiskError(f"{'/'.join(path)} was replaced while the agent worked on it")
        yield Walked(len(list(self.root.joinpath(*path).rglob("*"))))

    def usages(self) -> Mapping[int, Usage]:
        """See `Disk`."""
        return {project: self.usage(project) for project in {*self._projects.values(), *self.limits}}

    def usage(self, project: int) -> Usage:
        """See `Disk`."""
        used_bytes = inodes = 0
        for path, _, names in os.walk(self.root):
            if self._project_of(Path(path)) == project:
                sizes = [os.lstat(os.path.join(path, name)).st_size for name in names]
                used_bytes, inodes = used_bytes + sum(sizes), inodes + 1 + len(sizes)
        return Usage(used_bytes, inodes, self.limits.get(project, 0))

    def _project_of(self, directory: Path) -> int:
        """Return the project of a directory: its own one, or that of the directory that it was created in."""
        while directory != self.root:
            project = self._projects.get(directory.stat().st_ino, 0)
            if project:
                return project
            directory = directory.parent
        return 0

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """See `Disk`."""
        self.limits[project] = limit_bytes


class LoopbackAgent:
    """An agent in a thread, from the beginning of the context to its end."""

    def __init__(self, root: Path, disk: LoopbackDisk | None = None) -> None:
        self.disk = disk or LoopbackDisk(root)
        options = Options(version="test")
        agent = ExportAgent(str(root), self.disk, Holders(), options, now=lambda: times.text(datetime.now(UTC)))
        self._rounds = Rounds([agent], time.monotonic)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.disk.release()

    def limit_of(self, directory: Path) -> int:
        """Return the limit of a volume's directory."""
        label = self.disk.label(directory.relative_to(self.disk.root).parts)
        return self.disk.limits.get(label.project, 0) if label is not None else 0

    def _run(self) -> None:
        while not self._ended.is_set():
            wait_s = min(self._rounds.turn(), POLL_S)
            select.select(self._rounds.descriptors(), [], [], min(wait_s, 0.2))
