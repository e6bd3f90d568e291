"""Whose volume a directory is, on a real control plane: backups that are applied, neighbours, and other bindings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.api import Object
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(180)

RULES = ("delete", "archive", "retain")


def name_of(volume: Object) -> str:
    """A volume's name."""
    name: str = volume["metadata"]["name"]
    return name


def patch(served: ServedStorage, volume: Object, change: Object) -> None:
    """Change a volume as its administrator would."""
    served.api.patch(f"{VOLUMES}/{name_of(volume)}", change)


def with_data(served: ServedStorage, volume: Object) -> Path:
    """A file in the volume, with the volume's name as its text."""
    file = served.directory(volume) / "precious"
    file.write_text(name_of(volume))
    return file


def removed_by_force(served: ServedStorage, volume: Object) -> None:
    """A volume that somebody deleted, its finalizers too: directory and record stay."""
    served.api.delete(f"{VOLUMES}/{name_of(volume)}")
    patch(served, volume, {"metadata": {"finalizers": None}})
    served.volume_gone(name_of(volume))


def applied(served: ServedStorage, volume: Object) -> Object:
    """What `kubectl apply` makes of a volume in a backup."""
    metadata = {key: value for key, value in volume["metadata"].items() if key not in ("resourceVersion", "uid")}
    return served.make_volume({**volume, "metadata": metadata})


def recorded_for_another_cluster(export: Exported, volume: Object) -> None:
    """Let the ledger have a volume as that of another cluster."""
    link = export.root / LEDGER / "volumes" / name_of(volume)
    record = export.records[name_of(volume)] | {"by": "another-cluster"}
    link.unlink()
    link.symlink_to(json.dumps(record, separators=(",", ":")))


# ------------------------------------------------------------------------------------------- backups


@pytest.mark.parametrize("rule", RULES)
def test_a_backup_applied_in_the_same_cluster(served: ServedStorage, rule: str) -> None:
    """A volume that comes back from a backup does not get its directory destroyed, and the event says the way on."""
    volume = served.volume({"onDelete": rule})
    file = with_data(served, volume)
    removed_by_force(served, volume)
    served.delete_claim()
    again = applied(served, volume)
    assert f"recover --volume {name_of(again)}" in served.volume_event(name_of(again))["message"]
    served.settled()
    assert file.read_text() == name_of(volume)
    assert served.has_volume(name_of(again))


@pytest.mark.parametrize("rule", RULES)
def test_a_backup_applied_in_another_cluster(served: ServedStorage, rule: str) -> None:
    """A volume of another cluster, lost or alive, is left alone, and the event names that cluster."""
    volume = served.volume({"onDelete": rule})
    file = with_data(served, volume)
    removed_by_force(served, volume)
    served.delete_claim()
    recorded_for_another_cluster(served.export, volume)
    again = applied(served, volume)
    assert "cluster another-cluster" in served.volume_event(name_of(again))["message"]
    served.settled()
    assert file.read_text() == name_of(volume)


def test_a_backup_of_the_volume_that_a_claim_has(served: ServedStorage) -> None:
    """A volume that is created again for the claim that has it, by uid, is that claim's, and goes by its rule."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    removed_by_force(served, volume)
    served.eventually(lambda: served.get_claim()["status"]["phase"] == "Lost", "the claim is Lost")
    again = applied(served, volume)
    served.bound()
    uid = again["metadata"]["uid"]
    served.eventually(lambda: served.export.records[name_of(volume)]["pvuid"] == uid, "the record follows")
    served.released(volume)
    assert not file.parent.exists()


# ------------------------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("place", ["", "/inner"], ids=["the same", "below"])
def test_a_directory_that_another_volume_uses(served: ServedStorage, place: str) -> None:
    """A directory stays under a static volume of another claim's, whose event names it, and goes after that one."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    static = {
        "metadata": {"name": f"static-{name_of(volume)}"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": volume["spec"]["nfs"] | {"path": volume["spec"]["nfs"]["path"] + place},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    served.make_volume(static)
    served.settled()
    served.delete_claim()
    assert f"static-{name_of(volume)}" in served.volume_event(name_of(volume))["message"]
    assert file.read_text() == name_of(volume)
    served.api.delete(f"{VOLUMES}/static-{name_of(volume)}")
    served.volume_gone(name_of(volume))
    assert not file.parent.exists()


# ------------------------------------------------------------------------------------------- other bindings


@pytest.mark.parametrize("rule", RULES)
def test_a_populators_order_of_steps(served: ServedStorage, rule: str) -> None:
    """A volume that a populator hands over goes with the claim that has it then, by its rule."""
    own = served.own_class({"onDelete": rule})
    served.claim(own, "prime")
    volume = served.bound("prime")
    file = with_data(served, volume)
    source = {"apiGroup": "populator.test", "kind": "Image", "name": "x"}
    target = served.claim(own, "target", dataSourceRef=source)
    reference = {key: target["metadata"][key] for key in ("namespace", "name", "uid", "resourceVersion")}
    patch(served, volume, {"spec": {"claimRef": reference}})
    served.eventually(lambda: served.get_claim("prime")["status"]["phase"] == "Lost", "the populator's claim is Lost")
    served.bound("target")
    served.delete_claim("prime")
    record = served.export.records
    served.eventually(
        lambda: served.export.records[name_of(volume)]["pvc"] == "target", f"the record follows: {record}"
    )
    assert file.read_text() == name_of(volume)
    served.delete_claim("target")
    served.volume_gone(name_of(volume))
    assert file.exists() == (rule == "retain")
    archives = [path for path in served.export.archives() if name_of(volume) in path.name]
    assert len(archives) == (rule == "archive")


def test_a_retained_volume_used_again(served: ServedStorage) -> None:
    """A retained volume that is given to another claim by hand is reclaimed with that claim."""
    volume = served.volume({"onDelete": "delete"}, reclaimPolicy="Retain")
    file = with_data(served, volume)
    served.delete_claim()
    name = name_of(volume)
    served.eventually(lambda: served.get_volume(name)["status"]["phase"] == "Released", "it is Released")
    patch(served, volume, {"spec": {"claimRef": {"name": "next", "uid": None, "resourceVersion": None}}})
    served.claim(volume["spec"]["storageClassName"], "next", volumeName=name)
    served.bound("next")
    served.eventually(lambda: served.export.records[name]["pvc"] == "next", "the record follows")
    patch(served, volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    assert file.read_text() == name
    served.delete_claim("next")
    served.volume_gone(name)
    assert not file.parent.exists()
