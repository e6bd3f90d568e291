"""From the nfs-subdir chart to this one in place: `helm upgrade` of its release, on a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbed.api import Api, Object
from testbed.helm import Helm, HelmFailed
from tests.integration.chart.rendering import CHART

pytestmark = pytest.mark.timeout(120)

PEER = "nfs-subdir-external-provisioner"


def peer_objects(full: str, release: str, class_name: str) -> list[Object]:
    """What the nfs-subdir chart 4.0.18 installs, as far as an upgrade could trip over it: names, selectors, classes."""
    labels = {"app": PEER, "release": release}
    metadata = {"name": full, "labels": labels}
    mount = {"name": f"{PEER}-root", "mountPath": "/persistentvolumes"}
    container = {"name": PEER, "image": f"registry.k8s.io/sig-storage/{PEER}:v4.0.2", "volumeMounts": [mount]}
    volume = {"name": f"{PEER}-root", "nfs": {"server": "nas", "path": "/x"}}
    pod = {"serviceAccountName": full, "containers": [container], "volumes": [volume]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": template,
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": class_name, "labels": labels},
            "provisioner": f"cluster.local/{full}",
            "allowVolumeExpansion": True,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
            "parameters": {"archiveOnDelete": "true"},
        },
    ]


@pytest.fixture(params=[(PEER, {}), ("storage", {"nameOverride": PEER})], ids=["by its name", "by nameOverride"])
def peer(
    request: pytest.FixtureRequest, cluster_helm: Helm, namespace: str, tmp_path: Path
) -> Iterator[tuple[str, str, list[str]]]:
    """A release as the nfs-subdir chart leaves it: its name, its class, and what an upgrade must say besides."""
    release, more = request.param
    full = release if release == PEER else f"{release}-{PEER}"
    class_name = f"class-{secrets.token_hex(4)}"
    chart = tmp_path / PEER
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "name": PEER, "version": "4.0.18"}))
    (chart / "templates" / "all.yaml").write_text(yaml.safe_dump_all(peer_objects(full, release, class_name)))
    given = yaml.safe_dump({"nfs": {"server": "nas", "path": "/x"}, "storageClass": {"name": class_name}})
    cluster_helm.run("install", release, chart, f"--namespace={namespace}", "--values=-", input=given)
    yield release, class_name, [f"--set={key}={value}" for key, value in more.items()]
    cluster_helm.run("uninstall", release, f"--namespace={namespace}")


def test_in_place(cluster_helm: Helm, cluster_api: Api, namespace: str, peer: tuple[str, str, list[str]]) -> None:
    """Deployment and class stay the objects that they were, under the provisioner's old name; the pod is ours."""
    release, class_name, more = peer
    full = release if release == PEER else f"{release}-{PEER}"
    paths = [
        f"/apis/apps/v1/namespaces/{namespace}/deployments/{full}",
        f"/apis/storage.k8s.io/v1/storageclasses/{class_name}",
    ]
    before = [cluster_api.get(path)["metadata"]["uid"] for path in paths]
    where = f"--namespace={namespace}"
    cluster_helm.run("upgrade", release, CHART, where, "--reset-then-reuse-values", *more)
    deployment, storage_class = (cluster_api.get(path) for path in paths)
    assert [deployment["metadata"]["uid"], storage_class["metadata"]["uid"]] == before
    assert storage_class["provisioner"] == f"cluster.local/{full}"
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "nfs-provisioner"
    assert "volumes" not in spec
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["PROVISIONER_NAME"] == f"cluster.local/{full}"
    assert (variables["NFS_SERVER"], variables["NFS_PATH"]) == ("nas", "/x")


def test_reuse_values_alone_is_refused(cluster_helm: Helm, namespace: str, peer: tuple[str, str, list[str]]) -> None:
    """`--reuse-values` hides our defaults from our own templates, and says so rather than installing half of it."""
    release, _, more = peer
    with pytest.raises(HelmFailed, match="access"):
        cluster_helm.run("upgrade", release, CHART, f"--namespace={namespace}", "--reuse-values", *more)
