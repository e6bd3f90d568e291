"""VolumeSnapshots end to end with the stock snapshot-controller: taking, restoring, deleting, races and restarts."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
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
    second: Exported

    def successor(self) -> Daemon:
        """Return another replica, which leads once the first one is gone."""
        return self.daemons(
            "--snapshots",
            self.export.flag,
            self.second.flag,
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
    for name in ("export", "second"):
        (home / name).mkdir()
    export, second = Exported.new(home / "export"), Exported.new(home / "second", "/exports/snapshots")
    with ControlPlane(home / "plane", users=[USER]) as plane:
        _grant(plane)
        daemons = Daemons(plane, home)
        try:
            daemon = daemons("--snapshots", export.flag, second.flag, *FAST, user=USER)
            snapshots.create_crds(plane)
            with SnapshotController(plane) as controller:
                yield Site(plane, controller, daemons, daemon, export, second)
        finally:
            daemons.kill()


class Snapshots(ServedStorage):
    """Claims and VolumeSnapshots in a test's namespace."""

    def __init__(self, api: Api, namespace: str, site: Site) -> None:
        super().__init__(api, namespace, daemon=site.daemon, export=site.export)
        self._driver = site.daemon.provisioner_name
        self.snapshot_classes: list[str] = []

    def own_class(self, parameters: Mapping[str, str] | None = None, **fields: Any) -> str:
        return super().own_class({**self.export.parameters, **(parameters or {})}, **fields)

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


def test_retention(site: Site, served: Snapshots) -> None:
    """The data of a deleted snapshot is listed and kept for the retention of its class, and goes after it."""
    planted(served)
    snapshot = served.take(served.snapshot_class(parameters={"retention": "5s"}))
    content = f"{CONTENTS}/{served.ready()['boundVolumeSnapshotContentName']}"
    served.api.delete(served.path("snap"))
    served.gone(content)
    assert (stored(site, snapshot) / "tree" / "large").is_file()
    flags = (site.export.flag, "--namespace", served.namespace)
    listed = command(site.plane, "snapshots", site.daemon.provisioner_name, *flags)
    assert f"{served.namespace}/snap (deleted, until" in listed.stdout, listed.stderr
    served.eventually(lambda: not stored(site, snapshot).exists(), "the data is gone")


def test_another_export(site: Site, served: Snapshots) -> None:
    """A snapshot is kept on the export that its class names, restored from there, and removed there."""
    directory = planted(served)
    before = found_in(directory, symlink_times=True)
    snapshot = served.take(served.snapshot_class(parameters=site.second.parameters))
    served.ready()
    uid = str(snapshot["metadata"]["uid"])
    kept = site.second.root / ".provisioner" / "snapshots" / uid
    assert found_in(kept / "tree", symlink_times=True) == before
    assert not stored(site, snapshot).exists()
    restored(served)
    assert found_in(served.directory(served.bound("restored")), symlink_times=True) == before
    served.delete_claim("restored")
    served.api.delete(served.path("snap"))
    served.gone(served.path("snap"))
    assert not kept.exists()


def test_parameters_that_are_unknown(served: Snapshots) -> None:
    """A class with an unknown parameter takes no snapshot: an event and the log say which."""
    planted(served)
    snapshot = served.take(served.snapshot_class(parameters={"keep": "7"}))
    served.eventually(
        lambda: any(
            "parameter keep is unknown" in event["message"]
            for event in served.api.list(f"/api/v1/namespaces/{served.namespace}/events")
            if event["involvedObject"].get("uid") == snapshot["metadata"]["uid"]
        ),
        "an event says why",
    )
    assert not served.status().get("readyToUse")


def test_recovery(site: Site, served: Snapshots) -> None:
    """`recover` lists the snapshots of a lost cluster, and creates objects from which claims are restored."""
    directory = planted(served)
    before = found_in(directory, symlink_times=True)
    snapshot = served.take(served.snapshot_class("Retain"))
    content = f"{CONTENTS}/{served.ready()['boundVolumeSnapshotContentName']}"
    served.api.delete(served.path("snap"))
    served.gone(served.path("snap"))
    served.api.delete(content)
    served.gone(content)
    record = stored(site, snapshot) / "record"
    fields = json.loads(str(record.readlink())) | {"by": "lost"}
    record.unlink()
    record.symlink_to(json.dumps(fields, separators=(",", ":")))
    name, flags = site.daemon.provisioner_name, (site.export.flag, "--cluster=lost")
    shown = command(site.plane, "recover", name, *flags)
    assert "would be created" in shown.stdout, shown.stderr
    assert f"{served.namespace}/snap" in shown.stdout
    done = command(site.plane, "recover", name, *flags, "--apply")
    assert (done.returncode, "1 snapshot created" in done.stderr) == (0, True), done.stdout + done.stderr
    served.ready()
    restored(served)
    assert found_in(served.directory(served.bound("restored")), symlink_times=True) == before
    assert json.loads(str(record.readlink()))["by"] != "lost"


def test_restored_by_the_annotation(site: Site, served: Snapshots) -> None:
    """A snapshot that no object names any more is restored by the handle that `snapshots` lists."""
    directory = planted(served)
    before = found_in(directory, symlink_times=True)
    snapshot = served.take(served.snapshot_class(parameters={"retention": "1h"}))
    content = f"{CONTENTS}/{served.ready()['boundVolumeSnapshotContentName']}"
    served.api.delete(served.path("snap"))
    served.gone(content)
    handle = str(snapshot["metadata"]["uid"])
    annotations = {"annotations": {"nfs-provisioner/restore": handle}}
    served.claim(served.own_class(), "restored", metadata=annotations)
    assert found_in(served.directory(served.bound("restored")), symlink_times=True) == before
    assert f"from snapshot {handle}" in served.event("ProvisioningSucceeded", "restored")["message"]
    other = f"{served.namespace}-other"
    served.api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stranger = Snapshots(served.api, other, site)
    stranger.claim(stranger.own_class(), "stolen", metadata=annotations)
    assert f"no ledger has a snapshot {handle} of namespace {other}" in stranger.refusal("stolen")
    stranger.remove_volumes()
    stranger.remove_classes()
    served.api.delete(f"/api/v1/namespaces/{other}")


def test_check(site: Site, served: Snapshots) -> None:
    """`check` says what the cluster has for snapshots, and tests the export that a class names."""

    def findings() -> list[Object]:
        flags = ("--snapshots", site.export.flag, site.second.flag, "--output=json")
        found: list[Object] = json.loads(command(site.plane, "check", site.daemon.provisioner_name, *flags).stdout)[
            "findings"
        ]
        return [each for each in found if each["kind"] == "snapshots"]

    planted(served)
    (finding,) = findings()
    assert (finding["ok"], finding["warning"]) == (True, True)
    assert "no VolumeSnapshotClass has driver" in finding["result"]
    class_name = served.snapshot_class()
    served.take(class_name)
    served.ready()
    (finding,) = findings()
    assert (finding["ok"], finding["warning"]) == (True, False)
    assert f"VolumeSnapshotClass {class_name}; the snapshot-controller is at work" in finding["result"]


def test_a_schedule(site: Site, served: Snapshots) -> None:
    """A class with a schedule makes snapshots of its volumes, once after an outage, and keeps as many as it says."""
    class_name = served.snapshot_class()
    served.claim(served.own_class({"schedule": "* * * * *", "keep": "1"}), "data")
    plant(served.directory(served.bound()))

    def scheduled() -> list[str]:
        path = f"{served.path()}?labelSelector=nfs-provisioner/scheduled"
        return sorted(snapshot["metadata"]["name"] for snapshot in served.api.list(path))

    first = str(eventually(lambda: scheduled()[:1], "the first is made", timeout_s=90, explain=served.explain)[0])
    assert first.startswith("data-20")
    served.ready(first)
    assert served.api.get(served.path(first))["spec"]["volumeSnapshotClassName"] == class_name
    site.daemon.kill()
    time.sleep(121)
    site.daemon.start()
    site.daemon.wait_ready()

    def replaced() -> bool:
        left = scheduled()
        return len(left) == 1 and left[0] > first and bool(served.status(left[0]).get("readyToUse"))

    eventually(replaced, "a newer one replaces it", timeout_s=90, explain=served.explain)
    made = [line["due"] for line in site.daemon.logged("snapshot_scheduled") if served.namespace in line["claim"]]
    assert len(made) <= 3  # not one per minute of the outage


def test_a_schedule_without_a_class(served: Snapshots) -> None:
    """A schedule that has no VolumeSnapshotClass says so in an event on the claim."""
    served.claim(served.own_class({"schedule": "* * * * *"}), "data")
    served.bound()
    found = eventually(
        lambda: [
            event
            for event in served.api.list(f"/api/v1/namespaces/{served.namespace}/events")
            if event["reason"] == "SnapshotScheduleFailed"
        ],
        "an event says why",
        timeout_s=90,
        explain=served.explain,
    )
    assert "has no VolumeSnapshotClass" in found[0]["message"]


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
