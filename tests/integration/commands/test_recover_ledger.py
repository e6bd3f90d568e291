"""A lost ledger: no new one is created, claims report it, and `recover --ledger` rewrites it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.core import names
from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, Storage

pytestmark = pytest.mark.timeout(150)

Damage = Callable[[Exported], None]


def removed(export: Exported) -> None:
    """Remove the ledger, as a tidy admin would."""
    shutil.rmtree(export.root / LEDGER)


def begun_anew(export: Exported) -> None:
    """Move the data without dot files, after which another provisioner creates a new ledger."""
    removed(export)
    (export.root / LEDGER / "volumes").mkdir(parents=True)
    (export.root / LEDGER / "export").symlink_to("another")


def nameless(export: Exported) -> None:
    """Remove only the id."""
    (export.root / LEDGER / "export").unlink()


def run(command: str, control_plane: ControlPlane, daemon: Daemon, export: Exported, *flags: str) -> tuple[int, str]:
    """Run the command in a separate process; return its status and its output."""
    words = [sys.executable, "-m", "provisioner", command, f"--provisioner-name={daemon.provisioner_name}"]
    words += [f"--kubeconfig={control_plane.kubeconfig}", export.flag, *flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def readyz(daemon: Daemon) -> str:
    try:
        return daemon.http("/readyz")
    except urllib.error.HTTPError as exc:
        return exc.read().decode()


def patch(control_plane: ControlPlane, volume: str, body: Object) -> None:
    control_plane.api.patch(f"{VOLUMES}/{volume}", body)


@pytest.fixture
def export(export_directory: Path) -> Exported:
    return Exported.new(export_directory)


@pytest.mark.parametrize(
    ("damage", "restarts"), [(removed, False), (removed, True), (begun_anew, True), (nameless, False)]
)
def test_a_ledger_that_is_lost(
    control_plane: ControlPlane,
    storage: Storage,
    daemon: Daemons,
    export: Exported,
    damage: Damage,
    *,
    restarts: bool,
) -> None:
    """Claims wait and say why until the ledger is rewritten; then work continues, and old volumes are reclaimed."""
    running = daemon("--no-leader-election", export.flag)
    storage_class = storage.storage_class(running.provisioner_name, {"onDelete": "delete"})
    storage.claim(storage_class)
    volume = storage.bound()
    name = volume["metadata"]["name"]
    (export.directory(volume) / "precious").write_text("kept")
    id = (export.root / LEDGER / "export").readlink()
    if restarts:
        running.stop()
    damage(export)
    left = sorted(path.name for path in (export.root / LEDGER).rglob("*")) if (export.root / LEDGER).exists() else []
    if restarts:
        running = daemon(
            "--no-leader-election", export.flag, provisioner_name=running.provisioner_name, wait_ready=False
        )
    storage.eventually(lambda: _with(readyz(running), "its ledger is lost"), "not ready, and why")
    storage.claim(storage_class, "later")
    assert "recover --ledger" in storage.event("ProvisioningFailed", "later")["message"]
    there = sorted(path.name for path in (export.root / LEDGER).rglob("*")) if (export.root / LEDGER).exists() else []
    assert there == left, "nothing is begun"
    status, output = run("check", control_plane, running, export, "--no-leader-election")
    assert status == 1
    assert f"1 volume on it ({name})" in output

    status, output = run("recover", control_plane, running, export, "--ledger")
    assert status == 0, output
    assert "would be" in output
    assert str(id) in output
    assert storage.get_claim("later")["status"]["phase"] == "Pending"
    status, output = run("recover", control_plane, running, export, "--ledger", "--apply")
    assert status == 0, output
    storage.bound("later", timeout_s=30.0)
    assert (export.root / LEDGER / "export").readlink() == id
    status, output = run("recover", control_plane, running, export, "--ledger")
    assert status == 0, output
    assert "2 volumes in agreement, 0 records would be written" in output
    assert (export.directory(volume) / "precious").read_text() == "kept"
    storage.delete_claim()
    storage.volume_gone(name)
    assert not export.directory(volume).exists()


def _with(text: str, words: str) -> str | None:
    return text if words in text else None


def test_records_that_are_damaged(
    control_plane: ControlPlane, storage: Storage, daemon: Daemons, export: Exported
) -> None:
    """Missing or garbled records are rewritten while the daemon runs; a record that disagrees is listed."""
    running = daemon("--no-leader-election", export.flag)
    storage_class = storage.storage_class(running.provisioner_name, {"onDelete": "archive"})
    volumes = {}
    for claim in ("gone", "garbled", "edited", "whole"):
        storage.claim(storage_class, claim)
        volumes[claim] = storage.bound(claim)["metadata"]["name"]
    records = export.root / LEDGER / "volumes"
    (records / volumes["gone"]).unlink()
    (records / volumes["garbled"]).unlink()
    (records / volumes["garbled"]).symlink_to("garbage")
    patch(control_plane, volumes["edited"], {"metadata": {"annotations": {names.EXPORT_ID: "another"}}})
    event = storage.volume_event(volumes["edited"], reason="VolumeDisagrees")
    assert f"kubectl annotate pv {volumes['edited']} --overwrite nfs-provisioner/export-id=" in event["message"]
    status, output = run("check", control_plane, running, export, "--no-leader-election")
    assert status == 0, output
    assert "2 volumes whose record or export id does not match" in output
    status, output = run("recover", control_plane, running, export, "--ledger", "--apply")
    assert status == 0, output
    assert "1 volume in agreement, 2 records written, 1 volume skipped" in output
    id = str((export.root / LEDGER / "export").readlink())
    patch(control_plane, volumes["edited"], {"metadata": {"annotations": {names.EXPORT_ID: id}}})
    status, output = run("recover", control_plane, running, export, "--ledger")
    assert "4 volumes in agreement" in output
    for claim, name in volumes.items():
        storage.delete_claim(claim)
        storage.volume_gone(name)
    assert len([name for name in export.names() if name.startswith("archived-")]) == 4


def test_another_export_in_its_place(
    control_plane: ControlPlane, storage: Storage, daemon: Daemons, export: Exported, tmp_path: Path
) -> None:
    """An empty directory in the place of the export gets neither a ledger nor records, from any command."""
    running = daemon("--no-leader-election", export.flag)
    storage_class = storage.storage_class(running.provisioner_name)
    storage.claim(storage_class)
    storage.bound()
    running.stop()
    export.root.rename(tmp_path / "aside")
    export.root.mkdir()
    again = daemon("--no-leader-election", export.flag, provisioner_name=running.provisioner_name, wait_ready=False)
    storage.claim(storage_class, "later")
    storage.event("ProvisioningFailed", "later")
    status, output = run("recover", control_plane, again, export, "--ledger", "--apply")
    assert status == 1
    assert "the right export" in output
    assert list(export.root.iterdir()) == []
    export.root.rmdir()
    (tmp_path / "aside").rename(export.root)
    storage.bound("later", timeout_s=30.0)


def test_flags_that_do_not_go_together(control_plane: ControlPlane, daemon: Daemons, export: Exported) -> None:
    """--ledger reads the volumes of this cluster: with --volume and similar flags it is refused."""
    running = daemon("--no-leader-election", export.flag)
    status, output = run("recover", control_plane, running, export, "--ledger", "--volume=pvc-1", "-ojson")
    assert status == 2
    assert "cannot be used with --volume, --output json" in output
