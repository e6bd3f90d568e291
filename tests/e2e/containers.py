"""Containers by Docker's command line: run to their end, or in the background until the test's end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROVISIONER = os.environ.get("NFS_PROVISIONER_IMAGE", "nfs-provisioner:dev")
NFS_SERVER = os.environ.get("NFS_SERVER_IMAGE", "nfs-server:dev")

UNPRIVILEGED = (
    "--read-only", "--user=65534:65534", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=128m",
)  # fmt: skip
"""As the chart runs the provisioner."""


def docker(*words: str | Path, timeout_s: float = 120.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker's. Raises CalledProcessError with its words for a status that is not 0."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(map(str, words))}: {done.stderr or done.stdout}")
    return done


def missing() -> str:
    """Why this machine cannot run containers, or ""."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30)
    return "" if asked.returncode == 0 else asked.stderr.strip().splitlines()[-1]


def inspect(name: str) -> dict[str, Any]:
    """What Docker knows of an image or a container."""
    (found,) = json.loads(docker("inspect", name).stdout)
    return dict(found)


class Container:
    """A container in the background, removed on exit."""

    def __init__(self, image: str, *arguments: str, flags: Sequence[str] = ()) -> None:
        self._id = docker("run", "--detach", *flags, image, *arguments).stdout.strip()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", self._id, check=False)

    @property
    def address(self) -> str:
        """Its IP address on Docker's bridge."""
        address: str = inspect(self._id)["NetworkSettings"]["IPAddress"]
        return address

    def logs(self) -> str:
        """All that it said."""
        done = docker("logs", self._id)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """End it as the kubelet would; its exit status."""
        docker("stop", "--time=20", self._id)
        status: int = inspect(self._id)["State"]["ExitCode"]
        return status
