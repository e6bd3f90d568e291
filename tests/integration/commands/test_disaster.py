"""Disaster recovery: etcd is wiped, and `recover` gives the new cluster the volumes of the old one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from testbed import ganesha
from testbed.api import Api, Object
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from testbed.waiting import eventually
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import LEDGER
from tests.support.storage import CLASSES, VOLUMES

pytestmark = pytest.mark.timeout(400)

US = "test.example/drill"
GONE = "--old-cluster-is-gone"
NAMESPACES = ("shop", "mail", "lab")
PLAIN = 44
REPLICAS = 4
CLAIMS = PLAIN + REPLICAS + 3
"""Including one that was expanded, one that is retained, and one whose volume belonged to another claim first."""
ENLARGED, KEPT, REBOUND = ("shop", "enlarged"), ("lab", "kept"), ("mail", "rebound")

T = TypeVar("T")
Key = tuple[str, str]
"""The namespace and name of a claim."""


@dataclass
class Site:
    """An export as this machine and as the cluster sees it."""

    root: Path
    server: str
    path: str
    flags: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()

    def directory(self, volume: Object) -> Path:
        """Return the directory of a volume on this machine."""
        nfs = volume["spec"]["nfs"]
        assert nfs["server"] == self.server
        below: str = nfs["path"].removeprefix(f"{self.path}/")
        return self.root / below

    def ledger(self) -> dict[str, str]:
        """Return every entry of the ledger but the heartbeats, as if no daemon were writing.

        A daemon at work writes heartbeats by an entry that replaces another one.
        """

        def read() -> dict[str, str]:
            links = [path for path in (self.root / LEDGER).rglob("*") if path.is_symlink()]
            found = {str(link.relative_to(self.root)): os.readlink(link) for link in links}
            return {path: target for path, target in found.items() if "/clusters/" not in path}

        def at_rest() -> dict[str, str] | None:
            before = read()
            time.sleep(0.1)
            return before if read() == before else None

        return eventually(at_rest, "the ledger is at rest")

    def files(self) -> dict[str, bytes]:
        """Return all data on the export, by path."""
        found = (path for path in self.root.rglob("*") if LEDGER not in path.parts and path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


@dataclass
class Cluster:
    """What users do in a cluster, with the manifests that they keep elsewhere."""

    plane: ControlPlane
    site: Site
    explain: Callable[[], str]
    claims: dict[Key, Object] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return self.plane.api

    def apply_classes(self) -> None:
        """Apply namespaces and classes, as an admin's repository has them."""
        for namespace in NAMESPACES:
            self.api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        place = {"server": self.site.server, "share": self.site.path}
        nested = {"pathPattern": "${.PVC.namespace}/by-name/${.PVC.name}", "onDelete": "delete"}
        for name, parameters in (("plain", {}), ("nested", nested), ("kept", {"onDelete": "retain"})):
            body = {
                "metadata": {"name": name},
                "provisioner": US,
                "parameters": place | parameters,
                "mountOptions": list(self.site.mount_options),
                "allowVolumeExpansion": True,
            }
            self.api.post(CLASSES, body)

    def apply_claim(self, key: Key, class_name: str, source: Object | None = None, **metadata: Any) -> None:
        """Create a claim, and keep its manifest."""
        spec = {
            "storageClassName": class_name,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Mi"}},
        } | ({"dataSourceRef": source} if source else {})
        self.claims[key] = {"metadata": {"name": key[1]} | metadata, "spec": spec}
        self.api.post(self.claims_path(key[0]), self.claims[key])

    def apply_stateful_set(self) -> None:
        """Create a StatefulSet, which creates its claims itself."""
        template = {
            "metadata": {"name": "data"},
            "spec": {
                "storageClassName": "nested",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}},
            },
        }
        labels = {"app": "db"}
        spec = {
            "replicas": REPLICAS,
            "serviceName": "db",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "db", "image": "none.test/db"}]},
            },
            "volumeClaimTemplates": [template],
        }
        self.api.post("/apis/apps/v1/namespaces/shop/statefulsets", {"metadata": {"name": "db"}, "spec": spec})

    def apply_again(self) -> None:
        """Apply every manifest of the claims, and the StatefulSet; expanded claims ask for their present size."""
        for (namespace, _), body in self.claims.items():
            self.api.post(self.claims_path(namespace), body)
        self.apply_stateful_set()

    def claims_path(self, namespace: str) -> str:
        return f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"

    def get_claim(self, key: Key) -> Object:
        return self.api.get(f"{self.claims_path(key[0])}/{key[1]}")

    def resize(self, key: Key, size: str) -> None:
        """Expand a claim, and wait until that is done and recorded."""
        request = {"resources": {"requests": {"storage": size}}}
        self.api.patch(f"{self.claims_path(key[0])}/{key[1]}", {"spec": request})
        self.claims[key]["spec"] |= request
        self.wait(lambda: self.get_claim(key)["status"]["capacity"]["storage"] == size, f"{key} has grown")
        record = self.site.root / LEDGER / "volumes" / self.get_claim(key)["spec"]["volumeName"]
        self.wait(lambda: json.loads(os.readlink(record))["size"] == size, f"the record of {key} says so")

    def rebind(self, key: Key, target: Key) -> None:
        """Hand a claim's volume over to another claim, as a populator does, and wait until the record follows."""
        name = self.get_claim(key)["spec"]["volumeName"]
        self.apply_claim(target, "plain", source={"apiGroup": "populator.test", "kind": "Image", "name": "x"})
        metadata = self.get_claim(target)["metadata"]
        reference = {each: metadata[each] for each in ("namespace", "name", "uid", "resourceVersion")}
        self.api.patch(f"{VOLUMES}/{name}", {"spec": {"claimRef": reference}})
        self.wait(lambda: self.get_claim(key)["status"]["phase"] == "Lost", f"{key} is Lost")
        self.api.delete(f"{self.claims_path(key[0])}/{key[1]}")
        del self.claims[key]
        record = self.site.root / LEDGER / "volumes" / name
        self.wait(lambda: json.loads(os.readlink(record))["pvc"] == target[1], f"the record of {name} names {target}")

    def delete_claim(self, key: Key) -> None:
        """Delete a claim, and wait until its volume is gone."""
        volume = self.get_claim(key)["spec"]["volumeName"]
        self.api.delete(f"{self.claims_path(key[0])}/{key[1]}")
        self.claims.pop(key, None)
        self.wait(lambda: all(v["metadata"]["name"] != volume for v in self.volumes()), f"the volume of {key} is gone")

    def volumes(self) -> list[Object]:
        return self.api.list(VOLUMES)

    def bound(self, count: int) -> dict[Key, Object]:
        """Wait until that many claims are Bound; return their volumes."""

        def all_bound() -> dict[Key, Object] | None:
            claims = self.api.list("/api/v1/persistentvolumeclaims")
            if len(claims) != count or any(claim["status"]["phase"] != "Bound" for claim in claims):
                return None
            volumes = {volume["metadata"]["name"]: volume for volume in self.volumes()}
            keys = ((claim["metadata"]["namespace"], claim["metadata"]["name"]) for claim in claims)
            return {key: volumes[claim["spec"]["volumeName"]] for key, claim in zip(keys, claims, strict=True)}

        return self.wait(all_bound, f"{count} claims are Bound")

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        return eventually(condition, what, timeout_s=90, explain=self.explain)

    def wipe(self) -> None:
        """Wipe etcd; a new cluster comes up at the same address."""
        self.plane.stop()
        shutil.rmtree(self.plane.directory / "etcd")
        self.plane.start()

    def recover_command(self, *flags: str) -> list[str]:
        command = (sys.executable, "-m", "provisioner", "recover", f"--provisioner-name={US}")
        return [*command, f"--kubeconfig={self.plane.kubeconfig}", *self.site.flags, *flags]

    def recover(self, *flags: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        done = subprocess.run(self.recover_command(*flags), capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def recover_cut_off(self) -> int:
        """Kill the command once it has created some volumes; return their number."""
        running = subprocess.Popen(
            self.recover_command("--apply", GONE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.wait(lambda: len(self.volumes()) >= 3 or running.poll() is not None, "some volumes are made")
        finally:
            running.kill()
            running.wait(timeout=20)
        return len(self.volumes())


@pytest.fixture
def mounted(tmp_path: Path) -> Site:
    """An export that is mounted on this machine."""
    root = tmp_path / "export"
    root.mkdir()
    flag = f"--export=nas.test:/exports/k8s={root}"
    return Site(root, "nas.test", "/exports/k8s", (flag,))


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Site]:
    """An export that is used directly, as classes specify."""
    root = tmp_path / "export"
    root.mkdir()
    reason = ganesha.missing() or ganesha.vfs_problem(root)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    with Ganesha([Export(root, "/nfs")]) as server:
        yield Site(root, "127.0.0.1", "/nfs", mount_options=(f"port={server.port}",))


def run(daemons: Daemons, site: Site) -> Daemon:
    return daemons("--no-leader-election", *site.flags, provisioner_name=US)


def live(cluster: Cluster) -> dict[Key, Object]:
    """Create fifty claims with data, in all ways in which volumes come about, an archive, and retained directories."""
    cluster.apply_classes()
    for number in range(PLAIN):
        key = (NAMESPACES[number % 3], f"data-{number}")
        cluster.apply_claim(key, ("plain", "nested")[number % 2])
    for key, class_name in (
        (ENLARGED, "nested"),
        (KEPT, "kept"),
        (("lab", "archived"), "plain"),
        (("mail", "gone"), "kept"),
        (("mail", "prime"), "plain"),
    ):
        cluster.apply_claim(key, class_name)
    cluster.apply_stateful_set()
    cluster.bound(CLAIMS + 2)
    cluster.rebind(("mail", "prime"), REBOUND)
    for key, volume in cluster.bound(CLAIMS + 2).items():
        directory = cluster.site.directory(volume) / "deep"
        directory.mkdir()
        (directory / "data").write_text("/".join(key))
    cluster.delete_claim(("lab", "archived"))
    cluster.delete_claim(("mail", "gone"))
    cluster.resize(ENLARGED, "2Gi")
    return cluster.bound(CLAIMS)


def assert_where_it_belongs(cluster: Cluster, before: dict[Key, Object]) -> None:
    """Assert that each claim has its old volume, with the same directory and the same bytes."""
    after = cluster.bound(CLAIMS)
    assert after.keys() == before.keys()
    for key, volume in after.items():
        old = before[key]
        assert volume["metadata"]["name"] == old["metadata"]["name"]
        for name in ("nfs", "capacity", "accessModes", "storageClassName"):
            assert volume["spec"][name] == old["spec"][name]
        assert volume["spec"].get("mountOptions") == old["spec"].get("mountOptions")
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
        assert (cluster.site.directory(volume) / "deep" / "data").read_text() == "/".join(key)


def assert_life_goes_on(cluster: Cluster, daemon: Daemon) -> None:
    """An archive can be restored, and recovered volumes are expanded and reclaimed, by a daemon on the old ledger."""
    (archive,) = (path.name for path in cluster.site.root.glob("archived-*"))
    cluster.apply_claim(("lab", "again"), "plain", annotations={"nfs-provisioner/restore": archive})
    restored = cluster.bound(CLAIMS + 1)[("lab", "again")]
    assert (cluster.site.directory(restored) / "deep" / "data").read_text() == "lab/archived"

    cluster.resize(ENLARGED, "3Gi")

    volumes = cluster.bound(CLAIMS + 1)
    nested, plain = ("mail", "data-1"), ("shop", "data-0")
    for key in (nested, plain, KEPT):
        policy = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
        cluster.api.patch(f"{VOLUMES}/{volumes[key]['metadata']['name']}", policy)
        cluster.delete_claim(key)
    site = cluster.site
    assert not site.directory(volumes[nested]).exists()
    assert not site.directory(volumes[plain]).exists()
    archived = [(path / "deep" / "data").read_text() for path in site.root.glob("archived-*")]
    assert archived == ["shop/data-0"]
    assert (site.directory(volumes[KEPT]) / "deep" / "data").read_text() == "/".join(KEPT)
    assert daemon.logged("orphans") == []


@pytest.mark.parametrize("way", ["mounted", "direct"])
def test_the_drill(way: str, plane: ControlPlane, daemons: Daemons, request: pytest.FixtureRequest) -> None:
    """After the loss of etcd, `recover --apply` and the old manifests give every claim its old data.

    An archive is restored too. On the mounted export, a daemon works in the new cluster all the time, and the first
    recovery is killed.
    """
    site: Site = request.getfixturevalue(way)
    cluster = Cluster(plane, site, daemons.log_tails)
    daemon = run(daemons, site)
    before = live(cluster)
    daemon.stop()
    files = site.files()
    cluster.wipe()
    cluster.apply_classes()
    daemon = run(daemons, site) if way == "mounted" else daemon

    ledger = site.ledger()
    looked = cluster.recover()
    assert len([line for line in looked.stdout.splitlines() if line.endswith("would be created")]) == CLAIMS
    manifests = json.loads(cluster.recover("-o", "json").stdout)
    assert len(manifests["items"]) == CLAIMS
    assert site.ledger() == ledger
    assert cluster.volumes() == []

    cluster.recover("--apply", status=1)
    assert cluster.volumes() == []
    if way == "mounted":
        assert cluster.recover_cut_off() > 0
    cluster.recover("--apply", GONE)
    assert len(cluster.volumes()) == CLAIMS
    ledger = site.ledger()
    again = cluster.recover("--apply")
    assert "nothing to recover" in again.stderr
    assert site.ledger() == ledger
    assert site.files() == files

    cluster.apply_again()
    assert_where_it_belongs(cluster, before)
    assert site.files() == files
    daemon = daemon if way == "mounted" else run(daemons, site)
    assert_life_goes_on(cluster, daemon)


def test_without_an_api_server(mounted: Site, plane: ControlPlane, daemons: Daemons) -> None:
    """Without an API server, the recoverable volumes are shown, as kubectl applies them; --apply is refused."""
    cluster = Cluster(plane, mounted, daemons.log_tails)
    daemon = run(daemons, mounted)
    cluster.apply_classes()
    cluster.apply_claim(("shop", "data"), "nested")
    (volume,) = cluster.bound(1).values()
    daemon.stop()
    plane.stop()
    looked = cluster.recover("-o", "json", status=1)
    assert "not compared with a cluster" in looked.stderr
    assert "1 volume record" in looked.stderr
    cluster.recover("--apply", status=1)
    (manifest,) = json.loads(looked.stdout)["items"]
    assert manifest["metadata"]["name"] == volume["metadata"]["name"]

    shutil.rmtree(plane.directory / "etcd")
    plane.start()
    cluster.apply_classes()
    plane.api.post(VOLUMES, manifest)
    cluster.recover("--apply", GONE)
    cluster.api.post(cluster.claims_path("shop"), cluster.claims[("shop", "data")])
    (recovered,) = cluster.bound(1).values()
    assert recovered["spec"]["nfs"] == volume["spec"]["nfs"]


def test_a_volume_deleted_by_hand(mounted: Site, plane: ControlPlane, daemons: Daemons) -> None:
    """A volume whose object was forcibly deleted is found by name, and binds again to the claim that lost it."""
    cluster = Cluster(plane, mounted, daemons.log_tails)
    run(daemons, mounted)
    cluster.apply_classes()
    cluster.apply_claim(("shop", "data"), "plain")
    (volume,) = cluster.bound(1).values()
    name = volume["metadata"]["name"]
    plane.api.delete(f"{VOLUMES}/{name}")
    plane.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    cluster.wait(lambda: cluster.get_claim(("shop", "data"))["status"]["phase"] == "Lost", "the claim is Lost")
    looked = cluster.recover("--apply")
    assert "nothing to recover of other clusters" in looked.stderr
    assert f"nfs-provisioner recover --volume {name} --apply" in looked.stderr
    made = cluster.recover("--apply", f"--volume={name}")
    # Its claim is there, so that no manifest has to be applied again.
    assert "apply the manifests" not in made.stderr
    assert f"kubectl patch pv {name} -p" in made.stderr
    (again,) = cluster.bound(1).values()
    assert again["spec"]["nfs"] == volume["spec"]["nfs"]
