"""Orphans on a real cluster: leftovers of a crash, of manual work and of a lost cluster are reported and untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane, TokenUser
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(180)

PER_CLAIM = {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
GONE = "00000000-0000-4000-8000-000000000000"


def orphans(
    control_plane: ControlPlane, provisioner: str, *flags: str, kubeconfig: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "provisioner", "orphans", *flags]
    command += [f"--kubeconfig={kubeconfig or control_plane.kubeconfig}", f"--provisioner-name={provisioner}"]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, check=False)


def listed(control_plane: ControlPlane, provisioner: str, *flags: str) -> list[dict[str, Any]]:
    """Return what the command lists as JSON."""
    done = orphans(control_plane, provisioner, "-o", "json", *flags)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def contents(root: Path) -> dict[str, str]:
    """Read everything on an export but the heartbeats, to verify that it is unchanged."""
    found = {}
    for directory, names, files in os.walk(root):
        if directory.endswith(".provisioner"):
            names.remove("clusters")
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found[path] = os.readlink(path) if os.path.islink(path) else ""
    return found


def delete_by_force(storage: Storage, volume: Object) -> None:
    """Delete a PersistentVolume as an admin in a hurry does: with its finalizers removed."""
    name = volume["metadata"]["name"]
    storage.api.delete(f"{VOLUMES}/{name}")
    storage.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    storage.volume_gone(name)


class Site(ServedStorage):
    """A daemon with its own export, on which there is a volume in use."""

    def __init__(self, storage: Storage, daemon: Daemon, export: Exported) -> None:
        super().__init__(storage.api, storage.namespace, daemon=daemon, export=export)
        self.class_name = self.own_class(PER_CLAIM)
        self.cluster = self.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]

    def with_data(self, name: str) -> Object:
        """Create a directory of a volume with content."""
        self.claim(self.class_name, name)
        volume = self.bound(name)
        (self.directory(volume) / "precious").write_text("kept")
        return volume

    def put(self, *path: str) -> None:
        """Create a directory with content that the provisioner did not create."""
        directory = self.export.root.joinpath(*path)
        directory.mkdir(parents=True)
        (directory / "precious").write_text("kept")

    def attempt(self) -> str:
        """Create what a crashed attempt leaves whose claim is gone and that has content; return the volume's name."""
        record = {
            "dir": f"{self.namespace}/attempt", "ns": self.namespace, "pvc": "attempt", "uid": GONE, "class": "any",
            "del": "delete", "size": "1Mi", "at": "2026-01-01T00:00:00Z", "by": self.cluster, "v": 1,
        }  # fmt: skip
        self.export.plant(f"pvc-{GONE}", record, pending=True)
        self.put(self.namespace, "attempt")
        return f"pvc-{GONE}"

    def gauge(self) -> str:
        """Return the line of the metric."""
        lines = self.daemon.http("/metrics").splitlines()
        return next((line for line in lines if line.startswith("nfs_provisioner_orphans{")), "")


@pytest.fixture
def site(storage: Storage, daemon: Daemons, export_directory: Path) -> Iterator[Site]:
    """A daemon that the test stops and starts."""
    export = Exported.new(export_directory)
    default = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    site = Site(storage, daemon("--no-leader-election", export.flag, environment=default), export)
    yield site
    site.remove_volumes()
    site.remove_classes()


def csi_volume(site: Site, directory: str) -> Object:
    """A volume of csi-driver-nfs on the same export."""
    attributes = {"server": site.export.server, "share": site.export.path, "subDir": directory}
    source = {"driver": "nfs.csi.k8s.io", "volumeHandle": directory, "volumeAttributes": attributes}
    return {
        "metadata": {"name": f"csi-{site.namespace}"},
        "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteMany"], "csi": source},
    }


def test_all_that_can_be_left(site: Site, control_plane: ControlPlane) -> None:
    """Orphans of all kinds are reported by command, metric and one log line, with advice.

    These are volumes deleted manually, crashed attempts, odd entries and foreign directories. Volumes in use, archives
    and empty directories are not reported, and nothing is touched.
    """
    by_hand, _in_use = site.with_data("by-hand"), site.with_data("in-use")
    site.daemon.stop()
    delete_by_force(site, by_hand)
    attempt = site.attempt()
    for path in (("foreign",), (site.namespace, "old"), ("archived-x",), ("csi", "volume"), ("lost+found",)):
        site.put(*path)
    (site.export.root / "empty").mkdir()
    (site.export.root / ".provisioner/volumes/odd").symlink_to("no record")
    site.make_volume(csi_volume(site, "csi/volume"))
    before = contents(site.export.root)
    site.daemon.start()
    site.daemon.wait_ready()

    lines = site.eventually(lambda: site.daemon.logged("orphans"), "the orphans are reported")
    name = by_hand["metadata"]["name"]
    assert (lines[0]["volumes"], lines[0]["unreadable"]) == ([attempt, name], ["odd"])
    assert lines[0]["unknown"] == ["foreign", f"{site.namespace}/old"]
    assert site.gauge() == f'nfs_provisioner_orphans{{export="{site.export.location}"}} 5.0'

    found = listed(control_plane, site.provisioner, site.export.flag)
    assert [(each["kind"], each["directory"], each["volume"]) for each in found] == [
        ("attempt-left", f"{site.namespace}/attempt", attempt),
        ("unknown", "foreign", ""),
        ("unknown", f"{site.namespace}/old", ""),
        ("unreadable", "", "odd"),
        ("volume-gone", f"{site.namespace}/by-hand", name),
    ]
    assert all(each["why"] and each["advice"] and each["export"] == site.export.location for each in found)
    assert found[-1]["claim"] == f"{site.namespace}/by-hand"
    assert contents(site.export.root) == before
    site.settled()
    assert len(site.daemon.logged("orphans")) == 1


def test_what_the_advice_comes_to(site: Site, control_plane: ControlPlane) -> None:
    """The advice for an orphan removes it: its record is deleted when an admin has removed the directory."""
    volume = site.with_data("by-hand")
    site.daemon.stop()
    delete_by_force(site, volume)
    assert [each["kind"] for each in listed(control_plane, site.provisioner, site.export.flag)] == ["volume-gone"]
    (site.directory(volume) / "precious").unlink()
    site.directory(volume).rmdir()
    site.daemon.start()
    site.daemon.wait_ready()
    site.eventually(lambda: not site.export.records, "the record has ended")
    done = orphans(control_plane, site.provisioner, site.export.flag)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no orphans on 1 export" in done.stderr
    assert f"looked at export {site.export.location}: 0 volume records" in done.stderr


def test_archiving_an_orphan(site: Site, control_plane: ControlPlane) -> None:
    """`orphans --archive` renames one orphan to an archive with `--yes`, and refuses what a claim still has."""
    by_hand, kept = site.with_data("by-hand"), site.with_data("kept")
    for volume in (by_hand, kept):
        delete_by_force(site, volume)
    site.delete_claim("by-hand")
    name = by_hand["metadata"]["name"]
    site.put("foreign")
    flags = (site.export.flag, "--archive")

    def is_listed() -> bool:
        return name in {each["volume"] for each in listed(control_plane, site.provisioner, site.export.flag)}

    site.eventually(is_listed, "the volume is an orphan")
    dry = orphans(control_plane, site.provisioner, *flags, name)
    assert dry.returncode == 0, dry.stderr
    assert "would become an archive" in dry.stdout
    assert (site.directory(by_hand) / "precious").exists()
    for each in (name, "foreign"):
        done = orphans(control_plane, site.provisioner, *flags, each, "--yes")
        assert done.returncode == 0, done.stderr
        assert " is archive archived-" in done.stdout
    assert [(path / "precious").read_text() for path in site.export.archives()] == ["kept", "kept"]
    site.eventually(lambda: name not in site.export.records, "the record has ended")
    refused = orphans(control_plane, site.provisioner, *flags, kept["metadata"]["name"], "--yes")
    assert (refused.returncode, "still exists" in refused.stderr) == (1, True), refused.stderr
    assert orphans(control_plane, site.provisioner, *flags, "nothere").returncode == 1
    assert (site.directory(kept) / "precious").exists()


def test_a_vanished_cluster(site: Site, control_plane: ControlPlane, tmp_path: Path) -> None:
    """Volumes of another cluster's provisioner are reported only when that provisioner has been silent for long."""
    with ControlPlane(tmp_path / "other") as other:
        other.api.post("/api/v1/namespaces", {"metadata": {"name": site.namespace}})
        daemons = Daemons(other, tmp_path)
        try:
            theirs = daemons("--no-leader-election", site.export.flag, environment={
                "NFS_SERVER": site.export.server, "NFS_PATH": site.export.path,
            })  # fmt: skip
            there = ServedStorage(other.api, site.namespace, daemon=theirs, export=site.export)
            volume = there.volume(PER_CLAIM, "theirs")
            (there.directory(volume) / "precious").write_text("kept")
            identity = other.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
            assert listed(control_plane, site.provisioner, site.export.flag) == []
        finally:
            daemons.kill()
    site.export.sign(identity, "2026-01-01T00:00:00Z")
    (orphan,) = listed(control_plane, site.provisioner, site.export.flag)
    assert (orphan["kind"], orphan["volume"]) == ("cluster-gone", volume["metadata"]["name"])
    assert orphan["claim"] == f"{site.namespace}/theirs"
    assert identity in orphan["why"]
    assert "2026-01-01T00:00:00Z" in orphan["why"]
    site.daemon.stop()
    site.daemon.start()
    site.daemon.wait_ready()
    lines = site.eventually(lambda: site.daemon.logged("orphans"), "the orphans are reported")
    assert lines[0]["kinds"] == {"cluster-gone": 1}
    assert (site.export.root / site.namespace / "theirs" / "precious").read_text() == "kept"


def test_the_table(site: Site, control_plane: ControlPlane) -> None:
    """Each orphan is a paragraph, or with `-o wide` a line, for any bytes in its name."""
    os.mkdir(os.fsencode(site.export.root) + b"/odd-\xff")
    (site.export.root / "odd-\udcff" / "file").touch()
    done = orphans(control_plane, site.provisioner, site.export.flag)
    assert done.returncode == 0, done.stderr
    what, why, fix = done.stdout.splitlines()
    assert what.startswith("unknown: odd-")
    assert why.startswith("    why:  no record")
    assert fix.startswith("    fix:  ")
    done = orphans(control_plane, site.provisioner, site.export.flag, "-o", "wide")
    heading, line = done.stdout.splitlines()
    assert heading.split()[:3] == ["KIND", "EXPORT", "DIRECTORY"]
    assert line.startswith("unknown  ")
    assert "odd-" in line
    assert listed(control_plane, site.provisioner, site.export.flag)[0]["directory"] == "odd-\udcff"


def test_an_odd_path_among_orphans(site: Site, control_plane: ControlPlane) -> None:
    """An orphan whose directory was replaced by a symlink is listed, by the daemon and by the command."""
    volumes = [site.with_data(name) for name in ("first", "second")]
    site.daemon.stop()
    for volume in volumes:
        delete_by_force(site, volume)
    first = site.directory(volumes[0])
    shutil.rmtree(first)
    first.symlink_to("/etc")
    found = listed(control_plane, site.provisioner, site.export.flag)
    assert [each["volume"] for each in found] == [volume["metadata"]["name"] for volume in volumes]
    site.daemon.start()
    site.daemon.wait_ready()
    site.eventually(lambda: site.gauge().endswith(" 2.0"), "the daemon finds both too")


def test_nothing_to_look_at(site: Site, control_plane: ControlPlane) -> None:
    """With a wrong name and no export, the command reports status 2, and why there was nothing to look at."""
    done = orphans(control_plane, "test.example/wrong")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing to look at: no StorageClass has the provisioner test.example/wrong" in done.stderr
    assert f"{site.provisioner} (1 class)" in done.stderr
    done = orphans(control_plane, "test.example/wrong", "-o", "json")
    assert (done.returncode, done.stdout) == (2, "[]\n")


def test_a_class_that_cannot_be_used(site: Site, control_plane: ControlPlane) -> None:
    """A class without a usable export is one line that names it, once; the other exports are read."""
    bad = site.own_class({"onDelet": "delete"})
    done = orphans(control_plane, site.provisioner, site.export.flag)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if bad in line]
    assert line.startswith(f"skipped StorageClass {bad}: parameter onDelet is unknown")
    assert line.count("onDelet is unknown") == 1
    assert f"looked at export {site.export.location}" in done.stderr


def test_what_cannot_be_looked_at(site: Site, control_plane: ControlPlane, restricted_user: TokenUser) -> None:
    """An export or an API server that does not respond is reported, with status 1; the other exports are listed."""
    site.put("foreign")
    done = orphans(control_plane, site.provisioner, site.export.flag, "--export=nas.test:/gone=/no-such-directory")
    assert done.returncode == 1
    assert "foreign" in done.stdout
    assert "nas.test:/gone" in done.stderr
    done = orphans(
        control_plane, site.provisioner, site.export.flag, kubeconfig=control_plane.kubeconfig_for(restricted_user)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "forbidden" in done.stderr
