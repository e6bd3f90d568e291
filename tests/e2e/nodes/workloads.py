"""Images for pods from Debian packages: an archive as `docker save` writes it, which containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.binaries import Progress
from tests.e2e.nodes import debian


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """An image with one layer: its packages and its default command."""

    name: str
    suite: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    variant: str = "minbase"


PAUSE = Workload(
    name="pause",
    suite="trixie",
    packages=("busybox-static",),
    command=("/usr/bin/busybox", "sleep", "infinity"),
    variant="extract",
)
"""The image that holds each pod's namespaces."""

WORKLOADS = (
    PAUSE,
    Workload(name="mariadb:10.11", suite="bookworm", packages=("mariadb-server",), command=("mariadbd",)),
    Workload(name="mariadb:11.8", suite="trixie", packages=("mariadb-server",), command=("mariadbd",)),
    Workload(name="nginx", suite="trixie", packages=("nginx-light",), command=("nginx", "-g", "daemon off;")),
    Workload(name="prometheus", suite="trixie", packages=("prometheus",), command=("prometheus",)),
)
"""The images on every node, besides the provisioner's."""

_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def write_archive(path: Path, progress: Progress) -> None:
    """Build all images and write them to one archive. Raises CommandFailed."""
    manifest = []
    with tarfile.open(path, "w") as archive:
        for workload in WORKLOADS:
            progress(f"nodes: building the image {workload.name} of {' '.join(workload.packages)}")
            manifest.append(_add(archive, workload, path.with_suffix(".layer.tar")))
        _add_json(archive, "manifest.json", manifest)


def _add(archive: tarfile.TarFile, workload: Workload, layer: Path) -> dict[str, Any]:
    """Add an image's layer and configuration; return its manifest entry (Docker Image Specification v1.2)."""
    # An existing database would keep pods from creating their own, and pods do not need apt's files.
    emptied = ("var/lib/mysql", "var/cache/apt", "var/lib/apt/lists")
    sweep = "; ".join(f'test ! -d "$1/{name}" || find "$1/{name}" -mindepth 1 -delete' for name in emptied)
    debian.bootstrap(
        layer,
        suite=workload.suite,
        packages=workload.packages,
        variant=workload.variant,
        options=[f"--customize-hook={sweep}"],
    )
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    name, _, tag = workload.name.partition(":")
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "config": {"Cmd": workload.command, "Env": _ENVIRONMENT},
    }
    archive.add(layer, f"{digest}.tar")
    layer.unlink()
    _add_json(archive, f"{digest}.json", configuration)
    return {"Config": f"{digest}.json", "RepoTags": [f"{name}:{tag or 'latest'}"], "Layers": [f"{digest}.tar"]}


def _add_json(archive: tarfile.TarFile, name: str, value: object) -> None:
    content = json.dumps(value).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
