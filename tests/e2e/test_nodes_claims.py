"""Claims on real nodes: delete, archive and Retain, ResourceQuota and LimitRange."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.api import ApiError, Object
from tests.e2e.stories import IDLE, NGINX, Story, pod_spec
from tests.support.archiving import RESTORE, directory, records
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(3600)

RULES = {"gone": "nfs-client", "archived": "archived", "kept": "retained"}
"""Claims and their classes, each with another rule."""

QUOTA = {
    "requests.storage": "3Gi",
    "archived.storageclass.storage.k8s.io/requests.storage": "1Gi",
    "retained.storageclass.storage.k8s.io/persistentvolumeclaims": "0",
}
LIMITS = {"type": "PersistentVolumeClaim", "min": {"storage": "10Mi"}, "max": {"storage": "2Gi"}}


def written(story: Story) -> dict[str, tuple[Object, Path]]:
    """Create a claim per rule with a file from a pod; return the volumes and their paths on the server."""
    for claim, class_name in RULES.items():
        story.claim(class_name, claim)
    story.start("writer", pod_spec(NGINX, *IDLE, claims={f"/{claim}": claim for claim in RULES}))
    for claim in RULES:
        story.shell("writer", f"echo {claim} > /{claim}/file")
    volumes = {claim: story.bound(claim) for claim in RULES}
    return {claim: (volume, directory(story.cluster.export, volume)) for claim, volume in volumes.items()}


def read(story: Story, claim: str) -> str:
    """Return what a new pod reads from a claim."""
    story.start(f"reader-of-{claim}", pod_spec(NGINX, *IDLE, claims={"/data": claim}))
    return story.shell(f"reader-of-{claim}", "cat /data/file")


def retained(story: Story, volume: Object) -> None:
    """Give a retained volume to a new claim, as an admin does, and delete it afterwards."""
    name = volume["metadata"]["name"]
    story.api.patch(f"{VOLUMES}/{name}", {"spec": {"claimRef": None}})
    story.claim("retained", "heir", volumeName=name)
    assert read(story, "heir") == "kept"
    story.delete_pod("reader-of-heir")
    story.delete_claim("heir")
    story.api.delete(f"{VOLUMES}/{name}")
    story.volume_gone(name)


def test_delete_archive_retain(story: Story) -> None:
    """A deleted claim in use keeps its data; then delete removes them, archive moves them, and Retain keeps them.

    Pods read what was archived and what was retained.
    """
    made = written(story)
    for claim in RULES:
        story.delete_claim(claim)
    assert [story.shell("writer", f"cat /{claim}/file") for claim in RULES] == list(RULES)
    with story.timed("three deleted claims: from their last pod's end to their reclaim"):
        story.delete_pod("writer")
        for claim in ("gone", "archived"):
            story.volume_gone(made[claim][0]["metadata"]["name"])
    assert {claim for claim, (_, place) in made.items() if place.exists()} == {"kept"}
    found = records(story.cluster.export).items()
    (archive,) = [name for name, record in found if record["pv"] == made["archived"][0]["metadata"]["name"]]
    assert (story.cluster.export / archive / "file").read_text() == "archived\n"
    story.claim("archived", "restored", metadata={"annotations": {RESTORE: archive}})
    assert read(story, "restored") == "archived"
    volume, place = made["kept"]
    name = volume["metadata"]["name"]
    story.eventually(lambda: story.get_volume(name)["status"]["phase"] == "Released", "the volume is Released")
    retained(story, volume)
    assert (place / "file").read_text() == "kept\n"


def refused(story: Story, class_name: str, size: str) -> str:
    """Create a claim that the API server refuses, and return its message."""
    with pytest.raises(ApiError) as caught:
        story.claim(class_name, "refused", size=size)
    assert caught.value.status == 403
    return str(caught.value)


def works(story: Story, *claims: str) -> None:
    """Run a pod that writes to claims and reads the files back."""
    story.start("writer", pod_spec(NGINX, *IDLE, claims={f"/{claim}": claim for claim in claims}))
    for claim in claims:
        assert story.shell("writer", f"echo hello > /{claim}/file; cat /{claim}/file") == "hello"
    story.delete_pod("writer")


@pytest.mark.thorough
def test_limit_range(story: Story) -> None:
    """A claim outside of a LimitRange is refused with a reason, and one within it works."""
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "sizes"}, "spec": {"limits": [LIMITS]}}
    story.apply(limits)
    of_a_claim = "storage usage per PersistentVolumeClaim is"
    assert f"minimum {of_a_claim} 10Mi, but request is 1Mi" in refused(story, "nfs-client", "1Mi")
    assert f"maximum {of_a_claim} 2Gi, but request is 3Gi" in refused(story, "nfs-client", "3Gi")
    story.claim("nfs-client", "fits", size="2Gi")
    works(story, "fits")


@pytest.mark.thorough
def test_quota(story: Story) -> None:
    """Claims beyond a quota are refused with a reason, also when they grow, and others work."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "storage"}, "spec": {"hard": QUOTA}}
    story.apply(quota)
    path = f"/api/v1/namespaces/{story.namespace}/resourcequotas/storage"

    def used() -> str | None:
        amount: str | None = story.api.get(path).get("status", {}).get("used", {}).get("requests.storage")
        return amount

    story.eventually(used, "the quota is counted", timeout_s=120)
    story.claim("nfs-client", "large", size="2Gi")
    story.claim("archived", "old", size="512Mi")
    of_a_class = "storageclass.storage.k8s.io"
    for class_name, size, limited in (
        ("nfs-client", "1Gi", "requests.storage=3Gi"),
        ("archived", "513Mi", f"archived.{of_a_class}/requests.storage=1Gi"),
        ("retained", "10Mi", f"retained.{of_a_class}/persistentvolumeclaims=0"),
    ):
        output = refused(story, class_name, size)
        assert "exceeded quota: storage, requested: " in output
        assert limited in output.partition("limited: ")[2]
    works(story, "large", "old")
    with pytest.raises(ApiError, match="exceeded quota: storage, requested: "):
        story.api.patch(f"{story.claims}/old", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    story.delete_claim("large")
    story.eventually(lambda: used() == "512Mi", "the quota of the deleted claim is free", timeout_s=120)
    story.claim("nfs-client", "next", size="2Gi")
    story.bound("next")
