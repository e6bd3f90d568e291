"""Provisioning as the cluster demands it: kubernetes-contract.md, "Provisioning" and "Clones", rule by rule."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Api, Object
from testbed.cluster import ControlPlane
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.storage import CLASSES, VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(120)

PROVISIONER_ANNOTATIONS = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
SELECTED_NODE = "volume.kubernetes.io/selected-node"
BY_ANNOTATION = {"pathPattern": "${.PVC.namespace}/${.PVC.annotations.dir}", "onDelete": "delete"}


@contextmanager
def paused_controllers(control_plane: ControlPlane) -> Iterator[None]:
    """Pause kube-controller-manager: the test writes what it would write."""
    control_plane.controller_manager.pause()
    try:
        yield
    finally:
        control_plane.controller_manager.resume()


def volume_of(claim: Object) -> str:
    """Return the name of a claim's volume."""
    return f"pvc-{claim['metadata']['uid']}"


# ------------------------------------------------------------------------------------------- 1 to 3: which claims


def test_either_annotation_makes_a_claim_ours(served: ServedStorage, control_plane: ControlPlane) -> None:
    """One of the two provisioner annotations is enough, without the other."""
    class_name = served.own_class()
    with paused_controllers(control_plane):
        claims = [
            served.claim(class_name, f"data-{number}", metadata={"annotations": {annotation: served.provisioner}})
            for number, annotation in enumerate(PROVISIONER_ANNOTATIONS)
        ]
        for claim in claims:
            served.eventually(partial(served.has_volume, volume_of(claim)), "the volume exists")
    for claim in claims:
        served.bound(claim["metadata"]["name"])


def test_other_provisioners_claims_are_left_alone(served: ServedStorage) -> None:
    """A claim of another provisioner's class gets neither a volume nor an event from us."""
    served.claim(served.storage_class("test.example/other", {"unknown": "parameter"}))
    served.event("ExternalProvisioning")
    served.settled()
    assert [event["reason"] for event in served.events()] == ["ExternalProvisioning"]


def test_the_old_class_annotation_comes_first(served: ServedStorage) -> None:
    """A claim's annotation `volume.beta.kubernetes.io/storage-class` counts before spec.storageClassName."""
    wanted = served.own_class({"pathPattern": "${.PVC.namespace}-by-annotation"})
    served.claim(
        served.own_class({"pathPattern": "${.PVC.namespace}-by-spec"}),
        metadata={"annotations": {"volume.beta.kubernetes.io/storage-class": wanted}},
    )
    volume = served.bound()
    assert volume["spec"]["storageClassName"] == wanted
    assert served.directory(volume).name == f"{served.namespace}-by-annotation"


def test_a_claim_that_names_its_volume_is_left_to_it(served: ServedStorage) -> None:
    """A claim with spec.volumeName is not provisioned, although its annotations name us."""
    annotations = dict.fromkeys(PROVISIONER_ANNOTATIONS, served.provisioner)
    claim = served.claim(served.own_class(), metadata={"annotations": annotations}, volumeName="made-elsewhere")
    served.settled()
    assert not served.has_volume(volume_of(claim))


def test_a_claim_that_is_being_deleted_is_not_provisioned(served: ServedStorage) -> None:
    """A deleted claim that a finalizer still holds gets no volume, even when its class appears."""
    class_name = f"late-{secrets.token_hex(4)}"
    annotations = dict.fromkeys(PROVISIONER_ANNOTATIONS, served.provisioner)
    claim = served.claim(class_name, metadata={"annotations": annotations, "finalizers": ["test.example/hold"]})
    served.delete_claim()
    served.own_class(metadata={"name": class_name})
    served.claim(class_name, "later")
    served.bound("later")
    served.settled()
    assert not served.has_volume(volume_of(claim))
    served.api.patch(f"{served.claims}/data", {"metadata": {"finalizers": None}})


def test_a_claim_is_provisioned_when_its_class_appears(served: ServedStorage, control_plane: ControlPlane) -> None:
    """A claim that precedes its class is provisioned when the class appears, not after a back-off."""
    class_name = f"late-{secrets.token_hex(4)}"
    annotations = dict.fromkeys(PROVISIONER_ANNOTATIONS, served.provisioner)
    claims = [served.claim(class_name, f"data-{number}", metadata={"annotations": annotations}) for number in range(3)]
    served.settled()
    with paused_controllers(control_plane):  # so that nothing but the class can requeue the claims
        served.own_class(metadata={"name": class_name})
        for claim in claims:
            served.eventually(partial(served.has_volume, volume_of(claim)), "the volume exists")


# ------------------------------------------------------------------------------------------- 4: the volume


def test_the_volume_has_every_field_of_the_contract(served: ServedStorage) -> None:
    """A volume has the contract's name, claimRef, annotations, finalizers, class, policy, options, size and source."""
    class_name = served.own_class({"onDelete": "retain"}, mountOptions=["nfsvers=4.1", "hard"])
    claim = served.claim(class_name, size="1500M", metadata={"labels": {"app": "x"}, "annotations": {"a": "b"}})
    volume = served.bound()
    metadata, spec = volume["metadata"], volume["spec"]
    name = volume_of(claim)
    assert metadata["name"] == name
    export_id = served.export.root.joinpath(".provisioner/export").readlink()
    assert metadata["annotations"] == {
        "pv.kubernetes.io/provisioned-by": served.provisioner,
        "nfs-provisioner/on-delete": "retain",
        "nfs-provisioner/directory": f"{served.namespace}-data-{name}",
        "nfs-provisioner/export-id": str(export_id),
    }
    assert set(metadata["finalizers"]) == {
        "external-provisioner.volume.kubernetes.io/finalizer",
        "kubernetes.io/pv-protection",
    }
    assert "labels" not in metadata
    reference = spec.pop("claimRef")
    assert int(reference.pop("resourceVersion")) >= int(claim["metadata"]["resourceVersion"])
    assert reference == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": served.namespace,
        "name": "data",
        "uid": claim["metadata"]["uid"],
    }
    assert spec == {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1500M"},
        "mountOptions": ["nfsvers=4.1", "hard"],
        "nfs": {"server": served.export.server, "path": f"/exports/k8s/{served.namespace}-data-{name}"},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": class_name,
        "volumeMode": "Filesystem",
    }


def test_the_record_names_volume_claim_and_directory(served: ServedStorage) -> None:
    """A bound volume has a directory with mode 0777 and a settled record that agrees with it."""
    class_name = served.own_class({"onDelete": "delete"})
    claim = served.claim(class_name, size="2Gi")
    volume = served.bound()
    name = volume["metadata"]["name"]
    assert served.directory(volume).stat().st_mode & 0o7777 == 0o777
    served.eventually(lambda: name in served.export.records, "the record is settled")
    record = served.export.records[name]
    assert record.pop("at")
    assert record.pop("by")
    assert record.pop("nsuid")
    assert record == {
        "v": 1, "dir": served.directory(volume).name, "ns": served.namespace, "pvc": "data",
        "uid": claim["metadata"]["uid"], "class": class_name, "del": "delete", "size": "2Gi", "modes": "RWX",
        "pvuid": volume["metadata"]["uid"],
    }  # fmt: skip
    assert name not in served.export.pending


def test_policy_retain_gives_volumes_without_our_finalizer(served: ServedStorage) -> None:
    """A class with policy Retain gives volumes with that policy and without our finalizer."""
    volume = served.volume(reclaimPolicy="Retain")
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


def test_a_volume_has_the_requested_size(served: ServedStorage) -> None:
    """The volume's capacity is the claim's request, in its own unit, so that the two bind."""
    class_name = served.own_class()
    sizes = {f"data-{number}": size for number, size in enumerate(("1", "2Gi", "2G", "1500M", "123456789", "1Pi"))}
    for name, size in sizes.items():
        served.claim(class_name, name, size=size)
    assert {name: served.bound(name)["spec"]["capacity"]["storage"] for name in sizes} == sizes


def test_a_volume_has_the_requested_access_modes(served: ServedStorage) -> None:
    """A claim with any access modes binds, and its volume has the same ones."""
    class_name = served.own_class()
    several = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]
    modes = {f"data-{number}": [mode] for number, mode in enumerate((*several, "ReadWriteOncePod"))}
    modes["several"] = several
    for name, wanted in modes.items():
        served.claim(class_name, name, accessModes=wanted)
    assert {name: served.bound(name)["spec"]["accessModes"] for name in modes} == modes


def test_another_claims_volume_of_the_same_name_is_left_alone(
    served: ServedStorage, control_plane: ControlPlane
) -> None:
    """A volume with our volume's name that belongs to another claim stays as it is, and our claim stays unbound."""
    with paused_controllers(control_plane):
        claim = served.claim(served.own_class())
        body = {
            "metadata": {"name": volume_of(claim)},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Mi"},
                "nfs": {"server": "elsewhere.test", "path": "/elsewhere"},
                "claimRef": {"namespace": "nowhere", "name": "nobody", "uid": "00000000-0000-4000-8000-00000000000a"},
            },
        }
        made = served.make_volume(body)
    served.event("ExternalProvisioning")
    served.settled()
    assert served.get_volume(volume_of(claim))["spec"]["nfs"] == made["spec"]["nfs"]
    assert served.unbound(["data"]) == ["data"]


# ------------------------------------------------------------------------------------------- 5: refusals

REFUSED_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "block": ({"volumeMode": "Block"}, "volumeMode"),
    "selector": ({"selector": {"matchLabels": {"a": "b"}}}, "selector"),
    "attributes-class": ({"volumeAttributesClassName": "gold"}, "volumeAttributesClassName"),
    "snapshot": (
        {"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "x"}},
        "snapshots",
    ),
}


def test_unsupported_fields_of_a_claim_are_refused(served: ServedStorage) -> None:
    """A claim with a field that NFS cannot serve gets one warning that says what to change, and no directory."""
    class_name = served.own_class()
    claims = {case: served.claim(class_name, case, **spec) for case, (spec, _) in REFUSED_SPECS.items()}
    for case, (_, word) in REFUSED_SPECS.items():
        message = served.refusal(case)
        assert word in message
        assert ": remove " in message or ": use " in message
    assert served.made() == []
    assert not {volume_of(claim) for claim in claims.values()} & served.export.pending.keys()


def test_a_clone_is_never_an_empty_volume(served: ServedStorage) -> None:
    """A claim whose dataSource is a bound claim of ours gets its data, and the source keeps it."""
    class_name = served.own_class()
    served.claim(class_name, "source")
    (served.directory(served.bound("source")) / "kept").write_text("kept")
    served.claim(class_name, "clone", dataSource={"kind": "PersistentVolumeClaim", "name": "source"})
    assert (served.directory(served.bound("clone")) / "kept").read_text() == "kept"
    assert (served.directory(served.bound("source")) / "kept").read_text() == "kept"


def test_another_kind_of_source_is_left_to_its_populator(served: ServedStorage) -> None:
    """A claim for an external populator is left alone, with a Normal event that says so."""
    source = {"apiGroup": "example.com", "kind": "Backup", "name": "x"}
    claim = served.claim(served.own_class(), dataSourceRef=source)
    event = served.event("Provisioning")
    assert event["type"] == "Normal"
    assert "external populator is assumed" in event["message"]
    served.settled()
    assert not served.has_volume(volume_of(claim))
    assert served.events(reason="ProvisioningFailed") == []


def test_a_class_on_an_unreachable_export(served: ServedStorage) -> None:
    """A claim of a class whose server is unknown waits with an event that names the export."""
    served.claim(served.own_class({"server": "elsewhere.test", "share": "/vol"}))
    assert "export elsewhere.test:/vol is not responding: " in served.refusal()


# ------------------------------------------------------------------------------------------- 6 and 7: names and events


def test_an_in_tree_provisioner_name_is_refused_at_the_start(daemon: Daemons, export_directory: Path) -> None:
    """For a provisioner name that begins with kubernetes.io/ the daemon exits with status 2 and one line."""
    flags = ("--no-leader-election", Exported.new(export_directory).flag)
    started = daemon(*flags, provisioner_name="kubernetes.io/nfs", wait_ready=False)
    assert started.wait() == 2
    [line] = started.log.read_text().splitlines()
    assert "--provisioner-name" in line


def test_events_of_provisioning(served: ServedStorage) -> None:
    """A claim gets one Provisioning and one ProvisioningSucceeded event, of type Normal, with its uid and our name."""
    claim = served.claim(served.own_class())
    volume = served.bound()
    for reason in ("Provisioning", "ProvisioningSucceeded"):
        event = served.event(reason)
        assert (event["type"], event["count"]) == ("Normal", 1)
        assert event["involvedObject"]["uid"] == claim["metadata"]["uid"]
        assert event["source"]["component"] == served.provisioner
    assert volume["metadata"]["name"] in served.event("ProvisioningSucceeded")["message"]
    assert served.events(reason="ProvisioningFailed") == []


# ------------------------------------------------------------------------------------------- WaitForFirstConsumer


def select_node(served: ServedStorage, node: str | None) -> None:
    """Write what the scheduler writes: the node that it chose for a claim's pod, or None to hand the claim back."""
    served.api.patch(f"{served.claims}/data", {"metadata": {"annotations": {SELECTED_NODE: node}}})


def test_a_claim_that_waits_for_its_consumer_waits(served: ServedStorage) -> None:
    """With WaitForFirstConsumer the daemon creates the volume once a node is selected, and not before."""
    claim = served.claim(served.own_class(volumeBindingMode="WaitForFirstConsumer"))
    served.settled()
    assert not served.has_volume(volume_of(claim))
    select_node(served, "node-1")
    assert served.bound()["metadata"]["name"] == volume_of(claim)


def test_a_claim_that_the_scheduler_hands_back_is_left(served: ServedStorage) -> None:
    """When the scheduler hands a failing claim back, retries stop; they resume when a node is selected again."""
    blocked = served.export.root / f"{served.namespace}-blocked"
    blocked.mkdir()
    class_name = served.own_class(
        {"pathPattern": "${.PVC.namespace}-blocked", "existing": "refuse"}, volumeBindingMode="WaitForFirstConsumer"
    )
    claim = served.claim(class_name)
    select_node(served, "node-1")
    served.refusal()
    select_node(served, None)
    blocked.rmdir()
    served.api.patch(f"{CLASSES}/{class_name}", {"metadata": {"labels": {"look": "again"}}})
    served.settled()
    assert not served.has_volume(volume_of(claim))
    assert not blocked.exists()
    select_node(served, "node-2")
    served.bound()


# ------------------------------------------------------------------------------------------- concurrent claims


def test_ten_claims_for_one_path(served: ServedStorage) -> None:
    """Of ten concurrent claims for one path, one is bound and has the only record; nine are refused with an event."""
    class_name = served.own_class({"pathPattern": "${.PVC.namespace}/${.PVC.labels.app}", "onDelete": "delete"})
    names = [f"data-{number}" for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda name: served.claim(class_name, name, metadata={"labels": {"app": "web"}}), names))
    served.eventually(lambda: len(served.unbound(names)) == 9, "one claim is bound")
    losers = served.unbound(names)
    for name in losers:
        served.event("ProvisioningFailed", name)
    assert served.unbound(names) == losers
    held = [record for record in served.export.records.values() if record["ns"] == served.namespace]
    assert [record["dir"] for record in held] == [f"{served.namespace}/web"]
    assert not any(record["ns"] == served.namespace for record in served.export.pending.values())


def test_ten_claims_for_ten_paths(served: ServedStorage) -> None:
    """Ten concurrent claims of one namespace and one class get ten directories."""
    class_name = served.own_class({"pathPattern": "${.PVC.namespace}/${.PVC.name}"})
    names = [f"data-{number}" for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda name: served.claim(class_name, name), names))
    assert len({served.directory(served.bound(name)) for name in names}) == 10
    assert {entry.name for entry in (served.export.root / served.namespace).iterdir()} == set(names)


# ------------------------------------------------------------------------------------------- deleted while provisioned


def create_and_delete(served: ServedStorage, class_name: str, name: str, delay_s: float) -> str:
    """Create a claim and delete it after a delay; return the name that its volume would have."""
    claim = served.claim(class_name, name)
    time.sleep(delay_s)
    served.delete_claim(name)
    return volume_of(claim)


def churn(served: ServedStorage, class_name: str, count: int) -> set[str]:
    """Create and delete claims concurrently, at random moments; return the names of their volumes."""
    chance = random.Random(17)
    delays_s = [chance.uniform(0.0, 0.25) for _ in range(count)]
    with ThreadPoolExecutor(8) as threads:
        jobs = [
            threads.submit(create_and_delete, served, class_name, f"{class_name}-{number}", delay_s)
            for number, delay_s in enumerate(delays_s)
        ]
    volumes = {job.result() for job in jobs}
    served.eventually(lambda: not served.own_claims(class_name), "all claims are gone", timeout_s=60.0)
    return volumes


def left_of(served: ServedStorage, volumes: set[str]) -> dict[str, list[str]]:
    """Return what is left of these volumes: objects, pending and settled records, trash and directories."""
    export = served.export
    objects = {volume["metadata"]["name"] for volume in served.api.list(VOLUMES)}
    return {
        "objects": sorted(objects & volumes),
        "pending": sorted(export.pending.keys() & volumes),
        "settled": sorted(export.records.keys() & volumes),
        "trash": [name for name in export.trash if name.split(".")[0] in volumes],
        "directories": sorted(name for name in export.names() if any(volume in name for volume in volumes)),
    }


def test_claims_deleted_while_they_are_provisioned_leave_nothing(served: ServedStorage) -> None:
    """With onDelete delete, claims deleted at random moments leave no volume, directory, record or trash."""
    volumes = churn(served, served.own_class({"onDelete": "delete"}), 60)
    served.eventually(lambda: not any(left_of(served, volumes).values()), "nothing is left", timeout_s=60.0)


class BoundVolumes:
    """Watches for volumes that become Bound from now on, however briefly."""

    def __init__(self, served: ServedStorage) -> None:
        self._served = served
        self._names: set[str] = set()
        self._since = served.api.get(VOLUMES)["metadata"]["resourceVersion"]
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        for event in self._served.api.watch(VOLUMES, timeout_s=100, resourceVersion=self._since):
            if event["object"]["status"]["phase"] == "Bound":
                self._names.add(event["object"]["metadata"]["name"])

    def names(self) -> set[str]:
        """Return all of them up to now."""
        last = self._served.volume({"pathPattern": "${.PV.name}"}, f"last-{secrets.token_hex(3)}")["metadata"]["name"]
        self._served.eventually(lambda: last in self._names, "the watch has seen the last one")
        return set(self._names)


def handed_over(daemon: Daemon) -> set[str]:
    """Return the volumes that the daemon completed while their claims existed."""
    return {line["volume"] for line in daemon.logged("volume_provisioned")}


@pytest.mark.parametrize("rule", ["archive", "retain"])
def test_deleted_claims_leave_only_what_was_a_volume(served: ServedStorage, rule: str) -> None:
    """With archive or retain, a claim deleted before it had a volume leaves nothing, not even an empty archive."""
    bound = BoundVolumes(served)
    volumes = churn(served, served.own_class({"onDelete": rule}), 40)

    def quiet() -> bool:
        left = left_of(served, volumes)
        return not left["objects"] and not left["pending"] and not left["trash"]

    served.eventually(quiet, "all volumes are reclaimed", timeout_s=60.0)
    left = left_of(served, volumes)
    kept = {volume for volume in volumes if any(volume in name for name in left["directories"])}
    assert kept <= handed_over(served.daemon) | bound.names()
    assert set(left["settled"]) == (kept if rule == "retain" else set())


def test_deleted_claims_leave_only_what_was_a_volume_by_policy_retain(served: ServedStorage) -> None:
    """With policy Retain, objects, directories and records agree, and each was once a claim's volume."""
    bound = BoundVolumes(served)
    volumes = churn(served, served.own_class(reclaimPolicy="Retain"), 40)

    def agree() -> bool:
        left = left_of(served, volumes)
        return not left["pending"] and left["objects"] == left["settled"] and not left["trash"]

    served.eventually(agree, "objects and records agree", timeout_s=60.0)
    left = left_of(served, volumes)
    directories = {volume for volume in volumes if any(volume in name for name in left["directories"])}
    assert directories == set(left["objects"])
    assert directories <= handed_over(served.daemon) | bound.names()
    for name in directories:
        served.delete_if_there(f"{VOLUMES}/{name}")


# ------------------------------------------------------------------------------------------- names at their limits


def test_the_longest_names_bind(cluster_api: Api, served: ServedStorage) -> None:
    """A claim with a name of 253 characters in a namespace of 63 binds by the default pattern, and is archived."""
    namespace = f"n-{secrets.token_hex(4)}".ljust(63, "x")
    cluster_api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    try:
        storage = ServedStorage(cluster_api, namespace, daemon=served.daemon, export=served.export)
        name = "c" * 253
        storage.claim(served.own_class({"onDelete": "archive"}), name)
        volume = storage.bound(name)
        directory = storage.directory(volume)
        assert directory.is_dir()
        assert len(directory.name) == 255
        assert directory.name.endswith(volume["metadata"]["name"])
        storage.event("ProvisioningSucceeded", name)
        storage.released(volume)
        assert not directory.exists()
        [archive] = [path for path in served.export.archives() if namespace[:40] in path.name]
        assert len(archive.name) <= 255
    finally:
        cluster_api.delete(f"/api/v1/namespaces/{namespace}")


def test_a_path_that_is_too_long_is_refused(served: ServedStorage) -> None:
    """A component of more than 255 bytes from the class's own pattern is refused, not shortened."""
    served.claim(served.own_class({"pathPattern": "${.PVC.namespace}-${.PVC.name}"}), "c" * 253)
    assert "255" in served.refusal("c" * 253)


# ------------------------------------------------------------------------------------------- static volumes


def static_volume(served: ServedStorage, path: str, **spec: Any) -> Object:
    """Create a volume on our export by hand, as an admin does."""
    return served.make_volume(
        {
            "metadata": {"name": f"static-{secrets.token_hex(4)}"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Mi"},
                "nfs": {"server": served.export.server, "path": path},
                **spec,
            },
        }
    )


def test_a_static_volume_of_the_whole_export_blocks_no_claim(served: ServedStorage) -> None:
    """An admin's volume at the export's root does not occupy the directories below it."""
    static_volume(served, served.export.path)
    static_volume(served, f"{served.export.path}/")
    served.volume()


def test_a_static_volume_keeps_its_directory(served: ServedStorage) -> None:
    """No claim gets the directory of an admin's volume, or one below it."""
    static_volume(served, f"{served.export.path}/{served.namespace}/team")
    class_name = served.own_class(BY_ANNOTATION)
    for number, directory in enumerate(("team", "team/below")):
        served.claim(class_name, f"data-{number}", metadata={"annotations": {"dir": directory}})
        assert "overlaps with" in served.refusal(f"data-{number}")


# ------------------------------------------------------------------------------------------- two on one export


def test_two_clusters_on_one_export_never_share_a_directory(
    storage: Storage, daemon: Daemons, export_directory: Path
) -> None:
    """Two daemons that know one export by different names never give out the same path, or nested ones."""
    exports = [Exported.new(export_directory), Exported.new(export_directory)]
    daemons = [daemon("--no-leader-election", export.flag) for export in exports]
    classes = [storage.storage_class(each.provisioner_name, BY_ANNOTATION) for each in daemons]
    pairs = [(f"same-{n}/x", f"same-{n}/x") for n in range(3)] + [(f"in-{n}", f"in-{n}/x") for n in range(3)]
    pairs += [(f"over-{n}/x/y", f"over-{n}/x") for n in range(3)] + [(f"flat-{n}", f"flat-{n}") for n in range(3)]

    def claim(side: int, number: int) -> None:
        storage.claim(classes[side], f"data-{number}-{side}", metadata={"annotations": {"dir": pairs[number][side]}})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(claim, [0, 1] * len(pairs), [n for n in range(len(pairs)) for _ in (0, 1)]))
    for number in range(len(pairs)):
        sides = [f"data-{number}-{side}" for side in (0, 1)]
        storage.eventually(partial(decided, storage, sides), f"both of {sides} are decided")
    held = [record["dir"] for record in exports[0].records.values()]
    assert len(held) == len(set(held))
    assert not [pair for pair in ((a, b) for a in held for b in held) if pair[1].startswith(f"{pair[0]}/")]


def decided(storage: Storage, names: list[str]) -> bool:
    """Whether each of these claims is bound or has been refused."""
    return all(
        storage.get_claim(name)["status"]["phase"] == "Bound" or storage.events(name, reason="ProvisioningFailed")
        for name in names
    )
