"""The testbed: control plane, users, servers as child processes, Ganesha and ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import ganesha
from testbed.api import Api, ApiError
from testbed.cluster import ControlPlane, TokenUser
from testbed.ganesha import NFS_PROGRAM, Export, Ganesha, null_call
from testbed.processes import Server, ServerFailed
from testbed.waiting import eventually

MAPS = "/api/v1/namespaces/{}/configmaps"


def test_the_control_plane_serves_the_pinned_version(cluster_api: Api) -> None:
    """The API server reports the version that go.mod pins."""
    assert cluster_api.get("/version")["gitVersion"] == "v1.37.2"


def test_an_api_server_killed_and_started_again_keeps_its_data(
    control_plane: ControlPlane, cluster_api: Api, namespace: str
) -> None:
    """After a crash and restart the API server has its data, at the same address."""
    cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "kept"}, "data": {"key": "value"}})
    control_plane.api_server.kill()
    with pytest.raises(OSError, match="refused"):
        cluster_api.get("/version")
    control_plane.api_server.start()
    control_plane.wait_ready()
    assert cluster_api.get(MAPS.format(namespace) + "/kept")["data"] == {"key": "value"}


def test_an_expired_version_is_answered_with_410(control_plane: ControlPlane, cluster_api: Api, namespace: str) -> None:
    """After expire(), a watch from an earlier resourceVersion ends with 410 Gone."""
    old = cluster_api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["resourceVersion"]
    cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "later"}})
    control_plane.expire()
    events = list(cluster_api.watch(MAPS.format(namespace), resourceVersion=old))
    assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]


def test_compaction_forgets_old_versions_in_etcd(control_plane: ControlPlane, cluster_api: Api, namespace: str) -> None:
    """The method compact() returns the compacted revision, which is not older than the last write."""
    written = cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "last"}})
    assert control_plane.compact() >= int(written["metadata"]["resourceVersion"])


def test_objects_written_into_etcd_are_objects_of_the_api_server(
    control_plane: ControlPlane, cluster_api: Api, namespace: str
) -> None:
    """The API server serves what write() puts into etcd, and no longer what erase() removes."""
    template = cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "copy"}, "data": {"key": "value"}})
    keys = [f"/registry/configmaps/{namespace}/copy-{number}" for number in range(150)]
    copies = [template | {"metadata": template["metadata"] | {"name": key.rpartition("/")[2]}} for key in keys]
    control_plane.write(zip(keys, copies, strict=True))
    assert cluster_api.get(MAPS.format(namespace) + "/copy-149")["data"] == {"key": "value"}
    control_plane.erase(keys)
    assert [item["metadata"]["name"] for item in cluster_api.list(MAPS.format(namespace))] == ["copy"]


def test_claims_are_bound_by_the_real_controllers(cluster_api: Api, namespace: str) -> None:
    """The kube-controller-manager binds a claim to a matching volume."""
    volume = {
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": namespace,
            "nfs": {"server": "192.0.2.1", "path": "/"},
        },
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": namespace,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    cluster_api.post("/api/v1/persistentvolumes", volume)
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    cluster_api.post(claims, claim)
    eventually(lambda: cluster_api.get(f"{claims}/data")["status"]["phase"] == "Bound", "the claim is Bound")


def test_a_token_user_without_a_role_has_no_rights(control_plane: ControlPlane, restricted_user: TokenUser) -> None:
    """With RBAC, a user without a role is refused with 403."""
    with pytest.raises(ApiError) as refused:
        control_plane.api_as(restricted_user).list("/api/v1/persistentvolumes")
    assert refused.value.status == 403


def test_a_kubeconfig_is_private_and_verifies_the_server(control_plane: ControlPlane) -> None:
    """Only the owner can read the kubeconfig, and it verifies the server's certificate."""
    assert control_plane.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert "insecure" not in control_plane.kubeconfig.read_text()


def test_a_server_that_exits_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error about a server that exits at its start quotes the end of its log."""
    server = Server("false", ["sh", "-c", "echo no such luck; exit 3"], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(ServerFailed, match=r"status 3:\nno such luck"), server:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="this machine cannot tie a child's life to its parent's")
def test_servers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """When the process that started a server is killed, the server dies too."""
    program = (
        "import pathlib, time; from testbed.processes import Server\n"
        "server = Server('sleep', ['sleep', '600'], log=pathlib.Path('log'), ready=lambda: True)\n"
        "server.start(); print(server.pid, flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # setpriv becomes the command: only then does the kernel know the parent-death signal.
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the server runs")
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not _runs(pid), "the server is gone")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ganesha_answers_on_nfs_v4(nfs_server: Ganesha) -> None:
    """The server answers a NULL call of NFSv4 on its port, also after a crash and restart."""
    assert null_call(nfs_server.port, program=NFS_PROGRAM, version=4)
    nfs_server.kill()
    assert not nfs_server.answers()
    nfs_server.start()
    assert nfs_server.answers()


def test_a_paused_ganesha_is_silent_until_it_is_resumed(nfs_server: Ganesha) -> None:
    """A paused server does not answer until it is resumed."""
    nfs_server.pause()
    assert not null_call(nfs_server.port, program=NFS_PROGRAM, version=4, timeout_s=0.3)
    nfs_server.resume()
    assert eventually(nfs_server.answers, "the server answers again")


def test_ganesha_answers_on_nfs_v3(export_directory: Path) -> None:
    """With version 3, NFS and MOUNT answer on the loopback, whatever runs on port 111."""
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(export_directory)
    if reason:
        pytest.skip(f"this machine cannot run an NFSv3 server: {reason}")
    with Ganesha([Export(export_directory, "/nfs")], versions=(3, 4)) as server:
        assert server.answers()


def test_ganesha_says_which_directory_it_cannot_serve(tmp_path: Path) -> None:
    """An export without a directory fails the start with an error that names it."""
    if ganesha.missing():
        pytest.skip(f"this machine cannot run an NFS server: {ganesha.missing()}")
    server = Ganesha([Export(tmp_path / "absent", "/nfs")])
    with pytest.raises(ServerFailed, match="the directory does not exist"), server:
        pass


def test_no_two_processes_get_the_same_port() -> None:
    """While a process runs, no other process gets its ports, although it does not listen on them yet."""
    program = "from testbed.processes import free_port\nprint(*(free_port() for _ in range(50)), flush=True)\ninput()"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    given: list[str] = []
    for process in processes:
        assert process.stdout is not None
        given += process.stdout.readline().split()
    for process in processes:
        process.communicate("\n", timeout=30)
    assert len(set(given)) == len(given) == 300
