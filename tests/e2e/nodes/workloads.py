"""Images for pods from Debian packages: an archive as `docker save` writes it, which containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
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
    also: tuple[str, ...] = ()
    """Further names of the image."""


PAUSE = Workload(
    name="pause",
    suite="trixie",
    packages=("busybox-static",),
    command=("/usr/bin/busybox", "sleep", "infinity"),
    variant="extract",
    also=("registry.k8s.io/pause:3.10.2",),
)
"""The image that holds each pod's namespaces."""

WORKLOADS = (
    PAUSE,
    Workload(name="mariadb:10.11", suite="bookworm", packages=("mariadb-server",), command=("mariadbd",)),
    Workload(name="mariadb:11.8", suite="trixie", packages=("mariadb-server",), command=("mariadbd",)),
    Workload(
        name="nginx",
        suite="trixie",
        packages=("nginx-light",),
        command=("nginx", "-g", "daemon off;"),
        also=("registry.k8s.io/e2e-test-images/nginx:1.27.0-2",),
    ),
    Workload(name="prometheus", suite="trixie", packages=("prometheus",), command=("prometheus",)),
)
"""The images on every node, besides the provisioner's."""

_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


class Archive:
    """An archive of images, as `docker save` writes it; a context that completes the archive at its end."""

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w")  # noqa: SIM115 - __exit__ closes it
        self._manifest: list[dict[str, Any]] = []
        self._layers: set[str] = set()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._add_json("manifest.json", self._manifest)
        self._archive.close()

    def add(self, *names: str, layers: Sequence[Path], command: Sequence[str], entrypoint: Sequence[str] = ()) -> None:
        """Add an image of layers, each a tar file, the lowest first (Docker Image Specification v1.2)."""
        digests = [self._add_layer(layer) for layer in layers]
        configuration = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "config": {"Entrypoint": list(entrypoint), "Cmd": list(command), "Env": _ENVIRONMENT},
        }
        file = hashlib.sha256(names[0].encode()).hexdigest() + ".json"
        self._add_json(file, configuration)
        tags = [name if ":" in name else f"{name}:latest" for name in names]
        self._manifest.append({"Config": file, "RepoTags": tags, "Layers": [f"{each}.tar" for each in digests]})

    def _add_layer(self, layer: Path) -> str:
        with layer.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest not in self._layers:
            self._layers.add(digest)
            self._archive.add(layer, f"{digest}.tar")
        return digest

    def _add_json(self, name: str, value: object) -> None:
        content = json.dumps(value).encode()
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        self._archive.addfile(entry, io.BytesIO(content))


def add_all(archive: Archive, layer: Path, progress: Progress) -> None:
    """Build all images and add them to an archive; `layer` is a temporary file. Raises CommandFailed."""
    for workload in WORKLOADS:
        progress(f"nodes: building the image {workload.name} of {' '.join(workload.packages)}")
        write_layer(layer, workload)
        archive.add(workload.name, *workload.also, layers=[layer], command=workload.command)
        layer.unlink()


def write_layer(layer: Path, workload: Workload) -> None:
    """Write the one layer of an image, a tar file. Raises CommandFailed."""
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
