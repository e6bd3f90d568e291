"""In-place migration from the nfs-subdir chart: `helm upgrade` of its release on a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api import Api
from testbed.helm import Helm, HelmFailed
from tests.integration.chart import nfs_subdir, rendering
from tests.integration.chart.nfs_subdir import CHART, full_name

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[(CHART, {}), ("storage", {"nameOverride": CHART})], ids=["by its name", "by nameOverride"])
def peer(
    request: pytest.FixtureRequest, cluster_helm: Helm, namespace: str, tmp_path: Path
) -> Iterator[tuple[str, str, list[str]]]:
    """A release of the nfs-subdir chart: its name, its class, and flags that the upgrade needs."""
    release, more = request.param
    class_name = f"class-{secrets.token_hex(4)}"
    values = {"nfs": {"server": "nas", "path": "/x"}, "storageClass": {"name": class_name}}
    nfs_subdir.install(cluster_helm, release, namespace, values, tmp_path)
    yield release, class_name, [f"--set={key}={value}" for key, value in more.items()]
    cluster_helm.run("uninstall", release, f"--namespace={namespace}")


def test_upgrade_in_place(
    cluster_helm: Helm, cluster_api: Api, namespace: str, peer: tuple[str, str, list[str]]
) -> None:
    """Deployment and class stay the same objects with the provisioner's old name, and the pod runs our image."""
    release, class_name, more = peer
    full = full_name(release)
    paths = [
        f"/apis/apps/v1/namespaces/{namespace}/deployments/{full}",
        f"/apis/storage.k8s.io/v1/storageclasses/{class_name}",
    ]
    before = [cluster_api.get(path)["metadata"]["uid"] for path in paths]
    where = f"--namespace={namespace}"
    cluster_helm.run("upgrade", release, rendering.CHART, where, "--reset-then-reuse-values", *more)
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
    """`--reuse-values`, which hides our defaults from our templates, is refused."""
    release, _, more = peer
    with pytest.raises(HelmFailed, match="access"):
        cluster_helm.run("upgrade", release, rendering.CHART, f"--namespace={namespace}", "--reuse-values", *more)
