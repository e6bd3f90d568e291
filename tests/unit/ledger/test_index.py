"""ledger.index: the bookkeeping of one export."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.records import ArchiveRecord, Record, encode
from provisioner.ledger.index import LedgerIndex
from tests.support import samples


def ledger(*, pending: dict[str, Record] | None = None, settled: dict[str, Record] | None = None) -> LedgerIndex:
    made = LedgerIndex()
    for volume, record in (pending or {}).items():
        made.enter(volume, record, "pending")
    for volume, record in (settled or {}).items():
        made.enter(volume, record, "volumes")
    return made


def test_read() -> None:
    """Records are read with their state; those that cannot be read are listed separately."""
    made = LedgerIndex()
    made.read({"v1": encode(samples.record("a")), "v2": "junk"}, "pending")
    made.read({"v3": encode(samples.record("b"))}, "volumes")
    assert made.records == {"v1": samples.record("a"), "v3": samples.record("b")}
    assert made.pending == {"v1"}
    assert made.unreadable == {"v2"}
    assert made.unknown({"v1", "v2", "v3", "v4"}) == {"v4"}


def test_read_archives() -> None:
    """Records of archives are read; those that cannot be read are listed separately and are no archives."""
    made = LedgerIndex()
    known = ArchiveRecord("v1", "2026-01-01T00:00:00Z", samples.record("a"))
    made.read_archives({"archived-a": encode(known), "archived-b": "junk"})
    assert made.archives == {"archived-a": known}
    assert made.unreadable == {"archived-b"}
    assert made.unknown({"archived-b"}) == {"archived-b"}  # a volume of this name is another thing


def test_settled_stays_settled() -> None:
    """A settled record never becomes pending again."""
    made = ledger(settled={"v1": samples.record("a")})
    made.enter("v1", samples.record("a"), "pending")
    assert not made.pending


def test_settle() -> None:
    """A record is no longer pending once it is settled or entered as settled."""
    made = ledger(pending={"v1": samples.record("a"), "v2": samples.record("b")})
    made.settle("v1")
    made.enter("v2", samples.record("b"), "volumes")
    assert not made.pending
    assert set(made.records) == {"v1", "v2"}


def test_a_record_moves() -> None:
    """A record that replaces another one frees the other's directory."""
    made = ledger(pending={"v1": samples.record("a")})
    made.enter("v1", samples.record("b"), "pending")
    assert made.touching(("a",)) is None
    assert made.touching(("b",)) == "v1"


def test_remove() -> None:
    """Removing a record frees its directory; removing a missing one does nothing."""
    made = ledger(pending={"v1": samples.record("a/b")})
    made.remove("v1")
    made.remove("v1")
    assert (dict(made.records), set(made.pending), made.touching(("a",))) == ({}, set(), None)


@pytest.mark.parametrize(
    ("path", "other_than", "holder"),
    [
        (("a", "b"), "", "v1"),
        (("a",), "", "v1"),
        (("a", "b", "c"), "", "v1"),
        (("a", "b"), "v1", None),
        (("c",), "", None),
    ],
)
def test_touching(path: tuple[str, ...], other_than: str, holder: str | None) -> None:
    """A directory is held by the volume that has it, or one above or below it."""
    assert ledger(settled={"v1": samples.record("a/b")}).touching(path, other_than=other_than) == holder


def test_adoptable() -> None:
    """A settled record of the same directory and namespace can be adopted."""
    assert ledger(settled={"v1": samples.record("a/b")}).adoptable(samples.record("a/b", claim_uid="new")) == "v1"


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(ledger(), id="no record"),
        pytest.param(ledger(pending={"v1": samples.record("a/b")}), id="an attempt under way"),
        pytest.param(ledger(settled={"v1": samples.record("a/b", namespace="other")}), id="another namespace"),
        pytest.param(ledger(settled={"v1": samples.record("a")}), id="a directory above"),
        pytest.param(ledger(settled={"v1": samples.record("a/b/c")}), id="a directory below"),
    ],
)
def test_not_adoptable(held: LedgerIndex) -> None:
    """No other record can be adopted."""
    assert held.adoptable(samples.record("a/b")) is None


@pytest.mark.parametrize("own", ["pvc-0", "pvc-9"], ids=["sorted before", "sorted after"])
def test_adoptable_again(own: str) -> None:
    """An adoption that was interrupted can be started again, whatever the names of the two volumes."""
    record = samples.record("a")
    assert ledger(settled={"pvc-5": record}, pending={own: record}).adoptable(record) == "pvc-5"


Change = Literal["pending", "volumes", "settle", "remove"]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(get_args(Change)),
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from(["a", "a/b", "b"]),
    ),
    max_size=20,
)


@given(CHANGES)
def test_records_and_paths_agree(changes: list[tuple[Change, str, str]]) -> None:
    """After any changes a directory is held exactly while a record overlaps with it, and only records are pending."""
    made = LedgerIndex()
    for change, volume, directory in changes:
        match change:
            case "pending" | "volumes":
                made.enter(volume, samples.record(directory), change)
            case "settle":
                made.settle(volume)
            case "remove":
                made.remove(volume)
    directories = {record.directory for record in made.records.values()}
    assert made.pending <= made.records.keys()
    assert (made.touching(("a",)) is None) == directories.isdisjoint({"a", "a/b"})
    assert (made.touching(("b",)) is None) == ("b" not in directories)
