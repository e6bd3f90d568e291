"""The volume of a mounted export's root on a real cluster: only the release's own claim gets it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.api import Api, Object
from testbed.waiting import eventually
from tests.integration.chart.rendering import NAS, Release, Renderer, collection
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def release(cluster_api: Api, namespace: str, render: Renderer) -> Iterator[Release]:
    """A release whose export is mounted with options; its volumes are deleted when the test ends."""
    rendered = render(namespace=namespace, name=namespace, access="mounted", nfs__mountOptions="hard", **NAS)
    yield rendered
    for body in rendered.all("PersistentVolume"):
        cluster_api.patch(f"{VOLUMES}/{body['metadata']['name']}", {"metadata": {"finalizers": None}})
        cluster_api.delete(f"{VOLUMES}/{body['metadata']['name']}")


def test_no_other_claim_gets_the_root(cluster_api: Api, namespace: str, release: Release) -> None:
    """A tenant's claim for any volume of that size stays Pending, and the release's own claim is bound."""
    volume = release.one("PersistentVolume")
    (own,) = [each for each in release.all("PersistentVolumeClaim") if "selector" in each["spec"]]
    other = f"{namespace}-tenant"
    cluster_api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stranger = {**own, "metadata": {"name": own["metadata"]["name"], "namespace": other}}
    cluster_api.post(collection(cluster_api, stranger), stranger)
    cluster_api.post(VOLUMES, volume)
    made = cluster_api.post(collection(cluster_api, own), own)

    def bound() -> Object | None:
        claim = cluster_api.get(f"{collection(cluster_api, own)}/{own['metadata']['name']}")
        return claim if claim["status"]["phase"] == "Bound" else None

    eventually(bound, "the release's claim is bound", timeout_s=60)
    reference = cluster_api.get(f"{VOLUMES}/{volume['metadata']['name']}")["spec"]["claimRef"]
    assert (reference["namespace"], reference["uid"]) == (namespace, made["metadata"]["uid"])
    waiting = cluster_api.get(f"{collection(cluster_api, stranger)}/{own['metadata']['name']}")
    assert waiting["status"]["phase"] == "Pending"
    cluster_api.delete(f"/api/v1/namespaces/{other}")
