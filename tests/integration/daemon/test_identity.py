"""Which volume owns a directory: volumes applied from a backup, neighbours, and volumes bound to other claims."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.api import Object
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(180)


def name_of(volume: Object) -> str:
    """Return a volume's name."""
    name: str = volume["metadata"]["name"]
    return name


def patch(served: ServedStorage, volume: Object, change: Object) -> None:
    """Change a volume as its administrator would."""
    served.api.patch(f"{VOLUMES}/{name_of(volume)}", change)


def with_data(served: ServedStorage, volume: Object) -> Path:
    """Write a file into the volume, with the volume's name as its text."""
    file = served.directory(volume) / "precious"
    file.write_text(name_of(volume))
    return file


def removed_by_force(served: ServedStorage, volume: Object) -> None:
    """Delete a volume and its finalizers, so that directory and record stay."""
    served.api.delete(f"{VOLUMES}/{name_of(volume)}")
    patch(served, volume, {"metadata": {"finalizers": None}})
    served.volume_gone(name_of(volume))


def applied(served: ServedStorage, volume: Object) -> Object:
    """Create a volume from a backup as `kubectl apply` does."""
    metadata = {key: value for key, value in volume["metadata"].items() if key not in ("resourceVersion", "uid")}
    return served.make_volume({**volume, "metadata": metadata})


def recorded_for_another_cluster(export: Exported, volume: Object) -> None:
    """Rewrite a volume's record to name another cluster."""
    link = export.root / LEDGER / "volumes" / name_of(volume)
    record = export.records[name_of(volume)] | {"by": "another-cluster"}
    link.unlink()
    link.symlink_to(json.dumps(record, separators=(",", ":")))


# ------------------------------------------------------------------------------------------- backups


def test_a_backup_applied_in_the_same_cluster(served: ServedStorage) -> None:
    """A volume applied from a backup keeps its directory, and the event names the command that recovers it."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    removed_by_force(served, volume)
    served.delete_claim()
    again = applied(served, volume)
    assert f"recover --volume {name_of(again)}" in served.volume_event(name_of(again))["message"]
    served.settled()
    assert file.read_text() == name_of(volume)
    assert served.has_volume(name_of(again))


def test_a_backup_applied_in_another_cluster(served: ServedStorage) -> None:
    """A volume of another cluster is left alone, and the event names that cluster."""
    volume = served.volume({"onDelete": "delete"})
    file = with_data(served, volume)
    removed_by_force(served, volume)
    served.delete_claim()
    recorded_for_another_cluster(served.export, volume)
    again = applied(served, volume)
    assert "cluster another-cluster" in served.volume_event(name_of(again))["message"]
    served.settled()
    assert file.read_text() == name_of(volume)


def test_a_backup_of_a_bound_volume(served: ServedStorage) -> None:
    """A volume created again for the claim that had it, by uid, belongs to that claim and is reclaimed by its rule."""
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
    """A directory that a static volume also uses stays, with an event that names it, until that volume is gone."""
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


def test_a_volume_handed_over_by_a_populator(served: ServedStorage) -> None:
    """A volume that a populator hands to another claim keeps its data and is reclaimed with that claim."""
    own = served.own_class({"onDelete": "archive"})
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
    assert not file.exists()
    (archive,) = [path for path in served.export.archives() if name_of(volume) in path.name]
    assert (archive / file.name).read_text() == name_of(volume)


def test_a_retained_volume_used_again(served: ServedStorage) -> None:
    """A retained volume that an admin gives to another claim is reclaimed with that claim."""
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
