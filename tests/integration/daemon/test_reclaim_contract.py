"""What a cluster demands at a volume's end: kubernetes-contract.md, "Finalizer and deletion", and forged volumes."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.integration.conftest import Service
from tests.support.storage import VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(120)

FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
NOBODY = "00000000-0000-4000-8000-00000000000b"


def name_of(volume: Object) -> str:
    """A volume's name."""
    name: str = volume["metadata"]["name"]
    return name


def patch_volume(served: ServedStorage, volume: Object, patch: Object) -> None:
    """Change a volume as its administrator would."""
    served.api.patch(f"{VOLUMES}/{name_of(volume)}", patch)


def has_finalizer(served: ServedStorage, volume: Object) -> bool:
    """Whether our finalizer is on the volume now."""
    return FINALIZER in served.get_volume(name_of(volume))["metadata"].get("finalizers", [])


def phase(served: ServedStorage, volume: Object) -> str:
    """The volume's phase now."""
    found: str = served.get_volume(name_of(volume))["status"]["phase"]
    return found


def wait_released(served: ServedStorage, volume: Object) -> None:
    """Wait until the cluster has released the volume."""
    served.eventually(lambda: phase(served, volume) == "Released", "the volume is Released")


def with_data(served: ServedStorage, volume: Object) -> Path:
    """A file in the volume, with the volume's name as its text."""
    file = served.directory(volume) / "precious"
    file.write_text(name_of(volume))
    return file


# ------------------------------------------------------------------------------------------- the rule


def test_delete_takes_the_directory_and_all_that_speaks_of_it(served: ServedStorage) -> None:
    """With onDelete delete, volume, directory, record and trash are gone, and no archive is made."""
    volume = served.volume({"onDelete": "delete"})
    with_data(served, volume)
    before = served.export.archives()
    served.released(volume)
    assert not served.directory(volume).exists()
    served.eventually(lambda: name_of(volume) not in served.export.records, "the record is gone")
    served.eventually(lambda: not served.export.trash, "the trash is purged")
    assert served.export.archives() == before


def test_archive_keeps_the_data_under_a_name_of_its_own(served: ServedStorage) -> None:
    """With onDelete archive the directory becomes `archived-<name>-<time>` at the export's root, data and all."""
    volume = served.volume({"onDelete": "archive", "pathPattern": "${.PVC.namespace}/deep/${.PVC.name}-x"})
    with_data(served, volume)
    served.released(volume)
    [archive] = [found for found in served.export.archives("data-x-") if (found / "precious").exists()]
    assert (archive / "precious").read_text() == name_of(volume)
    assert not served.directory(volume).exists()
    served.eventually(lambda: name_of(volume) not in served.export.records, "the record is gone")


def test_retain_keeps_directory_and_record(served: ServedStorage) -> None:
    """With onDelete retain the volume goes and the directory stays where it is, with its record."""
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


# ------------------------------------------------------------------------------------------- the finalizer


def test_a_finalizer_that_is_missing_is_put_back(served: ServedStorage) -> None:
    """A bound volume of ours with policy Delete gets the finalizer again when somebody takes it off."""
    volume = served.volume()
    patch_volume(served, volume, {"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}})
    served.eventually(lambda: has_finalizer(served, volume), "the finalizer is back")


def test_the_finalizer_follows_the_policy(served: ServedStorage) -> None:
    """It goes when the policy becomes Retain, and comes when it becomes Delete again."""
    volume = served.volume()
    assert has_finalizer(served, volume)
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    served.eventually(lambda: not has_finalizer(served, volume), "the finalizer is off")
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    served.eventually(lambda: has_finalizer(served, volume), "the finalizer is on")


def test_others_finalizers_are_left_on(served: ServedStorage) -> None:
    """A reclaimed volume that somebody else's finalizer holds keeps that one, and ours is off."""
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
    """A Released volume with policy Retain is reclaimed by its own rule once an administrator sets Delete."""
    volume = served.volume({"onDelete": "delete"}, reclaimPolicy="Retain")
    served.delete_claim()
    wait_released(served, volume)
    patch_volume(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    served.volume_gone(name_of(volume))
    assert not served.directory(volume).exists()


def test_a_volume_changed_to_retain_keeps_its_directory(served: ServedStorage) -> None:
    """An administrator who sets Retain before the claim goes keeps volume and directory."""
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


def test_a_released_volume_whose_claim_is_there_keeps_its_directory(
    served: ServedStorage, control_plane: ControlPlane
) -> None:
    """A claim that was bound elsewhere releases our volume: its directory stays for as long as the claim is there."""
    class_name = served.own_class({"onDelete": "delete"})
    control_plane.controller_manager.pause()
    try:
        annotations = {"volume.kubernetes.io/storage-provisioner": served.provisioner}
        claim = served.claim(class_name, metadata={"annotations": annotations})
        name = f"pvc-{claim['metadata']['uid']}"
        served.eventually(lambda: served.has_volume(name), "the volume is made")
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


@pytest.mark.parametrize(
    ("annotations", "word"),
    [
        ({"nfs-provisioner/on-delete": "destroy"}, "nfs-provisioner/on-delete"),
        ({"nfs-provisioner/on-delete": None}, "nfs-provisioner/on-delete"),
        ({"nfs-provisioner/export-id": "another"}, "another export"),
        ({"nfs-provisioner/export-id": None}, "another export"),
    ],
    ids=["odd-rule", "no-rule", "other-export", "no-export"],
)
def test_an_edited_annotation_destroys_nothing(
    served: ServedStorage, annotations: dict[str, str | None], word: str
) -> None:
    """A volume whose own annotations were edited is left as it is, with an event that names what does not agree."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    patch_volume(served, volume, {"metadata": {"annotations": annotations}})
    served.delete_claim()
    assert word in served.volume_event(name_of(volume))["message"]
    assert file.read_text() == name_of(volume)
    assert served.has_volume(name_of(volume))
    patch_volume(served, volume, {"metadata": {"annotations": volume["metadata"]["annotations"]}})
    served.volume_gone(name_of(volume))


@pytest.mark.parametrize(("made", "edited"), [("retain", "delete"), ("archive", "delete"), ("delete", "retain")])
def test_of_two_rules_the_milder_one_holds(served: ServedStorage, made: str, edited: str) -> None:
    """Where the volume's annotation and the ledger's record differ, nothing is destroyed that either would keep."""
    volume = served.volume({"onDelete": made})
    with_data(served, volume)
    patch_volume(served, volume, {"metadata": {"annotations": {"nfs-provisioner/on-delete": edited}}})
    served.released(volume)
    found = [*served.export.archives(served.directory(volume).name), served.directory(volume)]
    assert [(place / "precious").read_text() for place in found if place.exists()] == [name_of(volume)]


def test_a_record_that_is_gone_keeps_the_directory(served: ServedStorage) -> None:
    """A volume of which the ledger lost the record is left with its directory, with an event."""
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


def test_a_directory_that_is_gone_holds_nothing_up(served: ServedStorage) -> None:
    """A volume whose directory somebody removed by hand is reclaimed all the same."""
    for rule in ("delete", "archive", "retain"):
        volume = served.volume({"onDelete": rule}, f"data-{rule}")
        served.directory(volume).rmdir()
        served.released(volume)


# ------------------------------------------------------------------------------------------- forged volumes


def forged(served: ServedStorage, victim: Object, *, path: str, **fields: Any) -> Object:
    """A volume made by hand that claims to be ours, with all that the victim says of itself and a claim of nobody's."""
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


@pytest.mark.parametrize(
    "path",
    [
        "{victim}",
        "{victim}/",
        "{victim}/inside",
        "{export}",
        "{export}/",
        "{export}/..",
        "{victim}/..",
        "{export}/x/../../../etc",
        "{export}/.provisioner",
        "{export}/.provisioner/volumes",
        "{export}/./{name}",
        "/",
        "/etc",
        "{export}-other/x",
    ],
)
def test_a_forged_volume_destroys_nothing(served: ServedStorage, path: str) -> None:
    """A volume made by hand with our annotations copied, wherever it points, is left alone, and an event says why."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    (served.directory(victim) / "inside").mkdir()
    places = {"victim": victim["spec"]["nfs"]["path"], "export": served.export.path}
    forgery = forged(served, victim, path=path.format(**places, name=served.directory(victim).name))
    served.volume_event(name_of(forgery))
    wait_released(served, forgery)
    served.settled()
    assert file.read_text() == name_of(victim)
    assert (served.directory(victim) / "inside").is_dir()
    assert (served.export.root / ".provisioner/volumes").is_dir()
    assert served.has_volume(name_of(forgery))
    patch_volume(served, forgery, {"metadata": {"finalizers": None}})
    served.api.delete(f"{VOLUMES}/{name_of(forgery)}")  # one that lies in a directory holds its deletion up
    served.released(victim)
    assert not file.exists()


def test_a_forged_volume_with_the_claims_own_reference_destroys_nothing(served: ServedStorage) -> None:
    """A second volume for a bound claim's directory, with that claim's uid, is no volume of ours."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    reference = victim["spec"]["claimRef"]
    gone = {"namespace": reference["namespace"], "name": "nobody", "uid": reference["uid"]}
    forgery = forged(served, victim, path=victim["spec"]["nfs"]["path"], claimRef=gone)
    served.volume_event(name_of(forgery))
    assert file.read_text() == name_of(victim)
    assert served.has_volume(name_of(forgery))


def test_a_forged_volume_under_a_retained_ones_name_destroys_nothing(served: ServedStorage) -> None:
    """A volume that is created under the name of one whose directory was retained is not the recorded one."""
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


def test_a_forged_volume_without_a_claim_destroys_nothing(served: ServedStorage) -> None:
    """A volume made by hand that no claim was ever bound to is Available, and its directory is nobody's business."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    forgery = forged(served, victim, path=victim["spec"]["nfs"]["path"], claimRef=None)
    served.eventually(lambda: phase(served, forgery) == "Available", "the volume is Available")
    served.settled()
    assert file.read_text() == name_of(victim)


def test_a_volume_without_our_keys_is_not_trusted(served: ServedStorage) -> None:
    """The cluster's own annotation `provisioned-by` alone, on a directory of no record, is not enough."""
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


@pytest.mark.parametrize("rest", ["", "-elsewhere"])
def test_another_server_is_not_ours(served: ServedStorage, service: Service, rest: str) -> None:
    """A volume that says it is ours on another export than its victim's, or on one of nobody's, touches neither."""
    victim = served.volume({"onDelete": "delete"})
    file = with_data(served, victim)
    nfs = {"server": service.second.server + rest, "path": victim["spec"]["nfs"]["path"]}
    twin = service.second.root / nfs["path"].lstrip("/")
    twin.mkdir(parents=True)
    forgery = forged(served, victim, path="", nfs=nfs)
    served.volume_event(name_of(forgery))
    assert file.read_text() == name_of(victim)
    assert twin.is_dir()
    assert served.has_volume(name_of(forgery))


def test_a_volume_that_is_not_reclaimed_does_not_run_hot(served: ServedStorage) -> None:
    """In ten seconds a volume that cannot be reclaimed gets at most three events and a few log lines."""
    victim = served.volume({"onDelete": "delete"})
    forgery = name_of(forged(served, victim, path=served.export.path))
    served.volume_event(forgery)
    time.sleep(10.0)
    events = served.api.list("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={forgery}")
    assert 1 <= sum(event["count"] for event in events if event["reason"] == "VolumeFailedDelete") <= 3
    assert len([line for line in served.daemon.logged() if line.get("volume") == forgery]) <= 3
