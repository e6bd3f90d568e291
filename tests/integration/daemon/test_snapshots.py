"""VolumeSnapshots end to end with the stock snapshot-controller: taking, restoring, deleting, races and restarts."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.checks import permissions
from testbed import snapshots
from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane, TokenUser
from testbed.snapshots import SnapshotController
from testbed.waiting import eventually
from tests.support.archiving import command
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.planting import found_in, plant
from tests.support.storage import ServedStorage

GROUP = "/apis/snapshot.storage.k8s.io/v1"
CONTENTS = f"{GROUP}/volumesnapshotcontents"
DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(bool(snapshots.missing()), reason=snapshots.missing())]


@dataclass(frozen=True)
class Site:
    """A control plane with the CRDs, the snapshot-controller and one daemon."""

    plane: ControlPlane
    controller: SnapshotController
    daemons: Daemons
    daemon: Daemon
    export: Exported

    def successor(self) -> Daemon:
        """Return another replica, which leads once the first one is gone."""
        return self.daemons(
            "--snapshots",
            self.export.flag,
            *FAST,
            user=USER,
            provisioner_name=self.daemon.provisioner_name,
            wait_ready=False,
        )


USER = TokenUser.new("provisioner")
"""Has exactly the rights that the chart grants: a test of the chart compares those with core.checks."""


def _grant(plane: ControlPlane) -> None:
    rules = [
        {
            "apiGroups": [each.group],
            "resources": [f"{each.resource}/{each.subresource}" if each.subresource else each.resource],
            "verbs": [each.verb],
        }
        for each in permissions(lease=("default", ""), snapshots=True)
    ]
    rbac, metadata = "rbac.authorization.k8s.io", {"name": USER.name}
    plane.api.post(f"/apis/{rbac}/v1/clusterroles", {"metadata": metadata, "rules": rules})
    binding = {
        "metadata": metadata,
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": USER.name},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": USER.name}],
    }
    plane.api.post(f"/apis/{rbac}/v1/clusterrolebindings", binding)


FAST = ("--lease-duration=4s", "--renew-deadline=3s", "--retry-period=1s")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The daemon starts before the CRDs exist, and serves snapshots once they do."""
    home = tmp_path_factory.mktemp("snapshots")
    (home / "export").mkdir()
    export = Exported.new(home / "export")
    with ControlPlane(home / "plane", users=[USER]) as plane:
        _grant(plane)
        daemons = Daemons(plane, home)
        try:
            daemon = daemons("--snapshots", export.flag, *FAST, user=USER)
            snapshots.create_crds(plane)
            with SnapshotController(plane) as controller:
                yield Site(plane, controller, daemons, daemon, export)
        finally:
            daemons.kill()


class Snapshots(ServedStorage):
    """Claims and VolumeSnapshots in a test's namespace."""

    def __init__(self, api: Api, namespace: str, site: Site) -> None:
        super().__init__(api, namespace, daemon=site.daemon, export=site.export)
        self._driver = site.daemon.provisioner_name
        self.snapshot_classes: list[str] = []

    def snapshot_class(self, policy: str = "Delete", **more: Any) -> str:
        name = f"{self.namespace}-{policy.lower()}-{len(self.snapshot_classes)}"
        body = {"metadata": {"name": name}, "driver": self._driver, "deletionPolicy": policy} | more
        created = self.api.post(f"{GROUP}/volumesnapshotclasses", _of("VolumeSnapshotClass", body))
        name = str(created["metadata"]["name"])
        self.snapshot_classes.append(name)
        return name

    def take(self, class_name: str | None, name: str = "snap", claim: str = "data") -> Object:
        spec: Object = {"source": {"persistentVolumeClaimName": claim}}
        if class_name is not None:
            spec["volumeSnapshotClassName"] = class_name
        return self.api.post(self.path(), _of("VolumeSnapshot", {"metadata": {"name": name}, "spec": spec}))

    def path(self, name: str = "") -> str:
        return f"{GROUP}/namespaces/{self.namespace}/volumesnapshots" + (f"/{name}" if name else "")

    def status(self, name: str = "snap") -> Object:
        status: Object = self.api.get(self.path(name)).get("status") or {}
        return status

    def ready(self, name: str = "snap", *, timeout_s: float = 60.0) -> Object:
        return eventually(
            lambda: (status := self.status(name)).get("readyToUse") and status,
            f"snapshot {name} is ready",
            timeout_s=timeout_s,
            explain=self.explain,
        )

    def gone(self, path: str) -> None:
        self.eventually(lambda: not _exists(self.api, path), f"{path} is gone")

    def remove_snapshots(self) -> None:
        for claim in self.api.list(self.claims):  # the snapshot-controller keeps what a pending claim names
            self.delete_if_there(f"{self.claims}/{claim['metadata']['name']}")
        for snapshot in self.api.list(self.path()):
            self.delete_if_there(self.path(snapshot["metadata"]["name"]))
        self.eventually(lambda: not self.api.list(self.path()), "the snapshots are gone")
        for name in self.snapshot_classes:
            self.delete_if_there(f"{GROUP}/volumesnapshotclasses/{name}")


def _of(kind: str, body: Object) -> Object:
    return {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind} | body


def _exists(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as exc:
        if exc.status == 404:
            return False
        raise
    return True


@pytest.fixture
def served(site: Site, request: pytest.FixtureRequest) -> Iterator[Snapshots]:
    """A namespace of the test's own."""
    name = f"test-{secrets.token_hex(4)}"
    site.plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    storage = Snapshots(site.plane.api, name, site)
    yield storage
    storage.remove_snapshots()
    storage.remove_volumes()
    storage.remove_classes()
    site.plane.api.delete(f"/api/v1/namespaces/{name}")


def planted(served: Snapshots, name: str = "data") -> Path:
    """Create a volume with data; return its directory."""
    served.claim(served.own_class(), name)
    directory = served.directory(served.bound(name))
    plant(directory)
    return directory


def stored(site: Site, snapshot: Object) -> Path:
    return site.export.root / ".provisioner" / "snapshots" / str(snapshot["metadata"]["uid"])


def restored(served: Snapshots, name: str = "restored", source: str = "snap", **fields: Any) -> None:
    data = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": source}
    served.claim(served.own_class(), name, dataSource=data, **fields)


def test_taken_and_restored(site: Site, served: Snapshots) -> None:
    """A snapshot has the data of its time, and a claim that names it gets exactly this data."""
    directory = planted(served)
    before = found_in(directory, symlink_times=True)
    snapshot = served.take(served.snapshot_class())
    status = served.ready()
    assert status["boundVolumeSnapshotContentName"] == f"snapcontent-{snapshot['metadata']['uid']}"
    assert (status["restoreSize"], "error" in status) == ("1Mi", False)
    (directory / "large").write_text("changed")
    restored(served)
    assert found_in(served.directory(served.bound("restored")), symlink_times=True) == before
    assert "from snapshot" in served.event("ProvisioningSucceeded", "restored")["message"]
    assert (stored(site, snapshot) / "tree" / "large").is_file()


def test_delete(site: Site, served: Snapshots) -> None:
    """With policy Delete, the content and the data go with the snapshot, and restored claims keep theirs."""
    planted(served)
    snapshot = served.take(served.snapshot_class())
    content = f"{CONTENTS}/{served.ready()['boundVolumeSnapshotContentName']}"
    served.api.delete(served.path("snap"))
    served.gone(content)
    served.gone(served.path("snap"))
    assert not stored(site, snapshot).exists()


def test_retain(site: Site, served: Snapshots) -> None:
    """With policy Retain, the content stays until an admin deletes it, and the data stays after that too."""
    planted(served)
    snapshot = served.take(served.snapshot_class("Retain"))
    content = f"{CONTENTS}/{served.ready()['boundVolumeSnapshotContentName']}"
    served.api.delete(served.path("snap"))
    served.gone(served.path("snap"))
    time.sleep(1.0)
    assert _exists(served.api, content)
    served.api.delete(content)
    served.gone(content)
    assert (stored(site, snapshot) / "tree" / "large").is_file()
    # What an admin does with a snapshot that only the ledger has.
    name, flags = site.daemon.provisioner_name, (site.export.flag, "--namespace", served.namespace)
    listed = command(site.plane, "snapshots", name, *flags)
    assert f"{served.namespace}/snap" in listed.stdout, listed.stderr
    printed = json.loads(command(site.plane, "snapshots", name, *flags, "--manifests").stdout)
    restored_content, again = printed["items"]
    assert restored_content["spec"]["source"]["snapshotHandle"] == snapshot["metadata"]["uid"]
    served.api.post(CONTENTS, restored_content)
    served.api.post(served.path(), again)
    served.ready()
    restored(served)
    served.bound("restored")
    path = f"{CONTENTS}/{restored_content['metadata']['name']}"
    served.api.patch(path, {"spec": {"deletionPolicy": "Delete"}})
    served.api.delete(served.path("snap"))
    served.gone(path)
    assert not stored(site, snapshot).exists()


def test_a_forged_content(site: Site, served: Snapshots) -> None:
    """A content that the ledger does not know is never served: its status says why."""
    body = {
        "metadata": {"name": f"forged-{served.namespace}"},
        "spec": {
            "driver": site.daemon.provisioner_name,
            "deletionPolicy": "Delete",
            "source": {"snapshotHandle": "../../etc"},
            "volumeSnapshotRef": {"namespace": served.namespace, "name": "forged"},
        },
    }
    served.api.post(CONTENTS, _of("VolumeSnapshotContent", body))
    path = f"{CONTENTS}/forged-{served.namespace}"
    served.eventually(
        lambda: "no ledger" in ((served.api.get(path).get("status") or {}).get("error") or {}).get("message", ""),
        "the status says why",
    )
    served.api.delete(path)
    served.gone(path)


def test_a_class_of_another_driver(served: Snapshots) -> None:
    """A snapshot with a class of another driver is left alone."""
    planted(served)
    served.take(served.snapshot_class(driver="other.example"))
    served.eventually(lambda: "error" in served.status(), "the snapshot-controller refuses it")
    assert not served.status().get("readyToUse")


def test_a_default_class(site: Site, served: Snapshots) -> None:
    """A snapshot that names no class gets the default class of the driver, and deletes as any other."""
    planted(served)
    metadata = {"name": f"{served.namespace}-default", "annotations": {DEFAULT: "true"}}
    class_name = served.snapshot_class(metadata=metadata)
    snapshot = served.take(None)
    status = served.ready()
    assert "error" not in status
    assert served.api.get(served.path("snap"))["spec"]["volumeSnapshotClassName"] == class_name
    served.api.delete(served.path("snap"))
    served.gone(f"{CONTENTS}/{status['boundVolumeSnapshotContentName']}")
    served.gone(served.path("snap"))
    assert not stored(site, snapshot).exists()


def test_refused_restores(served: Snapshots) -> None:
    """A claim that is smaller than the volume was, or whose snapshot is missing, gets the reason and no volume."""
    planted(served)
    served.take(served.snapshot_class())
    served.ready()
    restored(served, "small", size="1Ki")
    assert "request at least as much" in served.refusal("small")
    restored(served, "missing", "nothing")
    assert "does not exist" in served.refusal("missing")


def test_the_controller_comes_later(site: Site, served: Snapshots) -> None:
    """A snapshot becomes ready although the snapshot-controller is frozen, and needs no finalizer to go."""
    planted(served)
    class_name = served.snapshot_class()
    site.controller.pause()
    try:
        snapshot = served.take(class_name)
        content = f"{CONTENTS}/snapcontent-{snapshot['metadata']['uid']}"
        served.eventually(
            lambda: (served.api.get(content).get("status") or {}).get("readyToUse"), "the content is ready"
        )
        assert served.status() == {}
        # A snapshot that the snapshot-controller never saw goes with its content and its data.
        gone = served.take(class_name, "gone")
        content = f"{CONTENTS}/snapcontent-{gone['metadata']['uid']}"
        served.eventually(
            lambda: (served.api.get(content).get("status") or {}).get("readyToUse"), "the content is ready"
        )
        served.api.delete(served.path("gone"))
        served.gone(content)
        assert not stored(site, gone).exists()
    finally:
        site.controller.resume()
    served.ready()


def test_the_controller_comes_first(site: Site, served: Snapshots) -> None:
    """The snapshot-controller's own error disappears: here the daemon is frozen until it is there."""
    planted(served)
    class_name = served.snapshot_class()
    site.daemon.pause()
    try:
        served.take(class_name)
        served.eventually(lambda: "error" in served.status(), "the snapshot-controller reports an error")
    finally:
        site.daemon.resume()
    assert "error" not in served.ready()


def test_many(site: Site, served: Snapshots) -> None:
    """Forty snapshots that are created together all become ready, and all go again."""
    planted(served)
    class_name = served.snapshot_class()
    names = [f"s{number}" for number in range(40)]
    taken = [served.take(class_name, name) for name in names]
    for name in names:
        served.ready(name, timeout_s=150)
    for name in names:
        served.api.delete(served.path(name))
    eventually(lambda: not served.api.list(served.path()), "all are gone", timeout_s=120, explain=served.explain)
    assert not any(stored(site, snapshot).exists() for snapshot in taken)


def test_restarts(site: Site, served: Snapshots) -> None:
    """Snapshots survive a restart of either side, and what was asked during one is done after it."""
    planted(served)
    class_name = served.snapshot_class()
    served.take(class_name, "before")
    served.ready("before")
    site.controller.stop()
    served.take(class_name, "without-controller")
    site.controller.start()
    site.controller.wait_ready()
    served.ready("without-controller")
    site.daemon.kill()
    served.take(class_name, "without-daemon")
    served.api.delete(served.path("before"))
    site.daemon.start()
    site.daemon.wait_ready()
    served.ready("without-daemon")
    served.gone(served.path("before"))
    assert served.status("without-controller")["readyToUse"]


def test_a_second_leader(site: Site, served: Snapshots) -> None:
    """A replica that becomes the leader in the middle of a copy finishes the snapshot."""
    directory = planted(served)
    for number in range(3000):
        (directory / f"file-{number}").write_bytes(b"x" * 1000)
    successor = site.successor()
    snapshot = served.take(served.snapshot_class())
    begun = stored(site, snapshot).with_name(f"{snapshot['metadata']['uid']}.begun")
    served.eventually(lambda: begun.is_symlink() or stored(site, snapshot).exists(), "the copy has begun")
    site.daemon.kill()
    try:
        served.ready()
        assert len(list((stored(site, snapshot) / "tree").glob("file-*"))) == 3000
    finally:
        site.daemon.start()
        site.daemon.wait_ready()
        successor.kill()


def test_the_source_is_deleted(site: Site, served: Snapshots) -> None:
    """A claim that is deleted during the copy keeps its data until the snapshot is complete."""
    directory = planted(served)
    for number in range(3000):
        (directory / f"file-{number}").write_bytes(b"x" * 1000)
    volume = served.bound()["metadata"]["name"]
    snapshot = served.take(served.snapshot_class())
    begun = stored(site, snapshot).with_name(f"{snapshot['metadata']['uid']}.begun")
    served.eventually(lambda: begun.is_symlink() or stored(site, snapshot).exists(), "the copy has begun")
    served.delete_claim()
    served.ready()
    served.volume_gone(volume)
    assert len(list((stored(site, snapshot) / "tree").glob("file-*"))) == 3000
