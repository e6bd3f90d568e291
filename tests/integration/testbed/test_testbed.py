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
    """The API server calls itself by the version that go.mod pins."""
    assert cluster_api.get("/version")["gitVersion"] == "v1.37.2"


def test_an_api_server_killed_and_started_again_keeps_its_data(
    control_plane: ControlPlane, cluster_api: Api, namespace: str
) -> None:
    """What was written before a crash of the API server is there after it, at the same address."""
    cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "kept"}, "data": {"key": "value"}})
    control_plane.api_server.kill()
    with pytest.raises(OSError, match="refused"):
        cluster_api.get("/version")
    control_plane.api_server.start()
    control_plane.wait_ready()
    assert cluster_api.get(MAPS.format(namespace) + "/kept")["data"] == {"key": "value"}


def test_an_expired_version_is_answered_with_410(control_plane: ControlPlane, cluster_api: Api, namespace: str) -> None:
    """After expire(), a watch from an earlier resourceVersion ends at once with 410 Gone."""
    old = cluster_api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["resourceVersion"]
    cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "later"}})
    control_plane.expire()
    events = list(cluster_api.watch(MAPS.format(namespace), resourceVersion=old))
    assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]


def test_compaction_forgets_old_versions_in_etcd(control_plane: ControlPlane, cluster_api: Api, namespace: str) -> None:
    """compact() returns the revision up to which history is gone, which is no older than the last write."""
    written = cluster_api.post(MAPS.format(namespace), {"metadata": {"name": "last"}})
    assert control_plane.compact() >= int(written["metadata"]["resourceVersion"])


def test_claims_are_bound_by_the_real_controllers(cluster_api: Api, namespace: str) -> None:
    """A claim and a volume that fit each other are bound by kube-controller-manager."""
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


def test_a_token_user_may_do_nothing_without_a_role(control_plane: ControlPlane, restricted_user: TokenUser) -> None:
    """RBAC is on: a user without a role is known and refused with 403."""
    with pytest.raises(ApiError) as refused:
        control_plane.api_as(restricted_user).list("/api/v1/persistentvolumes")
    assert refused.value.status == 403


def test_a_kubeconfig_is_private_and_verifies_the_server(control_plane: ControlPlane) -> None:
    """The kubeconfig is readable by its owner alone and never skips the check of the server's certificate."""
    assert control_plane.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert "insecure" not in control_plane.kubeconfig.read_text()


def test_a_server_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error about a server that ended at once quotes what it said last."""
    server = Server("false", ["sh", "-c", "echo no such luck; exit 3"], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(ServerFailed, match=r"status 3:\nno such luck"), server:
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="this machine cannot tie a child's life to its parent's")
def test_servers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """A SIGKILL of the process that started a server takes the server along."""
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
        # setpriv becomes the command: before that, the kernel has not been told yet.
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the server runs")
        parent.send_signal(signal.SIGKILL)
    eventually(lambda: not _runs(pid), "the server is gone")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ganesha_answers_on_nfs_v4(nfs_server: Ganesha) -> None:
    """The server answers a NULL call of NFSv4 on its port, and does so again after a crash."""
    assert null_call(nfs_server.port, program=NFS_PROGRAM, version=4)
    nfs_server.kill()
    assert not nfs_server.answers()
    nfs_server.start()
    assert nfs_server.answers()


def test_a_paused_ganesha_is_silent_until_it_is_resumed(nfs_server: Ganesha) -> None:
    """A paused server answers nothing, and answers again once resumed."""
    nfs_server.pause()
    assert not null_call(nfs_server.port, program=NFS_PROGRAM, version=4, timeout_s=0.3)
    nfs_server.resume()
    assert eventually(nfs_server.answers, "the server answers again")


def test_ganesha_answers_on_nfs_v3(export_directory: Path) -> None:
    """With version 3 asked for, NFS and MOUNT answer on the machine's own loopback, whatever runs on port 111."""
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(export_directory)
    if reason:
        pytest.skip(f"this machine cannot run an NFSv3 server: {reason}")
    with Ganesha([Export(export_directory, "/nfs")], versions=(3, 4)) as server:
        assert server.answers()


def test_ganesha_says_which_directory_it_cannot_serve(tmp_path: Path) -> None:
    """An export that cannot work is refused by name before the server starts, not left out silently."""
    if ganesha.missing():
        pytest.skip(f"this machine cannot run an NFS server: {ganesha.missing()}")
    server = Ganesha([Export(tmp_path / "absent", "/nfs")])
    with pytest.raises(ServerFailed, match="the directory does not exist"), server:
        pass


def test_no_two_processes_get_the_same_port() -> None:
    """While a process lives, nobody else gets a port that it was given, though it does not listen there yet."""
    program = "from testbed.processes import free_port\nprint(*(free_port() for _ in range(50)), flush=True)\ninput()"
    asked = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    given: list[str] = []
    for process in asked:
        assert process.stdout is not None
        given += process.stdout.readline().split()
    for process in asked:
        process.communicate("\n", timeout=30)
    assert len(set(given)) == len(given) == 300
