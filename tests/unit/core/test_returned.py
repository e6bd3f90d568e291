"""core.returned: which data is kept, and how it is moved back."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from provisioner.core import names, returned
from provisioner.core.locations import Location
from provisioner.core.records import ArchiveRecord, Record
from provisioner.core.recovery import Action, Bring, Place, Present, Skip
from provisioner.core.returned import Stored, path_on, plan
from tests.support import samples


@pytest.mark.parametrize(
    ("phase", "deleted", "keeps"),
    [
        ("Bound", False, True),
        ("Bound", True, True),
        ("Available", False, True),
        ("Released", False, True),
        ("Released", True, False),
        ("Failed", True, False),
    ],
)
def test_keeps(phase: str, deleted: bool, keeps: bool) -> None:
    """A volume keeps its data unless it is being deleted and no claim has it."""
    assert returned.keeps(samples.volume(phase=phase, deleted=deleted)) is keeps


def test_being_reclaimed() -> None:
    """A volume is Released or Failed while its data is moved."""
    phases = ("Bound", "Available", "Pending", "Released", "Failed")
    assert [phase for phase in phases if returned.is_being_reclaimed(samples.volume(phase=phase))] == [
        "Released",
        "Failed",
    ]


@pytest.mark.parametrize(
    ("entry", "volume"),
    [
        ("pvc-1.20261123T161512.123456Z", "pvc-1"),
        ("a.b.20261123T161512.123456Z", "a.b"),
        ("pvc-1", "pvc-1"),
        ("a.b.c", "a.b.c"),
    ],
)
def test_volume_of(entry: str, volume: str) -> None:
    """An entry is the volume's name and a time; a name can have dots, and any other text stands for itself."""
    assert returned.volume_of(entry) == volume


def test_kept_message() -> None:
    """The message says where the data is and which command moves it back."""
    message = returned.kept_message("pvc-1", "archive archived-x", "nas:/x")
    assert "archive archived-x on export nas:/x" in message
    assert "recover --volume pvc-1`" in message


# ------------------------------------------------------------------------------------------- the way back

CLUSTER = "red"
NOW = "2026-02-01T00:00:00Z"
NAS = Location("nas", "/exports")
PLACE = Place(name="nas", location=NAS, id=samples.EXPORT_ID)
ENTRY = f"{samples.VOLUME}.20261123T161512.123456Z"
BOUND = samples.volume(phase="Bound")
CLAIM = samples.claim(spec=samples.claim_spec(volume_name=samples.VOLUME))
PRESENT = Present(provisioner=samples.US, cluster=CLUSTER, volumes={BOUND.name: BOUND}, claims={CLAIM.key: CLAIM})
WAS = structs.replace(
    samples.record(samples.DIRECTORY, claim_uid=samples.UID), cluster=CLUSTER, on_delete="archive", retention="1h"
)
ARCHIVE = ArchiveRecord(samples.VOLUME, NOW, WAS)


def stored(**other: Any) -> Stored:
    """The volume's data, in the trash by default."""
    said = {"place": PLACE, "volume": BOUND, "trash": ENTRY, "home": "gone", "record": None, **other}
    return Stored(**said)


def archived(**other: Any) -> Stored:
    """The volume's data as an archive."""
    return stored(**{"trash": "", "archive": "archived-x", "was": ARCHIVE, **other})


def action(*found: Stored, present: Present = PRESENT) -> Action:
    return plan(found, present, NOW).action


def test_out_of_the_trash() -> None:
    """Without a record, one is made from the volume itself."""
    step = plan([stored()], PRESENT, NOW)
    assert isinstance(step.action, Bring)
    assert (step.action.trash, step.action.archive, step.action.volume) == (ENTRY, "", BOUND)
    record = step.action.record
    assert record == Record(
        directory=samples.DIRECTORY,
        namespace="shop",
        claim="data",
        claim_uid=samples.UID,
        class_name="nfs",
        on_delete="delete",
        capacity="1Gi",
        created=NOW,
        cluster=CLUSTER,
        volume_uid=BOUND.metadata.uid,
    )
    assert (step.remains.volume, step.remains.contents) == (samples.VOLUME, "data")


def test_out_of_an_archive() -> None:
    """The archive's record is restored, for this object of the volume."""
    found = action(archived())
    assert isinstance(found, Bring)
    assert (found.archive, found.trash) == ("archived-x", "")
    assert found.record == structs.replace(WAS, volume_uid=BOUND.metadata.uid)


def test_gone_on_with() -> None:
    """An existing record stays, and an archive whose directory is already back only loses its record."""
    record = structs.replace(WAS, volume_uid="another")
    found = action(archived(record=record, there=False, home="data"))
    assert isinstance(found, Bring)
    assert found.record == record
    assert plan([archived(record=record, there=False, home="empty")], PRESENT, NOW).remains.contents == "empty"


def test_a_rule_that_is_not_known() -> None:
    """A volume whose rule cannot be read keeps its directory."""
    volume = samples.volume(phase="Bound", annotations={names.ON_DELETE: "burn"})
    found = action(stored(volume=volume))
    assert isinstance(found, Bring)
    assert found.record.on_delete == "retain"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([stored(trouble="it cannot be looked at")], "cannot be looked at"),
        ([stored(), archived()], f"several: the trash (entry {ENTRY}), archive archived-x"),
        ([stored(begun=True)], f"purge of .provisioner/trash/{ENTRY} had begun"),
        ([stored(home="data")], "is not empty"),
        ([stored(volume=samples.volume(phase="Bound", annotations={names.EXPORT_ID: "e2"}))], "on another export"),
        ([stored(record=structs.replace(WAS, directory="other"))], "its directories differ: other, "),
        ([archived(was=structs.replace(ARCHIVE, was=structs.replace(WAS, cluster="blue")))], "another cluster's"),
        ([archived(was=structs.replace(ARCHIVE, was=structs.replace(WAS, claim_uid="x")))], "of claim shop/data"),
        ([archived(was=structs.replace(ARCHIVE, was=structs.replace(WAS, directory="y")))], "its directories differ: "),
        ([stored(volume=samples.volume(claim_uid=None))], "Retain"),
        ([stored(volume=samples.volume(claim_uid="gone"))], "Retain"),
    ],
    ids=str,
)
def test_what_is_not_brought_back(found: list[Stored], why: str) -> None:
    """In case of doubt, of missing parts or of a conflict nothing is moved, and the reason is reported."""
    skip = action(*found)
    assert isinstance(skip, Skip)
    assert why in skip.why


def test_a_place() -> None:
    """A volume's directory is found by any location of its export, and on no other export."""
    by_two = Place(name="nas", location=Location("n2", "/x"), id="e", locations=(Location("n2", "/x"), NAS))
    assert path_on(by_two, BOUND) == (samples.DIRECTORY,)
    assert path_on(Place(name="n2", location=Location("n2", "/x"), id="e"), BOUND) is None
    assert path_on(PLACE, samples.volume(nfs=None)) is None
