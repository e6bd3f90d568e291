"""An exported directory as its server's administrator sees it: volumes' directories, archives, and the ledger."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.api import Object
from tests.support.disk import in_trash

LEDGER = ".provisioner"
RecordFields = dict[str, Any]
"""A ledger record as it is stored: JSON of short keys."""


@dataclass(frozen=True)
class Exported:
    """One export: `server` and `path` are how volumes name it, `root` is the directory on this machine."""

    server: str
    path: str
    root: Path

    @classmethod
    def new(cls, root: Path, path: str = "/exports/k8s") -> Exported:
        """Return the directory `root` as an export of a server that no other test uses."""
        return cls(f"nas-{secrets.token_hex(4)}.test", path, root)

    @property
    def location(self) -> str:
        """`SERVER:PATH`."""
        return f"{self.server}:{self.path}"

    @property
    def flag(self) -> str:
        """The daemon's flag that serves it."""
        return f"--export={self.location}={self.root}"

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of a class on this export."""
        return {"server": self.server, "share": self.path}

    def directory(self, volume: Object) -> Path:
        """Return the path of a PersistentVolume's directory on this machine, whether it exists or not."""
        nfs = volume["spec"]["nfs"]
        prefix = self.path.rstrip("/") + "/"
        assert nfs["server"] == self.server
        assert nfs["path"].startswith(prefix)
        return self.root.joinpath(nfs["path"].removeprefix(prefix))

    def names(self) -> set[str]:
        """Return the names at the export's root, without the ledger."""
        return {entry.name for entry in self.root.iterdir()} - {LEDGER}

    def archives(self, component: str = "") -> list[Path]:
        """Return the archives of directories with this last component, oldest first; by default all."""
        return sorted(self.root.glob(f"archived-{component}*"))

    @property
    def records(self) -> dict[str, RecordFields]:
        """The settled records, by volume."""
        return self._records("volumes")

    def lists(self, *volumes: Object) -> bool:
        """Whether the ledger exists and has a settled record of each of these volumes."""
        ledger = self.root / LEDGER / "volumes"
        return ledger.is_dir() and {volume["metadata"]["name"] for volume in volumes} <= self.records.keys()

    @property
    def pending(self) -> dict[str, RecordFields]:
        """The records of unfinished volumes, by volume."""
        return self._records("pending")

    def is_pending(self, volume_name: str) -> bool:
        """Return True while the ledger has an unfinished record of a volume."""
        return os.path.lexists(self.root / LEDGER / "pending" / volume_name)

    @property
    def trash(self) -> list[str]:
        """The names in the trash."""
        return sorted(in_trash(self.root))

    def plant(self, volume: str, record: RecordFields, *, pending: bool = False) -> None:
        """Write a record as an earlier run of the daemon, or another cluster's daemon, leaves it."""
        directory = self.root / LEDGER / ("pending" if pending else "volumes")
        (directory / volume).symlink_to(json.dumps(record, separators=(",", ":")))

    def sign(self, cluster: str, at: str = "") -> None:
        """Write another cluster's heartbeat with this time, by default now."""
        link = self.root / LEDGER / "clusters" / cluster
        link.unlink(missing_ok=True)
        link.symlink_to(at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def _records(self, kind: str) -> dict[str, RecordFields]:
        records = {}
        for link in list((self.root / LEDGER / kind).iterdir()):
            with contextlib.suppress(FileNotFoundError):  # the daemon is running
                # os.readlink: a Path would normalise the text, and it is not a path.
                records[link.name] = json.loads(os.readlink(link))
        return records
