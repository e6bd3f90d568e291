"""Archives in tests: create them from volumes with data, read their records, and run commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.exported import LEDGER
from tests.support.storage import Storage

RESTORE = "nfs-provisioner/restore"


def records(root: Path) -> dict[str, dict[str, Any]]:
    """Return the records of archives on an export, by archive."""
    directory = root / LEDGER / "archives"
    # os.readlink: a Path would normalise the text, and it is not a path.
    return {name: json.loads(os.readlink(directory / name)) for name in os.listdir(directory)}


def names(root: Path) -> set[str]:
    """Return the archives at an export's root."""
    return {name for name in os.listdir(root) if name.startswith("archived-")}


def archive(storage: Storage, root: Path, class_name: str, claim: str = "data", *, text: str = "precious") -> str:
    """Create a claim with data, delete it, wait for its archive, and return the archive's name."""
    storage.claim(class_name, claim)
    volume = storage.bound(claim)
    directory(root, volume).joinpath("file").write_text(text)
    storage.delete_claim(claim)
    name: str = volume["metadata"]["name"]
    storage.volume_gone(name)
    archives = {archive for archive, record in records(root).items() if record["pv"] == name}
    assert len(archives) == 1, archives
    storage.eventually(lambda: not (root / LEDGER / "volumes" / name).is_symlink(), f"the record of {name} is deleted")
    return archives.pop()


def directory(root: Path, volume: Object) -> Path:
    """Return the path on this machine of a volume's directory directly below an export's root."""
    path: str = volume["spec"]["nfs"]["path"]
    return root / path.rsplit("/", 1)[1]


def text_of(storage: Storage, root: Path, claim: str) -> str:
    """Wait until a claim is bound, and return the text in its volume."""
    return directory(root, storage.bound(claim)).joinpath("file").read_text()


def command(
    control_plane: ControlPlane, name: str, provisioner: str, *flags: str, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of nfs-provisioner as a process."""
    words: Sequence[str] = [
        *(sys.executable, "-m", "provisioner", name),
        f"--kubeconfig={kubeconfig or control_plane.kubeconfig}",
        f"--provisioner-name={provisioner}",
        *flags,
    ]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(words, capture_output=True, text=True, timeout=100, env=environment, check=False)
