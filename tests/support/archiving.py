"""Archives as the tests make and look at them: volumes with data whose claims are deleted, and the two commands."""

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
    """The records of archives on an export, by archive."""
    directory = root / LEDGER / "archives"
    # os.readlink: a Path would normalise the text, and it is not a path.
    return {name: json.loads(os.readlink(directory / name)) for name in os.listdir(directory)}


def names(root: Path) -> set[str]:
    """The archives at an export's root."""
    return {name for name in os.listdir(root) if name.startswith("archived-")}


def archive(storage: Storage, root: Path, class_name: str, claim: str = "data", *, text: str = "precious") -> str:
    """Make a claim with data in its volume, delete it, and wait until that is an archive; its name."""
    storage.claim(class_name, claim)
    volume = storage.bound(claim)
    directory(root, volume).joinpath("file").write_text(text)
    storage.delete_claim(claim)
    name: str = volume["metadata"]["name"]
    storage.volume_gone(name)
    archives = {archive for archive, record in records(root).items() if record["pv"] == name}
    assert len(archives) == 1, archives
    storage.eventually(lambda: not (root / LEDGER / "volumes" / name).is_symlink(), f"the record of {name} has ended")
    return archives.pop()


def directory(root: Path, volume: Object) -> Path:
    """Where the directory of a volume right below an export's root is on this machine."""
    path: str = volume["spec"]["nfs"]["path"]
    return root / path.rsplit("/", 1)[1]


def text_of(storage: Storage, root: Path, claim: str) -> str:
    """What a claim's volume holds, once it is bound."""
    return directory(root, storage.bound(claim)).joinpath("file").read_text()


def command(
    control_plane: ControlPlane, name: str, provisioner: str, *flags: str, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of our commands in a process of its own."""
    words: Sequence[str] = [
        *(sys.executable, "-m", "provisioner", name),
        f"--kubeconfig={kubeconfig or control_plane.kubeconfig}",
        f"--provisioner-name={provisioner}",
        *flags,
    ]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(words, capture_output=True, text=True, timeout=100, env=environment, check=False)
