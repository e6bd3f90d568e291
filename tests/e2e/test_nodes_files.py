"""Owners of files that pods write on real nodes: other uids, shared groups, a group per volume, strangers."""

from __future__ import annotations

import pytest

from provisioner.core import names
from tests.e2e.installed import SHARED_GID
from tests.e2e.stories import IDLE, NGINX, Story, pod_spec
from tests.support.archiving import directory
from tests.support.disk import in_trash
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.thorough
def test_files_of_another_uid(story: Story) -> None:
    """A file that a pod writes with its uid has this owner on the server, can be read again, and can be purged."""
    story.claim("nfs-client")
    volume = story.bound()
    story.start("writer", pod_spec(NGINX, *IDLE, uid=1234, claims={"/data": "data"}))
    story.shell("writer", "umask 077; mkdir -p /data/deep/er; echo mine > /data/deep/er/secret")
    story.delete_pod("writer")
    place = directory(story.cluster.export, volume)
    seen = (place / "deep/er/secret").stat()
    assert (seen.st_uid, seen.st_mode & 0o777) == (1234, 0o600)
    story.start("reader", pod_spec(NGINX, *IDLE, uid=1234, claims={"/data": "data"}))
    story.start("stranger", pod_spec(NGINX, *IDLE, uid=4321, claims={"/data": "data"}))
    assert story.shell("reader", "cat /data/deep/er/secret") == "mine"
    assert "Permission denied" in story.shell("stranger", "cat /data/deep/er/secret 2>&1 || true")
    for name in ("reader", "stranger"):
        story.delete_pod(name)
    story.delete_claim()
    story.volume_gone(volume["metadata"]["name"])
    story.eventually(
        lambda: not place.exists() and not in_trash(story.cluster.export), "the trash is purged", timeout_s=120
    )


@pytest.mark.thorough
def test_fs_group(story: Story) -> None:
    """Pods with different uids share files through the group of the class's directory; others have no access."""
    story.claim("shared")
    claims = {"/data": "data"}
    story.start("one", pod_spec(NGINX, *IDLE, claims=claims, uid=1111, fs_group=SHARED_GID))
    story.start("two", pod_spec(NGINX, *IDLE, claims=claims, uid=2222, fs_group=SHARED_GID))
    story.start("stranger", pod_spec(NGINX, *IDLE, uid=3333, claims=claims))
    story.shell("one", "umask 007; echo for all of us > /data/ours")
    story.shell("two", "umask 007; cat /data/ours; echo and more >> /data/ours")
    assert story.shell("one", "cat /data/ours") == "for all of us\nand more"
    assert "Permission denied" in story.shell("stranger", "cat /data/ours 2>&1 || true")
    seen = (directory(story.cluster.export, story.bound()) / "ours").stat()
    assert (seen.st_uid, seen.st_gid) == (1111, SHARED_GID)


@pytest.mark.thorough
def test_a_group_for_every_volume(story: Story) -> None:
    """Pods of any uid, without groups of their own, write to their volume, and get EACCES on another volume."""
    for claim in ("data", "other"):
        story.claim("private", claim)
    volumes = {claim: story.bound(claim) for claim in ("data", "other")}
    gids = {claim: int(volume["metadata"]["annotations"][names.GID]) for claim, volume in volumes.items()}
    assert len(set(gids.values())) == 2
    # An admin's volume leads a pod into the directory of `data`, without the annotation that gives it the group.
    peek = f"peek-{story.namespace}"
    spec = {key: volumes["data"]["spec"][key] for key in ("accessModes", "capacity", "mountOptions", "nfs")}
    reference = {"namespace": story.namespace, "name": "peek"}
    story.make_volume({"metadata": {"name": peek}, "spec": spec | {"claimRef": reference, "storageClassName": ""}})
    try:
        story.claim("", "peek", volumeName=peek)
        story.start("one", pod_spec(NGINX, *IDLE, uid=1234, claims={"/data": "data"}))
        story.start("two", pod_spec(NGINX, *IDLE, uid=1235, claims={"/data": "data"}))
        story.start("else", pod_spec(NGINX, *IDLE, uid=1234, claims={"/data": "other", "/peek": "peek"}))
        for pod, claim in (("one", "data"), ("two", "data"), ("else", "other")):
            assert str(gids[claim]) in story.shell(pod, "id -G").split()
        assert str(gids["data"]) not in story.shell("else", "id -G").split()
        story.shell("one", "umask 002; echo first > /data/file; mkdir /data/deep")
        story.shell("two", "umask 002; echo second >> /data/file; echo more > /data/deep/file")
        assert story.shell("one", "cat /data/file /data/deep/file") == "first\nsecond\nmore"
        story.shell("else", "echo own > /data/file; cat /data/file")
        for attempt in ("cat /peek/file", "ls /peek", "echo x > /peek/new", "rm /peek/file"):
            assert "Permission denied" in story.shell("else", f"{{ {attempt}; }} 2>&1 || true")
        seen = (directory(story.cluster.export, volumes["data"]) / "deep/file").stat()
        assert (seen.st_uid, seen.st_gid) == (1235, gids["data"])
    finally:
        for pod in ("one", "two", "else"):
            story.delete_if_there(f"/api/v1/namespaces/{story.namespace}/pods/{pod}")
        story.delete_if_there(f"{VOLUMES}/{peek}")
