"""The images, a control plane, and an NFS server in a container."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.docker_client import DockerClient

from testbed import binaries, docker
from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.e2e.containers import NFS_SERVER, PROVISIONER, address, container, logs
from tests.e2e.installed import installed as installed
from tests.e2e.installed import story as story
from tests.e2e.nodes.fixtures import node_cluster as node_cluster


def _image(name: str) -> str:
    reason = docker.unanswered()
    if reason:
        pytest.skip(f"this machine cannot run containers: {reason}")
    if not DockerClient().client.images.list(name):
        pytest.fail(f"there is no image {name}: run `make image`")
    return name


@pytest.fixture(scope="session")
def provisioner_image() -> str:
    """The provisioner's image."""
    return _image(PROVISIONER)


@pytest.fixture(scope="session")
def nfs_server_image() -> str:
    """The NFS server's image."""
    return _image(NFS_SERVER)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane on the loopback."""
    if binaries.present(("etcd", "kube-apiserver", "kube-controller-manager")) is None:
        pytest.fail("the control plane is not built yet: run `python -m testbed build` once")
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def exported() -> Iterator[Path]:
    """The directory that the NFS server exports, on a file system with file handles."""
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def nfs_server(nfs_server_image: str, exported: Path) -> Iterator[str]:
    """The address of a running NFS server in a container, which exports `exported` as /exports/k8s."""
    fields = {
        "env": {"EXPORTS": "/exports/k8s"},
        "volumes": [(str(exported), "/exports/k8s", "rw")],
        "cap_add": ["DAC_READ_SEARCH"],
        "security_opt": ["seccomp=unconfined"],
    }
    with container(nfs_server_image, **fields) as server:
        host = address(server)
        eventually(lambda: _listens(host), "the NFS server listens", explain=lambda: logs(server))
        yield host


def _listens(host: str) -> bool:
    with socket.create_connection((host, 2049), timeout=2.0):
        return True
