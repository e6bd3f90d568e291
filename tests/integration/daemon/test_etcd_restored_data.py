"""etcd is restored to a state before a claim's deletion: the data stays, and `recover` restores it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.archiving import command
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, Storage

pytestmark = pytest.mark.timeout(400)

NAME = "test.example/restored-data"
RETENTION_S = 45


@pytest.fixture
def storage(plane: ControlPlane, daemons: Daemons) -> Storage:
    """Classes and claims on the test's own control plane."""
    return Storage(plane.api, "default", daemon_logs=daemons.log_tails)


@pytest.fixture
def export(export_directory: Path) -> Exported:
    """The export of the test's daemon."""
    return Exported.new(export_directory)


def run(daemons: Daemons, export: Exported) -> Daemon:
    """Start a daemon on the export."""
    return daemons("--no-leader-election", export.flag, provisioner_name=NAME)


def written(storage: Storage, export: Exported, parameters: dict[str, str]) -> Object:
    """Create a claim and a file in its volume; return the volume."""
    storage.claim(storage.storage_class(NAME, parameters | export.parameters))
    volume = storage.bound()
    export.directory(volume).joinpath("file").write_text("precious")
    storage.eventually(lambda: export.lists(volume), "its record is settled")
    return volume


def is_bound(storage: Storage, volume: Object) -> bool:
    """Whether the volume is Bound."""
    return str(storage.get_volume(volume["metadata"]["name"])["status"]["phase"]) == "Bound"


def recover(plane: ControlPlane, storage: Storage, export: Exported, volume: Object) -> None:
    """Recover the data by command, check that they are complete, and that the claim can be deleted afterwards."""
    name = volume["metadata"]["name"]
    looked = command(plane, "recover", NAME, export.flag)
    assert f"--volume {name} --apply" in looked.stderr
    for applied in (False, True):
        done = command(plane, "recover", NAME, export.flag, f"--volume={name}", *(["--apply"] if applied else []))
        assert done.returncode == 0, done.stderr
        assert ("would be brought back" in done.stdout) is not applied
        assert export.directory(volume).exists() is applied
    assert export.directory(volume).joinpath("file").read_text() == "precious"
    assert (export.trash, export.archives()) == ([], [])
    assert list(export.records) == [name]
    assert (
        "skipped: the volume already exists" in command(plane, "recover", NAME, export.flag, f"--volume={name}").stdout
    )
    storage.delete_claim()
    storage.volume_gone(name)
    assert not export.directory(volume).exists()


def test_an_archive_does_not_expire_under_a_bound_claim(
    plane: ControlPlane, daemons: Daemons, storage: Storage, export: Exported
) -> None:
    """After a restore of etcd the archive of a bound claim outlives its retention, and an event names the command."""
    daemon = run(daemons, export)
    volume = written(storage, export, {"onDelete": "archive", "archiveRetention": f"{RETENTION_S}s"})
    name = volume["metadata"]["name"]
    backup = plane.backup()
    storage.eventually(lambda: is_bound(storage, volume), "the control plane is back")
    storage.delete_claim()
    storage.volume_gone(name, timeout_s=120)
    (archive,) = export.archives()
    plane.restore(backup)
    assert is_bound(storage, volume)
    event = storage.volume_event(name, "VolumeDataKept", timeout_s=RETENTION_S + 120)
    assert f"archive {archive.name}" in event["message"]
    assert f"nfs-provisioner recover --volume {name}" in event["message"]
    assert archive.joinpath("file").read_text() == "precious"
    assert daemon.logged("data_kept")
    assert not daemon.logged("unexpected_error")
    recover(plane, storage, export, volume)


def test_the_trash_is_not_purged_under_a_bound_claim(
    plane: ControlPlane, daemons: Daemons, storage: Storage, export: Exported
) -> None:
    """After a crash before the purge and a restore of etcd, the next daemon purges nothing of a bound claim."""
    daemon = run(daemons, export)
    volume = written(storage, export, {"onDelete": "delete"})
    name = volume["metadata"]["name"]
    backup = plane.backup()
    storage.eventually(lambda: is_bound(storage, volume), "the control plane is back")
    daemon.kill()
    storage.delete_claim()
    storage.eventually(lambda: not is_bound(storage, volume), "it is released")
    reclaim_without_purge(storage, export, volume)
    plane.restore(backup)
    assert is_bound(storage, volume)
    daemon = run(daemons, export)
    event = storage.volume_event(name, "VolumeDataKept", timeout_s=120)
    assert "the trash" in event["message"]
    assert f"nfs-provisioner recover --volume {name}" in event["message"]
    gauge = f'nfs_provisioner_volumes_lacking{{export="{export.location}",lacks="directory-missing"}} 1.0'
    storage.eventually(lambda: gauge in daemon.http("/metrics"), "it is counted", timeout_s=120)
    assert f"recover --volume {name}" in storage.volume_event(name, "VolumeDirectoryMissing")["message"]
    assert f"{name} " in command(plane, "orphans", NAME, export.flag).stdout
    checked = command(plane, "check", NAME, export.flag, "--no-leader-election").stdout
    assert f"1 volume in use, without a directory: {name}" in checked
    (entry,) = export.trash
    assert export.root.joinpath(LEDGER, "trash", entry, "file").read_text() == "precious"
    assert not daemon.logged("purged")
    recover(plane, storage, export, volume)
    storage.eventually(lambda: not export.trash, "what is deleted now is purged")


def reclaim_without_purge(storage: Storage, export: Exported, volume: Object) -> None:
    """Do all that the daemon does to reclaim a volume, except the purge."""
    name = volume["metadata"]["name"]
    export.directory(volume).rename(export.root / LEDGER / "trash" / f"{name}.20260101T000000.000000Z")
    storage.api.delete(f"{VOLUMES}/{name}")
    storage.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    storage.volume_gone(name)
    os.unlink(export.root / LEDGER / "volumes" / name)
