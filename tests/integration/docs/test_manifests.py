"""What the documentation prints to be copied: the API server takes each manifest, the chart each file of values."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import yaml

from provisioner.core.parameters import parse
from testbed.api import Api, ApiError, Object
from testbed.waiting import eventually
from tests.integration.chart.rendering import Renderer, collection
from tests.support.pages import Block, blocks

pytestmark = pytest.mark.timeout(120)

STRICT = "?dryRun=All&fieldValidation=Strict"
QUOTAS = "how-to/quotas.md"


def objects(block: Block) -> list[Object]:
    """The Kubernetes objects in a block; none where it shows something else."""
    return [each for each in yaml.safe_load_all(block.text) if isinstance(each, dict) and "kind" in each]


MANIFESTS = [each for each in blocks("yaml") if objects(each)]
VALUES = [each for each in blocks("yaml") if each.title == "values.yaml"]


def placed(body: Object, namespace: str) -> Object:
    """The object in the test's namespace, if it belongs in one."""
    metadata = body["metadata"]
    return body | {"metadata": metadata | {"namespace": namespace}} if "namespace" in metadata else body


@pytest.mark.parametrize("block", MANIFESTS, ids=str)
def test_the_api_server_takes_it(cluster_api: Api, namespace: str, block: Block) -> None:
    """Each object that a page prints is valid, word for word; a namespaced one says where it belongs."""
    for body in objects(block):
        answer = cluster_api.post(collection(cluster_api, placed(body, namespace)) + STRICT, placed(body, namespace))
        assert answer["kind"] == body["kind"]


@pytest.mark.parametrize("block", MANIFESTS, ids=str)
def test_its_classes_can_be_used(block: Block) -> None:
    """The daemon takes the parameters of each StorageClass that a page prints."""
    for body in objects(block):
        if body["kind"] == "StorageClass":
            parse(body["parameters"])


@pytest.mark.parametrize("block", VALUES, ids=str)
def test_the_chart_takes_it(render: Renderer, tmp_path: Path, block: Block) -> None:
    """The chart renders each file of values that a page prints, with classes that the daemon takes."""
    file = tmp_path / "values.yaml"
    file.write_text(block.text)
    release = render(file)
    assert release.all("Deployment")
    for each in release.all("StorageClass"):
        parse(each.get("parameters", {}))


def test_there_is_something_to_look_at() -> None:
    """The pages have manifests and values in them, and none is overlooked for how it is written."""
    assert len(MANIFESTS) >= 10
    assert len(VALUES) >= 8


@pytest.fixture
def limited(cluster_api: Api, namespace: str) -> str:
    """A namespace with the quota and the limits that the page prints, and nothing in it."""
    (block,) = [each for each in MANIFESTS if each.page == QUOTAS and "ResourceQuota" in each.text]
    for body in objects(block):
        path = collection(cluster_api, placed(body, namespace))
        cluster_api.post(path, placed(body, namespace))
        if body["kind"] == "ResourceQuota":
            # The testbed runs no controller for quotas, and admission waits for its first count.
            hard = body["spec"]["hard"]
            status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
            cluster_api.patch(f"{path}/{body['metadata']['name']}/status", status)
    return namespace


@pytest.mark.parametrize(
    ("class_name", "size", "told"),
    [
        ("nfs-client", "60Gi", "maximum storage usage per PersistentVolumeClaim is 50Gi"),
        ("nfs-client", "1Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi"),
        ("nfs-fast", "1Gi", "exceeded quota: storage"),
    ],
)
def test_quotas_refuse_what_the_page_says(
    cluster_api: Api, limited: str, class_name: str, size: str, told: str
) -> None:
    """A claim above a limit is refused at once, in the words that the page quotes; one within them is made."""
    path = f"/api/v1/namespaces/{limited}/persistentvolumeclaims"

    def refused(class_name: str, size: str) -> str:
        requests = {"requests": {"storage": size}}
        spec = {"storageClassName": class_name, "accessModes": ["ReadWriteMany"], "resources": requests}
        try:
            cluster_api.post(path, {"metadata": {"name": f"data-{secrets.token_hex(4)}"}, "spec": spec})
        except ApiError as exc:
            return str(exc)
        return ""

    # Admission sees objects that were just made a moment later.
    eventually(lambda: told in refused(class_name, size), "it is refused")
    assert refused("nfs-client", "1Gi") == ""
