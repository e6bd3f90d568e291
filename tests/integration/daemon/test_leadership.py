"""Leader election: one replica acts, the others wait with warm caches, and never two act together."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.api import ApiError
from testbed.waiting import eventually
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import disagreement
from tests.support.provisioner_names import NAMES, NO_NAMES
from tests.support.storage import VOLUMES, Storage

NAME = "test.example/elected"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
SHORT = ("--lease-duration=4s", "--renew-deadline=3s", "--retry-period=500ms")


def replica(daemon: Daemons, directory: Path, name: str = NAME) -> Daemon:
    """Start one of several replicas, with short lease times."""
    return daemon("--export", f"nas.example:/x={directory}", *SHORT, provisioner_name=name)


def leads(one: Daemon) -> bool:
    """Whether the replica's metrics say that it leads."""
    return "nfs_provisioner_leader 1.0" in one.http("/metrics")


@pytest.mark.timeout(180)
def test_leader_killed(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the leader is killed in the middle of 60 claims, the other takes over, and no claim gets two volumes."""
    first = replica(daemon, export_directory)
    eventually(lambda: leads(first), "the first leads")
    second = replica(daemon, export_directory)
    assert not leads(second)
    class_name = storage.storage_class(NAME, {"onDelete": "delete"})
    for number in range(60):
        storage.claim(class_name, f"claim-{number}")
        if number == 30:
            first.kill()
    for number in range(60):
        storage.bound(f"claim-{number}", timeout_s=60)
    assert leads(second)
    volumes = [v for v in storage.api.list(VOLUMES) if v["spec"]["storageClassName"] == class_name]
    assert len(volumes) == 60
    storage.eventually(lambda: disagreement(export_directory, volumes) is None, "disk and API agree")


@pytest.mark.timeout(120)
def test_a_standby_waits_and_takes_over(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A waiting replica is ready and healthy, and leads as soon as the stopped leader has released its lease."""
    name = "test.example/released"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    second = replica(daemon, export_directory, name)
    assert second.ready()
    assert second.http("/healthz") == "ok\n"
    assert "nfs_provisioner_leader 0.0" in second.http("/metrics")
    first.terminate()
    assert first.wait() == 0
    assert first.logged("lease_released")
    eventually(lambda: leads(second), "the second leads", timeout_s=10)


@pytest.mark.timeout(120)
def test_a_leader_that_was_frozen_stops_acting(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A leader frozen beyond its lease stops acting when it resumes, stays healthy, and waits."""
    name = "test.example/slept"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    second = replica(daemon, export_directory, name)
    first.pause()
    eventually(lambda: leads(second), "the second leads", timeout_s=30)
    first.resume()
    eventually(lambda: bool(first.logged("lease_lost")), "the first has noticed", timeout_s=10)
    assert not leads(first)
    assert first.http("/healthz")
    storage.claim(storage.storage_class(name))
    storage.bound()
    assert not first.logged("volume_provisioned")


@pytest.mark.timeout(120)
def test_a_lost_lease_stops_the_work(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the lease names another holder, the leader stops at its next renewal, and leads again after it expires."""
    name = "test.example/robbed"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    path = f"{LEASES}/test.example-robbed"
    storage.api.patch(path, {"spec": {"holderIdentity": "another holder"}})
    eventually(lambda: not leads(first), "the first has stopped", timeout_s=5)
    storage.claim(storage.storage_class(name))
    storage.bound(timeout_s=60)  # the other holder never renews, so the lease expires
    assert leads(first)


@pytest.mark.timeout(120)
def test_a_provisioner_name_that_no_lease_can_have(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A name that Kubernetes accepts in a class, but not for a Lease, leads, provisions, reclaims and writes events.

    The Lease has a name made of it and its duration, and the leader renews it.
    """
    name, lease_name = "Example.com/nfs_client", "example-com-nfs-client-6c7ea376"
    replica(daemon, export_directory, name)
    storage.claim(storage.storage_class(name, {"onDelete": "delete", "pathPattern": "${.PVC.namespace}/data"}))
    volume = storage.bound()
    assert volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == name
    lease = storage.api.get(f"{LEASES}/{lease_name}")["spec"]
    assert lease["holderIdentity"]
    assert lease["leaseDurationSeconds"] == 4
    eventually(
        lambda: storage.api.get(f"{LEASES}/{lease_name}")["spec"]["renewTime"] != lease["renewTime"],
        "the leader renews its lease",
        timeout_s=10,
    )
    assert storage.event("ProvisioningSucceeded")["source"]["component"] == name
    storage.delete_claim()
    storage.volume_gone(volume["metadata"]["name"])
    assert not (export_directory / storage.namespace / "data").exists()


def test_the_api_server_accepts_the_names_that_we_accept(storage: Storage) -> None:
    """A class can have each provisioner name that the daemon accepts."""
    for name in (*NAMES, "kubernetes.io/nfs"):
        storage.storage_class(name)


def test_the_api_server_refuses_the_names_that_we_refuse(storage: Storage) -> None:
    """No class can have a provisioner name that the daemon refuses."""
    for name in NO_NAMES:
        with pytest.raises(ApiError, match="provisioner"):
            storage.storage_class(name)
