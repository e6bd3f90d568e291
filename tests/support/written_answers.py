"""A stand-in for the quota agent of an export on this machine: it writes the answers that a test wants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import structs

from provisioner.core import quota, times
from provisioner.core.locations import RelPath
from provisioner.core.quota import Answer, Heartbeat
from testbed.api import Object


class WrittenAnswers:
    """Answers and heartbeats below an export's root, in the form that the agent gives them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._beat = datetime.fromtimestamp(0, UTC)

    def fill(self, volume: Object, percent: float, *, limit_bytes: int, **more: Any) -> None:
        """Say of a volume that its limit is in force and that it is full to this part; then write a heartbeat."""
        said = Answer(
            project=100_000,
            limit_bytes=limit_bytes,
            used_bytes=int(limit_bytes * percent / 100),
            inodes=1,
            whole=True,
            at=times.text(datetime.now(UTC)),
        )
        self._write(quota.answer_path(volume["metadata"]["name"]), quota.encode(structs.replace(said, **more)))
        self.beat()

    def beat(self, **more: Any) -> None:
        """Write a heartbeat that differs from the last one."""
        self._beat = max(datetime.now(UTC), self._beat + timedelta(seconds=1))
        said = Heartbeat(
            at=times.text(self._beat), version="test", filesystem="xfs", enforces=True, holds_root=True, ids="1-9"
        )
        self._write(quota.HEARTBEAT, quota.encode(structs.replace(said, **more)))

    def _write(self, path: RelPath, text: str) -> None:
        """Replace a symlink by a rename."""
        link = self._root.joinpath(*path)
        link.parent.mkdir(exist_ok=True)
        draft = link.with_name(f".{link.name}.draft")
        draft.unlink(missing_ok=True)
        draft.symlink_to(text)
        draft.rename(link)
