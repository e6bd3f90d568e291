"""core.archives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import convert, structs

from provisioner.core import archives, names, records, times
from provisioner.core.archives import Moment
from provisioner.core.objects import Claim, ClaimStatus, DataSource
from provisioner.core.records import ArchiveRecord, OnDelete
from tests.support import samples

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
YEAR_S = 365 * 86400


def moment(wall_s: float = 0, steady_s: float = 0, server_s: float | None = 0) -> Moment:
    """Clock readings, in seconds from noon."""
    at = [None if seconds is None else NOON + timedelta(seconds=seconds) for seconds in (wall_s, steady_s, server_s)]
    assert at[0] is not None
    assert at[1] is not None
    return Moment(wall=at[0], steady=at[1], server=at[2])


def archive(retention: str = "1h", *, archived: str = times.text(NOON), namespace: str = "shop") -> ArchiveRecord:
    was = structs.replace(samples.record("a", namespace=namespace), retention=retention)
    return ArchiveRecord("pvc-1", archived, was)


def test_due() -> None:
    """An archive expires when its time is over by all clocks, plus a few seconds for their inaccuracy."""
    assert not archives.is_due(archive(), moment(3600, 3600, 3600))
    assert archives.is_due(archive(), moment(3605, 3605, 3605))
    assert archives.due_in_s(archive(), moment(0, 0, 0)) == 3605


@pytest.mark.parametrize("wrong", ["wall_s", "steady_s", "server_s"])
@pytest.mark.parametrize("by_s", [-YEAR_S, YEAR_S])
def test_one_wrong_clock(wrong: str, by_s: int) -> None:
    """No archive expires too early, whichever clock was or is wrong, in either direction."""
    right = dict.fromkeys(("wall_s", "steady_s", "server_s"), 0)
    stamped = archive(archived=times.text(moment(**{**right, wrong: by_s}).latest))
    later = dict.fromkeys(right, 3599)
    assert not archives.is_due(stamped, moment(**later))
    assert not archives.is_due(archive(), moment(**{**later, wrong: by_s}))


def test_without_the_api_servers_time() -> None:
    """While the API server's time is unknown, no archive expires, and the daemon's time stamps new ones."""
    assert not archives.is_due(archive(), moment(YEAR_S, YEAR_S, None))
    assert archives.due_in_s(archive(), moment(YEAR_S, YEAR_S, None)) is None
    assert moment(1, 2, None).latest == NOON + timedelta(seconds=2)


@pytest.mark.parametrize(
    "record",
    [
        archive(""),
        archive("a month"),
        archive("1" + "0" * 400 + "d"),
        archive("99999999d"),
        archive(archived="yesterday"),
        archive(archived="2026-01-01T12:00:00"),
    ],
    ids=lambda record: f"{record.was.retention[:9]} {record.archived}",
)
def test_for_ever(record: ArchiveRecord) -> None:
    """An archive without a retention or a time, or with an unreadable or too large one, never expires."""
    assert archives.kept_until(record) is None
    assert not archives.is_due(record, moment(10 * YEAR_S, 10 * YEAR_S, 10 * YEAR_S))


def test_who_may_have_it_back() -> None:
    """An archive is restored only in its own namespace of its own cluster."""
    wanted = samples.record("b")
    assert archives.not_for("archived-a", archive(), wanted, samples.TENANT) is None
    other = archives.not_for("archived-a", archive(), structs.replace(wanted, namespace="bank"), samples.TENANT)
    assert other is not None
    assert "not of namespace bank" in other
    foreign = archives.not_for("archived-a", archive(), structs.replace(wanted, cluster="another"), samples.TENANT)
    assert foreign is not None
    assert "another cluster" in foreign


def test_of_an_earlier_namespace() -> None:
    """An archive of a deleted namespace is not restored in a later one of its name, unless the class allows it."""
    wanted = samples.record("b")
    refusal = archives.not_for("archived-a", archive(), wanted, samples.LATER_TENANT)
    assert refusal is not None
    assert "earlier namespace shop" in refusal
    assert "formerNamespace: accept" in refusal
    accepting = replace(samples.LATER_TENANT, accepts_former=True)
    assert archives.not_for("archived-a", archive(), wanted, accepting) is None


RULES: tuple[OnDelete, ...] = ("delete", "archive", "retain")


@pytest.mark.parametrize("was", RULES)
@pytest.mark.parametrize("wanted", RULES)
def test_the_rule_of_what_is_brought_back(was: OnDelete, wanted: OnDelete) -> None:
    """The milder rule wins: restored data is archived again or retained, and never deleted by a class."""
    record = archive()
    record = structs.replace(record, was=structs.replace(record.was, on_delete=was))
    given = archives.restored(samples.record("b", on_delete=wanted), record)
    assert given.on_delete == ("retain" if "retain" in (was, wanted) else "archive")
    assert (given.directory, given.claim_uid) == ("b", samples.UID)


@pytest.mark.parametrize(
    ("was", "wanted", "kept"),
    [
        ("30d", "1h", "30d"),
        ("1h", "30d", "30d"),
        ("24h", "1d", "1d"),
        ("", "1h", ""),
        ("1h", "", ""),
        ("a month", "1h", "a month"),
    ],
)
def test_how_long_what_is_brought_back_is_kept_again(was: str, wanted: str, kept: str) -> None:
    """The longer retention wins; none, or an unreadable one, means never."""
    given = archives.restored(structs.replace(samples.record("b"), retention=wanted), archive(was))
    assert given.retention == kept


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (samples.claim(), None),
        (samples.claim(annotations={names.RESTORE: "archived-a"}), None),
        (samples.claim(annotations={names.RESTORE: "archived-b"}), "already asks for archive 'archived-b'"),
        (samples.claim(deleted=True), "is being deleted"),
        (samples.claim(status=ClaimStatus(phase="Bound")), "already has a volume"),
        (samples.claim(spec=structs.replace(samples.claim_spec(), volume_name="pv1")), "already has a volume"),
        (
            samples.claim(spec=structs.replace(samples.claim_spec(), data_source=DataSource("Image"))),
            "has a dataSource",
        ),
    ],
)
def test_a_claim_that_is_there(claim: Claim, words: str | None) -> None:
    """A claim can get an archive only if it has no volume and no other source for its data."""
    refusal = archives.cannot_have("archived-a", claim)
    assert refusal == words or (words is not None and words in str(refusal))


def test_a_claim_that_is_made() -> None:
    """A claim for an archive has the namespace, size and access modes of the archived one."""
    record = structs.replace(archive(), was=structs.replace(archive().was, modes="RWO,ROX"))
    body = convert(archives.claim_body("archived-a", record, name="new", class_name="nfs"), Claim)
    assert body.key == "shop/new"
    assert body.metadata.annotations == {names.RESTORE: "archived-a"}
    assert (body.class_name, body.requested) == ("nfs", "1Gi")
    assert body.spec.access_modes == ("ReadWriteOnce", "ReadOnlyMany")
    old = convert(archives.claim_body("archived-a", archive(), name="new", class_name="nfs"), Claim)
    assert old.spec.access_modes == ("ReadWriteMany",)


def test_listed() -> None:
    """An archive is listed with its origin and its times; without a record, only with its name."""
    listed = archives.listed("archived-a", archive(), export="nas:/e", cluster=archive().was.cluster)
    assert (listed.namespace, listed.claim, listed.storage_class, listed.capacity) == ("shop", "data", "nfs", "1Gi")
    assert (listed.archived, listed.kept_until) == ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
    assert (listed.directory, listed.volume, listed.restorable, listed.why_not) == ("a", "pvc-1", True, "")
    kept = archives.listed("archived-a", archive(""), export="nas:/e", cluster="another")
    assert (kept.kept_until, kept.restorable, kept.why_not) == ("", False, "another cluster's")
    assert archives.listed("archived-b", None, export="nas:/e", cluster="c").why_not == "no record"
    unowned = records.unowned("archived-c", "2026-01-01T00:00:00Z", records.no_owner("c", "2026-01-01T00:00:00Z", "c"))
    row = archives.listed("archived-c", unowned, export="nas:/e", cluster="c")
    assert (row.volume, row.directory, row.restorable, row.why_not) == ("", "c", False, "of no claim")


def test_order() -> None:
    """Archives are sorted by namespace and claim, newest first; archives without a record come last."""

    def of(name: str, archived: str, namespace: str) -> archives.ArchiveRow:
        return archives.listed(name, archive(archived=archived, namespace=namespace), export="e", cluster="")

    old, young = of("old", "2026-01-01T00:00:00Z", "a"), of("young", "2026-01-02T00:00:00Z", "a")
    other, bare = of("other", "2026-01-03T00:00:00Z", "b"), archives.listed("bare", None, export="e", cluster="")
    assert archives.in_order([bare, old, other, young]) == [young, old, other, bare]
