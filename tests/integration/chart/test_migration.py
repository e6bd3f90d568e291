"""Migration drill: the nfs-subdir chart's values and volumes, `helm upgrade` to our chart, the daemon, and back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import ganesha
from testbed.api import Object
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from testbed.helm import Helm
from testbed.processes import free_port, tail
from tests.integration.chart import nfs_subdir, pod, rendering
from tests.integration.chart.nfs_subdir import NfsSubdir, full_name
from tests.integration.chart.pod import Pod
from tests.integration.chart.rendering import Release
from tests.support.disk import Listing, listing
from tests.support.exported import Exported
from tests.support.storage import CLASSES, VOLUMES, Storage

pytestmark = pytest.mark.timeout(240)

SERVER = "127.0.0.1"
TENANT = 1234
STORED = "nfs.io/storage-path"
PATTERN = "${.PVC.namespace}/${.PVC.labels.team}/${.PVC.annotations." + STORED + "}"


@dataclass(frozen=True)
class Case:
    """`storageClass` values of the nfs-subdir chart, and their rule for directories in our and its provisioner."""

    given: dict[str, Any]
    ours: str
    theirs: str
    """Differs for nested directories: the released peer does not find them."""

    @property
    def retained(self) -> bool:
        """Whether volumes have the policy Retain, so that no provisioner touches them."""
        return bool(self.given.get("reclaimPolicy") == "Retain")


CASES = {
    "defaults": Case({}, "archive", "archive"),
    "archiveOnDelete false": Case({"archiveOnDelete": False}, "delete", "delete"),
    "onDelete retain": Case({"onDelete": "retain"}, "retain", "retain"),
    "onDelete delete": Case({"onDelete": "delete"}, "delete", "delete"),
    "pathPattern": Case({"archiveOnDelete": False, "pathPattern": PATTERN}, "delete", "retain"),
    "a class of one's own": Case({"archiveOnDelete": False, "create": False}, "delete", "delete"),
    "reclaimPolicy Retain": Case({"archiveOnDelete": False, "reclaimPolicy": "Retain"}, "retain", "retain"),
}


EVERY_CHANGE = ("archiveOnDelete false", "pathPattern", "reclaimPolicy Retain")
"""Tested on every change; `make test-all` has the other cases too."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ganesha]:
    """An NFS server with an export per case."""
    home = tmp_path_factory.mktemp("migration")
    reason = pod.missing() or ganesha.missing() or ganesha.vfs_problem(home)
    if reason:
        pytest.skip(f"this machine cannot run a pod or an NFS server: {reason}")
    exports = [Export(home / str(number), f"/exports/{number}") for number in range(len(CASES))]
    for export in exports:
        export.directory.mkdir()
    with Ganesha(exports) as started:
        yield started


class Drill:
    """One release, its export, and claims of its class."""

    def __init__(self, plane: ControlPlane, helm: Helm, server: Ganesha, case: str, storage: Storage) -> None:
        """Choose names and values, without installing anything."""
        self.case = CASES[case]
        self.storage = storage
        self.export = server.exports[list(CASES).index(case)]
        self.exported = Exported(SERVER, self.export.path, self.export.directory)
        self.release = f"r-{secrets.token_hex(4)}"
        self.class_name = f"class-{self.release}"
        mount_options = [f"port={server.port}", "nfsvers=4.1"]
        self.values: nfs_subdir.Values = {
            "nameOverride": nfs_subdir.CHART,
            "nfs": {"server": SERVER, "path": self.export.path, "mountOptions": mount_options},
            "storageClass": {"name": self.class_name} | self.case.given,
        }
        name = f"cluster.local/{full_name(self.release)}"
        self.peer = NfsSubdir(storage.api, name, SERVER, self.export.path, self.export.directory)
        self.log = Path()
        self._plane, self._helm, self._server = plane, helm, server
        self._where = f"--namespace={storage.namespace}"

    def install_peer(self, directory: Path) -> None:
        """Install the nfs-subdir chart, and the class by hand if its values leave that to the admin."""
        nfs_subdir.install(self._helm, self.release, self.storage.namespace, self.values, directory)
        if not self.values["storageClass"].get("create", True):
            options, given = self.values["nfs"]["mountOptions"], self.values["storageClass"]
            made = nfs_subdir.storage_class(full_name(self.release), {}, options, given)
            self.storage.api.post(CLASSES, made)

    @contextmanager
    def upgraded(self, directory: Path) -> Iterator[Pod]:
        """Upgrade to our chart with the same values and run the rendered daemon; then roll back with Helm."""
        # There is no pod network: the daemon listens on this machine.
        port = f"--set=listen.port={free_port()}"
        chart = (rendering.CHART, "--reset-then-reuse-values")
        self._helm.run("upgrade", self.release, *chart, self._where, port)
        manifest = self._helm.run("get", "manifest", self.release, self._where)
        # The server's cache does not have what the peer changed on disk.
        self._server.restart()
        directory.mkdir()
        with Pod(Release([each for each in yaml.safe_load_all(manifest) if each]), self._plane, directory) as daemon:
            self.log = daemon.log
            yield daemon
        self._helm.run("rollback", self.release, "1", self._where)

    def uninstall(self) -> None:
        """Uninstall the release and delete what outlives it."""
        self._helm.run("uninstall", self.release, self._where)
        self.storage.delete_if_there(f"{CLASSES}/{self.class_name}")
        for volume in self.storage.api.list(VOLUMES):
            if volume["spec"].get("storageClassName") == self.class_name:
                path = f"{VOLUMES}/{volume['metadata']['name']}"
                self.storage.api.patch(path, {"metadata": {"finalizers": None}})
                self.storage.delete_if_there(path)

    def claim(self, name: str) -> Object:
        """Create a claim of the class, with the label and annotation that its pattern can read."""
        metadata = {"labels": {"team": "storage"}, "annotations": {STORED: name}}
        return self.storage.claim(self.class_name, name, metadata=metadata)

    def peer_volume(self, name: str) -> Object:
        """Create a bound claim that the peer provisions, with a tenant's file in its directory; return the volume."""
        volume = self.peer.provision(self.claim(name))
        self.storage.bound(name)
        file = self.directory(volume) / "data"
        file.write_text(name)
        os.chown(file, TENANT, TENANT)
        file.chmod(0o600)
        return volume

    def own_volume(self, name: str) -> Object:
        """Create a bound claim that our daemon provisions, with a file in its directory; return the volume."""
        self.claim(name)
        volume = self.storage.bound(name)
        (self.directory(volume) / "data").write_text(name)
        return volume

    def taken_over(self, *volumes: Object) -> None:
        """Wait until the ledger has records of these volumes."""
        names = [volume["metadata"]["name"] for volume in volumes]
        self.storage.eventually(lambda: self.exported.lists(*volumes), f"records of {names}")

    def release_claim(self, name: str, volume: Object) -> Object:
        """Delete a claim, wait until its volume is Released or gone, and return the volume as last seen."""
        self.storage.delete_claim(name)
        last = volume

        def released() -> bool:
            nonlocal last
            if not self.storage.has_volume(volume["metadata"]["name"]):
                return True
            last = self.storage.get_volume(volume["metadata"]["name"])
            return bool(last["status"]["phase"] == "Released")

        self.storage.eventually(released, f"the volume of {name} is Released")
        return last

    def directory(self, volume: Object) -> Path:
        """Return the path of a volume's directory on this machine."""
        return self.exported.directory(volume)

    def ended(self, volume: Object, rule: str, content: str) -> None:
        """Check that what is left of a volume is what a rule says."""
        directory = self.directory(volume)
        archives = [path for path in self.exported.archives(directory.name) if (path / "data").read_text() == content]
        assert (directory.exists(), len(archives)) == (rule == "retain", rule == "archive")

    def seen(self, *volumes: Object) -> tuple[list[Listing], list[str]]:
        """Return the volumes' files on disk and their API versions: any write changes one of them."""
        found = [self.storage.get_volume(each["metadata"]["name"]) for each in volumes]
        versions = [each["metadata"]["resourceVersion"] for each in found]
        return [listing(self.directory(each)) for each in found], versions


@pytest.fixture
def drill(
    request: pytest.FixtureRequest, control_plane: ControlPlane, cluster_helm: Helm, server: Ganesha, namespace: str
) -> Iterator[Drill]:
    """A drill for one case."""
    storage = Storage(control_plane.api, namespace, daemon_logs=lambda: tail(made.log))
    made = Drill(control_plane, cluster_helm, server, request.param, storage)
    yield made
    made.uninstall()


@pytest.mark.parametrize(
    "drill",
    [pytest.param(case, marks=[] if case in EVERY_CHANGE else [pytest.mark.thorough]) for case in CASES],
    indirect=True,
)
def test_migration_and_rollback(drill: Drill, tmp_path: Path) -> None:
    """A takeover leaves the peer's volumes untouched and follows its rules; after a rollback the peer manages them."""
    storage, case = drill.storage, drill.case
    drill.install_peer(tmp_path)
    volumes = {name: drill.peer_volume(name) for name in ("kept", "deleted", "pinned", "returned")}
    path = f"{VOLUMES}/{volumes['pinned']['metadata']['name']}"
    storage.api.patch(path, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    earlier = drill.exported.root / "archived-default-earlier-pvc-1"
    earlier.mkdir()
    # Released while no provisioner runs: the peer is stopped.
    left = drill.peer_volume("left")
    drill.release_claim("left", left)
    before = drill.seen(*volumes.values())

    with drill.upgraded(tmp_path / "ours"):
        drill.taken_over(*volumes.values())
        new = drill.own_volume("new")
        if not case.retained:
            storage.volume_gone(left["metadata"]["name"])
        assert drill.seen(*volumes.values()) == before
        # A Released volume that our daemon never saw Bound is archived at most.
        drill.ended(left, "archive" if case.ours == "delete" else case.ours, "left")
        for name, rule in {"deleted": case.ours, "pinned": "retain"}.items():
            drill.release_claim(name, volumes[name])
            if name == "deleted" and not case.retained:
                storage.volume_gone(volumes[name]["metadata"]["name"])
            drill.ended(volumes[name], rule, name)

    for name, volume in {"returned": volumes["returned"], "new": new}.items():
        released = drill.release_claim(name, volume)
        if not case.retained:
            drill.peer.reclaim(released)
        drill.ended(volume, case.theirs, name)
    assert drill.seen(volumes["kept"]) == (before[0][:1], before[1][:1])
    assert earlier.is_dir()


@pytest.mark.parametrize("drill", ["defaults"], indirect=True)
def test_a_second_migration(drill: Drill, tmp_path: Path) -> None:
    """Our volumes that the peer reclaims keep our finalizer, and our daemon removes it after the next upgrade."""
    drill.install_peer(tmp_path)
    kept, gone = drill.peer_volume("kept"), drill.peer_volume("gone")
    before = drill.seen(kept)
    with drill.upgraded(tmp_path / "first"):
        drill.taken_over(kept, gone)
        new = drill.own_volume("new")
    for name, volume in {"gone": gone, "new": new}.items():
        drill.peer.reclaim(drill.release_claim(name, volume))
    drill.storage.volume_gone(gone["metadata"]["name"])
    assert "deletionTimestamp" in drill.storage.get_volume(new["metadata"]["name"])["metadata"]
    with drill.upgraded(tmp_path / "second"):
        drill.storage.volume_gone(new["metadata"]["name"])
    for name, volume in {"gone": gone, "new": new}.items():
        drill.ended(volume, "archive", name)
    assert drill.seen(kept) == before
