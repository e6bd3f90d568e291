"""The image at work: claims on an NFS server in a container, with the chart's variables, account and rights."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from testbed import helm as helm_binary
from testbed.cluster import ControlPlane
from testbed.helm import Helm
from testbed.processes import free_port
from tests.e2e.containers import UNPRIVILEGED, Container, docker
from tests.integration.chart.rendering import CHART, Release
from tests.integration.storage import Storage

pytestmark = pytest.mark.timeout(300)

NAMESPACE = "nfs-provisioner"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def release(control_plane: ControlPlane, nfs_server: Container, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The chart, installed for that server."""
    if helm_binary.missing():
        pytest.fail(helm_binary.missing())
    home = tmp_path_factory.mktemp("release")
    helm = Helm(home, kubeconfig=control_plane.kubeconfig)
    values = {
        "nfs": {"server": nfs_server.address, "path": "/exports/k8s"},
        "storageClass": {"onDelete": "delete"},
        "storageClasses": [
            {"name": "archiving", "onDelete": "archive"},
            {"name": "old", "onDelete": "delete", "mountOptions": ["nfsvers=3"]},
        ],
        "listen": {"host": "127.0.0.1", "port": free_port()},
    }
    words = (CHART, f"--namespace={NAMESPACE}", "--create-namespace", "--values=-")
    helm.run("install", "nfs-provisioner", *words, input=yaml.safe_dump(values))
    manifest = helm.run("get", "manifest", "nfs-provisioner", f"--namespace={NAMESPACE}")
    return Release([each for each in yaml.safe_load_all(manifest) if each])


@pytest.fixture(scope="module")
def flags(release: Release, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the kubelet would run the container with: variables, the account's token, no privilege."""
    account = tmp_path_factory.mktemp("account")
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{release.pod['spec']['serviceAccountName']}/token"
    token = control_plane.api.post(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    files = {"token": token, "namespace": NAMESPACE, "ca.crt": control_plane.ca_file.read_text()}
    for name, text in files.items():
        (account / name).write_text(text)
        (account / name).chmod(0o644)
    for place in (account, account.parent):
        place.chmod(0o755)
    url = urlsplit(control_plane.url)
    variables = release.environment(NAMESPACE) | {
        "KUBERNETES_SERVICE_HOST": str(url.hostname),
        "KUBERNETES_SERVICE_PORT": str(url.port),
    }
    # The host's network, for the API server is on its loopback.
    return [
        *UNPRIVILEGED,
        "--network=host",
        f"--volume={account}:{ACCOUNT}:ro",
        *(f"--env={name}={value}" for name, value in variables.items()),
    ]


@pytest.fixture
def daemon(provisioner_image: str, release: Release, flags: list[str]) -> Iterator[Container]:
    """The provisioner's container, with the arguments that the chart renders."""
    with Container(provisioner_image, *release.container["args"], flags=flags) as container:
        yield container


@pytest.fixture
def storage(control_plane: ControlPlane, daemon: Container) -> Iterator[Storage]:
    """Claims in a namespace of the test's own."""
    api, name = control_plane.api, f"test-{secrets.token_hex(4)}"
    api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    yield Storage(api, name, daemon_logs=daemon.logs)
    api.delete(f"/api/v1/namespaces/{name}")


def test_check(provisioner_image: str, release: Release, flags: list[str]) -> None:
    """`check` in the container finds every permission, class and export as it must be."""
    assert release.objects
    done = docker("run", "--rm", *flags, provisioner_image, "check", "-o", "json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True


def test_claims(storage: Storage, exported: Path, daemon: Container) -> None:
    """Claims bind over NFS 4 and 3, tenants' files are kept, deleted and archived as their classes say."""
    classes = {"kept": "nfs-client", "gone": "nfs-client", "old": "old", "archived": "archiving"}
    for name, storage_class in classes.items():
        storage.claim(storage_class, name)
    volumes = {name: storage.bound(name, timeout_s=PATIENCE_S) for name in classes}
    directories = {
        name: exported / volume["spec"]["nfs"]["path"].removeprefix("/exports/k8s/") for name, volume in volumes.items()
    }
    for name, directory in directories.items():
        file = directory / "data"
        file.write_text(name)
        os.chown(file, 1234, 1234)
        file.chmod(0o600)
    for name in ("gone", "old", "archived"):
        storage.delete_claim(name)
        storage.volume_gone(volumes[name]["metadata"]["name"], timeout_s=PATIENCE_S)
    assert [name for name, directory in directories.items() if directory.exists()] == ["kept"]
    assert (directories["kept"] / "data").read_text() == "kept"
    (archive,) = exported.glob("archived-*")
    assert (archive / "data").read_text() == "archived"
    storage.eventually(lambda: not list((exported / ".provisioner" / "trash").iterdir()), "the trash is purged")
    storage.delete_claim("kept")
    storage.volume_gone(volumes["kept"]["metadata"]["name"], timeout_s=PATIENCE_S)
    assert daemon.stop() == 0
