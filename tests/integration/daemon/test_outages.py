"""Outages of the API server and of mounted exports: work resumes by itself once the cause is gone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import fuse
from testbed.cluster import ControlPlane
from testbed.fuse import HangingMount
from testbed.waiting import eventually
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import disagreement, disk
from tests.support.storage import VOLUMES, Storage

EXPORT = "nas.example:/x"
RECOVERY_S = 15.0
"""The daemon recovers within this time after the cause is gone; binding the claim is the cluster's part."""
OUTAGE_S = 5.0


def start(daemon: Daemons, directory: Path, *flags: str) -> Daemon:
    """Start a daemon on the directory."""
    return daemon("--export", f"{EXPORT}={directory}", "--no-leader-election", *flags, wait_ready=False)


def waits_with(storage: Storage, *words: str, name: str = "data") -> str:
    """Wait for the claim's ProvisioningFailed event with these words, and return its message."""

    def found() -> str | None:
        messages = [event["message"] for event in storage.events(name, reason="ProvisioningFailed")]
        return next((text for text in messages if all(word in text for word in words)), None)

    return storage.eventually(found, f"an event with {words}", timeout_s=60)


def volume_made(storage: Storage, name: str, *, timeout_s: float) -> None:
    """Wait until the claim's volume exists."""
    uid = storage.api.get(f"{storage.claims}/{name}")["metadata"]["uid"]
    storage.eventually(
        lambda: bool(storage.api.get(f"{VOLUMES}/pvc-{uid}")), f"claim {name} has a volume", timeout_s=timeout_s
    )


@pytest.fixture
def small_export(tmp_path: Path) -> Iterator[Path]:
    """A separate file system with few inodes and little space."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot mount: the tests do not run as root")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.timeout(180)
def test_api_server_away(
    control_plane: ControlPlane, daemon: Daemons, storage: Storage, export_directory: Path
) -> None:
    """When the API server is down for seconds in the middle of the work, every claim gets exactly one volume."""
    running = start(daemon, export_directory)
    class_name = storage.storage_class(running.provisioner_name, {"onDelete": "delete"})
    for number in range(20):
        storage.claim(class_name, f"claim-{number}")
    control_plane.api_server.kill()
    time.sleep(OUTAGE_S)
    control_plane.api_server.start()
    control_plane.wait_ready()
    for number in range(20, 40):
        storage.claim(class_name, f"claim-{number}")
    for number in range(40):
        storage.bound(f"claim-{number}", timeout_s=90)
    volumes = [v for v in storage.api.list(VOLUMES) if v["spec"]["storageClassName"] == class_name]
    assert len(volumes) == 40
    storage.eventually(lambda: disagreement(export_directory, volumes) is None, "disk and API agree")
    assert running.returncode is None


@pytest.mark.timeout(180)
@pytest.mark.thorough
def test_history_compacted(
    control_plane: ControlPlane, daemon: Daemons, storage: Storage, export_directory: Path
) -> None:
    """A watch whose version has expired (410) lists again and misses no change in between."""
    running = start(daemon, export_directory)
    class_name = storage.storage_class(running.provisioner_name, {"onDelete": "delete"})
    storage.claim(class_name, "before")
    storage.bound("before")
    running.pause()
    storage.delete_claim("before")
    storage.claim(class_name, "missed")
    # kube-controller-manager retries a claim late when the API server stops in the middle of its write.
    storage.event("ExternalProvisioning", "missed")
    control_plane.expire()
    running.resume()
    storage.claim(class_name, "after")
    for name in ("missed", "after"):
        storage.bound(name, timeout_s=90)
    storage.eventually(lambda: len(disk(export_directory).directories) == 2, "the deleted one is gone", timeout_s=60)


@pytest.mark.timeout(120)
def test_export_directory_missing(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """The daemon never creates an export's directory: the claim waits with an event and binds when it appears."""
    missing = export_directory / "mnt"
    running = start(daemon, missing)
    storage.claim(storage.storage_class(running.provisioner_name))
    assert EXPORT in waits_with(storage, "does not exist")
    assert not missing.exists()
    missing.mkdir()
    volume_made(storage, "data", timeout_s=RECOVERY_S)


@pytest.mark.timeout(120)
def test_another_export_mounted_in_its_place(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When another export is mounted over ours, the daemon writes nothing to it, and the event says so."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot mount: the tests do not run as root")
    running = start(daemon, export_directory)
    class_name = storage.storage_class(running.provisioner_name)
    storage.claim(class_name, "first")
    volume_made(storage, "first", timeout_s=30)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(export_directory)], check=True)
    try:
        storage.claim(class_name, "second")
        assert EXPORT in waits_with(storage, "another export", name="second")
        assert os.listdir(export_directory) == []
    finally:
        subprocess.run(["umount", "-l", str(export_directory)], check=True)
    volume_made(storage, "second", timeout_s=RECOVERY_S)


@pytest.mark.timeout(120)
def test_export_read_only(daemon: Daemons, storage: Storage, small_export: Path) -> None:
    """On a read-only export the event names export and cause; the claim gets its volume once it is writable."""
    running = start(daemon, small_export)
    class_name = storage.storage_class(running.provisioner_name)
    storage.claim(class_name, "first")
    volume_made(storage, "first", timeout_s=30)
    subprocess.run(["mount", "-o", "remount,ro", str(small_export)], check=True)
    storage.claim(class_name)
    assert EXPORT in waits_with(storage, "read-only")
    subprocess.run(["mount", "-o", "remount,rw", str(small_export)], check=True)
    volume_made(storage, "data", timeout_s=RECOVERY_S)


@pytest.mark.timeout(120)
def test_no_inodes_left(daemon: Daemons, storage: Storage, small_export: Path) -> None:
    """On an export without free inodes the event says so; the claim gets its volume once there are some."""
    running = start(daemon, small_export)
    class_name = storage.storage_class(running.provisioner_name)
    storage.claim(class_name, "first")
    volume_made(storage, "first", timeout_s=30)
    fillers = []
    for number in range(100):
        try:
            (small_export / f"filler-{number}").touch()
        except OSError:
            break
        fillers.append(small_export / f"filler-{number}")
    storage.claim(class_name)
    assert EXPORT in waits_with(storage, "inodes")
    for filler in fillers:
        filler.unlink()
    volume_made(storage, "data", timeout_s=RECOVERY_S)


@pytest.mark.timeout(180)
def test_hung_mount_holds_back_only_its_own(daemon: Daemons, storage: Storage, tmp_path: Path) -> None:
    """More claims on a hung mount than workers delay no claim on another export, and recover once it answers.

    Their events name the export and the cause, and so does the event of a volume to be reclaimed there (harm 9 in
    peers.md).
    """
    if fuse.missing():
        pytest.skip(f"this machine cannot mount FUSE: {fuse.missing()}")
    healthy, source, place = (tmp_path / name for name in ("healthy", "source", "place"))
    for directory in (healthy, source, place):
        directory.mkdir()
    with HangingMount(source, place) as mount:
        running = start(daemon, healthy, "--export", f"hung.example:/y={place}", "--workers=8", "--nfs-timeout=6s")
        good = storage.storage_class(running.provisioner_name, {"server": "nas.example", "share": "/x"})
        on_hung = {"server": "hung.example", "share": "/y", "onDelete": "delete"}
        bad = storage.storage_class(running.provisioner_name, on_hung)
        for name in ("warm", "reclaimed"):
            storage.claim(bad, name)
            volume = storage.bound(name)["metadata"]["name"]
        mount.hang()
        storage.delete_claim("reclaimed")
        for number in range(20):
            storage.claim(bad, f"hung-{number}")
        storage.claim(good, "good")
        volume_made(storage, "good", timeout_s=3)
        assert "hung.example:/y" in waits_with(storage, "is not responding", name="hung-0")
        assert "is not responding" in storage.volume_event(volume)["message"]
        storage.claim(good, "good-too")
        volume_made(storage, "good-too", timeout_s=3)
        assert not [line for line in running.logged("volume_provisioned") if "/hung-" in line["claim"]]
        mount.go_on()
        for number in range(20):
            volume_made(storage, f"hung-{number}", timeout_s=RECOVERY_S + 5)
        storage.volume_gone(volume)
        assert len([name for name in os.listdir(source) if name != ".provisioner"]) == 21


@pytest.mark.timeout(120)
def test_stop_with_a_hung_mount(daemon: Daemons, storage: Storage, tmp_path: Path) -> None:
    """On SIGTERM while calls hang on a mount the process abandons them and exits with status 0 within ten seconds."""
    if fuse.missing():
        pytest.skip(f"this machine cannot mount FUSE: {fuse.missing()}")
    source, place = tmp_path / "source", tmp_path / "place"
    for directory in (source, place):
        directory.mkdir()
    with HangingMount(source, place) as mount:
        running = start(daemon, place, "--nfs-timeout=60s")
        class_name = storage.storage_class(running.provisioner_name)
        storage.claim(class_name, "warm")
        volume_made(storage, "warm", timeout_s=30)
        mount.hang()
        for number in range(5):
            storage.claim(class_name, f"hung-{number}")
        time.sleep(1)  # A call that hangs shows nowhere outside of the process.
        running.terminate()
        assert running.wait(timeout_s=15) == 0  # ten seconds are promised; this machine may be busy


def test_health_while_an_export_fails(daemon: Daemons, export_directory: Path) -> None:
    """While an export fails /healthz and /metrics answer, and /readyz does not say ready."""
    running = start(daemon, export_directory / "missing")
    eventually(lambda: running.http("/healthz"), "the endpoint answers")
    eventually(lambda: 'nfs_provisioner_export_up{export="nas.example:/x"} 0.0' in running.http("/metrics"), "gauge")
    assert not running.ready()
