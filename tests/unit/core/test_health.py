"""core.health: what `check` reports of the running daemon and of its work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from provisioner.core import health, names
from provisioner.core.checks import Use
from provisioner.core.leases import LeaseRecord
from provisioner.core.ledgers import Installation, Ledger
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, ClaimStatus, Metadata, NfsSource, StorageClass, Volume
from provisioner.core.records import Record
from provisioner.core.recovery import Place
from tests.support import samples

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
NAS = Location("nas", "/exports")


def at(ago_s: float) -> str:
    return (NOW - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease(*, holder: str = "pod-a", renewed: str = "", program: str = "") -> LeaseRecord:
    return LeaseRecord(holder=holder, duration_s=15.0, acquired=at(3600), renewed=renewed, program=program)


# ---------------------------------------------------------------------------------------------------- the daemon


@pytest.mark.parametrize(
    ("renewed", "fresh"),
    [(at(1), True), (at(14), True), (at(16), False), (at(-3), True), (at(-60), False), ("", False), ("2026", False)],
)
def test_a_fresh_lease(renewed: str, fresh: bool) -> None:
    """A lease counts as held for its duration after a renewal; an impossible time does not count."""
    assert health.is_fresh(lease(renewed=renewed), NOW) is fresh
    assert not health.is_fresh(lease(holder="", renewed=renewed), NOW)


def test_a_leader() -> None:
    """A held lease is reported with its holder, since when, and when it was renewed."""
    found = health.leader(
        lease(renewed=at(2)), held=True, namespace="storage", name="ours", classes=[samples.storage_class()], now=NOW
    )
    assert (found.kind, found.name, found.ok, found.advice) == ("leader", "storage/ours", True, "")
    assert found.result == f"held by pod-a since {at(3600)}, renewed 2s ago"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (None, "there is no such Lease"),
        (lease(holder="", renewed=at(60)), "no daemon holds the Lease, released 60s ago"),
        (lease(renewed=at(31)), "the Lease is stale: pod-a holds it, renewed 31s ago, for 15 s each time"),
        (lease(renewed=""), "renewed at an unknown time"),
    ],
    ids=["none", "released", "stale", "never renewed"],
)
def test_no_leader(seen: LeaseRecord | None, words: str) -> None:
    """A missing leader is a failure, with the classes that no daemon serves and where to look."""
    classes = [samples.storage_class()]
    found = health.leader(seen, held=False, namespace="storage", name="ours", classes=classes, now=NOW)
    assert not found.ok
    assert words.replace("60s", "1m0s") in found.result
    assert "no daemon serves StorageClass nfs" in found.result
    assert "kubectl get pods -n storage" in found.advice
    without = health.leader(seen, held=False, namespace="storage", name="ours", classes=(), now=NOW)
    assert "serves" not in without.result


def test_no_election() -> None:
    """Without leader election the daemon's state is unknown: a warning, not a failure."""
    found = health.not_elected("storage")
    assert (found.ok, found.warning) == (True, True)


def test_versions() -> None:
    """The versions of daemon and command are reported; that of the daemon can be unknown."""
    assert health.versions("1.0", None).result == "command 1.0, daemon unknown"
    assert health.versions("1.0", lease()).result == "command 1.0, daemon unknown"
    same, other = health.versions("1.0", lease(program="1.0")), health.versions("1.0", lease(program="0.9"))
    assert (same.ok, same.warning, same.advice) == (True, False, "")
    assert (other.ok, other.warning) == (True, True)
    assert "daemon 0.9" in other.result


# ---------------------------------------------------------------------------------------------------- its work


def claim(name: str, created: str, **fields: object) -> Claim:
    made = samples.claim(name=name, **fields)  # type: ignore[arg-type]
    return structs.replace(made, metadata=structs.replace(made.metadata, creation_timestamp=created))


def test_pending_claims() -> None:
    """Pending claims of this provisioner are listed, oldest first."""
    claims = [
        claim("young", "2026-05-01T11:00:00Z"),
        claim("old", "2026-05-01T09:00:00Z"),
        claim("bound", "2026-05-01T09:00:00Z", status=ClaimStatus(phase="Bound")),
        claim("going", "2026-05-01T09:00:00Z", deleted=True),
        claim("another's", "2026-05-01T09:00:00Z", provisioner="example.com/other"),
    ]
    found = health.pending(claims, samples.US)
    assert [each.metadata.name for each in found] == ["old", "young"]
    finding = health.waits(found[0], "ProvisioningFailed: no", NOW)
    assert (finding.name, finding.ok, finding.warning) == ("shop/old", True, True)
    assert finding.result == "Pending for 3h0m: ProvisioningFailed: no"
    assert finding.advice == "kubectl describe pvc -n shop old"
    assert "an unknown time" in health.waits(samples.claim(), "", NOW).result


def test_what_the_rules_say() -> None:
    """Without an event, the daemon's own rules give the reason why a claim has no volume, if they can."""

    def why(waiting: Claim, storage_class: StorageClass | None, failing: dict[str, str] | None = None) -> str:
        return health.expected_reason(waiting, storage_class, samples.US, NAS, failing or {})

    waiting, good = samples.claim(), samples.storage_class()
    assert why(waiting, good) == ""
    assert why(waiting, good, {"nas:/exports": "it does not answer"}) == "export nas:/exports: it does not answer"
    assert "onDelet is unknown" in why(waiting, samples.storage_class({"onDelet": "x"}))
    assert why(waiting, None) == "the claim's class does not exist"
    assert why(samples.claim(provisioner="example.com/other"), good) == ""


def test_volumes_that_are_not_reclaimed() -> None:
    """Released and Failed volumes with policy Delete are listed; those retained, in use, or another's are not."""
    volumes = [
        samples.volume(name="b"),
        samples.volume(name="a", phase="Failed"),
        samples.volume(name="kept", policy="Retain"),
        samples.volume(name="used", phase="Bound"),
        samples.volume(name="other", provisioner="example.com/other"),
    ]
    found = health.unreclaimed(volumes, samples.US)
    assert [each.name for each in found] == ["a", "b"]
    finding = health.stays(found[0], "VolumeFailedDelete: no")
    assert (finding.ok, finding.warning) == (True, True)
    assert finding.result == "Failed, with reclaim policy Delete, and not reclaimed: VolumeFailedDelete: no"
    assert finding.advice == "kubectl describe pv a"


def test_the_rest_is_counted() -> None:
    """Claims and volumes that are not listed one by one are counted."""
    assert health.more(0, 0) == []
    claims, volumes = health.more(1, 12)
    assert (claims.kind, claims.result) == ("claim", "1 more claim, also Pending")
    assert (volumes.kind, volumes.result) == ("volume", "12 more volumes, also not reclaimed")


def on(path: str, *, name: str, server: str = "nas", options: tuple[str, ...] = (), directory: str = "") -> Volume:
    made = samples.volume(name=name, nfs=NfsSource(server, path), annotations={names.DIRECTORY: directory or name})
    return structs.replace(made, spec=structs.replace(made.spec, mount_options=options))


def test_volumes_on_unknown_exports() -> None:
    """Volumes on unknown exports are reported per export, with a few of their names."""
    uses = [Use(NAS, MountOptions()), Use(Location("nas", "/mounted"), MountOptions())]
    volumes = [
        on("/exports/a", name="a"),
        on("/mounted/b", name="b", options=("port=2050",)),
        on("/exports/c", name="c", options=("port=2050",)),
        on("/exports/d", name="d", options=("port=many",)),
        *(on(f"/old/{name}", name=name, server="NAS2") for name in "efghijk"),
        on("/elsewhere/l", name="l", directory="no"),
        samples.volume(name="m", nfs=None),
        samples.volume(name="n", nfs=NfsSource("x", "/y"), provisioner="example.com/other"),
    ]
    found = health.on_unknown_exports(volumes, samples.US, uses=uses, mounted={Location("nas", "/mounted")})
    assert [each.name for each in found] == ["nas2:/old", "nas:/elsewhere/l", "nas:/exports port 2050"]
    assert found[0].result.startswith("7 volumes on it")
    assert found[0].result.endswith(": e, f, g, h, i and 2 more")
    assert found[2].result.endswith(": c")
    assert all(each.ok and each.warning for each in found)


INNER = Location("nas", "/exports/team")


def marked(name: str, directory: str, *, id: str = "e1", port: int | None = None, where: Location = NAS) -> Volume:
    options = () if port is None else (f"port={port}",)
    nfs = NfsSource(where.server, where.below((directory,)))
    said = {names.DIRECTORY: directory, names.EXPORT_ID: id}
    return samples.volume(name=name, phase="Bound", nfs=nfs, annotations=said, mount_options=options)


def test_which_volumes_are_on_an_export() -> None:
    """Each volume belongs to one ledger: that of the innermost export on its path, at the port that it names."""
    outer, inner = Use(NAS, MountOptions()), Use(INNER, MountOptions())
    other = Use(NAS, MountOptions(port=12049))
    volumes = [
        marked("a", "a"),
        marked("b", "b", where=INNER),
        marked("c", "c", port=12049),
        samples.volume(name="d", nfs=None),
        marked("e", "e", where=Location("other", "/")),
    ]
    uses = [outer, inner, other]
    found = [[volume.name for volume, _ in health.on_export(volumes, each, uses, ())] for each in uses]
    assert found == [["a"], ["b"], ["c"]]
    ((volume, path),) = health.on_export([volumes[2]], outer, [outer], {NAS})
    assert (volume.name, path) == ("c", ("c",))


def of_ledger(id: str, records: Mapping[str, Record], *volumes: Volume) -> list[tuple[bool, str]]:
    place = Place(name="nas:/exports", location=NAS, id=id)
    found = [(volume, (volume.metadata.annotations[names.DIRECTORY],)) for volume in volumes]
    findings = health.of_ledger(
        Ledger(place=place, records=records), found, Installation(provisioner=samples.US, cluster="")
    )
    assert all("recover --ledger" in each.advice for each in findings)
    return [(each.ok, each.result) for each in findings]


def test_ledgers_and_volumes() -> None:
    """A lost ledger is a failure; single volumes that do not match are a warning, counted and named."""
    ours = [marked(f"v{number}", f"v{number}") for number in range(7)]
    records = {volume.name: samples.record(volume.name, volume_uid=volume.metadata.uid) for volume in ours}
    assert of_ledger("e1", records, *ours) == []
    assert of_ledger("e1", {}, *ours) == []
    shown = "(v0, v1, v2, v3, v4 and 2 more)"
    assert of_ledger("", {}, *ours) == [(False, f"its ledger is gone: 7 volumes on it {shown}")]
    another = "its ledger has another id than its volumes: 1 volume on it (v0)"
    assert of_ledger("e2", {}, *ours[:1]) == [(False, another)]
    odd = [marked("odd", "odd", id="e2"), *ours]
    wrong = "1 volume whose record or export id does not match: odd"
    assert of_ledger("e1", records, *odd) == [(True, wrong)]
    foreign = structs.replace(records["v0"], cluster="another")
    wrong = "1 volume whose record or export id does not match: v0"
    assert of_ledger("e1", {**records, "v0": foreign}, *ours) == [(True, wrong)]
    assert of_ledger("", {}) == []


def test_volumes_that_lack_something() -> None:
    """Volumes that lack something are counted by what they lack, and named."""
    used = [(marked(name, name), (name,)) for name in ("a", "b", "c")]
    records = {name: samples.record(name) for name in ("a", "b")}
    assert health.lacking("nas", used[:2], records, set()) == []
    found = health.lacking("nas", used, records, {("a",)})
    assert [each.result for each in found] == [
        "1 volume in use, without a directory: a",
        "1 volume in use, without a record: c",
    ]
    assert all(each.ok and each.warning for each in found)


def test_two_default_classes() -> None:
    """Several default classes are reported if one of them is this provisioner's, by either annotation."""

    def default(name: str, key: str, provisioner: str = samples.US, value: str = "true") -> StorageClass:
        made = samples.storage_class(provisioner=provisioner)
        return structs.replace(made, metadata=Metadata(name=name, annotations={key: value}))

    old, new = reversed(names.DEFAULT_CLASS_ANNOTATIONS)
    first, second, third = default("a", new), default("b", old, "example.com/other"), default("c", new, value="false")
    (found,) = health.defaults([second, first, third], samples.US)
    assert (found.ok, found.warning) == (True, True)
    assert "2 classes are the default" in found.result
    assert found.result.endswith(": a, b")
    assert health.defaults([first, third], samples.US) == []
    assert health.defaults([second, second], samples.US) == []
