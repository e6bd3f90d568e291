"""Containers by testcontainers: of our two images, in the background or run to their end."""

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
"""As the chart runs the provisioner."""


class Ended(NamedTuple):
    """How a container ended, and what it said."""

    status: int
    stdout: str
    stderr: str


def container(image: str, *command: str, **fields: Any) -> DockerContainer:
    """One to be started by `with`, and removed at its end; `fields` are DockerContainer's."""
    # Ryuk, which removes what a killed test run leaves, is an image of its own, and no registry may answer.
    testcontainers_config.ryuk_disabled = True
    made = DockerContainer(image, **fields)
    return made.with_command(list(command)) if command else made


def run(image: str, *command: str, **fields: Any) -> Ended:
    """Run a container to its end."""
    with container(image, *command, **fields) as started:
        status = started.wait()
        stdout, stderr = started.get_logs()
        return Ended(status, stdout.decode(), stderr.decode())


def logs(started: DockerContainer) -> str:
    """All that a container said so far."""
    return "\n".join(stream.decode(errors="replace") for stream in started.get_logs())


def address(started: DockerContainer) -> str:
    """Its IP address on Docker's bridge."""
    return started.get_docker_client().bridge_ip(started.get_container_id())
