"""etcd is put back to an older state under daemons that run; and what else can happen to what they watch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.support.daemon import Daemon, Daemons
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(400)

NAME = "test.example/restored"
ANNOTATIONS = "/api/v1/namespaces/default"
WRITES = 300


@pytest.fixture
def storage(plane: ControlPlane, daemons: Daemons) -> Storage:
    """Classes and claims on it."""
    return Storage(plane.api, "default", daemon_logs=daemons.log_tails)


def run(daemons: Daemons, directory: Path) -> Daemon:
    return daemons("--export", f"nas.example:/x={directory}", provisioner_name=NAME)


def leads(daemon: Daemon) -> bool:
    return "nfs_provisioner_leader 1.0" in daemon.http("/metrics")


def knows(daemon: Daemon, class_name: str, volumes: int) -> Callable[[], bool]:
    """Whether so many bound volumes of a class are in its cache."""
    sample = f'nfs_provisioner_volumes{{class="{class_name}",phase="Bound"}} {volumes}.0'
    return lambda: sample in daemon.http("/metrics")


def test_etcd_is_put_back(plane: ControlPlane, daemons: Daemons, storage: Storage, export_directory: Path) -> None:
    """Leader and standby learn what came back and what went, and the next claim is bound, later by the standby too."""
    leader = run(daemons, export_directory)
    eventually(lambda: leads(leader), "it leads")
    standby = run(daemons, export_directory)
    class_name = storage.storage_class(NAME, {"onDelete": "delete"})
    for name in ("stays", "comes-back"):
        storage.claim(class_name, name)
        volume = storage.bound(name)
    backup = plane.backup()
    for name in ("goes", "goes-too"):
        storage.claim(class_name, name)
        storage.bound(name, timeout_s=120)
    storage.delete_claim("comes-back")
    storage.volume_gone(volume["metadata"]["name"])
    for number in range(WRITES):
        plane.api.patch(ANNOTATIONS, {"metadata": {"annotations": {"n": str(number)}}})
    for daemon in (leader, standby):
        eventually(knows(daemon, class_name, 3), "it knows what is there", timeout_s=60)

    plane.restore(backup)
    new_class = storage.storage_class(NAME, {"onDelete": "retain"})
    for name, of_class in (("right-after", class_name), ("of-a-new-class", new_class)):
        storage.claim(of_class, name)
        storage.bound(name)
    for daemon in (leader, standby):
        eventually(knows(daemon, class_name, 3), "it knows what came back, went, and was made", timeout_s=60)
    first, second = (leader, standby) if leads(leader) else (standby, leader)
    first.kill()
    storage.claim(class_name, "by-the-other")
    storage.bound("by-the-other")
    eventually(knows(second, class_name, 4), "the other one goes on", timeout_s=60)


def test_only_the_api_server_is_restarted(
    plane: ControlPlane, daemons: Daemons, storage: Storage, export_directory: Path
) -> None:
    """After a restart of the API server, and with all history compacted, the next claim is bound and a change seen."""
    daemon = run(daemons, export_directory)
    eventually(lambda: leads(daemon), "it leads")
    class_name = storage.storage_class(NAME, {"onDelete": "delete"})
    storage.claim(class_name, "before")
    storage.bound("before")
    plane.api_server.kill()
    plane.start()
    storage.claim(class_name, "after")
    storage.bound("after")
    plane.expire()
    storage.claim(class_name, "compacted")
    volume = storage.bound("compacted")
    storage.delete_claim("compacted")
    storage.volume_gone(volume["metadata"]["name"])
    assert not daemon.logged("cluster_went_back")
    assert not daemon.logged("lease_went_back")
