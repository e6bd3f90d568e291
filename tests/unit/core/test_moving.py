"""core.moving: which volumes can move to another address, and how they look afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import moving, names
from provisioner.core.locations import Location
from provisioner.core.moving import Facts, NotMoved, Sighting
from provisioner.core.objects import Claim, ClaimRef, ClaimSpec, Metadata, NfsSource, Volume, VolumeSpec, VolumeStatus
from provisioner.core.pods import Pod
from provisioner.core.records import NO_OBJECT, Record

OURS = "example.com/nfs"
OLD, NEW = Location("old", "/x"), Location("new", "/y")
MARKS = {names.PROVISIONED_BY: OURS, names.EXPORT_ID: "id", names.ON_DELETE: "delete", names.DIRECTORY: "a"}
VOLUME = Volume(
    Metadata(name="pvc-u", uid="v", annotations=MARKS),
    VolumeSpec(nfs=NfsSource("old", "/x/a"), claim_ref=ClaimRef("shop", "data", "u")),
    VolumeStatus("Bound"),
)
CLAIM = Claim(Metadata(name="data", namespace="shop", uid="u"), ClaimSpec(volume_name="pvc-u"))
RECORD = Record("a", "shop", "data", "u", "nfs", "delete", "1Gi", "2026-01-01T00:00:00Z", "c", volume_uid="v")
FACTS = Facts(
    volume=VOLUME,
    path=("a",),
    claim=CLAIM,
    record=RECORD,
    contents="data",
    pods=[],
    export_id="id",
    cluster="c",
    provisioner=OURS,
)
STATIC = structs.replace(VOLUME, metadata=Metadata(name="pvc-u", uid="v"))


def changed(volume: Volume = VOLUME, **spec: Any) -> Volume:
    return structs.replace(volume, spec=structs.replace(volume.spec, **spec))


def deleted(metadata: Metadata) -> Metadata:
    return structs.replace(metadata, deletion_timestamp="2026-01-01T00:00:00Z")


def test_the_proof() -> None:
    """Both addresses must have one ledger; if the old one is silent, the volumes on it must carry the new one's id."""
    silent = Sighting(location=OLD, trouble="no answer")
    new = Sighting(location=NEW, id="id")
    assert "both addresses have the ledger id" in moving.prove(Sighting(location=OLD, id="id"), new, [])
    assert "as its volumes say" in moving.prove(silent, new, ["id", "other"])
    for old, other, carried, words in (
        (silent, Sighting(location=NEW, trouble="no ledger"), ["id"], "has no ledger that can be read: no ledger"),
        (Sighting(location=OLD, id="another"), new, ["id"], "they are two exports"),
        (silent, new, ["another"], "nothing proves that new:/y is the export old:/x"),
        (silent, new, [], "nothing proves"),
    ):
        with pytest.raises(NotMoved, match=words):
            moving.prove(old, other, carried)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ""),
        ({"record": structs.replace(RECORD, volume_uid="")}, ""),
        ({"record": structs.replace(RECORD, volume_uid=NO_OBJECT)}, ""),
        ({"contents": "empty"}, ""),
        ({"volume": STATIC, "record": None}, ""),
        ({"volume": STATIC, "record": None, "path": ()}, ""),
        ({"volume": structs.replace(VOLUME, metadata=deleted(VOLUME.metadata))}, "being deleted"),
        ({"volume": changed(nfs=None)}, "not an in-tree NFS volume"),
        ({"volume": changed(claim_ref=None)}, "no claim has it"),
        ({"claim": None}, "not bound to an existing claim"),
        ({"claim": structs.replace(CLAIM, metadata=Metadata(uid="other"))}, "not bound to an existing claim"),
        ({"volume": structs.replace(VOLUME, status=VolumeStatus("Released"))}, "it is Released"),
        ({"claim": structs.replace(CLAIM, metadata=deleted(CLAIM.metadata))}, "its claim is being deleted"),
        ({"export_id": "another"}, "names another export's ledger"),
        ({"record": None}, "no record of it"),
        ({"record": structs.replace(RECORD, cluster="d")}, "of another volume, claim or cluster"),
        ({"record": structs.replace(RECORD, directory="b")}, "of another volume, claim or cluster"),
        ({"record": structs.replace(RECORD, volume_uid="w")}, "of another volume, claim or cluster"),
        ({"record": structs.replace(RECORD, claim_uid="w")}, "of another volume, claim or cluster"),
        ({"record": structs.replace(RECORD, retained="2026-01-01T00:00:00Z")}, "of another volume, claim or cluster"),
        ({"path": ("a", "..")}, "of another volume"),
        ({"path": ("a", ".."), "volume": STATIC, "record": None}, "not a directory below the export"),
        ({"path": (), "record": structs.replace(RECORD, peer=True)}, "of another volume"),
        ({"contents": "gone"}, "directory a does not exist at the new address"),
        ({"pods": [Pod("shop", "web")]}, "pods use it, stop them first: shop/web"),
    ],
)
def test_what_stays(facts: dict[str, Any], expected: str) -> None:
    """A volume moves only if it is bound, its record agrees, its directory is there, and no pod uses it."""
    why = moving.why_not(replace(FACTS, **facts), with_pods=False)
    assert expected in why
    assert bool(why) is bool(expected)


def test_a_volume_of_the_whole_export() -> None:
    """A volume of the provisioner never is the whole export."""
    unmarked = structs.replace(
        STATIC, metadata=Metadata(name="pvc-u", uid="v", annotations={names.PROVISIONED_BY: OURS})
    )
    assert "not a directory" in moving.why_not(replace(FACTS, volume=unmarked, record=None, path=()), with_pods=False)


def test_with_pods() -> None:
    """An admin can move volumes that pods use."""
    assert not moving.why_not(replace(FACTS, pods=[Pod("shop", "web")]), with_pods=True)


WAS = {
    "metadata": {
        "name": "pvc-u",
        "uid": "v",
        "resourceVersion": "7",
        "labels": {"a": "b"},
        "annotations": MARKS,
        "finalizers": [moving.PROTECTION, names.FINALIZER],
    },
    "spec": {
        "nfs": {"server": "old", "path": "/x/a", "readOnly": True},
        "claimRef": {"namespace": "shop", "name": "data", "uid": "u", "resourceVersion": "3"},
        "persistentVolumeReclaimPolicy": "Delete",
        "mountOptions": ["nfsvers=4.1"],
        "capacity": {"storage": "1Gi"},
    },
    "status": {"phase": "Bound"},
}


def test_the_new_volume() -> None:
    """Everything stays but the address; until it is bound, nothing can reclaim it."""
    now = moving.manifest(WAS, NEW, ("a",), None)
    assert now["metadata"] == {"name": "pvc-u", "labels": {"a": "b"}, "annotations": MARKS}
    assert now["spec"] == {
        "nfs": {"server": "new", "path": "/y/a", "readOnly": True},
        "claimRef": {"namespace": "shop", "name": "data", "uid": "u"},
        "persistentVolumeReclaimPolicy": "Retain",
        "mountOptions": ["nfsvers=4.1"],
        "capacity": {"storage": "1Gi"},
    }
    assert moving.manifest(WAS, NEW, ("a",), ["port=1"])["spec"]["mountOptions"] == ["port=1"]
    assert WAS["spec"]["persistentVolumeReclaimPolicy"] == "Delete"  # type: ignore[index]
    assert moving.policy_of(WAS) == "Delete"
    assert moving.finalizers_of(WAS) == [names.FINALIZER]
    assert moving.policy_of({"spec": {}}) == "Retain"
    assert moving.finalizers_of({"metadata": {}}) == []


def test_the_record_during_a_move() -> None:
    """The record names no object until the new one is known, and follows the mount options of the class."""
    assert moving.unsettled(RECORD, None) == structs.replace(RECORD, volume_uid=NO_OBJECT)
    assert moving.unsettled(RECORD, ["port=1", "hard"]).mount_options == "port=1,hard"


def test_rows() -> None:
    """A row has the claim of the volume, if there is one."""
    assert moving.row(VOLUME, ("a", "b"), "moved") == moving.MoveRow("pvc-u", "shop", "data", "a/b", "moved", "")
    assert moving.row(Volume(Metadata(name="pv")), (), "stays", "why").claim == ""


def test_permissions() -> None:
    """A move creates, deletes and patches volumes."""
    assert {each.verb for each in moving.permissions()} == {"create", "delete", "patch"}
