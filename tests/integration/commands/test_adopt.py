"""`nfs-provisioner adopt`, and retained data for a claim of the same name, on a real control plane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.api import ApiError, Object
from testbed.cluster import ControlPlane
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.storage import VOLUMES, Storage

pytestmark = pytest.mark.timeout(180)

NAMED = {"pathPattern": "${.PVC.namespace}/${.PVC.name}"}


@dataclass(frozen=True)
class Site:
    """An export with a daemon and a StorageClass."""

    storage: Storage
    plane: ControlPlane
    export: Exported
    daemon: Daemon

    def adopt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command in a separate process."""
        command = [sys.executable, "-m", "provisioner", "adopt", *words, self.export.flag]
        command += [f"--provisioner-name={self.daemon.provisioner_name}", f"--kubeconfig={self.plane.kubeconfig}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def storage_class(self, parameters: dict[str, str] | None = None, **fields: str) -> str:
        return self.storage.storage_class(
            self.daemon.provisioner_name, self.export.parameters | (parameters or {}), **fields
        )

    def data(self, path: str) -> Path:
        """Create a directory with years of work."""
        directory = self.export.root / path
        directory.mkdir(parents=True)
        (directory / "file").write_text("years of work")
        return directory

    def key(self, name: str = "data") -> str:
        return f"{self.storage.namespace}/{name}"

    def phase(self, volume: str) -> str:
        phase: str = self.storage.get_volume(volume)["status"]["phase"]
        return phase

    def is_released(self, volume: str) -> None:
        self.storage.eventually(lambda: self.phase(volume) == "Released", f"volume {volume} is Released")


@pytest.fixture
def site(storage: Storage, control_plane: ControlPlane, export_directory: Path, daemon: Daemons) -> Site:
    export = Exported.new(export_directory)
    return Site(storage, control_plane, export, daemon("--no-leader-election", export.flag))


def _used(storage: Storage, class_name: str) -> Object:
    storage.claim(class_name)
    return storage.bound()


def is_whole(site: Site, volume: Object, directory: Path) -> None:
    """Assert that a volume has a directory with all its former content."""
    assert site.export.directory(volume) == directory
    assert (directory / "file").read_text() == "years of work"


def test_for_a_claim_that_waits(site: Site) -> None:
    """A claim whose directory already exists is refused; `adopt` hands over the directory with its data.

    The volume is retained until the admin changes that; then the class's rule applies.
    """
    class_name = site.storage_class(NAMED | {"onDelete": "archive"})
    directory = site.data(site.key())
    mode = directory.stat()
    site.storage.claim(class_name)
    assert "no record gives it to this claim" in site.storage.event("ProvisioningFailed")["message"]

    looked = site.adopt(site.key(), f"--claim={site.key()}")
    assert looked.returncode == 0, looked.stderr
    assert "would be created" in looked.stdout
    assert f"nfs-provisioner adopt {site.key()} --claim {site.key()} --export" in looked.stderr
    assert site.export.records == {}

    done = site.adopt(site.key(), f"--claim={site.key()}", "--apply")
    assert done.returncode == 0, done.stderr
    volume = site.storage.bound()
    is_whole(site, volume, directory)
    assert (directory.stat().st_mode, directory.stat().st_uid) == (mode.st_mode, mode.st_uid)
    name = volume["metadata"]["name"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    record = site.export.records[name]
    assert (record["uid"], record["pvuid"]) == (site.storage.get_claim()["metadata"]["uid"], volume["metadata"]["uid"])
    again = site.adopt(site.key(), f"--claim={site.key()}", "--apply")
    assert again.returncode == 1
    assert "already has a volume" in again.stderr

    site.plane.api.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    site.storage.delete_claim()
    site.storage.volume_gone(name)
    (archive,) = site.export.archives()
    assert (archive / "file").read_text() == "years of work"


def test_for_a_claim_that_is_yet_to_come(site: Site) -> None:
    """The volume waits for a claim of that name, whose class and size are printed, and binds to it immediately."""
    class_name = site.storage_class()
    directory = site.data("old photos/2019")
    for words, why in ((("--capacity=1Gi", "--class=none"), "does not exist"), ((), "with --capacity")):
        refused = site.adopt("old photos/2019", f"--claim={site.key()}", *words)
        assert refused.returncode == 1, refused.stderr
        assert why in refused.stderr
    flags = (f"--class={class_name}", "--capacity=1Gi", "--apply", "-o", "json")
    done = site.adopt("old photos/2019", f"--claim={site.key()}", *flags)
    assert done.returncode == 0, done.stderr
    name = json.loads(done.stdout)["metadata"]["name"]
    assert "1. create claim" in done.stderr
    site.storage.claim(class_name, size="1Gi")
    volume = site.storage.bound()
    assert volume["metadata"]["name"] == name
    is_whole(site, volume, directory)
    uid = site.storage.get_claim()["metadata"]["uid"]
    site.storage.eventually(lambda: site.export.records[name]["uid"] == uid, "the record names the claim")


def test_refused(site: Site) -> None:
    """Another volume's directory, a path through a link, the ledger and archives are refused; nothing is written."""
    class_name = site.storage_class(NAMED)
    live = site.export.directory(_used(site.storage, class_name))
    static = site.data("static/inner")
    body = {
        "metadata": {"name": f"static-{site.storage.namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": {"server": site.export.server, "path": f"{site.export.path}/static/inner"},
        },
    }
    site.storage.make_volume(body)
    (site.data("nested") / ".provisioner").mkdir()
    os.symlink(static, site.export.root / "link")
    before = dict(site.export.records)
    refusals = {
        site.key(): "overlaps with that of volume",
        f"{site.key()}/inner": "no directory",
        site.storage.namespace: "overlaps with that of volume",
        "static": "overlaps with that of volume",
        "static/inner": "overlaps with that of volume",
        "link": "no directory",
        "nested": "root of another export",
        "nowhere": "no directory",
    }
    for directory, why in refusals.items():
        refused = site.adopt(directory, f"--claim={site.key('new')}", "--capacity=1Mi", "--apply")
        assert (refused.returncode, refused.stdout) == (1, ""), (directory, refused.stderr)
        assert why in refused.stderr, directory
    for directory in ("", ".", "../x", ".provisioner", "archived-x", "/exports/x"):
        refused = site.adopt(directory, f"--claim={site.key('new')}", "--capacity=1Mi", "--apply")
        assert (refused.returncode, refused.stdout) == (2, ""), (directory, refused.stderr)
    assert site.export.records == before
    assert live.is_dir()


def test_retain_and_a_stable_path(site: Site) -> None:
    """The event of the recreated claim has the command that binds it to the retained volume, and the command works."""
    class_name = site.storage_class(NAMED, reclaimPolicy="Retain")
    volume = _used(site.storage, class_name)
    name = volume["metadata"]["name"]
    (site.export.directory(volume) / "file").write_text("years of work")
    site.storage.delete_claim()
    site.is_released(name)
    site.storage.claim(class_name)
    message = site.storage.event("ProvisioningFailed")["message"]
    assert f"kubectl patch pv {name} -p '" in message
    assert f"kubectl delete pv {name}" in message
    patch = json.loads(message.partition(" -p '")[2].partition("'")[0])
    site.plane.api.patch(f"{VOLUMES}/{name}", patch)
    assert site.storage.bound()["metadata"]["name"] == name

    site.storage.delete_claim()
    site.is_released(name)
    site.plane.api.delete(f"{VOLUMES}/{name}")
    site.storage.volume_gone(name)
    site.storage.claim(class_name)
    adopted = site.storage.bound()
    assert adopted["metadata"]["name"] != name
    is_whole(site, adopted, site.export.directory(volume))


def test_a_namespace_that_is_created_again(site: Site) -> None:
    """Data of a deleted namespace goes to a new namespace of that name only when an admin hands it over."""
    class_name = site.storage_class(NAMED | {"onDelete": "retain"})
    api, namespace = site.plane.api, f"{site.storage.namespace}-again"
    inside = Storage(api, namespace, daemon_logs=lambda: "")
    api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    try:
        volume = _used(inside, class_name)
        directory = site.export.directory(volume)
        (directory / "file").write_text("years of work")
        api.delete(f"/api/v1/namespaces/{namespace}")
        site.storage.eventually(lambda: _is_gone(site, namespace), "the namespace is gone", timeout_s=90)
        site.storage.volume_gone(volume["metadata"]["name"])
        api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        inside.claim(class_name)
        message = inside.event("ProvisioningFailed")["message"]
        assert f"earlier namespace {namespace}, which was deleted" in message
        assert f"nfs-provisioner adopt {namespace}/data --claim {namespace}/data --apply" in message
        done = site.adopt(f"{namespace}/data", f"--claim={namespace}/data", "--apply")
        assert done.returncode == 0, done.stderr
        is_whole(site, inside.bound(), directory)
    finally:
        api.delete(f"/api/v1/namespaces/{namespace}")


def _is_gone(site: Site, namespace: str) -> bool:
    try:
        site.plane.api.get(f"/api/v1/namespaces/{namespace}")
    except ApiError as exc:
        return exc.status == 404
    return False
