"""etcd is restored to an older state while daemons run; the API server restarts and compacts its history."""

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
    """Classes and claims on the test's own control plane."""
    return Storage(plane.api, "default", daemon_logs=daemons.log_tails)


def run(daemons: Daemons, directory: Path) -> Daemon:
    """Start a daemon on the directory."""
    return daemons("--export", f"nas.example:/x={directory}", provisioner_name=NAME)


def leads(daemon: Daemon) -> bool:
    """Whether the daemon's metrics say that it leads."""
    return "nfs_provisioner_leader 1.0" in daemon.http("/metrics")


def has_cached(daemon: Daemon, class_name: str, volumes: int) -> Callable[[], bool]:
    """Return a check for this number of bound volumes of a class in the daemon's cache."""
    sample = f'nfs_provisioner_volumes{{class="{class_name}",phase="Bound"}} {volumes}.0'
    return lambda: sample in daemon.http("/metrics")


def test_etcd_is_restored(plane: ControlPlane, daemons: Daemons, storage: Storage, export_directory: Path) -> None:
    """After a restore of etcd, leader and standby see the restored state, and both provision further claims."""
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
        eventually(has_cached(daemon, class_name, 3), "the cache is complete", timeout_s=60)

    plane.restore(backup)
    new_class = storage.storage_class(NAME, {"onDelete": "retain"})
    for name, of_class in (("right-after", class_name), ("of-a-new-class", new_class)):
        storage.claim(of_class, name)
        storage.bound(name)
    for daemon in (leader, standby):
        eventually(has_cached(daemon, class_name, 3), "the cache follows the restore and the new claim", timeout_s=60)
    first, second = (leader, standby) if leads(leader) else (standby, leader)
    first.kill()
    storage.claim(class_name, "by-the-other")
    storage.bound("by-the-other")
    eventually(has_cached(second, class_name, 4), "the other replica provisions", timeout_s=60)


def test_the_api_server_is_restarted(
    plane: ControlPlane, daemons: Daemons, storage: Storage, export_directory: Path
) -> None:
    """After a restart of the API server, and with compacted history, claims are bound and reclaimed."""
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
