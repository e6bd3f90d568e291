"""core.ledgers: how ledger and volumes disagree, and what of a lost ledger is rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from msgspec import structs

from provisioner.core import ledgers, names
from provisioner.core.ledgers import Found, Installation, Ledger, Sheet, Skip, Write
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, Metadata, NfsSource, StorageClass, Volume
from provisioner.core.records import Record
from provisioner.core.recovery import Place
from tests.support import samples

NAS = Location("nas", "/exports")
HERE, THERE = "here", "there"
US = Installation(provisioner=samples.US, cluster=HERE)
PATH = (samples.DIRECTORY,)
NOW = "2026-05-01T00:00:00Z"
CREATED = "2026-02-01T00:00:00Z"
DIRECTORY = {names.DIRECTORY: samples.DIRECTORY}
BOUND = samples.claim(spec=samples.claim_spec(volume_name=samples.VOLUME))
ITS_UID = f"uid-of-{samples.VOLUME}"
PLACE = Place(name="nas:/exports", location=NAS, id=samples.EXPORT_ID)


def record(directory: str = samples.DIRECTORY, *, cluster: str = HERE, **fields: str) -> Record:
    made = samples.record(directory, volume_uid=fields.pop("volume_uid", ITS_UID))
    return structs.replace(made, cluster=cluster, **fields)


def ledger(record: Record | None = None, *, id: str = samples.EXPORT_ID, **parts: frozenset[str]) -> Ledger:
    records = {} if record is None else {samples.VOLUME: record}
    return Ledger(place=replace(PLACE, id=id), records=records, **parts)


def volume(annotations: Mapping[str, str] | None = None, *, phase: str = "Bound", name: str = samples.VOLUME) -> Volume:
    nfs = NfsSource("nas", f"/exports/{samples.DIRECTORY if name == samples.VOLUME else name}")
    said = DIRECTORY if name == samples.VOLUME else {names.DIRECTORY: name}
    made = samples.volume(name=name, phase=phase, nfs=nfs, annotations={**said, **(annotations or {})})
    return structs.replace(made, metadata=structs.replace(made.metadata, creation_timestamp=CREATED))


def without(*keys: str) -> Volume:
    """The volume without some of its annotations."""
    made = volume()
    left = {key: value for key, value in made.metadata.annotations.items() if key not in keys}
    return structs.replace(made, metadata=structs.replace(made.metadata, annotations=left))


def found(
    volume: Volume,
    *,
    claim: Claim | None = BOUND,
    storage_class: StorageClass | None = None,
    there: bool = True,
    trouble: str = "",
) -> Found:
    source = volume.spec.nfs
    assert source is not None
    path = NAS.relative(source.server, source.path)
    assert path is not None
    return Found(volume=volume, path=path, claim=claim, storage_class=storage_class, there=there, trouble=trouble)


def planned(of: Ledger, *each: Found) -> Sheet:
    return ledgers.plan(of, each, [one.volume for one in each], US, now=NOW)


def why(sheet: Sheet) -> str:
    """The reason why nothing is written for the only volume that does not match."""
    (step,) = sheet.steps
    assert isinstance(step.action, Skip)
    return step.action.why


# ------------------------------------------------------------------------------------------- who carries an id


@pytest.mark.parametrize(
    ("volume", "carries"),
    [
        (volume(), True),
        (volume({names.DIRECTORY: "elsewhere"}), False),
        (volume({names.DIRECTORY: ""}), False),
        (volume({names.EXPORT_ID: ""}), False),
        (volume({names.PROVISIONED_BY: "another/one"}), False),
        (samples.volume(annotations=DIRECTORY, deleted=True), False),
        (samples.volume(annotations=DIRECTORY, nfs=None), False),
        (samples.volume(annotations=DIRECTORY, nfs=NfsSource("other", f"/exports/{samples.DIRECTORY}")), False),
    ],
)
def test_who_carries_the_id_of_an_export(volume: Volume, *, carries: bool) -> None:
    """A provisioner's volume carries an id of an export if its own annotations place it there."""
    assert ledgers.is_marked_on(volume, (NAS,), samples.US) is carries


def test_whose_volume_it_is() -> None:
    """A volume is the provisioner's if its annotation says so, or if the ledger has a record of exactly this object."""
    assert ledgers.is_own(volume(), ledger(), US)
    others = volume({names.PROVISIONED_BY: "another/one"})
    assert ledgers.is_own(others, ledger(record()), US)
    assert not ledgers.is_own(others, ledger(), US)
    assert not ledgers.is_own(others, ledger(record(cluster=THERE)), US)
    assert not ledgers.is_own(others, ledger(record(volume_uid="another")), US)
    assert not ledgers.is_own(samples.volume(nfs=None), ledger(record()), US)


# ------------------------------------------------------------------------------------------- what disagrees


@pytest.mark.parametrize(
    ("volume", "ledger", "said"),
    [
        pytest.param(volume({names.EXPORT_ID: "e2"}), ledger(record()), "export-id=e1", id="the export's id"),
        pytest.param(volume({names.DIRECTORY: "x"}), ledger(record()), f"directory={samples.DIRECTORY}", id="where"),
        pytest.param(volume({names.ON_DELETE: "?"}), ledger(record()), "on-delete=delete", id="the rule"),
        pytest.param(volume({names.ON_DELETE: ""}), ledger(), "on-delete=retain", id="the rule, and no record"),
        pytest.param(volume({names.PROVISIONED_BY: "x"}), ledger(record()), f"by={samples.US}", id="whose it is"),
        pytest.param(without(*names.MARKS), ledger(record()), "annotations do not match", id="all of them"),
        pytest.param(volume(), ledger(unreadable=frozenset({samples.VOLUME})), "cannot be read", id="unreadable"),
        pytest.param(
            volume(),
            ledger(unreadable=frozenset({samples.VOLUME}), foreign=frozenset({samples.VOLUME})),
            "another version",
            id="another version's",
        ),
        pytest.param(volume(), ledger(record(cluster=THERE)), f"belongs to cluster {THERE}", id="another cluster's"),
        pytest.param(volume(), ledger(record(cluster="")), "(without an id)", id="no cluster's"),
        pytest.param(volume(), ledger(record("x")), "of directory 'x'", id="another directory"),
        pytest.param(volume(), ledger(record(volume_uid="x")), "another PersistentVolume object", id="another object"),
        pytest.param(volume(), ledger(record(claim_uid="x")), "is for claim shop/data", id="another claim"),
    ],
)
def test_what_disagrees(volume: Volume, ledger: Ledger, said: str) -> None:
    """The message names what was edited or damaged, and the command that repairs it."""
    words = ledgers.disagreement(volume, PATH, ledger, US)
    assert said in words
    assert any(
        command in words for command in (f"kubectl annotate pv {samples.VOLUME} --overwrite", "nfs-provisioner recover")
    )


@pytest.mark.parametrize(
    ("volume", "ledger"),
    [
        pytest.param(volume(), ledger(record()), id="as it was made"),
        pytest.param(volume({names.ON_DELETE: "retain"}), ledger(record()), id="another rule, which is respected"),
        pytest.param(volume(phase="Released"), ledger(record(claim_uid="x")), id="released: its reclaim judges that"),
        pytest.param(samples.volume(annotations=DIRECTORY, claim_uid=None), ledger(record()), id="without a claimRef"),
        pytest.param(volume(), ledger(), id="no record, which orphans reports"),
        pytest.param(
            volume(), ledger(record(cluster=THERE), pending=frozenset({samples.VOLUME})), id="not settled yet"
        ),
        pytest.param(samples.peers_volume(phase="Bound"), ledger(structs.replace(record(), peer=True)), id="a peer's"),
    ],
)
def test_what_agrees(volume: Volume, ledger: Ledger) -> None:
    """A volume that matches its record is not reported."""
    assert ledgers.disagreement(volume, PATH, ledger, US) == ""


def test_values_with_spaces_are_quoted() -> None:
    """The command can be pasted into a shell."""
    nfs = NfsSource("nas", "/exports/a b")
    words = ledgers.disagreement(samples.volume(nfs=nfs), ("a b",), ledger(record("a b")), US)
    assert words.endswith("nfs-provisioner/directory='a b'")


# ------------------------------------------------------------------------------------------- what is written


def test_a_record_is_written_again() -> None:
    """The record has all data of the volume, and the retention of its class."""
    storage_class = samples.storage_class({"archiveRetention": "30d"})
    sheet = planned(ledger(), found(volume(), storage_class=storage_class))
    assert sheet.records == {
        samples.VOLUME: Record(
            directory=samples.DIRECTORY,
            namespace="shop",
            claim="data",
            claim_uid=samples.UID,
            class_name="nfs",
            on_delete="delete",
            capacity="1Gi",
            created=CREATED,
            cluster=HERE,
            retention="30d",
            volume_uid=ITS_UID,
        )
    }
    assert (sheet.id, sheet.trouble, sheet.agree, sheet.has_work) == (samples.EXPORT_ID, "", 0, True)


@pytest.mark.parametrize(
    "storage_class",
    [
        None,
        samples.storage_class({"archiveRetention": "?"}),
        samples.storage_class({"archiveRetention": "30d"}, provisioner="another/one"),
    ],
)
def test_archives_without_a_class_are_kept(storage_class: StorageClass | None) -> None:
    """Without a usable class there is no retention: an archive never expires."""
    of = ledger(unreadable=frozenset({samples.VOLUME}))
    made = structs.replace(volume(), metadata=structs.replace(volume().metadata, creation_timestamp=""))
    (written,) = planned(of, found(made, storage_class=storage_class)).records.values()
    assert (written.retention, written.created) == ("", NOW)


def test_what_agrees_is_left_alone() -> None:
    """A volume that matches its record is counted, and nothing is done."""
    sheet = planned(ledger(record()), found(volume()))
    assert (sheet.agree, sheet.steps, sheet.has_work) == (1, [], False)


RESERVED = samples.volume(
    phase="Bound", annotations={names.DIRECTORY: "@eaDir"}, nfs=NfsSource("nas", "/exports/@eaDir")
)


@pytest.mark.parametrize(
    ("each", "of", "said"),
    [
        pytest.param(found(volume(phase="Released")), ledger(), "it is Released", id="not bound"),
        pytest.param(found(volume(), claim=None), ledger(), "it is Bound", id="no claim"),
        pytest.param(found(volume(), claim=samples.claim()), ledger(), "has no record", id="not the claim's volume"),
        pytest.param(found(volume(), claim=samples.claim(uid="x")), ledger(), "has no record", id="another claim"),
        pytest.param(found(volume(), there=False), ledger(), "its directory does not exist", id="no directory"),
        pytest.param(found(volume(), trouble="denied"), ledger(), "denied", id="not to be looked at"),
        pytest.param(found(volume({names.ON_DELETE: "?"})), ledger(), "kubectl annotate", id="edited"),
        pytest.param(found(samples.peers_volume()), ledger(), "the daemon records it", id="a peer's"),
        pytest.param(found(volume()), ledger(record("x")), "of directory 'x'", id="a record that says otherwise"),
        pytest.param(
            found(volume()),
            ledger(unreadable=frozenset({samples.VOLUME}), foreign=frozenset({samples.VOLUME})),
            "another version",
            id="another version's record",
        ),
        pytest.param(
            found(
                samples.volume(
                    phase="Bound", annotations={names.DIRECTORY: "@eaDir"}, nfs=NfsSource("nas", "/exports/@eaDir")
                )
            ),
            ledger(),
            "file servers keep",
            id="a name of another form",
        ),
    ],
)
def test_what_is_not_written(each: Found, of: Ledger, said: str) -> None:
    """Nothing is written for a volume that does not agree with its claim, its directory or what there is; why is said.

    The words name what is to be done.
    """
    sheet = planned(of, each)
    assert said in why(sheet)
    assert not sheet.records


def test_a_directory_that_another_volume_uses() -> None:
    """If two volumes have one directory, neither gets a record."""
    second = samples.volume(name="second", nfs=NfsSource("nas", f"/exports/{samples.DIRECTORY}/inner"))
    sheet = ledgers.plan(ledger(), [found(volume())], [volume(), second], US, now=NOW)
    assert "overlaps with that of volume second" in why(sheet)


# ------------------------------------------------------------------------------------------- the export's id


OTHER = volume({names.EXPORT_ID: "e2"}, name="pvc-other")
OTHERS_CLAIM = samples.claim(uid=samples.UID, spec=samples.claim_spec(volume_name="pvc-other"))


@pytest.mark.parametrize("id", ["", "new"])
def test_the_id_that_volumes_carry_comes_back(id: str) -> None:
    """A removed or recreated ledger gets back the id of its volumes, and their records."""
    sheet = planned(ledger(id=id), found(volume()))
    assert (sheet.id, sheet.trouble, list(sheet.records), sheet.has_work) == (
        samples.EXPORT_ID,
        "",
        [samples.VOLUME],
        True,
    )


def test_the_id_alone_comes_back() -> None:
    """If only the id is gone, the records stay as they are."""
    sheet = planned(ledger(record(), id=""), found(volume()))
    assert (sheet.id, sheet.steps, sheet.agree, sheet.has_work) == (samples.EXPORT_ID, [], 1, True)


def test_bound_volumes_count_first() -> None:
    """The ids of volumes without a claim do not matter if the Bound ones agree."""
    left = structs.replace(OTHER, status=structs.replace(OTHER.status, phase="Released"))
    assert planned(ledger(id=""), found(volume()), found(left)).id == samples.EXPORT_ID
    assert planned(ledger(id=""), found(left)).id == "e2"


@pytest.mark.parametrize(
    ("of", "each", "said"),
    [
        pytest.param(
            ledger(id=""), [found(volume()), found(OTHER, claim=OTHERS_CLAIM)], "2 ids: e1, e2", id="several ids"
        ),
        pytest.param(
            ledger(record(cluster=THERE), id="new"),
            [found(volume())],
            f"records of cluster {THERE}",
            id="another cluster's records",
        ),
        pytest.param(ledger(record(cluster=""), id="new"), [found(volume())], "(without an id)", id="no cluster's"),
        pytest.param(ledger(id=""), [found(volume(), there=False)], "the right export", id="an empty export"),
        pytest.param(ledger(id=""), [found(volume(), trouble="denied")], "the right export", id="closed"),
    ],
)
def test_an_id_that_stays(of: Ledger, each: list[Found], said: str) -> None:
    """If volumes or the ledger contradict each other, or no directory exists, an admin decides."""
    sheet = planned(of, *each)
    assert said in sheet.trouble
    assert (sheet.id, dict(sheet.records), sheet.has_work) == (of.place.id, {}, False)
    assert sheet.steps


def test_an_id_that_some_volumes_carry() -> None:
    """If some volumes carry the ledger's id, it stays, and the other volumes are reported."""
    sheet = planned(ledger(record()), found(volume()), found(OTHER, claim=OTHERS_CLAIM))
    assert (sheet.id, sheet.trouble, sheet.agree) == (samples.EXPORT_ID, "", 1)
    assert "kubectl annotate pv pvc-other --overwrite nfs-provisioner/export-id=e1" in why(sheet)


def test_an_export_without_anything() -> None:
    """An export without a ledger and without volumes of the provisioner is left alone."""
    sheet = planned(ledger(id=""), found(samples.peers_volume(phase="Bound")))
    assert (sheet.id, sheet.trouble, sheet.has_work) == ("", "", False)


def test_whose_directory_matters() -> None:
    """Directories are checked if there is no record, or if the ledger has another id."""
    assert not ledgers.is_in_doubt(found(volume()), ledger(record()))
    assert ledgers.is_in_doubt(found(volume()), ledger())
    assert ledgers.is_in_doubt(found(volume()), ledger(record(), id="new"))


def test_metadata_is_all_there() -> None:
    """A volume without annotations counts as edited."""
    assert ledgers.is_edited(Volume(Metadata(name="v")), PATH, samples.EXPORT_ID, gid=0)
    assert not ledgers.is_edited(volume(), PATH, samples.EXPORT_ID, gid=0)
    assert not isinstance(Write(record()), Skip)
