"""The `Disk` driver for ZFS on Linux: **experimental**, not measured on a real pool.

Records and project ids work as on XFS and ext4. ZFS has no quotactl, so that limits and usage go through zfs(8):
`projectquota@ID` and `zfs projectspace`. ZFS enforces a limit some seconds late, with a transaction group.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence

from provisioner.ports.quota import UNUSED, DiskError, Usage
from provisioner.quota.kernel import KernelDisk, Mount

TIMEOUT_S = 60.0

Run = Callable[[Sequence[str]], str]
"""Runs zfs(8) with arguments and returns its output; raises DiskError."""


def run_zfs(arguments: Sequence[str]) -> str:
    """Run zfs(8)."""
    try:
        done = subprocess.run(  # noqa: S603  the arguments are numbers and the name of the mounted dataset
            ["zfs", *arguments],  # noqa: S607  found on PATH on purpose
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DiskError(f"zfs {arguments[0]}: {exc}: install zfsutils-linux where the agent runs") from exc
    if done.returncode:
        raise DiskError(f"zfs {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


class ZfsDisk(KernelDisk):
    """The file system of one export on ZFS."""

    def __init__(self, root: str, *, run: Run = run_zfs) -> None:
        super().__init__(root)
        self._run = run
        self._dataset = ""

    def lacks_quota(self, descriptor: int, mount: Mount) -> list[str]:
        """Return what the dataset lacks; the feature project_quota exists since OpenZFS 0.8."""
        del descriptor
        self._dataset = mount.source
        try:
            self.usages()
        except DiskError as exc:
            return [f"{exc}: the dataset needs the feature project_quota (zpool upgrade)"]
        return []

    def usages(self) -> Mapping[int, Usage]:
        """See `Disk`."""
        columns = "type,name,used,quota,objused"
        lines = self._run(["projectspace", "-Hpn", "-o", columns, self._dataset]).splitlines()
        return dict(parse(line) for line in lines if line.strip())

    def usage(self, project: int) -> Usage:
        """See `Disk`."""
        return self.usages().get(project, UNUSED)

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """See `Disk`."""
        self._run(["set", f"projectquota@{project}={limit_bytes or 'none'}", self._dataset])


def parse(line: str) -> tuple[int, Usage]:
    """Parse a line of `zfs projectspace -Hp`. Raises DiskError."""
    fields = line.split("\t")
    try:
        _, project, used, quota, objects = fields
        return int(project), Usage(_number(used), _number(objects), _number(quota))
    except ValueError as exc:
        raise DiskError(f"zfs projectspace printed {line!r}, which this version cannot read") from exc


def _number(text: str) -> int:
    return 0 if text in ("-", "none") else int(text)
