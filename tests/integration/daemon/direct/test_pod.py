"""The daemon as it runs in a pod: uid 65534, no capabilities, a read-only root."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.api import Api
from testbed.cluster import ControlPlane
from testbed.ganesha import Ganesha
from testbed.processes import Server, free_port, tail
from tests.integration.daemon.direct.conftest import MakeServer
from tests.support.direct_export import DirectExport
from tests.support.disk import disk
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(180)

NOBODY = 65534
DROP = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
    "--no-new-privs", "--pdeathsig=KILL", "--",
)  # fmt: skip
SANDBOX = ("unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh", *DROP)
LOWEST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NFS_VERSIONS = ("3", "4.0", "4.1", "4.2", None)
TOLD_S = 10.0


@contextmanager
def lowest_unprivileged_port(port: int) -> Iterator[None]:
    """Set the sysctl that a pod can set for itself, while the context is open."""
    before = LOWEST_PORT.read_text()
    LOWEST_PORT.write_text(str(port))
    try:
        yield
    finally:
        LOWEST_PORT.write_text(before)


@pytest.fixture(params=[1024, 512], ids=["any-port", "low-ports"])
def low_ports(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the pod can use source ports below 1024; skipped where this machine cannot run such pods."""
    lacking = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking or not os.access(LOWEST_PORT, os.W_OK):
        pytest.skip(f"this machine cannot: {', '.join(lacking) or 'it takes root, and a network of its own'}")
    alive = subprocess.run([*SANDBOX, sys.executable, "-c", "import provisioner"], capture_output=True, check=False)
    if alive.returncode != 0:
        pytest.skip(f"this machine cannot: uid {NOBODY} may not run {sys.executable}")
    with lowest_unprivileged_port(request.param):
        yield request.param < 1024


@pytest.fixture
def kubeconfig(control_plane: ControlPlane) -> Iterator[Path]:
    """The administrator's kubeconfig and its certificate authority, readable for uid 65534."""
    config = json.loads(control_plane.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    with tempfile.TemporaryDirectory(prefix="pod-") as name:
        home = Path(name)
        shutil.copy(cluster["certificate-authority"], home / "ca.crt")
        cluster["certificate-authority"] = str(home / "ca.crt")
        (home / "kubeconfig").write_text(json.dumps(config))
        for place in (home, home / "ca.crt", home / "kubeconfig"):
            os.chown(place, NOBODY, NOBODY)
        yield home / "kubeconfig"


class Pod(Server):
    """`nfs-provisioner run` in the sandbox."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.provisioner_name = f"test.example/{secrets.token_hex(4)}"
        self._port = free_port()
        command = [
            *(*SANDBOX, sys.executable, "-m", "provisioner", "run", "--no-leader-election", "--log-format=json"),
            f"--kubeconfig={kubeconfig}",
            f"--provisioner-name={self.provisioner_name}",
            f"--listen=127.0.0.1:{self._port}",
        ]
        super().__init__("nfs-provisioner (pod)", command, log=log, ready=self._answers)

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(f"http://127.0.0.1:{self._port}/readyz", timeout=2.0).close()
        except OSError:
            return False
        return True


@pytest.fixture
def pod(kubeconfig: Path, low_ports: bool, tmp_path: Path) -> Iterator[Pod]:
    """A pod that is ready; it depends on `low_ports`, which sets the machine's sysctl."""
    with Pod(kubeconfig, tmp_path / "pod.log") as running:
        yield running


@pytest.fixture
def storage(cluster_api: Api, namespace: str, pod: Pod) -> Iterator[Storage]:
    """Classes and claims in the test's namespace."""
    storage = Storage(cluster_api, namespace, daemon_logs=lambda: tail(pod.log))
    yield storage
    storage.remove_classes()


def assert_unprivileged(pid: int | None) -> None:
    """Check that the process has uid 65534, no capabilities and a read-only root (proc(5))."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(NOBODY)}
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {0}
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    (*_, root) = (options for _, place, _, options, *_ in mounts if place == "/")
    assert "ro" in root.split(",")


def test_a_pod_serves_every_version(
    pod: Pod, low_ports: bool, storage: Storage, serve: MakeServer, tmp_path: Path
) -> None:
    """Claims bind, are archived and deleted in every version; with low ports, also on a secure export."""
    assert_unprivileged(pod.pid)
    server = serve(*(f"/pod-{low_ports}-{version}" for version in NFS_VERSIONS))
    secure = secured(serve, f"/secure-{low_ports}")
    exports = [DirectExport(server, f"/pod-{low_ports}-{version}", version) for version in NFS_VERSIONS]
    locked = [DirectExport(secure, f"/secure-{low_ports}", version) for version in ("4.1",)]
    served = [*exports, *locked] if low_ports else exports
    names = {
        f"{rule}-{number}": (rule, export) for rule in ("delete", "archive") for number, export in enumerate(served)
    }
    for name, (rule, export) in names.items():
        storage.claim(class_on(storage, pod, export, rule), name)
    volumes = {name: storage.bound(name) for name in names}
    for name, (_, export) in names.items():
        found = export.directory(volumes[name]).stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (0o770, 1234)
        storage.delete_claim(name)
    for volume in volumes.values():
        storage.volume_gone(volume["metadata"]["name"])
    for export in served:
        purged(storage, export)
        assert not disk(export.root).directories
        assert len(disk(export.root).archives) == 1
    if not low_ports:
        for export in locked:
            name = f"locked-{export.version}"
            storage.claim(class_on(storage, pod, export, "delete"), name)
            message = storage.event("ProvisioningFailed", name, timeout_s=TOLD_S)["message"]
            assert export.location in message  # Ganesha hides an export from clients that it does not let in.
            assert "ip_unprivileged_port_start" in message


def secured(serve: MakeServer, path: str) -> Ganesha:
    """Start a server whose export requires source ports below 1024."""
    return serve(path, privileged_port=True)


def class_on(storage: Storage, pod: Pod, export: DirectExport, rule: str) -> str:
    """Create a class of the pod on an export, with another owner than the pod's user."""
    parameters = export.parameters | {"onDelete": rule, "mode": "0770", "uid": "1234"}
    return storage.storage_class(pod.provisioner_name, parameters, mountOptions=export.mount_options)


def purged(storage: Storage, export: DirectExport) -> None:
    """Wait until an export's trash is empty."""
    storage.eventually(lambda: not disk(export.root).trash, "the trash is purged", timeout_s=30)
