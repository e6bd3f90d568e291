"""Servers that refuse or lack something: users learn what to change, and everything else works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import fuse
from testbed.cluster import ControlPlane
from tests.support.daemon import Daemons
from tests.support.exported import Exported
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def no_chmod(tmp_path: Path) -> Iterator[Exported]:
    """An export on a file system that refuses chmod."""
    if reason := fuse.missing() or ("" if os.geteuid() == 0 else "the tests do not run as root"):
        pytest.skip(f"this machine cannot mount one: {reason}")
    with fuse.without_chmod(tmp_path) as place:
        yield Exported.new(place)


def test_a_server_that_refuses_chmod(no_chmod: Exported, daemon: Daemons, storage: Storage) -> None:
    """Claims bind with a warning each and one line in the log; a mode that the class asks for is an error."""
    running = daemon(no_chmod.flag, "--no-leader-election", wait_ready=False)

    def claim(name: str, **parameters: str) -> None:
        storage.claim(storage.storage_class(running.provisioner_name, no_chmod.parameters | parameters), name)

    claim("first")
    claim("second")
    claim("left", mountPermissions="0")
    claim("asked", mode="0770")
    for name in ("first", "second"):
        storage.bound(name)
        event = storage.event("VolumeModeRefused", name)
        assert event["type"] == "Warning"
        assert all(word in event["message"] for word in ("0777", "chmod: EPERM", 'mode: "0"'))
    storage.bound("left")
    assert storage.events("left", reason="VolumeModeRefused") == []
    refused = storage.event("ProvisioningFailed", "asked")["message"]
    assert "chmod" in refused
    assert 'mode: "0"' in refused
    assert "squash" not in refused
    assert len(running.logged("mode_refused")) == 1
    assert "0700" in running.logged("ledger_not_private")[0]["hint"]


def test_a_volume_with_a_file_system_mounted_on_it(served: ServedStorage) -> None:
    """The reclaim waits with an event that says what to do, keeps the data, and completes after the unmount."""
    volume = served.volume({"onDelete": "delete"})
    directory = served.directory(volume)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(directory)], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a tmpfs: the tests do not run as root")
    try:
        (directory / "file").touch()
        served.delete_claim()
        message = served.volume_event(volume["metadata"]["name"])["message"]
        assert "another file system mounted on the directory" in message
        assert "nfs-provisioner/on-delete=retain" in message
        assert (directory / "file").exists()
    finally:
        subprocess.run(["umount", str(directory)], check=True)
    served.volume_gone(volume["metadata"]["name"])


def test_a_missing_directory_is_reported(served: ServedStorage) -> None:
    """A volume without its directory is reclaimed by any rule, and event and log report the missing directory."""
    for rule in ("delete", "archive", "retain"):
        volume = served.volume({"onDelete": rule}, rule)
        name = volume["metadata"]["name"]
        served.directory(volume).rmdir()
        served.released(volume)
        assert "has not mounted" in served.volume_event(name, "VolumeDirectoryMissing", type="Normal")["message"]
        (line,) = [line for line in served.daemon.logged("volume_reclaimed") if line["volume"] == name]
        assert line["missing"] is True
        assert line["claim"] == f"{served.namespace}/{rule}"
        assert (line["class"], line["export"]) == (volume["spec"]["storageClassName"], served.export.location)
        assert line["directory"] == served.directory(volume).relative_to(served.export.root).as_posix()
        assert (name in served.export.records) is (rule == "retain")


def test_a_volume_of_a_server_that_no_class_names(
    tmp_path: Path, daemon: Daemons, storage: Storage, control_plane: ControlPlane
) -> None:
    """The event on a volume of a replaced server names the export with its record and a command, which works."""
    (tmp_path / "export").mkdir()
    old, new = (Exported.new(tmp_path / "export") for _ in range(2))
    before = daemon(old.flag, "--no-leader-election")
    class_name = storage.storage_class(before.provisioner_name, {"onDelete": "delete"})
    storage.claim(class_name)
    name = storage.bound()["metadata"]["name"]
    before.kill()
    daemon(new.flag, "--no-leader-election", provisioner_name=before.provisioner_name)
    storage.delete_claim()
    message = storage.volume_event(name)["message"]
    assert old.location in message
    assert f"its record is on export {new.location}" in message
    assert f"recover --volume {name}" in message

    storage.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    storage.delete_if_there(f"{VOLUMES}/{name}")
    storage.volume_gone(name)
    command = [sys.executable, "-m", "provisioner", "recover", f"--provisioner-name={before.provisioner_name}"]
    command += [f"--kubeconfig={control_plane.kubeconfig}", new.flag, f"--volume={name}", "--apply"]
    subprocess.run(command, check=True, timeout=60)
    storage.api.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    storage.claim(class_name)
    assert storage.bound()["spec"]["nfs"]["server"] == new.server
    storage.delete_claim()
    storage.volume_gone(name)
    assert new.names() == set()


def test_encryption_is_never_ignored(served: ServedStorage) -> None:
    """A class whose mountOptions ask for encryption is refused before any call, with the option and the way out."""
    parameters = {"server": "tls.invalid", "share": "/x"}
    options = ["nfsvers=4.2,xprtsec=mtls", "port=1"]
    served.claim(served.storage_class(served.daemon.provisioner_name, parameters, mountOptions=options))
    message = served.event("ProvisioningFailed")["message"]
    assert "access: mounted" in message
    assert "not found" not in message
    assert served.made() == []
