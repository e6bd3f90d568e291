"""`nfs-provisioner move` on a real cluster: claims keep their uid and their data, and nothing is reclaimed."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.archiving import command
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(240)


class Site(ServedStorage):
    """A daemon on the old address of an export."""

    def __init__(self, storage: Storage, daemon: Daemon, export: Exported, files: Path) -> None:
        super().__init__(storage.api, storage.namespace, daemon=daemon, export=export)
        self.files = files

    def with_data(self, name: str, parameters: dict[str, str] | None = None) -> Object:
        """Create a claim whose volume has a file."""
        volume = self.volume(parameters or {"onDelete": "delete"}, name)
        (self.directory(volume) / "file").write_text(name)
        return volume

    def copy(self) -> Exported:
        """Copy the export with its ledger to another server."""
        new = Exported.new(self.files / f"copy-{secrets.token_hex(2)}", path="/exports/new")
        shutil.copytree(self.export.root, new.root, symlinks=True)
        return new

    def move(
        self, control_plane: ControlPlane, new: Exported, *flags: str, old_flag: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        words = (f"--from={self.export.location}", f"--to={new.location}", old_flag or self.export.flag, new.flag)
        journal = f"--journal={self.files / 'journal.json'}"
        return command(control_plane, "move", self.provisioner, *words, journal, *flags)


@pytest.fixture
def site(storage: Storage, daemon: Daemons, export_directory: Path, tmp_path: Path) -> Iterator[Site]:
    """A site whose daemon the test stops and starts."""
    export = Exported.new(export_directory)
    environment = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    site = Site(storage, daemon("--no-leader-election", export.flag, environment=environment), export, tmp_path)
    yield site
    site.remove_volumes()
    site.remove_classes()


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of the JSON output, by volume."""
    assert done.stdout, done.stderr
    return {row["volume"]: row for row in json.loads(done.stdout)}


def static_volume(site: Site, path: str) -> Object:
    """Create a volume by hand with a claim that is bound to it."""
    name = f"static-{site.namespace}"
    volume = {
        "metadata": {"name": name, "labels": {"kept": "yes"}},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": {"server": site.export.server, "path": f"{site.export.path}/{path}"},
            "storageClassName": "",
        },
    }
    site.make_volume(volume)
    site.claim("", "static", volumeName=name)
    return site.bound("static")


def test_a_copy_on_another_server(site: Site, control_plane: ControlPlane, daemon: Daemons) -> None:
    """All volumes move to a copy: claims keep their uid, and the new server's daemon reclaims by their own rules."""
    ours = site.with_data("ours")
    (site.export.root / "by-hand").mkdir()
    static, gone = static_volume(site, "by-hand"), site.with_data("gone")
    pod = {
        "metadata": {"name": "reader"},
        "spec": {
            "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "ours"}}],
        },
    }
    pods = f"/api/v1/namespaces/{site.namespace}/pods"
    site.api.post(pods, pod)
    site.daemon.stop()
    new = site.copy()
    shutil.rmtree(new.directory(replaced(gone, site.export, new)))
    before = site.get_volume(ours["metadata"]["name"])

    names = {each["spec"]["claimRef"]["name"]: each["metadata"]["name"] for each in (ours, static, gone)}
    looked = site.move(control_plane, new, "-o", "json")
    assert looked.returncode == 1
    assert "both addresses have the ledger" in looked.stderr
    assert "nothing was changed" in looked.stderr
    found = rows(looked)
    assert f"pods use it, stop them first: {site.namespace}/reader" in found[names["ours"]]["why"]
    assert "does not exist at the new address" in found[names["gone"]]["why"]
    assert found[names["static"]]["result"] == ""
    assert site.get_volume(names["ours"]) == before
    assert not (site.files / "journal.json").exists()

    site.api.delete(f"{pods}/reader?gracePeriodSeconds=0")
    moved = site.move(control_plane, new, "--apply", "-o", "json")
    assert {row["claim"]: row["result"] for row in rows(moved).values()} == {
        "ours": "moved",
        "static": "moved",
        "gone": "stays",
    }, moved.stderr
    for name, was in (("ours", ours), ("static", static)):
        claim, volume = site.get_claim(name), site.bound(name)
        assert claim["status"]["phase"] == "Bound"
        assert claim["metadata"]["uid"] == was["spec"]["claimRef"]["uid"]
        assert volume["spec"]["nfs"]["server"] == new.server
        assert volume["metadata"]["uid"] != was["metadata"]["uid"]
        for field in ("persistentVolumeReclaimPolicy", "capacity", "accessModes"):
            assert volume["spec"][field] == was["spec"][field]
        assert volume["metadata"].get("labels") == was["metadata"].get("labels")
        assert set(was["metadata"]["finalizers"]) <= set(volume["metadata"]["finalizers"])
    record = new.records[names["ours"]]
    assert record["pvuid"] == site.get_volume(names["ours"])["metadata"]["uid"]
    assert (new.directory(site.get_volume(names["ours"])) / "file").read_text() == "ours"
    assert site.get_volume(names["gone"])["spec"]["nfs"]["server"] == site.export.server

    environment = {"NFS_SERVER": new.server, "NFS_PATH": new.path}
    daemon("--no-leader-election", new.flag, provisioner_name=site.provisioner, environment=environment)
    directory = new.directory(site.get_volume(names["ours"]))
    site.delete_claim("ours")
    site.volume_gone(names["ours"])
    assert not directory.exists()
    assert (site.export.directory(ours) / "file").read_text() == "ours"


def replaced(volume: Object, old: Exported, new: Exported) -> Object:
    """Return a volume as it would be at the new address."""
    path = volume["spec"]["nfs"]["path"].replace(old.path, new.path, 1)
    return {**volume, "spec": {**volume["spec"], "nfs": {"server": new.server, "path": path}}}


def test_the_old_address_is_gone(site: Site, control_plane: ControlPlane) -> None:
    """The id on the volumes proves the export if the old address is silent; an interrupted move continues."""
    volumes = [site.with_data(name) for name in ("one", "two")]
    site.daemon.stop()
    new = site.copy()
    gone = f"--export={site.export.location}={site.files / 'nowhere'}"
    # As after a crash between the deletion of a volume and its creation.
    name = volumes[0]["metadata"]["name"]
    was = site.get_volume(name)
    now = replaced(was, site.export, new)
    now = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": was["metadata"]["annotations"]},
        "spec": {**now["spec"], "persistentVolumeReclaimPolicy": "Retain"},
    }
    now["spec"]["claimRef"] = {key: was["spec"]["claimRef"][key] for key in ("namespace", "name", "uid")}
    entry = {"state": "begun", "was": was, "now": now}
    journal = {"from": site.export.location, "to": new.location, "volumes": {name: entry}}
    (site.files / "journal.json").write_text(json.dumps(journal))
    site.api.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    site.api.delete(f"{VOLUMES}/{name}")
    site.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    site.eventually(lambda: site.get_claim("one")["status"]["phase"] == "Lost", "the claim has lost its volume")

    looked = site.move(control_plane, new, old_flag=gone)
    assert "does not answer" in looked.stderr
    assert "1 volume of an interrupted move would be continued first" in looked.stderr
    moved = site.move(control_plane, new, "--apply", "-o", "json", old_flag=gone)
    assert moved.returncode == 0, moved.stderr
    assert {row["result"] for row in rows(moved).values()} == {"moved"}
    for claim in ("one", "two"):
        volume = site.bound(claim)
        assert volume["spec"]["nfs"]["server"] == new.server
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        assert (new.directory(volume) / "file").read_text() == claim
    again = site.move(control_plane, new, "--apply", "-o", "json", old_flag=gone)
    assert again.stdout == "" or json.loads(again.stdout) == []


def test_another_name_of_the_same_server(site: Site, control_plane: ControlPlane, daemon: Daemons) -> None:
    """While a daemon serves both names of one export, nothing is reclaimed, and later the rule still counts."""
    volume = site.with_data("data", {"onDelete": "archive"})
    site.daemon.stop()
    new = replace(site.export, server=f"alias-{secrets.token_hex(4)}.test")
    environment = {"NFS_SERVER": site.export.server, "NFS_PATH": site.export.path}
    flags = ("--no-leader-election", site.export.flag, new.flag)
    daemon(*flags, provisioner_name=site.provisioner, environment=environment)
    done = site.move(control_plane, new, "--apply")
    assert done.returncode == 0, done.stderr
    moved = site.bound("data")
    assert moved["spec"]["nfs"]["server"] == new.server
    assert (site.export.directory(volume) / "file").exists()
    site.delete_claim("data")
    site.volume_gone(moved["metadata"]["name"])
    (archive,) = site.export.archives()
    assert (archive / "file").read_text() == "data"


def test_two_different_exports(site: Site, control_plane: ControlPlane, tmp_path: Path) -> None:
    """Without the same ledger at both addresses nothing moves, and the message says what to copy."""
    site.with_data("data")
    new = Exported.new(tmp_path / "other", path="/exports/other")
    new.root.mkdir()
    bare = site.move(control_plane, new, "--apply")
    assert (bare.returncode, bare.stdout) == (1, "")
    assert "has no ledger that can be read" in bare.stderr
    for part in ("", "volumes", "pending", "archives", "trash", "clusters", "drafts", "groups", "copies"):
        (new.root / LEDGER / part).mkdir(exist_ok=True)
    (new.root / LEDGER / "export").symlink_to("another-id")
    another = site.move(control_plane, new, "--apply")
    assert (another.returncode, another.stdout) == (1, "")
    assert "they are two exports" in another.stderr
    assert site.move(control_plane, site.export).returncode == 2
