"""A copy of a cluster, restored from a backup of etcd beside the original, on the same export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.support.archiving import command
from tests.support.daemon import Daemon, Daemons
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(600)

NAME = "test.example/cloned"
UNIQUE = {"onDelete": "delete"}


@pytest.fixture
def storage(plane: ControlPlane, daemons: Daemons) -> Storage:
    """Classes and claims in the original."""
    return Storage(plane.api, "default", daemon_logs=daemons.log_tails)


@pytest.fixture
def twin(plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[[], ControlPlane]]:
    """Starts a second control plane from a backup of the first one."""
    started: list[ControlPlane] = []

    def start() -> ControlPlane:
        copy = ControlPlane(tmp_path / "twin")
        shutil.copytree(plane.backup(), copy.directory / "etcd")
        started.append(copy)
        copy.start()
        return copy

    yield start
    for copy in started:
        copy.stop()


def run(daemons: Daemons, directory: Path) -> Daemon:
    """Start a daemon on the directory."""
    return daemons("--export", f"nas.example:/x={directory}", provisioner_name=NAME)


def in_use(storage: Storage, directory: Path, class_name: str, name: str) -> tuple[Object, Path]:
    """Create a claim and a file in its volume; return both volume and file."""
    storage.claim(class_name, name)
    volume = storage.bound(name)
    file = directory / Path(volume["spec"]["nfs"]["path"]).relative_to("/x") / "precious"
    file.write_text(name)
    return volume, file


def test_neither_cluster_deletes_until_an_admin_decides(
    plane: ControlPlane,
    twin: Callable[[], ControlPlane],
    daemons: Daemons,
    storage: Storage,
    export_directory: Path,
    tmp_path: Path,
) -> None:
    """Both clusters keep the directories of deleted claims until an admin stops one and lets the other continue."""
    daemon = run(daemons, export_directory)
    class_name = storage.storage_class(NAME, UNIQUE)
    kept, kept_file = in_use(storage, export_directory, class_name, "kept")
    other, other_file = in_use(storage, export_directory, class_name, "other")
    copy = twin()
    (tmp_path / "logs").mkdir()
    its_daemons = Daemons(copy, tmp_path / "logs")
    try:
        its_storage = Storage(copy.api, "default", daemon_logs=its_daemons.log_tails)
        its_daemon = run(its_daemons, export_directory)
        its_storage.delete_claim("kept")
        storage.eventually(lambda: its_daemon.logged("second_cluster"), "the copy notices", timeout_s=60)
        storage.eventually(lambda: daemon.logged("second_cluster"), "the original notices", timeout_s=60)
        storage.delete_claim("other")
        # Each daemon writes the event when it decides not to reclaim.
        for each, volume in ((storage, other), (its_storage, kept)):
            assert "two clusters" in each.volume_event(volume["metadata"]["name"], timeout_s=60)["message"]
        assert storage.has_volume(other["metadata"]["name"])
        assert its_storage.has_volume(kept["metadata"]["name"])
        assert (kept_file.read_text(), other_file.read_text()) == ("kept", "other")
        assert 'nfs_provisioner_second_cluster{export="nas.example:/x"} 1.0' in daemon.http("/metrics")
        in_use(its_storage, export_directory, class_name, "made-in-the-copy")
        in_use(storage, export_directory, class_name, "made-in-the-original")
    finally:
        its_daemons.kill()
    daemon.kill()
    restarted = run(daemons, export_directory)
    storage.eventually(lambda: restarted.logged("second_cluster"), "a restarted daemon notices too", timeout_s=60)
    assert other_file.exists()

    flags = ("--export", f"nas.example:/x={export_directory}")
    (listed,) = json.loads(command(plane, "instances", NAME, *flags, "-o", "json").stdout)
    assert listed["state"] == "twice"
    done = command(plane, "instances", NAME, *flags, "--this-cluster-goes-on")
    assert (done.returncode, "resumes on" in done.stderr) == (0, True)
    storage.volume_gone(other["metadata"]["name"], timeout_s=90)
    eventually(lambda: not other_file.exists(), "its directory is gone")
    assert kept_file.read_text() == "kept"
    assert restarted.logged("second_cluster_over")
    assert (
        "no export is stopped: nothing to decide"
        in command(plane, "instances", NAME, *flags, "--this-cluster-goes-on").stderr
    )
