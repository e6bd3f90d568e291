"""Owners of files that pods write on real nodes: other uids, shared groups, strangers."""

from __future__ import annotations

import pytest

from tests.e2e.installed import SHARED_GID
from tests.e2e.stories import IDLE, NGINX, Story, pod_spec
from tests.support.archiving import directory
from tests.support.disk import in_trash

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
