"""core.adoption: which directory can be given to which claim, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import adoption, names
from provisioner.core.adoption import Found, NotAdopted, Plan, Wish
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.objects import (
    Claim,
    ClaimRef,
    ClaimSpec,
    ClaimStatus,
    DataSource,
    NfsSource,
    StorageClass,
    Volume,
    VolumeSpec,
)
from provisioner.core.records import NO_OBJECT, Record
from provisioner.core.recovery import Make, Place, Present
from provisioner.core.tenancy import ANY
from tests.support import samples

HERE = "here"
PLACE = Place(name="nas:/exports", location=Location("nas", "/exports"), id=samples.EXPORT_ID)
WISH = Wish(path=("old", "photos"), namespace="shop", claim="data")
NEW = "pvc-new"
KEPT = structs.replace(
    samples.record("old/photos", namespace="lab", volume_uid="former"), cluster=HERE, retained="2026-02-01T00:00:00Z"
)


def found(records: Mapping[str, Record] | None = None, *pending: str) -> Found:
    return Found(place=PLACE, records=records or {}, pending=frozenset(pending))


def present(*items: Volume | Claim, namespaces: Mapping[str, str] | None = None) -> Present:
    return Present(
        provisioner=samples.US,
        cluster=HERE,
        volumes={item.name: item for item in items if isinstance(item, Volume)},
        claims={item.key: item for item in items if isinstance(item, Claim)},
        namespaces=namespaces or {},
    )


def plan(
    wish: Wish = WISH,
    of: Found | None = None,
    now: Present | None = None,
    classes: Mapping[str, StorageClass] | None = None,
) -> Plan:
    of_ours = {"nfs": samples.storage_class({"archiveRetention": "30d"})} if classes is None else classes
    moment = "2026-06-01T00:00:00Z"
    return adoption.plan(
        wish, of or found(), now or present(samples.claim()), of_ours, now=moment, new_name=lambda: NEW
    )


def body(of: Plan) -> Any:
    assert isinstance(of.step.action, Make)
    return of.step.action.body


def test_a_directory_without_a_record() -> None:
    """The record has the claim, its namespace and its class's rule, and names no object yet; the volume is retained."""
    made = plan(now=present(samples.claim(), namespaces={"shop": "ns-1"}))
    assert made.fresh
    assert made.record == Record(
        directory="old/photos",
        namespace="shop",
        claim="data",
        claim_uid=samples.UID,
        class_name="nfs",
        on_delete="archive",
        capacity="1Gi",
        created="2026-06-01T00:00:00Z",
        cluster=HERE,
        modes="RWX",
        mount_options="nfsvers=4.1",
        retention="30d",
        volume_uid=NO_OBJECT,
        namespace_uid="ns-1",
    )
    volume = body(made)
    assert volume["metadata"]["name"] == NEW
    assert volume["metadata"]["annotations"][names.ON_DELETE] == "archive"
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["nfs"] == {"server": "nas", "path": "/exports/old/photos"}
    assert volume["spec"]["claimRef"] | {"apiVersion": "", "kind": ""} == {
        "apiVersion": "",
        "kind": "",
        "namespace": "shop",
        "name": "data",
        "uid": samples.UID,
    }


def test_a_claim_that_does_not_exist_yet() -> None:
    """Without a claim, the volume waits for the first claim of that name in a namespace of that name."""
    wish = dataclasses.replace(WISH, capacity="5Gi")
    storage_class = structs.replace(samples.storage_class(), mount_options=("nfsvers=4.1", "hard"))
    made = plan(wish, now=present(), classes={"nfs": storage_class})
    assert (made.record.claim_uid, made.record.namespace_uid, made.record.capacity) == ("", ANY, "5Gi")
    assert "uid" not in body(made)["spec"]["claimRef"]
    assert body(made)["spec"]["accessModes"] == ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]
    assert body(made)["spec"]["mountOptions"] == ["nfsvers=4.1", "hard"]


def test_a_directory_that_was_kept() -> None:
    """The record of the directory becomes the claim's: the volume keeps its name, and the old record is compared."""
    made = plan(of=found({samples.VOLUME: KEPT}))
    assert (made.fresh, made.step.remains.volume, made.step.remains.record) == (False, samples.VOLUME, KEPT)
    assert (made.record.namespace, made.record.retained, made.record.volume_uid) == ("shop", "", NO_OBJECT)
    without = plan(of=found({samples.VOLUME: KEPT}), now=present())
    assert (without.record.class_name, without.record.capacity) == ("nfs", "1Gi")


def test_the_claims_own_attempt() -> None:
    """If a daemon crashed while it provisioned this claim, its attempt is resumed under the same name."""
    begun = structs.replace(KEPT, namespace="shop", retained="", volume_uid="")
    made = plan(of=found({samples.VOLUME: begun}, samples.VOLUME))
    assert (made.fresh, made.step.remains.volume) == (False, samples.VOLUME)
    with pytest.raises(NotAdopted, match=r"is being provisioned for claim shop/data.*recover --volume"):
        plan(of=found({"pvc-1": structs.replace(begun, claim_uid="1")}, "pvc-1"))


def test_cut_off_before_the_volume() -> None:
    """A run that was interrupted after it wrote the record is resumed under the name that it chose."""
    first = plan()
    again = plan(of=found({NEW: first.record}))
    assert (again.step.remains.volume, again.record) == (NEW, first.record)


def waiting(spec: ClaimSpec | None = None, **changes: Any) -> Claim:
    return samples.claim(spec=spec, **changes)


def spec(**changes: Any) -> ClaimSpec:
    return structs.replace(samples.claim_spec(), **changes)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (waiting(deleted=True), "is being deleted"),
        (waiting(spec(volume_name="pv1")), "already has a volume"),
        (waiting(status=ClaimStatus("Bound")), "already has a volume"),
        (waiting(spec(data_source=DataSource("PersistentVolumeClaim", "x"))), "has a dataSource"),
        (waiting(annotations={names.RESTORE: "archived-x"}), "asks for an archive"),
        (waiting(spec(selector={})), "has a selector"),
        (waiting(spec(volume_mode="Block")), "has volumeMode Block"),
        (waiting(spec(storage_class_name="other")), "StorageClass other does not exist, or is another provisioner's"),
        (waiting(spec(storage_class_name=None)), r"StorageClass \(none\) does not exist"),
    ],
)
def test_claims_that_cannot_have_it(claim: Claim, words: str) -> None:
    """A claim that has a volume, or can never be bound to this one, is refused before anything is written."""
    with pytest.raises(NotAdopted, match=words):
        plan(now=present(claim))


def changed(**fields: Any) -> Record:
    return structs.replace(KEPT, **fields)


@pytest.mark.parametrize(
    ("of", "now", "words"),
    [
        (found({"pv1": changed(cluster="lost")}), present(), "of cluster lost: if that cluster is lost, run"),
        (found({"pv1": changed(cluster="")}), present(), r"of cluster \(without an id\)"),
        (found({"pv1": KEPT}, "pv1"), present(), "is being provisioned for claim lab/data"),
        (found({"pv1": KEPT}), present(samples.volume(name="pv1")), "volume pv1, which is for claim shop/data"),
        (found({"pv1": KEPT, "pv2": KEPT}), present(), "has several records: pv1, pv2"),
    ],
)
def test_directories_that_are_not_free(of: Found, now: Present, words: str) -> None:
    """A directory of another cluster, of a running attempt, or of an existing volume is refused."""
    with pytest.raises(NotAdopted, match=words):
        plan(of=of, now=now)


def lying(path: str, *, server: str = "nas", name: str = "pv1", provisioner: str = "other", **changes: Any) -> Volume:
    made = samples.volume(name=name, phase="Bound", nfs=NfsSource(server, path), provisioner=provisioner)
    reference = ClaimRef("bank", "data", "7")
    return structs.replace(made, spec=structs.replace(made.spec, **{"claim_ref": reference} | changes))


@pytest.mark.parametrize("path", ["/exports/old/photos", "/exports/old", "/exports/old/photos/2019"])
@pytest.mark.parametrize("reference", [ClaimRef("bank", "data", "7"), None])
def test_a_volume_of_any_maker_has_it(path: str, reference: ClaimRef | None) -> None:
    """A directory that overlaps with that of any PersistentVolume is refused, unless it is the whole export."""
    with pytest.raises(NotAdopted, match="overlaps with that of volume pv1"):
        plan(now=present(lying(path, claim_ref=reference), samples.claim()))
    assert plan(now=present(lying("/exports"), samples.claim()))


def test_the_claim_has_a_volume_to_come() -> None:
    """An existing volume for the claim is refused: Kubernetes would bind that one instead."""
    other = lying("/exports/x", claim_ref=ClaimRef("shop", "data", ""))
    with pytest.raises(NotAdopted, match="volume pv1 already exists for claim shop/data"):
        plan(now=present(other, samples.claim()))


@pytest.mark.parametrize(
    ("wish", "now", "classes", "words"),
    [
        ({"class_name": "x"}, present(samples.claim()), None, "already exists, with StorageClass nfs: omit --class"),
        (
            {"capacity": "1Mi"},
            present(samples.claim()),
            None,
            r"--capacity is less than the 1Gi that claim \S+ requests",
        ),
        ({}, present(), None, "with --capacity, at least"),
        ({"capacity": "1Gi"}, present(), {}, "name its class with --class"),
        ({"capacity": "1Gi", "class_name": "x"}, present(), None, "StorageClass x does not exist"),
        ({}, present(samples.claim()), {"nfs": samples.storage_class({"x": "y"})}, "parameter x is unknown"),
    ],
)
def test_what_is_said_of_the_claim(
    wish: dict[str, Any], now: Present, classes: Mapping[str, StorageClass] | None, words: str
) -> None:
    """Class and size come from the claim, and must be given if there is no claim."""
    with pytest.raises(NotAdopted, match=words):
        plan(dataclasses.replace(WISH, **wish), now=now, classes=classes)
    assert plan(dataclasses.replace(WISH, class_name="nfs", capacity="2Gi")).record.capacity == "2Gi"


@pytest.mark.parametrize("text", ["a/b", "a/b/", "./a//b"])
def test_directory(text: str) -> None:
    """Leading, trailing and double slashes of a directory are accepted."""
    assert adoption.directory(text) == ("a", "b")


@pytest.mark.parametrize(
    "text", ["", ".", "/", "/exports/a", "../a", "a/../b", ".provisioner", "archived-x", "a/.Provisioner"]
)
def test_no_directory(text: str) -> None:
    """The export's root, paths outside of it, the ledger and archives are refused as InvalidSettings."""
    with pytest.raises(InvalidSettings, match="DIRECTORY"):
        adoption.directory(text)


def test_capacity() -> None:
    """A size is a quantity above zero."""
    assert adoption.capacity("10Gi") == "10Gi"
    for text in ("0", "-1", "much"):
        with pytest.raises(InvalidSettings, match="--capacity"):
            adoption.capacity(text)


def test_volumes_elsewhere() -> None:
    """Volumes with the same absolute path on an unknown server are found: they can be on this export."""
    there = lying("/exports/old", server="10.0.0.5", name="pv1")
    beside = lying("/exports/new", server="10.0.0.5", name="pv2")
    known = lying("/exports/old/photos", name="pv3")
    root = lying("/", server="10.0.0.5", name="pv4")
    bare = structs.replace(known, metadata=structs.replace(known.metadata, name="pv5"), spec=VolumeSpec())
    volumes = {each.name: each for each in (there, beside, known, root, bare)}
    assert adoption.elsewhere(PLACE, WISH.path, volumes, (PLACE,)) == [there]


def test_the_command() -> None:
    """The command that carries out the plan can be pasted into a shell."""
    wish = dataclasses.replace(WISH, path=("old photos",), class_name="nfs", capacity="1Gi")
    assert adoption.command(wish, ["nas:/exports"]) == (
        "nfs-provisioner adopt 'old photos' --claim shop/data --export nas:/exports --class nfs --capacity 1Gi --apply"
    )
    assert adoption.command(WISH, []) == "nfs-provisioner adopt old/photos --claim shop/data --apply"
