"""core.orphans: what is an orphan, what is not, and how orphans are reported."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core import times
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import CsiSource, NfsSource, Volume, VolumeSpec
from provisioner.core.orphans import SILENT_AFTER, ExportFacts, Orphan, doubtful, find, known
from provisioner.core.paths import PathIndex
from provisioner.core.records import Record
from tests.support import samples

NAS = Location("nas", "/exports")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
US, THEM = "our-cluster", "their-cluster"


def record(directory: str = samples.DIRECTORY, *, cluster: str = US, **changes: Any) -> Record:
    """A record of a cluster's volume."""
    return structs.replace(samples.record(directory), cluster=cluster, **changes)


def evidence(records: Mapping[str, Record] | None = None, **changes: Any) -> ExportFacts:
    """The facts of an export without orphans, with changes."""
    held = PathIndex()
    for path, name in changes.pop("held", {}).items():
        held.add(path, name)
    seen: dict[str, Any] = {
        "pending": set(),
        "unreadable": set(),
        "signs": {},
        "volumes": set(),
        "left": set(),
        "unknown_directories": (),
    }
    return ExportFacts(
        export="nas:/exports", cluster=US, records=records or {}, now=NOW, holder=held.touching, **seen | changes
    )


def one(found: list[Orphan]) -> Orphan:
    """Return the only orphan."""
    (orphan,) = found
    return orphan


# ------------------------------------------------------------------------------------------------------- doubts


@pytest.mark.parametrize(
    ("held", "pending", "volumes", "waiting", "expected"),
    [
        (record(), False, set(), set(), True),
        (record(), False, {"v"}, set(), False),
        (record(), False, set(), {samples.UID}, True),
        (record(), True, set(), {samples.UID}, False),
        (record(), True, set(), set(), True),
        (record(retained="2026-01-01T00:00:00Z"), False, set(), set(), False),
        (record(cluster=THEM), False, set(), set(), False),
    ],
)
def test_what_is_worth_a_live_look(
    held: Record, pending: bool, volumes: set[str], waiting: set[str], expected: bool
) -> None:
    """A record of this cluster is in doubt if it has no volume and, for an attempt, no waiting claim."""
    found = doubtful({"v": held}, {"v"} if pending else set(), cluster=US, volumes=volumes, waiting=waiting)
    assert found == (["v"] if expected else [])


# ------------------------------------------------------------------------------------------------------- kinds


def test_nothing() -> None:
    """If each record has its volume, there is no orphan."""
    assert find(evidence({"v": record()}, volumes={"v"}, signs={US: "long ago"})) == []


def test_a_volume_that_was_deleted_by_hand() -> None:
    """A directory whose volume is gone is reported with all data of its record."""
    orphan = one(find(evidence({"v": record("shop/data")}, left={"v"})))
    assert orphan == Orphan(
        kind="volume-gone",
        export="nas:/exports",
        directory="shop/data",
        volume="v",
        claim="shop/data",
        since="2026-01-01T00:00:00Z",
        why=orphan.why,
        advice=orphan.advice,
    )
    assert "PersistentVolume is gone" in orphan.why
    assert "recover --volume" in orphan.advice


def test_an_attempt_whose_directory_has_data() -> None:
    """A directory with data, whose claim was deleted before it had a volume, is reported as such."""
    orphan = one(find(evidence({"v": record()}, pending={"v"}, left={"v"})))
    assert orphan.kind == "attempt-left"
    assert "removed with its record" in orphan.advice


def test_an_unreadable_entry() -> None:
    """An unreadable entry of the ledger is reported by its name."""
    orphan = one(find(evidence(unreadable={"odd"})))
    assert (orphan.kind, orphan.volume, orphan.directory, orphan.claim) == ("unreadable", "odd", "", "")


@pytest.mark.parametrize(
    ("signs", "gone", "words"),
    [
        ({}, True, f"no provisioner of cluster {THEM} has been at work on this export"),
        ({THEM: times.text(NOW - SILENT_AFTER - timedelta(seconds=1))}, True, "since 2026-01-01T11:49:59Z"),
        ({THEM: "yesterday"}, True, "since yesterday"),
        ({THEM: times.text(NOW - SILENT_AFTER)}, False, ""),
        ({THEM: times.text(NOW + timedelta(days=1))}, False, ""),
    ],
)
def test_a_cluster_that_is_gone(signs: Mapping[str, str], gone: bool, words: str) -> None:
    """Records of a cluster whose provisioner has been silent are reported, those of a live one are not."""
    found = find(evidence({"v": record(cluster=THEM)}, signs=signs))
    assert [orphan.kind for orphan in found] == (["cluster-gone"] if gone else [])
    assert not gone or words in found[0].why


def test_a_record_without_a_cluster() -> None:
    """A record without a cluster is reported as such."""
    assert "does not name" in one(find(evidence({"v": record(cluster="")}))).why


@pytest.mark.parametrize("cluster", [US, THEM])
def test_what_was_to_stay(cluster: str) -> None:
    """A retained directory is not an orphan, in any cluster."""
    held = record(cluster=cluster, retained="2026-01-01T00:00:00Z")
    assert find(evidence({"v": held}, left={"v"})) == []


def test_an_unknown_directory() -> None:
    """A directory that neither the ledger nor the API server knows is reported."""
    orphan = one(find(evidence({"v": record("shop/data")}, volumes={"v"}, unknown_directories=[("shop", "old")])))
    assert (orphan.kind, orphan.directory, orphan.volume) == ("unknown", "shop/old", "")


@pytest.mark.parametrize("path", [("shop", "old"), ("shop",), ("shop", "old", "below")])
def test_a_directory_that_a_claim_got_since(path: RelPath) -> None:
    """An unknown directory that overlaps with one that now has a volume or record is not reported."""
    assert find(evidence(unknown_directories=[("shop", "old")], held={path: "v"})) == []
    assert find(evidence({"v": record("/".join(path))}, volumes={"v"}, unknown_directories=[("shop", "old")])) == []


@pytest.mark.parametrize("cluster", [US, THEM])
def test_a_directory_that_another_volume_has(cluster: str) -> None:
    """A directory for which an admin created another volume is in use, and not reported."""
    held = record("shop/data", cluster=cluster)
    assert find(evidence({"v": held}, left={"v"}, held={("shop", "data"): "by-hand"})) == []


def test_order() -> None:
    """Orphans are sorted by kind and directory, so that the output is stable."""
    records = {name: record(directory) for name, directory in (("v1", "b"), ("v2", "a"), ("v3", "c"))}
    found = find(evidence(records, pending={"v3"}, left=set(records), unreadable={"u"}, unknown_directories=[("x",)]))
    assert [(each.kind, each.directory) for each in found] == [
        ("attempt-left", "c"), ("unknown", "x"), ("unreadable", ""), ("volume-gone", "a"), ("volume-gone", "b"),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- knowing


def volume(server: str, path: str) -> Volume:
    """A volume of any provisioner."""
    return samples.volume(nfs=NfsSource(server, path))


def test_known() -> None:
    """Directories of records, of any volume and of exports inside the export are known; others do not matter."""
    driven = Volume(
        spec=VolumeSpec(
            csi=CsiSource("nfs.csi.k8s.io", {"server": "nas", "share": "/exports", "subDir": "csi/one"})
        )
    )  # fmt: skip
    volumes = [volume("nas", "/exports/by/hand"), volume("other", "/exports/x"), volume("nas", "/exports"), driven]
    index = known([NAS], [record("a/b")], [*volumes, Volume()], [NAS, Location("nas", "/exports/inner")])
    there = [("a", "b"), ("by", "hand"), ("csi", "one"), ("inner",)]
    assert all(index.owners(path) for path in there)
    assert all(index.leads_on(path) for path in (("a",), ("by",), ("csi",)))
    assert not index.owners(("x",))
    assert not index.leads_on(("inner",))


# ------------------------------------------------------------------------------------------------------- the rule

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple)
RECORDS = st.dictionaries(
    st.sampled_from([f"v{number}" for number in range(6)]),
    st.builds(
        record,
        PATHS.map("/".join),
        cluster=st.sampled_from([US, THEM, ""]),
        retained=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
    ),
)


@given(
    records=RECORDS,
    live=st.dictionaries(PATHS, st.sampled_from(["x", "y"])),
    names=st.sets(st.sampled_from([f"v{number}" for number in range(6)])),
    unknown_directories=st.lists(PATHS),
    signs=st.dictionaries(st.sampled_from([US, THEM, ""]), st.sampled_from(["", times.text(NOW)])),
    pending=st.sets(st.sampled_from([f"v{number}" for number in range(6)])),
)
def test_a_live_volume_is_never_an_orphan(
    records: Mapping[str, Record],
    live: Mapping[RelPath, str],
    names: set[str],
    unknown_directories: list[RelPath],
    signs: Mapping[str, str],
    pending: set[str],
) -> None:
    """No orphan overlaps with the directory of a volume of the cluster, whatever else is wrong."""
    index = PathIndex()
    for path, name in live.items():
        index.add(path, name)
    seen = evidence(
        records,
        left=set(records),
        held=live,
        volumes=names,
        unknown_directories=unknown_directories,
        signs=signs,
        pending=pending,
    )
    for orphan in find(seen):
        assert index.touching(tuple(orphan.directory.split("/"))) is None
        assert orphan.volume not in names


def test_known_on_a_server_that_folds_names() -> None:
    """On a server that folds names, a directory in another spelling of a known one is not unknown."""
    args = ([NAS], [record("Team")], [volume("nas", "/exports/By/hand")], ())
    assert known(*args, folds=True).owners(("team",))
    assert known(*args, folds=True).leads_on(("by",))
    assert not known(*args).owners(("team",))


def test_known_by_another_name() -> None:
    """A volume can name its directory by any location of the export."""
    index = known([NAS, Location("10.0.0.5", "/srv")], (), [volume("10.0.0.5", "/srv/a")], ())
    assert index.owners(("a",))
