"""The chart installed by Helm, and the daemon with exactly the rendered settings and rights."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import ganesha
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from testbed.helm import Helm
from testbed.processes import free_port, tail
from tests.integration.chart import pod
from tests.integration.chart.pod import Pod, Sandbox
from tests.integration.chart.rendering import CHART, Release, rules
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(240)

NAMESPACE = "nfs-provisioner"
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Audit:
    """The API server's audit log of service accounts (Kubernetes, Auditing)."""

    log: Path

    def calls(self, user: str) -> list[dict[str, Any]]:
        """Return the calls of a user, each once."""
        seen = {}
        for line in self.log.read_text().splitlines():
            entry = json.loads(line)
            if entry["user"]["username"] == user:
                seen[entry["auditID"]] = entry
        return list(seen.values())

    def used(self, user: str) -> set[tuple[str, ...]]:
        """Return group, resource with subresource, and verb of each allowed call on a resource."""
        return {
            (
                each["objectRef"].get("apiGroup", ""),
                "/".join(filter(None, (each["objectRef"]["resource"], each["objectRef"].get("subresource")))),
                each["verb"],
            )
            for each in self.calls(user)
            if "objectRef" in each and each["annotations"]["authorization.k8s.io/decision"] == "allow"
        }

    def refused(self, user: str) -> list[str]:
        """Return the calls that RBAC refused."""
        return [
            f"{each['verb']} {each['requestURI']}"
            for each in self.calls(user)
            if each["annotations"]["authorization.k8s.io/decision"] != "allow"
        ]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Audit]]:
    """A control plane for this module that audits the calls of service accounts."""
    home = tmp_path_factory.mktemp("audited")
    (home / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    log = home / "audit.log"
    log.touch()
    flags = (f"--audit-policy-file={home / 'policy.yaml'}", f"--audit-log-path={log}")
    with ControlPlane(home / "plane", api_server_flags=flags) as cluster:
        yield cluster, Audit(log)


@dataclass(frozen=True)
class Installed:
    """A release on a control plane, and its NFS server."""

    cluster: ControlPlane
    audit: Audit
    helm: Helm
    server: Ganesha
    values: Path
    release: Release

    @property
    def user(self) -> str:
        """The daemon's user name on the API server."""
        return f"system:serviceaccount:{NAMESPACE}:{self.release.one('ServiceAccount')['metadata']['name']}"


@pytest.fixture(scope="module")
def installed(
    audited: tuple[ControlPlane, Audit], helm_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The chart, installed with an export of a running server and a class whose server is down."""
    home = tmp_path_factory.mktemp("installed")
    (home / "export").mkdir()
    reason = pod.missing() or ganesha.missing() or ganesha.vfs_problem(home)
    if reason:
        pytest.skip(f"this machine cannot run a pod or an NFS server: {reason}")
    cluster, audit = audited
    with Ganesha([Export(home / "export", "/nfs")]) as server:
        values = home / "values.yaml"
        down = {"server": "127.0.0.1", "share": "/down"}
        values.write_text(
            yaml.safe_dump(
                {
                    "nfs": {"server": "127.0.0.1", "path": "/nfs", "mountOptions": [f"port={server.port}"]},
                    "storageClass": {"onDelete": "delete"},
                    "storageClasses": [
                        {"name": "down", "parameters": down, "mountOptions": [f"port={free_port()}"]},
                        {"name": "archiving", "onDelete": "archive"},
                    ],
                    "listen": {"port": free_port()},
                    "leaderElection": {"leaseDuration": "4s", "renewDeadline": "3s", "retryPeriod": "1s"},
                }
            )
        )
        helm = Helm(helm_home, kubeconfig=cluster.kubeconfig)
        where = (f"--namespace={NAMESPACE}",)
        helm.run("install", "nfs-provisioner", CHART, *where, "--create-namespace", f"--values={values}")
        manifest = helm.run("get", "manifest", "nfs-provisioner", *where)
        release = Release([each for each in yaml.safe_load_all(manifest) if each])
        yield Installed(cluster, audit, helm, server, values, release)


@pytest.fixture
def running(installed: Installed, tmp_path: Path) -> Iterator[Pod]:
    """The daemon, ready."""
    with Pod(installed.release, installed.cluster, tmp_path) as started:
        yield started


@pytest.fixture
def storage(installed: Installed, running: Pod) -> Iterator[Storage]:
    """Claims in a namespace of the test's own."""
    api, name = installed.cluster.api, f"test-{secrets.token_hex(4)}"
    api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    yield Storage(api, name, daemon_logs=lambda: tail(running.log))
    api.delete(f"/api/v1/namespaces/{name}")


def test_the_release_works_with_its_own_rights(installed: Installed, running: Pod, storage: Storage) -> None:
    """A claim binds, grows, is deleted and archived; no call is refused, and every rule of the roles is used."""
    storage.claim("nfs-client", "kept")
    storage.claim("archiving", "archived")
    storage.claim("down", "waiting")
    volumes = {name: storage.bound(name, timeout_s=PATIENCE_S) for name in ("kept", "archived")}
    directories = {name: _directory(installed, volume) for name, volume in volumes.items()}
    assert all(directory.is_dir() for directory in directories.values())
    (directories["archived"] / "data").write_text("kept for later")
    storage.api.patch(f"{storage.claims}/kept", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    storage.eventually(
        lambda: storage.get_claim("kept")["status"]["capacity"]["storage"] == "2Mi", "the claim has grown"
    )
    for name, volume in volumes.items():
        storage.delete_claim(name)
        storage.volume_gone(volume["metadata"]["name"], timeout_s=PATIENCE_S)
    assert not any(directory.exists() for directory in directories.values())
    (archive,) = directories["archived"].parent.glob("archived-*")
    assert (archive / "data").read_text() == "kept for later"

    # The alert about pending claims uses this metric.
    assert 'nfs_provisioner_claim_pending_seconds{class="down"}' in running.read("/metrics")
    allowed = {(group, resource, verb) for _, group, resource, verb, _ in rules(installed.release)}
    # Repeated events are patched, and a claim on a server that is down fails repeatedly.
    storage.eventually(
        lambda: allowed <= installed.audit.used(installed.user),
        f"every rule is used; at first not: {sorted(allowed - installed.audit.used(installed.user))}",
        timeout_s=PATIENCE_S,
    )
    assert installed.audit.refused(installed.user) == []


def test_check_in_the_pod(installed: Installed, tmp_path: Path) -> None:
    """`check`, run as `helm test` runs it, accepts all permissions and the export, and reports the dead export."""
    command = Sandbox(installed.release, installed.cluster, tmp_path).command("check", "-o", "json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    findings = {(each["kind"], each["name"]): each["ok"] for each in json.loads(done.stdout)["findings"]}
    # No daemon leads during this test.
    assert [name for (kind, name), ok in findings.items() if kind not in ("export", "leader") and not ok] == []
    assert len([kind for kind, _ in findings if kind == "permission"]) >= 7
    assert findings["export", f"127.0.0.1:/nfs port {installed.server.port}"]
    assert [name for (_, name), ok in findings.items() if not ok and name.startswith("127.0.0.1:/down")]


def test_upgrade_and_uninstall_keep_volumes(installed: Installed, running: Pod, storage: Storage) -> None:
    """An upgrade changes the Deployment, and an uninstall leaves volumes, claims and data alone."""
    storage.claim("nfs-client")
    volume = storage.bound(timeout_s=PATIENCE_S)
    directory = _directory(installed, volume)
    (directory / "data").write_text("precious")
    words = ("nfs-provisioner", f"--namespace={NAMESPACE}")
    chart = (CHART, "--reset-then-reuse-values")
    installed.helm.run("upgrade", words[0], *chart, words[1], "--set=log.level=debug", "--set=replicaCount=3")
    deployment = installed.cluster.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/nfs-provisioner")
    assert deployment["spec"]["replicas"] == 3
    installed.helm.run("uninstall", *words)
    assert storage.get_volume(volume["metadata"]["name"])["status"]["phase"] == "Bound"
    installed.helm.run("install", words[0], CHART, words[1], f"--values={installed.values}")
    assert (directory / "data").read_text() == "precious"
    storage.delete_claim()


def _directory(installed: Installed, volume: dict[str, Any]) -> Path:
    (export,) = installed.server.exports
    return export.directory.joinpath(volume["spec"]["nfs"]["path"].removeprefix("/nfs/"))
