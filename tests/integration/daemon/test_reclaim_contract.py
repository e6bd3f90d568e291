"""Reclaiming as the cluster demands it: kubernetes-contract.md, "Finalizer and deletion", and forged volumes."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.integration.conftest import Service
from tests.support.storage import CLASSES, VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(120)

FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
NOBODY = "00000000-0000-4000-8000-00000000000b"


def name_of(volume: Object) -> str:
    """Return a volume's name."""
    name: str = volume["metadata"]["name"]
    return name


def patch_volume(served: ServedStorage, volume: Object, patch: Object) -> None:
    """Change a volume as its administrator would."""
    served.api.patch(f"{VOLUMES}/{name_of(volume)}", patch)


def has_finalizer(served: ServedStorage, volume: Object) -> bool:
    """Whether our finalizer is on the volume now."""
    return FINALIZER in served.get_volume(name_of(volume))["metadata"].get("finalizers", [])


def phase(served: ServedStorage, volume: Object) -> str:
    """Return the volume's phase."""
    found: str = served.get_volume(name_of(volume))["status"]["phase"]
    return found


def wait_released(served: ServedStorage, volume: Object) -> None:
    """Wait until the cluster has released the volume."""
    served.eventually(lambda: phase(served, volume) == "Released", "the volume is Released")


def with_data(served: ServedStorage, volume: Object) -> Path:
    """Write a file into the volume, with the volume's name as its text."""
    file = served.directory(volume) / "precious"
    file.write_text(name_of(volume))
    return file


# ------------------------------------------------------------------------------------------- the rule


def test_delete_removes_directory_and_record(served: ServedStorage) -> None:
    """With onDelete delete, volume, directory, record and trash are gone, and there is no archive."""
    volume = served.volume({"onDelete": "delete"})
    with_data(served, volume)
    before = served.export.archives()
    served.released(volume)
    assert not served.directory(volume).exists()
    served.eventually(lambda: name_of(volume) not in served.export.records, "the record is gone")
    served.eventually(lambda: not served.export.trash, "the trash is purged")
    assert served.export.archives() == before


def test_archive_keeps_the_data_under_another_name(served: ServedStorage) -> None:
    """With onDelete archive the directory becomes `archived-<name>-<time>` at the export's root, with its data."""
    volume = served.volume({"onDelete": "archive", "pathPattern": "${.PVC.namespace}/deep/${.PVC.name}-x"})
    with_data(served, volume)
    served.released(volume)
    [archive] = [found for found in served.export.archives("data-x-") if (found / "precious").exists()]
    assert (archive / "precious").read_text() == name_of(volume)
    assert not served.directory(volume).exists()
    served.eventually(lambda: name_of(volume) not in served.export.records, "the record is gone")


def test_retain_keeps_directory_and_record(served: ServedStorage) -> None:
    """With onDelete retain the volume goes, and the directory stays where it is, with its record."""
    volume = served.volume({"onDelete": "retain"})
    file = with_data(served, volume)
    served.released(volume)
    assert file.read_text() == name_of(volume)
    served.settled()
    assert name_of(volume) in served.export.records


def test_policy_retain_is_never_touched(served: ServedStorage) -> None:
    """With policy Retain the volume stays Released with its directory, and the directory outlives the volume."""
    volume = served.volume({"onDelete": "delete"}, reclaimPolicy="Retain")
    file = with_data(served, volume)
    served.delete_claim()
    wait_released(served, volume)
    served.settled()
    assert file.read_text() == name_of(volume)
    served.api.delete(f"{VOLUMES}/{name_of(volume)}")
    served.volume_gone(name_of(volume))
    served.settled()
    assert file.read_text() == name_of(volume)
    assert name_of(volume) in served.export.records


# ------------------------------------------------------------------------------------------- the class


def test_a_volume_outlives_its_class(served: ServedStorage) -> None:
    """A volume is reclaimed by its own rule after its class is deleted (harm 5 in peers.md)."""
    storage_class = served.own_class({"onDelete": "delete"})
    served.claim(storage_class)
    volume = served.bound()
    served.delete_if_there(f"{CLASSES}/{storage_class}")
    served.released(volume)
    assert not served.directory(volume).exists()
    assert served.export.archives(served.directory(volume).name) == []


def test_a_recreated_class_changes_no_volume(served: ServedStorage, service: Service) -> None:
    """A class recreated with another rule and another export leaves existing volumes alone (harm 5 in peers.md)."""
    storage_class = served.own_class({"onDelete": "archive"})
    served.claim(storage_class)
    volume = served.bound()
    (served.directory(volume) / "kept").write_text("kept")
    served.delete_if_there(f"{CLASSES}/{storage_class}")
    served.own_class(service.second.parameters | {"onDelete": "delete"}, metadata={"name": storage_class})
    served.claim(storage_class, "later")
    served.bound("later")
    served.released(volume)
    [archive] = served.export.archives(served.directory(volume).name)
    assert (archive / "kept").read_text() == "kept"


# ------------------------------------------------------------------------------------------- the finalizer


def test_a_missing_finalizer_is_added_again(served: ServedStorage) -> None:
    """A bound volume of ours with policy Delete gets the finalizer back when an admin removes it."""
    volume = served.volume()
    patch_volume(served, volume, {"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}})
    served.eventually(lambda: has_finalizer(served, volume), "the finalizer is back")


def test_the_finalizer_follows_the_policy(served: ServedStorage) -> None:
    """The daemon removes the finalizer when the policy becomes Retain, and adds it when it becomes Delete again."""
    volume = served.volume()
    assert has_finalizer(served, volume)
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    served.eventually(lambda: not has_finalizer(served, volume), "the finalizer is off")
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    served.eventually(lambda: has_finalizer(served, volume), "the finalizer is on")


def test_finalizers_of_others_stay(served: ServedStorage) -> None:
    """A reclaimed volume loses our finalizer and keeps those of others."""
    volume = served.volume({"onDelete": "delete"})
    finalizers = [*served.get_volume(name_of(volume))["metadata"]["finalizers"], "test.example/hold"]
    patch_volume(served, volume, {"metadata": {"finalizers": finalizers}})
    served.delete_claim()
    served.eventually(
        lambda: served.get_volume(name_of(volume))["metadata"]["finalizers"] == ["test.example/hold"],
        "only the other finalizer is left",
    )
    assert not served.directory(volume).exists()
    patch_volume(served, volume, {"metadata": {"finalizers": None}})
    served.volume_gone(name_of(volume))


def test_a_volume_deleted_before_its_claim_leaks_nothing(served: ServedStorage) -> None:
    """A volume deleted while it is bound stays until its claim goes, and its directory goes with it."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    served.api.delete(f"{VOLUMES}/{name_of(volume)}")
    served.settled()
    assert file.exists()
    served.released(volume)
    assert not served.directory(volume).exists()


def test_a_policy_changed_to_delete_reclaims_a_released_volume(served: ServedStorage) -> None:
    """A Released volume with policy Retain is reclaimed by its own rule once an admin sets Delete."""
    volume = served.volume({"onDelete": "delete"}, reclaimPolicy="Retain")
    served.delete_claim()
    wait_released(served, volume)
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    served.volume_gone(name_of(volume))
    assert not served.directory(volume).exists()


def test_a_policy_changed_to_retain_keeps_the_directory(served: ServedStorage) -> None:
    """An admin who sets Retain before the claim goes keeps volume and directory."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    served.delete_claim()
    wait_released(served, volume)
    served.settled()
    assert file.read_text() == name_of(volume)
    served.api.delete(f"{VOLUMES}/{name_of(volume)}")
    served.volume_gone(name_of(volume))


# ------------------------------------------------------------------------------------------- the claim is really gone


def test_a_released_volume_whose_claim_exists_keeps_its_directory(
    served: ServedStorage, control_plane: ControlPlane
) -> None:
    """When a claim is bound to another volume, ours is Released: its directory stays until the claim goes."""
    class_name = served.own_class({"onDelete": "delete"})
    control_plane.controller_manager.pause()
    try:
        annotations = {"volume.kubernetes.io/storage-provisioner": served.provisioner}
        claim = served.claim(class_name, metadata={"annotations": annotations})
        name = f"pvc-{claim['metadata']['uid']}"
        served.eventually(lambda: served.has_volume(name), "the volume exists")
        ours = served.get_volume(name)
        elsewhere = served.make_volume(
            {
                "metadata": {"name": f"elsewhere-{secrets.token_hex(4)}"},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "capacity": {"storage": "1Mi"},
                    "storageClassName": class_name,
                    "persistentVolumeReclaimPolicy": "Retain",
                    "nfs": {"server": "elsewhere.test", "path": "/elsewhere"},
                    "claimRef": {
                        "namespace": served.namespace, "name": "data", "uid": claim["metadata"]["uid"],
                    },
                },
            }
        )  # fmt: skip
        served.api.patch(f"{served.claims}/data", {"spec": {"volumeName": name_of(elsewhere)}})
    finally:
        control_plane.controller_manager.resume()
    file = with_data(served, ours)
    wait_released(served, ours)
    served.settled()
    assert file.exists()
    assert served.has_volume(name)
    served.released(ours)
    assert not file.exists()


# ------------------------------------------------------------------------------------------- what must agree

EDITED = {
    "odd-rule": ({"nfs-provisioner/on-delete": "destroy"}, "nfs-provisioner/on-delete"),
    "no-rule": ({"nfs-provisioner/on-delete": None}, "nfs-provisioner/on-delete"),
    "other-export": ({"nfs-provisioner/export-id": "another"}, "another export"),
    "no-export": ({"nfs-provisioner/export-id": None}, "another export"),
}


def test_an_edited_annotation_deletes_nothing(served: ServedStorage) -> None:
    """A volume with edited annotations keeps its directory, and an event names what does not agree."""
    class_name = served.own_class({"onDelete": "delete"})
    for case in EDITED:
        served.claim(class_name, case)
    volumes = {case: served.bound(case) for case in EDITED}
    files = {case: with_data(served, volume) for case, volume in volumes.items()}
    for case, (edited, _) in EDITED.items():
        patch_volume(served, volumes[case], {"metadata": {"annotations": edited}})
        served.delete_claim(case)
    for case, (_, word) in EDITED.items():
        assert word in served.volume_event(name_of(volumes[case]))["message"]
        assert files[case].read_text() == name_of(volumes[case])
        assert served.has_volume(name_of(volumes[case]))
    for volume in volumes.values():
        patch_volume(served, volume, {"metadata": {"annotations": volume["metadata"]["annotations"]}})
    for volume in volumes.values():
        served.volume_gone(name_of(volume))


def test_the_milder_of_two_rules_holds(served: ServedStorage) -> None:
    """Where annotation and record differ, the daemon deletes nothing that either of them keeps."""
    for created, edited in (("retain", "delete"), ("archive", "delete"), ("delete", "retain")):
        volume = served.volume({"onDelete": created}, created)
        with_data(served, volume)
        patch_volume(served, volume, {"metadata": {"annotations": {"nfs-provisioner/on-delete": edited}}})
        served.released(volume)
        found = [*served.export.archives(served.directory(volume).name), served.directory(volume)]
        assert [(place / "precious").read_text() for place in found if place.exists()] == [name_of(volume)]


def test_a_volume_without_a_record_keeps_its_directory(served: ServedStorage) -> None:
    """A volume whose record is lost stays with its directory, with an event."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    link = served.export.root / ".provisioner/volumes" / name_of(volume)
    served.eventually(link.is_symlink, "the record is settled")
    target = link.readlink()
    link.unlink()
    served.delete_claim()
    assert "record" in served.volume_event(name_of(volume))["message"]
    assert file.read_text() == name_of(volume)
    link.symlink_to(target)
    served.volume_gone(name_of(volume))


# ------------------------------------------------------------------------------------------- forged volumes


def forged(served: ServedStorage, victim: Object, *, path: str, **fields: Any) -> Object:
    """Create a volume with all that the victim says of itself, for a claim that does not exist."""
    metadata = {
        "name": f"forged-{secrets.token_hex(4)}",
        "annotations": victim["metadata"]["annotations"],
        "finalizers": [FINALIZER],
    }
    spec = {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1Mi"},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": victim["spec"]["storageClassName"],
        "nfs": {"server": served.export.server, "path": path},
        "claimRef": {"namespace": served.namespace, "name": "nobody", "uid": NOBODY},
    }
    return served.make_volume({"metadata": metadata | fields.pop("metadata", {}), "spec": spec | fields})


FORGED_PATHS = (
    "{victim}",
    "{victim}/",
    "{victim}/inside",
    "{export}",
    "{export}/",
    "{export}/..",
    "{victim}/..",
    "{export}/x/../{name}",
    "{export}/../{name}",
    "{export}/x/../../../etc",
    "{export}/.provisioner",
    "{export}/.provisioner/volumes",
    "{export}/./{name}",
    "/",
    "/etc",
    "{export}-other/x",
)


def test_forged_volumes_delete_nothing(served: ServedStorage) -> None:
    """A hand-written volume with our annotations, wherever it points, is left alone, and an event says why (harm 1)."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    (served.directory(victim) / "inside").mkdir()
    places = {"victim": victim["spec"]["nfs"]["path"], "export": served.export.path}
    name = served.directory(victim).name
    forgeries = [forged(served, victim, path=path.format(**places, name=name)) for path in FORGED_PATHS]
    for forgery in forgeries:
        served.volume_event(name_of(forgery), timeout_s=60)
        wait_released(served, forgery)
    served.settled()
    assert file.read_text() == name_of(victim)
    assert (served.directory(victim) / "inside").is_dir()
    assert (served.export.root / ".provisioner/volumes").is_dir()
    assert all(served.has_volume(name_of(forgery)) for forgery in forgeries)
    for forgery in forgeries:
        patch_volume(served, forgery, {"metadata": {"finalizers": None}})
        served.api.delete(f"{VOLUMES}/{name_of(forgery)}")  # one that lies in the directory delays its deletion
    served.released(victim)
    assert not file.exists()


def test_a_second_volume_for_a_bound_claim_deletes_nothing(served: ServedStorage) -> None:
    """A forged volume for a bound claim's directory, with that claim's uid, is left alone."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    reference = victim["spec"]["claimRef"]
    gone = {"namespace": reference["namespace"], "name": "nobody", "uid": reference["uid"]}
    forgery = forged(served, victim, path=victim["spec"]["nfs"]["path"], claimRef=gone)
    served.volume_event(name_of(forgery))
    assert file.read_text() == name_of(victim)
    assert served.has_volume(name_of(forgery))


def test_a_forged_volume_under_a_retained_ones_name_deletes_nothing(served: ServedStorage) -> None:
    """A volume created under the name of one whose directory was retained is not the recorded one."""
    volume = served.volume({"onDelete": "retain"})
    file = with_data(served, volume)
    served.released(volume)
    annotations = volume["metadata"]["annotations"] | {"nfs-provisioner/on-delete": "delete"}
    forged(
        served,
        volume,
        path=volume["spec"]["nfs"]["path"],
        claimRef={key: volume["spec"]["claimRef"][key] for key in ("namespace", "name", "uid")},
        metadata={"name": name_of(volume), "annotations": annotations},
    )
    assert "another PersistentVolume object" in served.volume_event(name_of(volume))["message"]
    assert served.has_volume(name_of(volume))
    assert file.read_text() == name_of(volume)


def test_a_forged_volume_without_a_claim_deletes_nothing(served: ServedStorage) -> None:
    """A hand-written volume that was never bound is Available, and the daemon leaves its directory alone."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    forgery = forged(served, victim, path=victim["spec"]["nfs"]["path"], claimRef=None)
    served.eventually(lambda: phase(served, forgery) == "Available", "the volume is Available")
    served.settled()
    assert file.read_text() == name_of(victim)


def test_a_volume_without_our_annotations_is_not_trusted(served: ServedStorage) -> None:
    """The annotation `provisioned-by` alone, on a directory without a record, authorizes nothing."""
    precious = served.export.root / f"{served.namespace}-by-hand"
    precious.mkdir()
    body = served.volume()
    forgery = forged(
        served,
        body,
        path=f"{served.export.path}/{precious.name}",
        metadata={"annotations": {"pv.kubernetes.io/provisioned-by": served.provisioner}},
    )
    served.volume_event(name_of(forgery))
    assert precious.is_dir()


def test_a_forged_volume_on_another_server_deletes_nothing(served: ServedStorage, service: Service) -> None:
    """A forged volume on another export than its victim's, or on an unknown one, touches neither."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    path = victim["spec"]["nfs"]["path"]
    twin = service.second.root / path.lstrip("/")
    twin.mkdir(parents=True)
    for server in (service.second.server, f"{service.second.server}-elsewhere"):
        forgery = forged(served, victim, path="", nfs={"server": server, "path": path})
        served.volume_event(name_of(forgery))
        assert served.has_volume(name_of(forgery))
    assert file.read_text() == name_of(victim)
    assert twin.is_dir()


# ------------------------------------------------------------------------------------------- retries

WATCHED_S = 10.0


def test_failing_work_is_retried_with_growing_pauses(served: ServedStorage) -> None:
    """In ten seconds each failing claim or volume gets at most three events and three log lines."""
    taken = served.own_class({"pathPattern": "${.PVC.namespace}/same", "onDelete": "delete"})
    classes = [served.own_class({"unknown": "x"}), taken]
    classes.append(served.own_class({"server": "elsewhere.test", "share": "/vol"}))
    served.claim(taken, "holder")
    forgery = name_of(forged(served, served.bound("holder"), path=served.export.path))
    names = [f"data-{number}" for number in range(12)]
    for number, name in enumerate(names):
        served.claim(classes[number % 3], name)
    served.volume_event(forgery)
    time.sleep(WATCHED_S)  # Nothing to wait for: the test counts what happens in this time.
    log = served.daemon.logged()
    claims = [line["claim"] for line in log if str(line.get("claim")).startswith(served.namespace)]
    counts = {name: sum(event["count"] for event in served.events(name, reason="ProvisioningFailed")) for name in names}
    assert set(counts.values()) <= {1, 2, 3}, counts
    assert all(claims.count(f"{served.namespace}/{name}") <= 3 for name in names), claims
    events = served.api.list("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={forgery}")
    assert 1 <= sum(event["count"] for event in events if event["reason"] == "VolumeFailedDelete") <= 3
    assert len([line for line in log if line.get("volume") == forgery]) <= 3
