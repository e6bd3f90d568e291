"""Several replicas: one acts, the others wait with warm caches, and no moment has two."""

from __future__ import annotations

import time
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
    """One of several replicas, with short times."""
    return daemon("--export", f"nas.example:/x={directory}", *SHORT, provisioner_name=name)


def leads(one: Daemon) -> bool:
    """Whether the replica says that it leads."""
    return "nfs_provisioner_leader 1.0" in one.http("/metrics")


@pytest.mark.timeout(180)
def test_leader_killed(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """The leader killed in the middle of 60 claims: the other one takes over, and nothing is there twice."""
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
def test_clean_stop_releases_the_lease(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A leader that is stopped ends with status 0 and frees its lease: the other one leads before it would run out."""
    name = "test.example/released"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    second = replica(daemon, export_directory, name)
    first.terminate()
    assert first.wait() == 0
    assert first.logged("lease_released")
    eventually(lambda: leads(second), "the second leads", timeout_s=10)


@pytest.mark.timeout(120)
def test_a_leader_that_slept_stops_acting(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A leader frozen beyond its lease finds another one in its place when it wakes: it stops, waits, and serves on."""
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
def test_a_lost_lease_ends_the_work_at_once(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When somebody else's name stands in the lease, the leader stops at its next renewal, and leads again later."""
    name = "test.example/robbed"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    path = f"{LEASES}/test.example-robbed"
    storage.api.patch(path, {"spec": {"holderIdentity": "somebody else"}})
    eventually(lambda: not leads(first), "the first has stopped", timeout_s=5)
    storage.claim(storage.storage_class(name))
    storage.bound(timeout_s=60)  # the robber never renews, so the lease comes back
    assert leads(first)


def test_waiting_replicas_serve_metrics_and_health(daemon: Daemons, export_directory: Path) -> None:
    """A replica that waits is ready, healthy and shows metrics: its caches are warm, and it has made no volume."""
    name = "test.example/waiting"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    second = replica(daemon, export_directory, name)
    assert second.ready()
    assert second.http("/healthz") == "ok\n"
    assert "nfs_provisioner_leader 0.0" in second.http("/metrics")


def test_the_lease_is_named_and_timed_as_told(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """The Lease bears the provisioner's name, its `/` a `-`, says how long it lasts, and is renewed."""
    name = "test.example/named"
    first = replica(daemon, export_directory, name)
    eventually(lambda: leads(first), "the first leads")
    path = f"{LEASES}/test.example-named"
    lease = storage.api.get(path)
    assert lease["spec"]["leaseDurationSeconds"] == 4
    time.sleep(2)
    assert storage.api.get(path)["spec"]["renewTime"] != lease["spec"]["renewTime"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "lease_name"),
    [
        ("NFS", "nfs-faac003e"),
        ("nfs_client", "nfs-client-a9f1bc8b"),
        ("Example.com/nfs", "example.com-nfs-a9a1ece0"),
    ],
)
def test_a_provisioner_may_have_any_name_of_a_class(
    daemon: Daemons, storage: Storage, export_directory: Path, name: str, lease_name: str
) -> None:
    """A class's provisioner cannot be changed: any name that Kubernetes takes leads, provisions, reclaims and tells."""
    replica(daemon, export_directory, name)
    storage.claim(storage.storage_class(name, {"onDelete": "delete", "pathPattern": "${.PVC.namespace}/data"}))
    volume = storage.bound()
    assert volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == name
    assert storage.api.get(f"{LEASES}/{lease_name}")["spec"]["holderIdentity"]
    assert storage.event("ProvisioningSucceeded")["source"]["component"] == name
    storage.delete_claim()
    storage.volume_gone(volume["metadata"]["name"])
    assert not (export_directory / storage.namespace / "data").exists()


@pytest.mark.parametrize("name", [*NAMES, "kubernetes.io/nfs"])
def test_the_api_server_takes_the_names_that_we_take(storage: Storage, name: str) -> None:
    """A class can have each of the names."""
    storage.storage_class(name)


@pytest.mark.parametrize("name", NO_NAMES)
def test_the_api_server_refuses_the_names_that_we_refuse(storage: Storage, name: str) -> None:
    """No class can have such a name, so that nothing is lost by refusing it."""
    with pytest.raises(ApiError, match="provisioner"):
        storage.storage_class(name)
