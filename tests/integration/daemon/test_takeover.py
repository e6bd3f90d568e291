"""Takeover: our daemon replaces nfs-subdir-external-provisioner under its name and manages its volumes."""

from __future__ import annotations

import os
import posixpath
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testbed import ganesha
from testbed.api import Object
from testbed.ganesha import Export, Ganesha
from tests.integration.chart import nfs_subdir
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import CLASSES, VOLUMES, Storage

pytestmark = pytest.mark.timeout(180)

NOBODY = "00000000-0000-4000-8000-00000000000b"
NESTED = "${.PVC.namespace}/${.PVC.annotations.nfs.io/storage-path}"

Listing = dict[str, tuple[int, int, int, bytes]]


@dataclass(frozen=True)
class PeerExport:
    """One export as the peer's chart names it, with its directory on this machine and the flags that reach it."""

    server: str
    path: str
    """NFS_PATH, as an admin can write it."""
    root: Path
    flags: tuple[str, ...] = ()
    mount_options: list[str] = field(default_factory=list)
    ganesha: Ganesha | None = None

    @property
    def exported(self) -> Exported:
        """The ledger and the names at the export's root."""
        return Exported(self.server, posixpath.normpath(self.path), self.root)

    def listing(self) -> Listing:
        """Return mode, owner, time of change and content of all below the root, except the ledger."""
        found: Listing = {}
        for directory, directories, files in os.walk(self.root):
            if Path(directory) == self.root:
                directories.remove(LEDGER) if LEDGER in directories else None
            for name in [*directories, *files]:
                path = Path(directory, name)
                seen = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_mtime_ns, content)
        return found


def mounted(root: Path, path: str) -> PeerExport:
    """An export that is mounted on this machine."""
    server = f"nas-{secrets.token_hex(4)}.test"
    return PeerExport(server, path, root, flags=(f"--export={server}:{path}={root}",))


def direct(root: Path, path: str, version: str) -> PeerExport:
    """An export that the daemon reaches itself; its server starts once the peer's volumes exist."""
    reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(root)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    server = Ganesha([Export(root, posixpath.normpath(path))], versions=(3, 4))
    options = [f"port={server.port}", f"mountport={server.mount_port}", f"nfsvers={version}"]
    return PeerExport("127.0.0.1", path, root, mount_options=options, ganesha=server)


EXPORTS = [
    pytest.param("mounted", marks=pytest.mark.thorough),
    "mounted at /",
    pytest.param("mounted with a trailing slash", marks=pytest.mark.thorough),
    pytest.param("direct 3", marks=pytest.mark.thorough),
    "direct 4.1 with a trailing slash",
]


@pytest.fixture
def export(request: pytest.FixtureRequest, export_directory: Path) -> Iterator[PeerExport]:
    """The export of one test, by default a mounted one."""
    kind = getattr(request, "param", "mounted")
    if kind.startswith("direct"):
        made = direct(export_directory, "/nfs/", kind.split()[1])
    else:
        paths = {"mounted": "/exports/k8s", "mounted at /": "/", "mounted with a trailing slash": "/exports/k8s/"}
        made = mounted(export_directory, paths[kind])
    yield made
    if made.ganesha is not None:
        made.ganesha.stop()


class Peer:
    """A stand-in for nfs-subdir-external-provisioner, under a name that our daemon takes over."""

    def __init__(self, storage: Storage, export: PeerExport, start: Daemons) -> None:
        self.storage = storage
        self.export = export
        self.name = f"k8s-sigs.io/{secrets.token_hex(4)}"
        self._start = start

    def storage_class(self, parameters: dict[str, str], **fields: Any) -> str:
        """Create a class as the peer's chart renders it."""
        return self.storage.storage_class(self.name, parameters, mountOptions=self.export.mount_options, **fields)

    def volume(self, class_name: str, claim: str, directory: str = "", **spec: Any) -> Object:
        """Create a bound claim with a volume, a directory and a file as the peer leaves them.

        In `directory`, `{pv}` stands for the volume's name.
        """
        made = self.storage.claim(class_name, claim)
        name = nfs_subdir.volume_name(made)
        below = directory.format(pv=name) or nfs_subdir.default_directory(made)
        place = self.export.root / below
        nfs_subdir.make_directory(place)
        (place / f"data-of-{claim}").write_text(claim)
        self.make(name, below, nfs_subdir.reference_to(made), storageClassName=class_name, **spec)
        self.storage.bound(claim)
        return self.storage.get_volume(name)

    def make(self, name: str, directory: str, reference: Object, **spec: Any) -> Object:
        """Create only the PersistentVolume, with the peer's annotation and no other."""
        path = posixpath.normpath(posixpath.join(self.export.path, directory))
        wanted = {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Mi"},
            "mountOptions": self.export.mount_options,
            "nfs": {"server": self.export.server, "path": path},
            "persistentVolumeReclaimPolicy": "Delete",
        }
        return self.storage.make_volume(nfs_subdir.saved_volume(self.name, name, reference, **(wanted | spec)))

    def forge(self, directory: str, class_name: str, **nfs: str) -> str:
        """Create a volume that looks like the peer's, for a claim that never existed; return its name."""
        uid = str(uuid.uuid4())
        name = f"pvc-{uid}"
        reference = {"namespace": self.storage.namespace, "name": "nobody", "uid": uid}
        source = {"server": self.export.server, "path": posixpath.join(self.export.path, directory)} | nfs
        self.make(name, directory, reference, storageClassName=class_name, nfs=source)
        return name

    def replaced(self) -> Daemon:
        """Start our daemon with the peer's own environment."""
        if self.export.ganesha is not None:
            self.export.ganesha.start()
        environment = {"NFS_SERVER": self.export.server, "NFS_PATH": self.export.path}
        return self._start(
            "--no-leader-election", *self.export.flags, provisioner_name=self.name, environment=environment
        )

    def taken_over(self, *volumes: Object) -> None:
        """Wait until the ledger has records of these volumes."""
        names = [volume["metadata"]["name"] for volume in volumes]
        self.storage.eventually(lambda: self.export.exported.lists(*volumes), f"records of {names}")


@pytest.fixture
def peer(storage: Storage, export: PeerExport, daemon: Daemons) -> Peer:
    """The peer on the test's export."""
    return Peer(storage, export, daemon)


@dataclass(frozen=True)
class Case:
    """One class of the peer, and the rule for its volumes."""

    parameters: dict[str, str]
    rule: str
    directory: str = ""
    policy: str = "Delete"
    class_stays: bool = True


CASES = {
    "plain": Case({}, "archive"),
    "archived": Case({"archiveOnDelete": "true"}, "archive"),
    "deleted": Case({"archiveOnDelete": "false"}, "delete"),
    "kept": Case({"archiveOnDelete": "false", "onDelete": "retain"}, "retain"),
    "purged": Case({"archiveOnDelete": "true", "onDelete": "delete"}, "delete"),
    "nested": Case({"archiveOnDelete": "false", "pathPattern": NESTED}, "delete", "ns/team/data"),
    "deep": Case({"archiveOnDelete": "true", "pathPattern": NESTED}, "archive", "ns/team/other/data"),
    "classless": Case({"archiveOnDelete": "false"}, "archive", class_stays=False),
    "untouched": Case({"archiveOnDelete": "false"}, "delete", policy="Retain"),
}


@pytest.mark.parametrize("export", EXPORTS, indirect=True)
def test_upgrade_drill(peer: Peer) -> None:
    """The takeover records the peer's volumes without touching them, and each is reclaimed by the peer's rule."""
    storage, export = peer.storage, peer.export
    volumes = {}
    for claim, case in CASES.items():
        name = peer.storage_class(case.parameters, reclaimPolicy=case.policy)
        volumes[claim] = peer.volume(name, claim, case.directory, persistentVolumeReclaimPolicy=case.policy)
        if not case.class_stays:
            storage.api.delete(f"{CLASSES}/{name}")
    before, versions = export.listing(), resource_versions(storage, volumes)
    started = peer.replaced()
    peer.taken_over(*volumes.values())
    rules = {volume: record["del"] for volume, record in export.exported.records.items()}
    assert rules == {volumes[claim]["metadata"]["name"]: case.rule for claim, case in CASES.items()}
    # A volume of our own beside them shows that the daemon is working.
    storage.claim(peer.storage_class({"onDelete": "delete"}), "new")
    storage.bound("new")
    storage.delete_claim("new")
    storage.eventually(lambda: not export.exported.trash and len(export.exported.records) == len(CASES), "new is gone")
    assert (export.listing(), resource_versions(storage, volumes)) == (before, versions)
    logged = {line["volume"]: line.get("why") for line in started.logged("volume_taken_over")}
    assert logged.keys() == rules.keys()
    assert logged[volumes["classless"]["metadata"]["name"]] == "its class is gone"

    for claim in CASES:
        storage.delete_claim(claim)
    for claim, case in CASES.items():
        if case.policy == "Delete":
            storage.volume_gone(volumes[claim]["metadata"]["name"])
    storage.eventually(lambda: not export.exported.trash, "the trash is purged")
    for claim, case in CASES.items():
        check_end(export, volumes[claim], claim, "retain" if case.policy == "Retain" else case.rule)
    assert storage.get_volume(volumes["untouched"]["metadata"]["name"])["status"]["phase"] == "Released"
    assert len(export.exported.archives()) == [case.rule for case in CASES.values()].count("archive")


def resource_versions(storage: Storage, volumes: dict[str, Object]) -> dict[str, str]:
    """Return the version of each volume: every write changes it."""
    return {
        claim: storage.get_volume(volume["metadata"]["name"])["metadata"]["resourceVersion"]
        for claim, volume in volumes.items()
    }


def check_end(export: PeerExport, volume: Object, claim: str, rule: str) -> None:
    """Check that what is left of a volume is what its rule says."""
    directory, file = export.exported.directory(volume), f"data-of-{claim}"
    assert directory.exists() == (rule == "retain")
    assert directory.parent.is_dir()
    archived = [path for path in export.exported.archives(directory.name) if (path / file).exists()]
    assert len(archived) == (rule == "archive")
    if rule == "retain":
        assert (directory / file).read_text() == claim


def test_only_the_volumes_own_directory_is_deleted(peer: Peer) -> None:
    """Of directories with one basename, in two parents and at the root, only the volume's own is deleted (harm 4)."""
    name = peer.storage_class({"archiveOnDelete": "false", "pathPattern": NESTED})
    volumes = [peer.volume(name, claim, f"{claim}/data") for claim in ("one", "two")]
    stranger = peer.export.root / "data"
    stranger.mkdir()
    (stranger / "precious").write_text("kept")
    peer.replaced()
    peer.taken_over(*volumes)
    peer.storage.delete_claim("one")
    peer.storage.volume_gone(volumes[0]["metadata"]["name"])
    assert not (peer.export.root / "one" / "data").exists()
    assert (peer.export.root / "two" / "data" / "data-of-two").read_text() == "two"
    assert (stranger / "precious").read_text() == "kept"
    assert peer.export.exported.archives() == []


@pytest.mark.parametrize("second", ["{ns}/data", "{ns}", "{ns}/data/inner"], ids=["same", "above", "below"])
def test_two_volumes_of_the_peer_that_overlap(peer: Peer, second: str) -> None:
    """Of two volumes with overlapping directories neither is deleted, until an admin deletes one of them (harm 3)."""
    storage, ns = peer.storage, peer.storage.namespace
    name = peer.storage_class({"onDelete": "delete"})
    first = peer.volume(name, "first", f"{ns}/data")
    other = peer.volume(name, "second", second.format(ns=ns))
    before = peer.export.listing()
    peer.replaced()
    for claim, volume, holder in (("first", first, other), ("second", other, first)):
        storage.delete_claim(claim)
        message = storage.volume_event(volume["metadata"]["name"])["message"]
        assert holder["metadata"]["name"] in message
    assert peer.export.listing() == before
    storage.api.delete(f"{VOLUMES}/{first['metadata']['name']}")
    storage.volume_gone(other["metadata"]["name"])
    gone = peer.export.exported.directory(other)
    assert not gone.exists()
    assert (peer.export.root / ns / "data" / "data-of-first").exists() == (second == "{ns}/data/inner")


@pytest.mark.parametrize("export", EXPORTS, indirect=True)
def test_forged_volumes(peer: Peer) -> None:
    """Volumes that claim to be the peer's, and point where none of its volumes can be, delete nothing."""
    storage, export = peer.storage, peer.export
    name = peer.storage_class({"onDelete": "delete"})
    volume = peer.volume(name, "data", "team/data")
    peer.replaced()
    peer.taken_over(volume)
    ours = storage.claim(name, "ours")
    own = export.exported.directory(storage.bound("ours")).name
    before = export.listing()
    forged = [
        peer.forge(directory, name)
        for directory in ("team/data", "team", "team/data/x", "", "..", "../x", "team/../team/data", own, f"{own}/x")
    ] + [
        peer.forge(f"{LEDGER}/volumes", name),
        peer.forge(f"{LEDGER}", name),
        peer.forge("team/data", name, server="another.test"),
    ]
    if export.path != "/":
        forged.append(peer.forge("x", name, path="/elsewhere-than-exported/x"))
    for each in forged:
        assert storage.volume_event(each, timeout_s=60)["message"]
    assert export.listing() == before
    assert set(export.exported.records) == {volume["metadata"]["name"], f"pvc-{ours['metadata']['uid']}"}
    assert all(storage.has_volume(each) for each in forged)


def test_a_volume_that_the_peer_creates_beside_us(peer: Peer) -> None:
    """A volume that the peer creates while our daemon runs is recorded, and reclaimed by its rule."""
    name = peer.storage_class({"archiveOnDelete": "false"})
    taken = peer.volume(name, "first")
    peer.replaced()
    peer.taken_over(taken)
    # Under another name, so that our daemon does not provision the claim itself.
    others = peer.storage.storage_class("another.test/one")
    late = peer.volume(others, "late")
    peer.taken_over(late)
    peer.storage.delete_claim("late")
    peer.storage.volume_gone(late["metadata"]["name"])
    check_end(peer.export, late, "late", "archive")  # its class is another provisioner's


def test_a_volume_released_before_the_takeover(peer: Peer) -> None:
    """A volume that was released while no provisioner ran is reclaimed by its rule at our start."""
    volume = peer.volume(peer.storage_class({"archiveOnDelete": "true"}), "data")
    peer.storage.delete_claim("data")
    name = volume["metadata"]["name"]
    peer.storage.eventually(lambda: peer.storage.get_volume(name)["status"]["phase"] == "Released", "it is Released")
    peer.replaced()
    peer.storage.volume_gone(name)
    check_end(peer.export, volume, "data", "archive")


def test_volumes_of_csi_driver_nfs_are_left_alone(peer: Peer) -> None:
    """A volume of csi-driver-nfs keeps its directory, is counted in the log, and gets an event if it names us."""
    storage, export = peer.storage, peer.export
    place = export.root / "team" / "data"
    place.mkdir(parents=True)
    (place / "precious").write_text("kept")
    attributes = {"server": export.server, "share": export.path, "subdir": "team/data"}
    driven = {"driver": "nfs.csi.k8s.io", "volumeHandle": f"csi-{secrets.token_hex(4)}", "volumeAttributes": attributes}
    name = f"driven-{secrets.token_hex(4)}"
    reference = {"namespace": storage.namespace, "name": "nobody", "uid": NOBODY}
    peer.make(name, "", reference, nfs=None, csi=driven)
    started = peer.replaced()
    assert "csi-driver-nfs" in storage.volume_event(name)["message"]
    assert started.logged("csi_volumes_left_alone")[0]["count"] >= 1
    storage.claim(peer.storage_class({"pathPattern": "team"}), "data")
    assert name in storage.event("ProvisioningFailed")["message"]
    assert (place / "precious").read_text() == "kept"
    assert storage.has_volume(name)
