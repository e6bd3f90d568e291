"""The image with an NFS server in a container, with the chart's variables, account and rights."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from testcontainers.core.container import DockerContainer

from testbed import helm as helm_binary
from testbed import vm
from testbed.api import Object
from testbed.cluster import ControlPlane
from testbed.helm import Helm
from testbed.processes import free_port
from testbed.vm import KernelClient
from testbed.waiting import eventually
from tests.e2e.containers import UNPRIVILEGED, container, logs, run
from tests.integration.chart.rendering import CHART, Release
from tests.support.disk import in_trash
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(420)

NAMESPACE = "nfs-provisioner"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
EXPORT = "/exports/k8s"
PATIENCE_S = 60.0

TENANT, STRANGER = 1234, 1235

TENANCY = """
set -e
as() { uid=$1; shift; setpriv --reuid $uid --regid $uid --clear-groups "$@"; }
echo "$VOLUMES" | while read path options; do
  mount -t nfs -o $options $SERVER:$path /mnt
  as $TENANT sh -ec 'umask 077; echo "written by $(id -u) in $0" > /mnt/data' $path
  umount /mnt
done
echo "$VOLUMES" | while read path options; do
  mount -t nfs -o $options $SERVER:$path /mnt
  as $TENANT cat /mnt/data
  if as $STRANGER cat /mnt/data 2> /dev/null; then echo "a stranger may read it"; exit 1; fi
  umount /mnt
done
"""
"""A tenant's calls on each volume: write, unmount, mount again, and read."""


@pytest.fixture(scope="module")
def release(control_plane: ControlPlane, nfs_server: str, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The chart, installed for that server."""
    if helm_binary.missing():
        pytest.fail(helm_binary.missing())
    home = tmp_path_factory.mktemp("release")
    helm = Helm(home, kubeconfig=control_plane.kubeconfig)
    values = {
        "nfs": {"server": nfs_server, "path": EXPORT, "mountOptions": ["nfsvers=4.1"]},
        "storageClass": {"onDelete": "delete"},
        "storageClasses": [
            {"name": "archiving", "onDelete": "archive"},
            {"name": "old", "onDelete": "delete", "mountOptions": ["nfsvers=3", "nolock", "proto=tcp"]},
        ],
        "listen": {"port": free_port()},
    }
    words = (CHART, f"--namespace={NAMESPACE}", "--create-namespace", "--values=-")
    helm.run("install", "nfs-provisioner", *words, input=yaml.safe_dump(values))
    manifest = helm.run("get", "manifest", "nfs-provisioner", f"--namespace={NAMESPACE}")
    return Release([each for each in yaml.safe_load_all(manifest) if each])


@pytest.fixture(scope="module")
def account(release: Release, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's service account as the kubelet gives it to the pod."""
    directory = tmp_path_factory.mktemp("account")
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{release.pod['spec']['serviceAccountName']}/token"
    token = control_plane.api.post(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    files = {"token": token, "namespace": NAMESPACE, "ca.crt": control_plane.ca_file.read_text()}
    for name, text in files.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o644)
    for place in (directory, directory.parent):
        place.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def as_rendered(release: Release, control_plane: ControlPlane, account: Path) -> dict[str, Any]:
    """The kubelet's settings for the container: variables, the account's token, no privileges."""
    url = urlsplit(control_plane.url)
    cluster = {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
    return UNPRIVILEGED | {
        "env": release.environment(NAMESPACE) | cluster,
        "volumes": [(str(account), ACCOUNT, "ro")],
        # The host's network, because the API server is on its loopback.
        "network_mode": "host",
    }


@pytest.fixture
def daemon(provisioner_image: str, release: Release, as_rendered: dict[str, Any]) -> Iterator[DockerContainer]:
    """The provisioner's container with the rendered arguments."""
    with container(provisioner_image, *release.container["args"], **as_rendered) as started:
        yield started


@pytest.fixture
def storage(control_plane: ControlPlane, daemon: DockerContainer) -> Iterator[Storage]:
    """Claims in a namespace of the test's own."""
    api, name = control_plane.api, f"test-{secrets.token_hex(4)}"
    api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    yield Storage(api, name, daemon_logs=lambda: logs(daemon))
    api.delete(f"/api/v1/namespaces/{name}")


def test_check(provisioner_image: str, as_rendered: dict[str, Any], daemon: DockerContainer) -> None:
    """`check` in the container accepts every permission, class and export, and finds the leader."""
    eventually(lambda: "leading" in logs(daemon), "the daemon leads", timeout_s=PATIENCE_S)
    ended = run(provisioner_image, "check", "-o", "json", **as_rendered)
    assert ended.status == 0, ended.stdout + ended.stderr
    assert json.loads(ended.stdout)["ok"] is True


def test_claims(storage: Storage, exported: Path, nfs_server: str, daemon: DockerContainer) -> None:
    """Claims bind over NFS 4 and 3, tenants read what they wrote, and each class's rule is followed."""
    reason = vm.missing()
    if reason:
        pytest.skip(f"this machine cannot run the kernel's NFS client: {reason}")
    classes = {"kept": "nfs-client", "gone": "nfs-client", "old": "old", "archived": "archiving"}
    for name, storage_class in classes.items():
        storage.claim(storage_class, name)
    volumes = {name: storage.bound(name, timeout_s=PATIENCE_S) for name in classes}
    written = tenancy(nfs_server, volumes)
    directories = {name: exported / PurePath(path(volume)).relative_to(EXPORT) for name, volume in volumes.items()}
    for name in ("gone", "old", "archived"):
        storage.delete_claim(name)
        storage.volume_gone(volumes[name]["metadata"]["name"], timeout_s=PATIENCE_S)
    assert [name for name, directory in directories.items() if directory.exists()] == ["kept"]
    (archive,) = exported.glob("archived-*")
    for name, directory in {"kept": directories["kept"], "archived": archive}.items():
        assert (directory / "data").read_text() == written[name]
        assert (directory / "data").stat().st_uid == TENANT
    storage.eventually(lambda: not in_trash(exported), "the trash is purged")
    storage.delete_claim("kept")
    storage.volume_gone(volumes["kept"]["metadata"]["name"], timeout_s=PATIENCE_S)
    stopped = daemon.get_wrapped_container()
    stopped.stop(timeout=20)
    assert stopped.wait()["StatusCode"] == 0


def path(volume: Object) -> str:
    """Return a volume's path on its server."""
    found: str = volume["spec"]["nfs"]["path"]
    return found


def tenancy(server: str, volumes: dict[str, Object]) -> dict[str, str]:
    """Write and read a file `data` on each volume with Linux's client; return the texts."""
    mounts = [f"{path(volume)} {','.join(volume['spec']['mountOptions'])}" for volume in volumes.values()]
    variables = {"SERVER": server, "VOLUMES": "\n".join(mounts), "TENANT": str(TENANT), "STRANGER": str(STRANGER)}
    ran = KernelClient().run(TENANCY, variables, timeout_s=240.0)
    written = {name: f"written by {TENANT} in {path(volume)}\n" for name, volume in volumes.items()}
    assert (ran.status, ran.output) == (0, "".join(written.values()))
    return written
