"""Real servers for the integration tests: namespaces, exports and daemons on the session's control plane."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import ganesha
from testbed.api import Api
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.storage import ServedStorage, Storage


@pytest.fixture
def cluster_api(control_plane: ControlPlane) -> Api:
    """The administrator's API client."""
    return control_plane.api


@pytest.fixture
def namespace(cluster_api: Api) -> Iterator[str]:
    """A new namespace; the test requests its deletion at the end and does not wait for it."""
    name = f"test-{secrets.token_hex(4)}"
    cluster_api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    cluster_api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def export_directory(tmp_path: Path) -> Path:
    """An empty directory to export."""
    directory = tmp_path / "export"
    directory.mkdir()
    return directory


@pytest.fixture
def nfs_server(export_directory: Path) -> Iterator[Ganesha]:
    """An NFSv4 server that exports `export_directory` as /nfs; skipped where it cannot run."""
    reason = ganesha.missing() or ganesha.vfs_problem(export_directory)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    with Ganesha([Export(export_directory, "/nfs")]) as server:
        yield server


@pytest.fixture
def daemon(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Daemons]:
    """Starts `nfs-provisioner run` when called with flags."""
    daemons = Daemons(control_plane, tmp_path)
    yield daemons
    daemons.kill()


@pytest.fixture
def storage(cluster_api: Api, namespace: str, daemon: Daemons, tmp_path: Path) -> Iterator[Storage]:
    """Classes and claims in the test's namespace."""
    storage = Storage(cluster_api, namespace, daemon_logs=daemon.log_tails, roots=[tmp_path / "export"])
    yield storage
    storage.remove_volumes()
    storage.remove_classes()


@dataclass(frozen=True)
class Service:
    """The daemon of a module's tests, and its exports."""

    daemon: Daemon
    export: Exported
    """The default export."""
    second: Exported
    """Another export, which is a server's root."""


@pytest.fixture(scope="module")
def service(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One daemon for all tests of a module; tests that stop or hang a daemon start their own."""
    home = tmp_path_factory.mktemp("service")
    (home / "export").mkdir()
    (home / "second").mkdir()
    export, second = Exported.new(home / "export"), Exported.new(home / "second", "/")
    daemons = Daemons(control_plane, home)
    default = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    started = daemons("--no-leader-election", export.flag, second.flag, environment=default)
    yield Service(started, export, second)
    daemons.kill()


@pytest.fixture
def served(cluster_api: Api, namespace: str, service: Service) -> Iterator[ServedStorage]:
    """Classes and claims in the test's namespace, served by the module's daemon."""
    storage = ServedStorage(cluster_api, namespace, daemon=service.daemon, export=service.export)
    yield storage
    storage.remove_volumes()
    storage.remove_classes()


@pytest.fixture
def plane(tmp_path: Path, control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane that the test can damage; `control_plane` checks that it is built."""
    with ControlPlane(tmp_path / "plane") as own:
        yield own


@pytest.fixture
def daemons(plane: ControlPlane, tmp_path: Path) -> Iterator[Daemons]:
    """Starts daemons on the test's own control plane."""
    started = Daemons(plane, tmp_path)
    yield started
    started.kill()
