"""core.groups: which group ids are free, and what records, volumes and classes say about groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core import adoption, archives, claims, groups, ledgers, names, takeover
from provisioner.core.claims import Provision, Refuse
from provisioner.core.errors import InvalidRecord, InvalidSettings
from provisioner.core.groups import GidRange, GroupIndex
from provisioner.core.ledgers import Installation, Ledger
from provisioner.core.locations import Location
from provisioner.core.objects import NfsSource, Volume
from provisioner.core.records import NO_OBJECT, ArchiveRecord, Record, decode, encode
from provisioner.core.recovery import Make, Place, Present, Remains, plan, settled_record
from provisioner.runtime.transform import CacheTransform
from tests.support import samples

GID = 50003
NAS = Location("nas", "/exports")
PLACE = Place(name="nas:/exports", location=NAS, id=samples.EXPORT_ID)
US = Installation(provisioner=samples.US, cluster="here")
ANNOTATED = {names.DIRECTORY: samples.DIRECTORY, names.GID: str(GID)}


def record(gid: int = GID, **fields: object) -> Record:
    return structs.replace(samples.record(samples.DIRECTORY), cluster="here", gid=gid, **fields)


# ------------------------------------------------------------------------------------------- ranges


@given(st.integers(1, groups.GID_LIMIT), st.integers(1, groups.GID_LIMIT))
def test_a_range_is_written_as_it_is_read(one: int, other: int) -> None:
    """Each range of ids that containers can have is accepted, unless it contains the anonymous group."""
    wanted = GidRange(min(one, other), max(one, other))
    if wanted.first <= 65534 <= wanted.last:
        with pytest.raises(InvalidSettings, match="65534"):
            groups.parse_range(str(wanted))
    else:
        assert groups.parse_range(str(wanted)) == wanted


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_is_refused(text: str) -> None:
    """Any text gives a range of valid ids, or an error that says what is wrong."""
    try:
        parsed = groups.parse_range(text)
    except InvalidSettings as exc:
        assert repr(text) in str(exc)  # noqa: PT017
    else:
        assert 1 <= parsed.first <= parsed.last <= groups.GID_LIMIT


# ------------------------------------------------------------------------------------------- free ids


@given(st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)), st.integers(1, 12), st.integers(0, 6))
def test_the_lowest_free_id(listed: set[int], named: set[int], first: int, more: int) -> None:
    """The chosen id is the lowest of the range that neither an entry nor a record has."""
    index = GroupIndex()
    for gid in listed:
        index.enter(gid, f"pvc-{gid}")
    for gid in named:
        index.name(gid)
    wanted = range(first, first + more + 1)
    free = sorted(set(wanted) - listed - named)
    assert index.lowest_free(GidRange(first, first + more)) == (free[0] if free else None)
    assert index.has_unlisted == bool(named - listed)


@given(st.lists(st.integers(0, 3)))
def test_an_id_is_named_as_long_as_a_record_names_it(gids: list[int]) -> None:
    """An id that several records name is free after the last of them; 0 stands for no group."""
    index = GroupIndex()
    for gid in gids:
        index.name(gid)
    assert {gid for gid in range(4) if index.is_named(gid)} == set(gids) - {0}
    for gid in gids:
        assert gid == 0 or index.is_named(gid)
        index.unname(gid)
    assert not any(map(index.is_named, range(4)))
    assert all(map(index.is_free, range(4)))


@pytest.mark.parametrize(
    ("target", "gid"),
    [
        (encode(record()), GID),
        (encode(record(0)), 0),
        (encode(ArchiveRecord("pvc-1", "2026-01-01T00:00:00Z", record())), GID),
        ('{"v":2,"gid":7,"new":{}}', 7),
        ('{"v":2,"was":{"gid":7}}', 7),
        ('{"v":2,"gid":"many"}', None),
        ('{"v":2,"was":[]}', None),
        ("[]", None),
        ('{"v":1,', None),
        ("\udcff", None),
    ],
)
def test_the_group_in_a_record_that_cannot_be_read(target: str, gid: int | None) -> None:
    """A record of a newer version protects its group; a damaged one leaves its group in doubt."""
    assert groups.gid_in(target) == gid
    index = GroupIndex()
    index.note_unreadable("pvc-1", target)
    index.note_unreadable("pvc-1", target)
    assert index.is_in_doubt == (gid is None)
    assert index.is_named(gid or 0) == bool(gid)
    index.note_readable("pvc-1")
    index.note_readable("pvc-2")
    assert not index.is_in_doubt
    assert not index.is_named(gid or 0)


# ------------------------------------------------------------------------------------------- records


def test_records_of_other_versions() -> None:
    """A record without a group is written as before; one with a group is refused by versions without this field."""
    assert "gid" not in encode(record(0))
    assert json.loads(encode(record()))["gid"] == GID
    assert decode(encode(record())) == record()


@pytest.mark.parametrize("gid", [-1, 2**32 - 1, "7", True])
def test_a_forged_group(gid: object) -> None:
    """A record whose group is no id cannot be read."""
    with pytest.raises(InvalidRecord):
        decode(json.dumps({**json.loads(encode(record())), "gid": gid}))


@pytest.mark.parametrize(
    ("written", "gid"),
    [("50003", GID), ("0", 0), ("", 0), ("4294967295", 0), ("-1", 0), ("9" * 11, 0), ("\u0663", 0), ("staff", 0)],
)
def test_what_an_annotation_says(written: str, gid: int) -> None:
    """A volume's annotation names a group if it is an id that a group can have."""
    assert groups.gid_of({names.GID: written}) == gid
    assert groups.gid_of({}) == 0


# ------------------------------------------------------------------------------------------- claims and volumes


def test_the_volume_names_its_group() -> None:
    """The PersistentVolume has the annotation by which the kubelet adds the group to pods; others have none."""
    decision = claims.decide(samples.claim_view(gid="auto"))
    assert isinstance(decision, Provision)
    assert decision.record.gid == 0  # the ledger chooses
    for gid, said in ((GID, str(GID)), (0, None)):
        held = structs.replace(decision.record, gid=gid)
        body = claims.volume_body(decision, provisioner=samples.US, record=held, export_id="e1")
        metadata = body["metadata"]
        assert isinstance(metadata, dict)
        assert metadata["annotations"].get(names.GID) == said


def test_room_for_the_group() -> None:
    """A claim is refused if its record would not fit any more with a group of the range."""
    for length in range(1000):
        decision = claims.decide(samples.claim_view(gid="auto", gidRange="1-9", pathPattern="x/" * length + "x"))
        longer = claims.decide(samples.claim_view(gid="auto", gidRange="1-1000", pathPattern="x/" * length + "x"))
        if isinstance(longer, Refuse):
            assert isinstance(decision, Provision)
            return
    raise AssertionError("no path is too long")


def test_a_restored_archive_keeps_its_group() -> None:
    """The group of a restored archive is that of its data, whatever the claim's record had."""
    was = ArchiveRecord("pvc-1", "2026-01-01T00:00:00Z", record())
    assert archives.restored(record(0), was).gid == GID
    assert archives.restored(record(7), structs.replace(was, was=record(0))).gid == 0


# ------------------------------------------------------------------------------------------- recovering


def remains(held: Record) -> Remains:
    return Remains(place=PLACE, volume=samples.VOLUME, record=held, pending=False, contents="data")


def test_recover_restores_the_annotation() -> None:
    """A recreated PersistentVolume names the group that the record has."""
    (step,) = plan([remains(record())], Present(provisioner=samples.US, cluster="new"), by_name=False)
    assert isinstance(step.action, Make)
    assert step.action.record.gid == GID
    metadata = step.action.body["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["annotations"][names.GID] == str(GID)


def cached(volume: Volume) -> Volume:
    return CacheTransform().volume(volume)


@pytest.mark.parametrize("seen", [cached, lambda volume: volume], ids=["cached", "live"])
def test_a_record_from_a_volume(seen: Callable[[Volume], Volume]) -> None:
    """A record that is written again from its PersistentVolume has the group of the annotation."""
    volume = samples.volume(phase="Bound", annotations=ANNOTATED)
    made = settled_record(seen(volume), (samples.DIRECTORY,), cluster="here", on_delete="delete", created="")
    assert made.gid == GID


def test_recover_ledger_restores_the_group() -> None:
    """`recover --ledger` writes the group of the annotation into the record."""
    volume = samples.volume(phase="Bound", annotations=ANNOTATED)
    claim = samples.claim(spec=samples.claim_spec(volume_name=samples.VOLUME))
    found = ledgers.Found(volume=volume, path=(samples.DIRECTORY,), claim=claim, storage_class=None)
    sheet = ledgers.plan(Ledger(place=PLACE, records={}), [found], [volume], US, now="2026-01-01T00:00:00Z")
    assert sheet.records[samples.VOLUME].gid == GID


def test_a_takeover_keeps_the_group() -> None:
    """A volume of a predecessor whose annotation names a group keeps it in its record."""
    peers = samples.peers_volume(phase="Bound")
    annotations = {**peers.metadata.annotations, names.GID: str(GID)}
    volume = structs.replace(peers, metadata=structs.replace(peers.metadata, annotations=annotations))
    decision = takeover.decide(
        takeover.Find(
            volume=volume,
            path=(samples.DIRECTORY,),
            storage_class=None,
            holder=None,
            provisioner=samples.US,
            cluster="here",
            now="2026-01-01T00:00:00Z",
            since="",
        )
    )
    assert isinstance(decision, takeover.Enter)
    assert decision.record.gid == GID


@pytest.mark.parametrize("former", [GID, 0])
def test_adopt_keeps_the_group(former: int) -> None:
    """`adopt` keeps the group of a directory that has one, and gives none to any other."""
    held = record(former, retained="2026-02-01T00:00:00Z")
    present = Present(provisioner=samples.US, cluster="here", claims={"shop/data": samples.claim()})
    made = adoption.plan(
        adoption.Wish(path=held.path, namespace="shop", claim="data"),
        adoption.Found(place=PLACE, records={samples.VOLUME: held}, pending=frozenset()),
        present,
        {"nfs": samples.storage_class({"gid": "auto"})},
        now="2026-06-01T00:00:00Z",
        new_name=lambda: "pvc-new",
    )
    assert (made.record.gid, made.record.volume_uid) == (former, NO_OBJECT)
    assert isinstance(made.step.action, Make)
    metadata = made.step.action.body["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["annotations"].get(names.GID) == (str(former) if former else None)


def disagreement(volume: Volume, held: Record) -> str:
    ledger = Ledger(place=replace(PLACE), records={samples.VOLUME: held})
    return ledgers.disagreement(volume, (samples.DIRECTORY,), ledger, US)


def test_an_annotation_that_was_changed() -> None:
    """A volume that does not name its record's group is reported, with the command that repairs it."""
    volume = samples.volume(phase="Bound", nfs=NfsSource("nas", f"/exports/{samples.DIRECTORY}"), annotations=ANNOTATED)
    held = record(volume_uid=volume.metadata.uid)
    assert disagreement(volume, held) == ""
    assert disagreement(volume, structs.replace(held, gid=0)) == ""
    other = structs.replace(held, gid=7)
    assert f"--overwrite {names.GID}=7" in disagreement(volume, other)
    assert ledgers.is_edited(volume, (samples.DIRECTORY,), samples.EXPORT_ID, gid=7)
    assert not ledgers.is_edited(volume, (samples.DIRECTORY,), samples.EXPORT_ID, gid=GID)
