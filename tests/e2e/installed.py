"""The chart's release on real nodes: two replicas in a namespace that accepts only restricted pods."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from testbed import helm, snapshots
from testbed.api import ApiError, Object
from testbed.helm import Helm
from testbed.waiting import eventually
from tests.e2e.containers import PROVISIONER
from tests.e2e.nodes.cluster import NodeCluster
from tests.e2e.stories import PATIENCE_S, RESTRICTED, Story, is_ready
from tests.integration.chart.rendering import CHART

NAME = NAMESPACE = "nfs-provisioner"
MYSQL_UID = 100
"""The uid of Debian's MariaDB in the images of both versions."""

SHARED_GID = 5678
"""The group that can write to volumes of the class `shared`."""

_WHERE = f"--namespace={NAMESPACE}"
_HELM_S = 900.0
_WAIT = f"--timeout={_HELM_S:.0f}s"


class Installed:
    """One release; `helm` has the administrator's rights."""

    def __init__(self, cluster: NodeCluster, home: Path) -> None:
        """Create the release's namespace without installing it; `home` is Helm's home directory."""
        self.cluster = cluster
        self.helm = Helm(home, kubeconfig=cluster.kubeconfig)
        self._values = home / "values.yaml"
        repository, _, tag = PROVISIONER.rpartition(":")
        port = f"port={cluster.nfs_port}"
        values = {
            "image": {"repository": repository, "tag": tag},
            "nfs": {"server": cluster.nfs_server, "path": cluster.nfs_path, "mountOptions": ["nfsvers=4.1", port]},
            "storageClass": {"onDelete": "delete"},
            "snapshots": {"enabled": True},
            "storageClasses": [
                {"name": "archived", "onDelete": "archive"},
                {"name": "retained", "reclaimPolicy": "Retain"},
                {"name": "databases", "onDelete": "delete", "parameters": {"uid": str(MYSQL_UID), "mode": "0700"}},
                {"name": "shared", "onDelete": "delete", "parameters": {"gid": str(SHARED_GID), "mode": "2770"}},
                {"name": "private", "onDelete": "delete", "parameters": {"gid": "auto", "gidRange": "63000-63999"}},
            ],
        }
        self._values.write_text(yaml.safe_dump(values))
        cluster.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": RESTRICTED}})

    @property
    def provisioner(self) -> str:
        """The provisioner's name in classes."""
        return f"cluster.local/{NAME}"

    def install(self) -> None:
        """Install the chart, and wait until both replicas are ready."""
        self.helm.run("install", NAME, CHART, _WHERE, f"--values={self._values}", timeout_s=_HELM_S)
        self.ready()

    def upgrade(self, *changes: str) -> None:
        """Upgrade the release with further values, such as `log.level=debug`, without waiting for the replicas."""
        sets = [f"--set={each}" for each in changes]
        self.helm.run("upgrade", NAME, CHART, _WHERE, "--reset-then-reuse-values", *sets, timeout_s=_HELM_S)

    @contextmanager
    def snapshots(self) -> Iterator[None]:
        """Run the stock snapshot-controller, with a class for the release. Raises BinariesMissing, ServerFailed."""
        plane = self.cluster.control_plane
        snapshots.create_crds(plane)
        with snapshots.SnapshotController(plane):
            body = {"driver": self.provisioner, "deletionPolicy": "Delete"}
            metadata = {"name": "nfs-client"}
            kind = {"apiVersion": f"{snapshots.GROUP}/v1", "kind": "VolumeSnapshotClass", "metadata": metadata}
            self.cluster.apply(kind | body)
            yield
        snapshots.delete_crds(plane)

    def test(self) -> str:
        """Run the chart's own tests and return Helm's output. Raises HelmFailed if one fails."""
        return self.helm.run("test", NAME, _WHERE, _WAIT, timeout_s=_HELM_S + 30)

    def uninstall(self) -> None:
        """Uninstall the release and wait until all its pods are gone."""
        self.helm.run("uninstall", NAME, _WHERE, "--wait", _WAIT, timeout_s=_HELM_S + 30)
        eventually(lambda: not self.pods(), "the replicas are gone", timeout_s=PATIENCE_S)

    def pods(self) -> list[Object]:
        """Return the replicas' pods, including terminating ones."""
        return self.cluster.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"release={NAME}")

    def ready(self) -> list[Object]:
        """Wait until the rollout is complete: two pods of the newest revision are ready, and no other is left."""

        def rolled_out() -> list[Object] | None:
            deployment = self.cluster.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}")
            status, pods = deployment["status"], self.pods()
            seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
            done = seen and status.get("updatedReplicas") == status.get("readyReplicas") == len(pods) == 2
            return pods if done and all(map(is_ready, pods)) else None

        return eventually(rolled_out, "both replicas are ready", timeout_s=PATIENCE_S, explain=self.logs)

    def leader(self) -> Object:
        """Wait until one of the pods holds the Lease, and return it."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/cluster.local-{NAME}"

        def holder() -> Object | None:
            identity = self.cluster.api.get(path)["spec"].get("holderIdentity") or ""
            # The identity begins with the pod's host name, which is the pod's name.
            found = [each for each in self.pods() if each["metadata"]["name"] == identity.partition("_")[0]]
            return found[0] if found else None

        return eventually(holder, "a replica leads", timeout_s=PATIENCE_S, explain=self.logs)

    def logs(self) -> str:
        """Return the pods' states and their last log lines, as far as their nodes answer."""
        lines = []
        for pod in self.pods():
            name = pod["metadata"]["name"]
            lines.append(f"--- {name} on {pod['spec'].get('nodeName')}: {json.dumps(pod['status'].get('conditions'))}")
            try:
                lines += self.cluster.logs(NAMESPACE, name).splitlines()[-20:]
            except (ApiError, OSError, subprocess.SubprocessError) as exc:
                lines.append(f"the log cannot be read: {exc}")
        return "\n".join(lines)


@pytest.fixture(scope="session")
def installed(node_cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The chart's release on the real nodes, both replicas ready."""
    if helm.missing():
        pytest.fail(helm.missing())
    release = Installed(node_cluster, tmp_path_factory.mktemp("release"))
    began = time.monotonic()
    release.install()
    node_cluster.report.note("helm install: from the command to both replicas ready", time.monotonic() - began)
    return release


@pytest.fixture
def story(installed: Installed) -> Iterator[Story]:
    """A namespace on the real nodes, deleted with its content before the next test."""
    started = Story(installed.cluster, daemon_logs=installed.logs)
    yield started
    started.end()
