"""Examples in the documentation: the API server accepts each manifest, and the chart each file of values."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from provisioner.core.parameters import parse
from testbed import snapshots
from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.integration.chart.rendering import Renderer, collection
from tests.support.pages import Block, blocks

pytestmark = pytest.mark.timeout(120)

STRICT = "?dryRun=All&fieldValidation=Strict"
QUOTAS = "how-to/quotas.md"


def objects(block: Block) -> list[Object]:
    """Return the Kubernetes objects in a block; none if it shows something else."""
    return [each for each in yaml.safe_load_all(block.text) if isinstance(each, dict) and "kind" in each]


MANIFESTS = [each for each in blocks("yaml") if objects(each)]
VALUES = [each for each in blocks("yaml") if each.title == "values.yaml"]


def placed(body: Object, namespace: str) -> Object:
    """Return the object, moved to the test's namespace if it has one."""
    metadata = body["metadata"]
    return body | {"metadata": metadata | {"namespace": namespace}} if "namespace" in metadata else body


@pytest.fixture(scope="module")
def snapshot_kinds(control_plane: ControlPlane) -> Iterator[None]:
    """The API server knows VolumeSnapshots."""
    snapshots.create_crds(control_plane)
    yield
    snapshots.delete_crds(control_plane)


@pytest.mark.usefixtures("snapshot_kinds")
@pytest.mark.parametrize("block", MANIFESTS, ids=str)
def test_the_api_server_accepts_manifests(cluster_api: Api, namespace: str, block: Block) -> None:
    """Each documented object is valid, and a namespaced one names its namespace."""
    for body in objects(block):
        answer = cluster_api.post(collection(cluster_api, placed(body, namespace)) + STRICT, placed(body, namespace))
        assert answer["kind"] == body["kind"]


@pytest.mark.parametrize("block", MANIFESTS, ids=str)
def test_the_daemon_accepts_classes(block: Block) -> None:
    """The daemon accepts the parameters of each documented StorageClass."""
    for body in objects(block):
        if body["kind"] == "StorageClass":
            parse(body["parameters"])


@pytest.mark.parametrize("block", VALUES, ids=str)
def test_the_chart_accepts_values(render: Renderer, tmp_path: Path, block: Block) -> None:
    """The chart renders each documented file of values, with classes that the daemon accepts."""
    file = tmp_path / "values.yaml"
    file.write_text(block.text)
    release = render(file)
    assert release.all("Deployment")
    for each in release.all("StorageClass"):
        parse(each.get("parameters", {}))


def test_the_pages_have_examples() -> None:
    """The tests find the manifests and values in the pages."""
    assert len(MANIFESTS) >= 10
    assert len(VALUES) >= 8


@pytest.fixture
def limited(cluster_api: Api, namespace: str) -> str:
    """An empty namespace with the documented quota and limits."""
    (block,) = [each for each in MANIFESTS if each.page == QUOTAS and "ResourceQuota" in each.text]
    for body in objects(block):
        path = collection(cluster_api, placed(body, namespace))
        cluster_api.post(path, placed(body, namespace))
        if body["kind"] == "ResourceQuota":
            # The testbed has no quota controller, and admission waits for its first count.
            hard = body["spec"]["hard"]
            status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
            cluster_api.patch(f"{path}/{body['metadata']['name']}/status", status)
    return namespace


@pytest.mark.parametrize(
    ("class_name", "size", "words"),
    [
        ("nfs-client", "60Gi", "maximum storage usage per PersistentVolumeClaim is 50Gi"),
        ("nfs-client", "1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi"),
        ("nfs-fast", "1Gi", "exceeded quota: storage"),
    ],
)
def test_quotas_refuse_what_the_page_says(
    cluster_api: Api, limited: str, class_name: str, size: str, words: str
) -> None:
    """The API server refuses a claim beyond a limit in the documented words, and accepts one within the limits."""
    path = f"/api/v1/namespaces/{limited}/persistentvolumeclaims"

    def refused(class_name: str, size: str) -> str:
        requests = {"requests": {"storage": size}}
        spec = {"storageClassName": class_name, "accessModes": ["ReadWriteMany"], "resources": requests}
        try:
            cluster_api.post(path, {"metadata": {"name": f"data-{secrets.token_hex(4)}"}, "spec": spec})
        except ApiError as exc:
            return str(exc)
        return ""

    # Admission sees new objects a moment later.
    eventually(lambda: words in refused(class_name, size), "it is refused")
    assert refused("nfs-client", "1Gi") == ""
