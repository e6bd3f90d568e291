"""The wish for a quota: from a class into records, volumes and archives, and back out of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import pytest
from msgspec import structs

from provisioner.core import adoption, archives, claims, ledgers, names
from provisioner.core.claims import Provision, Refuse
from provisioner.core.ledgers import Installation, Ledger
from provisioner.core.locations import Location
from provisioner.core.objects import Volume
from provisioner.core.records import ArchiveRecord, Quota, Record, archived, decode, decode_archive, encode, quota_of
from provisioner.core.recovery import Make, Place, Present, Remains, plan, settled_record
from provisioner.quota import wishes
from provisioner.runtime.transform import CacheTransform
from tests.support import samples

NAS = Location("nas", "/exports")
PLACE = Place(name="nas:/exports", location=NAS, id=samples.EXPORT_ID)
US = Installation(provisioner=samples.US, cluster="here")
ANNOTATED = {names.DIRECTORY: samples.DIRECTORY, names.QUOTA: "required"}
WISHES: tuple[Quota, ...] = get_args(Quota)


def record(quota: Quota = "required", **fields: object) -> Record:
    return structs.replace(samples.record(samples.DIRECTORY), cluster="here", quota=quota, **fields)


def annotation(body: object) -> object:
    """Return what a PersistentVolume says."""
    assert isinstance(body, dict)
    return body["metadata"]["annotations"].get(names.QUOTA)


@pytest.mark.parametrize("wish", WISHES)
def test_a_claim_records_the_wish_of_its_class(wish: Quota) -> None:
    """The record has the wish for the agent, the volume for a lost ledger; without a wish both look as ever."""
    decision = claims.decide(samples.claim_view(quota=wish))
    assert isinstance(decision, Provision)
    assert decision.record.quota == wish
    assert ("quota" in json.loads(encode(decision.record))) == (wish != "none")
    body = claims.volume_body(decision, provisioner=samples.US, record=decision.record, export_id="e1")
    assert annotation(body) == (None if wish == "none" else wish)
    asks = wishes.read(encode(decision.record), pending=True, all_volumes=False).size_bytes
    assert asks == (0 if wish == "none" else 1 << 30)


def test_room_for_the_wish() -> None:
    """A claim is refused if its record would not fit any more with its wish."""
    for length in range(1000):
        path = "x/" * length + "x"
        if isinstance(claims.decide(samples.claim_view(quota="required", pathPattern=path)), Refuse):
            assert isinstance(claims.decide(samples.claim_view(pathPattern=path)), Provision)
            return
    raise AssertionError("no path is too long")


@pytest.mark.parametrize(("written", "wish"), [("required", "required"), ("", "none"), ("REQUIRED", "none")])
def test_what_an_annotation_says(written: str, wish: Quota) -> None:
    """Only the words that the provisioner writes count."""
    assert quota_of({names.QUOTA: written}) == wish
    assert quota_of({}) == "none"


def test_an_archive_keeps_the_wish() -> None:
    """The record of an archive has its volume's wish, so that the agent keeps the limit."""
    kept = ArchiveRecord("pvc-1", "2026-01-01T00:00:00Z", archived(record()))
    assert decode_archive(encode(kept)).was.quota == "required"


@pytest.mark.parametrize("wish", WISHES)
def test_a_restored_archive(wish: Quota) -> None:
    """A claim that restores an archive has the wish of its own class."""
    was = ArchiveRecord("pvc-1", "2026-01-01T00:00:00Z", record())
    assert archives.restored(record(wish), was).quota == wish


def test_recover_keeps_the_wish() -> None:
    """A recreated PersistentVolume and its record have the wish of the record that was found."""
    remains = Remains(place=PLACE, volume=samples.VOLUME, record=record(), pending=False, contents="data")
    (step,) = plan([remains], Present(provisioner=samples.US, cluster="new"), by_name=False)
    assert isinstance(step.action, Make)
    assert step.action.record.quota == "required"
    assert annotation(step.action.body) == "required"


def cached(volume: Volume) -> Volume:
    return CacheTransform().volume(volume)


@pytest.mark.parametrize("seen", [cached, lambda volume: volume], ids=["cached", "live"])
def test_a_record_from_a_volume(seen: Callable[[Volume], Volume]) -> None:
    """A record that is written again from its PersistentVolume has the wish of the annotation."""
    volume = samples.volume(phase="Bound", annotations=ANNOTATED)
    made = settled_record(seen(volume), (samples.DIRECTORY,), cluster="here", on_delete="delete", created="")
    assert made.quota == "required"


def test_recover_ledger_keeps_the_wish() -> None:
    """`recover --ledger` writes the wish of the annotation into the record."""
    volume = samples.volume(phase="Bound", annotations=ANNOTATED)
    claim = samples.claim(spec=samples.claim_spec(volume_name=samples.VOLUME))
    found = ledgers.Found(volume=volume, path=(samples.DIRECTORY,), claim=claim, storage_class=None)
    sheet = ledgers.plan(Ledger(place=PLACE, records={}), [found], [volume], US, now="2026-01-01T00:00:00Z")
    assert sheet.records[samples.VOLUME].quota == "required"


@pytest.mark.parametrize("wish", WISHES)
def test_adopt_asks_the_class(wish: Quota) -> None:
    """`adopt` records the wish of the claim's class, whatever the directory had before."""
    held = record("preferred", retained="2026-02-01T00:00:00Z")
    made = adoption.plan(
        adoption.Wish(path=held.path, namespace="shop", claim="data"),
        adoption.Found(place=PLACE, records={samples.VOLUME: held}, pending=frozenset()),
        Present(provisioner=samples.US, cluster="here", claims={"shop/data": samples.claim()}),
        {"nfs": samples.storage_class({"quota": wish})},
        now="2026-06-01T00:00:00Z",
        new_name=lambda: "pvc-new",
    )
    assert made.record.quota == wish
    assert isinstance(made.step.action, Make)
    assert annotation(made.step.action.body) == (None if wish == "none" else wish)


def test_a_record_of_the_version_before() -> None:
    """A record without a wish is read as one that asks for no quota."""
    text = encode(record("none"))
    assert "quota" not in json.loads(text)
    assert decode(text).quota == "none"


@pytest.mark.parametrize("text", ["".join(["no", "ne"]), "none"])
def test_an_older_version_reads_a_record_without_a_wish(text: str) -> None:
    """However the word `none` was read, it is left out of a record: older versions refuse the field."""
    made = settled_record(
        samples.volume(annotations={names.QUOTA: text}), ("a",), cluster="", on_delete="delete", created=""
    )
    assert "quota" not in json.loads(encode(made))
    decision = claims.decide(samples.claim_view(quota=text))
    assert isinstance(decision, Provision)
    assert "quota" not in json.loads(encode(structs.replace(decode(encode(decision.record)), capacity="2Gi")))
