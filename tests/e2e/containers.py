"""Containers of our two images by testcontainers, in the background or run to their end."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

PROVISIONER = os.environ.get("NFS_PROVISIONER_IMAGE", "nfs-provisioner:dev")
NFS_SERVER = os.environ.get("NFS_SERVER_IMAGE", "nfs-server:dev")

UNPRIVILEGED: dict[str, Any] = {
    "read_only": True,
    "user": "65534:65534",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "128m",
}
"""The settings with which the chart runs the provisioner."""


class Ended(NamedTuple):
    """The exit status and output of a container."""

    status: int
    stdout: str
    stderr: str


def container(image: str, *command: str, **fields: Any) -> DockerContainer:
    """Return a container to start with `with`, which also removes it; `fields` are those of DockerContainer."""
    # Ryuk, which removes leftovers of a killed run, is an image of its own, and there may be no registry to pull from.
    testcontainers_config.ryuk_disabled = True
    made = DockerContainer(image, **fields)
    return made.with_command(list(command)) if command else made


def run(image: str, *command: str, **fields: Any) -> Ended:
    """Run a container until it exits."""
    with container(image, *command, **fields) as started:
        status = started.wait()
        stdout, stderr = started.get_logs()
        return Ended(status, stdout.decode(), stderr.decode())


def logs(started: DockerContainer) -> str:
    """Return a container's output so far."""
    return "\n".join(stream.decode(errors="replace") for stream in started.get_logs())


def address(started: DockerContainer) -> str:
    """Return a container's IP address on Docker's bridge."""
    return started.get_docker_client().bridge_ip(started.get_container_id())
