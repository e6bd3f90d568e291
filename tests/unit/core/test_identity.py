"""core.identity: which PersistentVolume object and which claim a record stands for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import identity, names
from provisioner.core.identity import Binding, Wait, followed
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.records import Record
from tests.support import samples

OWN = f"uid-of-{samples.VOLUME}"


def bound(**changes: Any) -> Volume:
    """The volume, bound to its claim."""
    return samples.volume(phase="Bound", **changes)


def claimed(volume_name: str = samples.VOLUME, **changes: Any) -> Claim:
    """The claim that has the volume."""
    return samples.claim(spec=samples.claim_spec(volume_name=volume_name), **changes)


def created(at: str, *, phase: str = "Released") -> Volume:
    """The volume, created at a given time."""
    made = samples.volume(phase=phase)
    return structs.replace(made, metadata=structs.replace(made.metadata, creation_timestamp=at))


@pytest.mark.parametrize(
    ("at", "later"),
    [
        ("", False),
        ("2025-12-31T00:00:00Z", False),
        ("2026-01-01T00:59:59Z", False),
        ("2026-01-01T01:00:01Z", True),
        ("2027-01-01T00:00:00Z", True),
    ],
)
def test_younger_than_its_record(at: str, later: bool) -> None:
    """A volume created more than an hour after its record is another one; clocks can differ by minutes."""
    assert identity.is_later(samples.record(), created(at)) is later
    assert not identity.is_later(structs.replace(samples.record(), created="?"), created(at))


def test_what_an_unfinished_record_is_settled_with() -> None:
    """The live volume's uid, unless the volume is younger than the record and no claim has it."""
    late = "2026-01-02T00:00:00Z"
    for volume, uid in (
        (created("2026-01-01T00:00:01Z"), OWN),
        (created(late), ""),
        (created(late, phase="Bound"), OWN),
    ):
        assert identity.settled_uid(samples.record(), volume) == uid


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (samples.record(volume_uid=OWN), True),
        (samples.record(), False),
        (samples.record(volume_uid="another"), False),
        (samples.record(volume_uid=OWN, claim_uid=""), False),
        (samples.record(volume_uid=OWN, namespace="lab"), False),
        (structs.replace(samples.record(volume_uid=OWN), retained="2026-01-02T00:00:00Z"), False),
    ],
)
def test_agreement(record: Record, answer: bool) -> None:
    """A record matches a volume if it names this object, its claim by name and uid, and is not retained."""
    assert identity.agrees(record, bound()) is answer
    assert not identity.agrees(record, bound(claim_uid=None))


def binding(**changes: Any) -> Binding:
    """A bound volume whose record was written by a version without uids, and matches otherwise."""
    whole = Binding(
        volume=bound(),
        claim=claimed(),
        was_bound=False,
        recorded=None,
        export_id=samples.EXPORT_ID,
        path=(samples.DIRECTORY,),
        record=samples.record(),
        cluster="",
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(binding(), id="of an older version"),
        pytest.param(binding(record=samples.record(volume_uid="former")), id="created again for its claim"),
        pytest.param(binding(record=samples.record(claim_uid="", volume_uid="none")), id="recovered"),
        pytest.param(binding(record=structs.replace(samples.record(), retained="x")), id="in use again"),
    ],
)
def test_followed(of: Binding) -> None:
    """While the recorded claim has the volume, the record is updated to this object of it."""
    assert followed(of) == samples.record(volume_uid=OWN)


def test_a_peers_volume() -> None:
    """A volume of nfs-subdir does not name its export: cluster and directory are enough."""
    peers = binding(volume=samples.peers_volume(phase="Bound"), record=samples.record(peer=True))
    assert followed(peers) == samples.record(peer=True, volume_uid=OWN)
    assert followed(dataclasses.replace(peers, record=samples.record())) is None


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(binding(volume=samples.volume()), id="released"),
        pytest.param(binding(volume=bound(claim_uid=None)), id="no claimRef"),
        pytest.param(binding(cluster="another"), id="another cluster"),
        pytest.param(binding(path=("elsewhere",)), id="another directory"),
        pytest.param(binding(export_id="e2"), id="another export"),
        pytest.param(binding(volume=bound(annotations={names.EXPORT_ID: ""})), id="no export"),
        pytest.param(binding(claim=None), id="no claim"),
        pytest.param(binding(claim=claimed(uid="another")), id="another claim of the name"),
        pytest.param(binding(record=samples.record(claim_uid="another")), id="another claim's record"),
    ],
)
def test_not_followed(of: Binding) -> None:
    """If cluster, export, directory or claim do not match, the record stays as it is."""
    assert followed(of) is None


def test_not_bound_yet() -> None:
    """If the claim does not name the volume yet, the result is to wait."""
    assert followed(binding(claim=claimed(""))) == Wait()


REBOUND = samples.record(claim_uid="former", volume_uid=OWN)


@pytest.mark.parametrize(
    "recorded", [None, samples.claim(uid="another"), claimed()], ids=["gone", "created again", "of the same name"]
)
@pytest.mark.parametrize(
    "record",
    [
        REBOUND,
        structs.replace(REBOUND, namespace="lab", claim="prime"),
        structs.replace(REBOUND, claim_uid="", claim="x"),
    ],
    ids=["same name", "another name", "recovered"],
)
def test_another_claim(record: Record, recorded: Claim | None) -> None:
    """If the recorded object is bound to another claim, it becomes that claim's once the recorded claim is gone."""
    if record.claim_uid == "" and recorded is not None:
        assert followed(binding(record=record, recorded=recorded)) == Wait()
    else:
        assert followed(binding(record=record, recorded=recorded)) == samples.record(volume_uid=OWN)


@pytest.mark.parametrize(
    ("record", "read", "uid"),
    [
        (REBOUND, "ns-1", "ns-1"),
        (structs.replace(REBOUND, namespace_uid="ns-1"), "", "ns-1"),
        (structs.replace(REBOUND, namespace="lab", namespace_uid="ns-9"), "ns-1", "ns-1"),
        (structs.replace(REBOUND, namespace="lab", namespace_uid="ns-9"), "", ""),
    ],
)
def test_the_namespace_follows(record: Record, read: str, uid: str) -> None:
    """The record gets the namespace uid of the claim that has the volume; another namespace's uid never stays."""
    follows = followed(binding(record=record, namespace_uid=read))
    assert isinstance(follows, Record)
    assert follows.namespace_uid == uid


def test_the_recorded_claim_is_there() -> None:
    """While the recorded claim exists, as a populator's during the hand-over, the volume stays that claim's."""
    assert followed(binding(record=REBOUND, recorded=samples.claim(uid="former"))) == Wait()


@pytest.mark.parametrize("former", ["former", "none"])
def test_another_object_of_a_claim_that_goes(former: str) -> None:
    """A volume that is recreated while its claim is being deleted does not become the recorded one."""
    going = binding(claim=claimed(deleted=True), record=samples.record(volume_uid=former))
    assert followed(going) is None
    assert followed(dataclasses.replace(going, claim=None, was_bound=True)) is None
    older = dataclasses.replace(going, record=samples.record())
    assert followed(older) == samples.record(volume_uid=OWN)


def test_released_since() -> None:
    """A volume that was seen bound to another claim becomes that claim's even if it was released since."""
    released = binding(volume=samples.volume(), claim=None, record=REBOUND, was_bound=True)
    assert followed(released) == samples.record(volume_uid=OWN)
    assert followed(dataclasses.replace(released, was_bound=False)) is None
    assert followed(dataclasses.replace(released, record=samples.record(claim_uid="former"))) is None


def test_claims_of_recovered_records() -> None:
    """A record without a claim uid is for any claim of its name; one with a uid only for that claim."""
    assert identity.is_for(samples.record(claim_uid=""), ClaimRef("shop", "data", "any"))
    assert not identity.is_for(samples.record(claim_uid=""), ClaimRef("lab", "data", "any"))
    assert identity.is_for(samples.record(), ClaimRef("any", "any", samples.UID))
    assert not identity.is_for(samples.record(), ClaimRef("shop", "data", "any"))
