"""The images, a control plane, and a release's account and rights for the provisioner's container."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import binaries
from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.e2e import containers
from tests.e2e.containers import NFS_SERVER, PROVISIONER, Container


def _image(name: str, target: str) -> str:
    reason = containers.missing()
    if reason:
        pytest.skip(f"this machine cannot run containers: {reason}")
    if containers.docker("image", "inspect", name, check=False).returncode:
        pytest.fail(f"there is no image {name}: run `{target}`")
    return name


@pytest.fixture(scope="session")
def provisioner_image() -> str:
    """The provisioner's image."""
    return _image(PROVISIONER, "docker/build.sh .venv/bin/python")


@pytest.fixture(scope="session")
def nfs_server_image() -> str:
    """The NFS server's image."""
    return _image(NFS_SERVER, f"docker build -t {NFS_SERVER} docker/nfs-server")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real one, on loopback."""
    if binaries.present(("etcd", "kube-apiserver", "kube-controller-manager")) is None:
        pytest.fail("the control plane is not built yet: run `python -m testbed build` once")
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def exported() -> Iterator[Path]:
    """The directory that the NFS server exports, on a filesystem that has file handles."""
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def nfs_server(nfs_server_image: str, exported: Path) -> Iterator[Container]:
    """An NFS server in a container, which exports `exported` as /exports/k8s, and serves."""
    flags = (
        *("--cap-add=DAC_READ_SEARCH", "--security-opt=seccomp=unconfined"),
        *("--env=EXPORTS=/exports/k8s", f"--volume={exported}:/exports/k8s"),
    )
    with Container(nfs_server_image, flags=flags) as server:
        eventually(lambda: _listens(server.address), "the NFS server listens", explain=server.logs)
        yield server


def _listens(host: str) -> bool:
    with socket.create_connection((host, 2049), timeout=2.0):
        return True
