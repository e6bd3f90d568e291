"""core.snapshots: which VolumeSnapshots are served, and which data belongs to a content."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from msgspec import structs

from provisioner.core import names, snapshots
from provisioner.core.archives import Moment
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import Location
from provisioner.core.objects import (
    ClaimRef,
    ContentError,
    ContentSource,
    ContentSpec,
    ContentStatus,
    DataSource,
    Metadata,
    Snapshot,
    SnapshotClass,
    SnapshotContent,
    SnapshotSource,
    SnapshotSpec,
)
from provisioner.core.records import SnapshotRecord, decode_snapshot, encode
from provisioner.core.snapshots import Fail, Ignore, Release, Serve, SnapshotView, Take, Wait, Withdraw
from provisioner.core.tenancy import Tenant
from tests.support import samples

UID = "5a5a"
HOUR = timedelta(hours=1)
CLAIM = samples.claim(spec=samples.claim_spec(volume_name=samples.VOLUME), status=samples.claim().status)
CLAIM = structs.replace(CLAIM, status=structs.replace(CLAIM.status, phase="Bound"))
VOLUME = samples.volume(phase="Bound")
SNAPSHOT = Snapshot(
    Metadata(name="nightly", namespace="shop", uid=UID),
    SnapshotSpec(SnapshotSource(persistent_volume_claim_name="data"), "snaps"),
)
CLASS = SnapshotClass(Metadata(name="snaps"), samples.US, "Delete")
REFERENCE = ClaimRef("shop", "nightly", UID)
CONTENT = SnapshotContent(
    Metadata(name=names.content_name(UID), uid="c", finalizers=(names.CONTENT_FINALIZER,)),
    ContentSpec(samples.US, "Delete", ContentSource(volume_handle=VOLUME.name), REFERENCE),
)
READY = ContentStatus(UID, ready_to_use=True)
NOW = "2026-01-02T00:00:00Z"
RECORD = SnapshotRecord("shop", "nightly", "data", VOLUME.name, "snaps", VOLUME.capacity, NOW, "c1")
VIEW = SnapshotView(
    provisioner=samples.US,
    cluster="c1",
    now=NOW,
    content=None,
    snapshot=SNAPSHOT,
    snapshot_class=CLASS,
    claim=CLAIM,
    volume=VOLUME,
    stored=None,
    begun=False,
    shared=False,
    all_read=True,
)
WITH = replace(VIEW, content=CONTENT)


def deleted(content: SnapshotContent, *, asked: bool = True) -> SnapshotContent:
    annotations = {names.SNAPSHOT_BEING_DELETED: "yes"} if asked else {}
    metadata = structs.replace(content.metadata, deletion_timestamp=NOW, annotations=annotations)
    return structs.replace(content, metadata=metadata)


def spec(content: SnapshotContent, **changes: Any) -> SnapshotContent:
    return structs.replace(content, spec=structs.replace(content.spec, **changes))


def test_a_new_snapshot() -> None:
    """A snapshot of a claim of ours, with a class of ours, is taken, before and after its content exists."""
    assert snapshots.decide(VIEW) == snapshots.decide(WITH) == Take(RECORD)
    begun = structs.replace(CONTENT, status=ContentStatus())
    assert snapshots.decide(replace(WITH, content=begun)) == Take(RECORD)


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (replace(VIEW, snapshot_class=None), Ignore),
        (replace(VIEW, snapshot_class=SnapshotClass(Metadata(name="x"), "other")), Ignore),
        (replace(VIEW, snapshot=structs.replace(SNAPSHOT, spec=SnapshotSpec())), Ignore),
        (replace(VIEW, claim=None), Wait),
        (replace(VIEW, claim=samples.claim(), volume=None), Wait),
        (replace(VIEW, volume=None), Fail),
        (replace(VIEW, volume=samples.volume(phase="Released")), Fail),
        (replace(VIEW, volume=structs.replace(VOLUME, metadata=Metadata(name=VOLUME.name))), Fail),
        (replace(VIEW, snapshot_class=structs.replace(CLASS, parameters={"x": "y"})), Fail),
        (replace(WITH, content=spec(CONTENT, driver="other")), Ignore),
        (replace(WITH, content=spec(CONTENT, source=ContentSource(volume_handle="foreign"))), Fail),
    ],
)
def test_what_is_not_taken(view: SnapshotView, what: type) -> None:
    """Snapshots of others, and of claims that have no volume of ours, are not taken."""
    assert type(snapshots.decide(view)) is what


UNNAMED = structs.replace(SNAPSHOT, spec=SnapshotSpec(SnapshotSource(persistent_volume_claim_name="data")))
DEFAULT = structs.replace(CLASS, metadata=Metadata(name="snaps", annotations={names.DEFAULT_SNAPSHOT_CLASS: "true"}))


def test_the_parameters_of_a_class() -> None:
    """The class says which export keeps the snapshot, and for how long; what it says wrong is refused."""
    parameters = {"server": "nas", "share": "/snapshots", "retention": "30d"}
    view = replace(VIEW, snapshot_class=structs.replace(CLASS, parameters=parameters))
    assert snapshots.decide(view) == Take(structs.replace(RECORD, retention="30d"), Location("nas", "/snapshots"))
    refused = snapshots.decide(replace(view, snapshot_class=structs.replace(CLASS, parameters={"serve": "nas"})))
    assert refused == Fail("VolumeSnapshotClass snaps: parameter serve is unknown: use one of server, share, retention")


def test_a_retention() -> None:
    """A deleted snapshot with a retention is only marked; data that another content has stays as it is."""
    kept = structs.replace(RECORD, retention="1h")
    view = replace(WITH, content=deleted(CONTENT), stored=kept)
    assert snapshots.decide(view) == Release(data=True, retained=True)
    assert snapshots.decide(replace(view, shared=True)) == Release(data=False)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [Moment(wall=at + passed, steady=at + passed, server=at + passed) for passed in (HOUR, 2 * HOUR)]
    assert [snapshots.is_over(kept, "2026-01-01T00:00:00Z", each) for each in moments] == [False, True]
    assert not snapshots.is_over(RECORD, "2026-01-01T00:00:00Z", moments[1])
    assert not snapshots.is_over(kept, "odd", moments[1])
    row = snapshots.listed("h", kept, export="nas:/x", cluster="c1", deleted="2026-01-01T00:00:00Z")
    assert (row.deleted, row.kept_until) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")


def test_whose_snapshot() -> None:
    """By its handle alone, a snapshot is given to its own namespace, and not to a later one of the same name."""
    record = structs.replace(RECORD, namespace_uid="ns-1")
    assert snapshots.not_of("h", record, Tenant(uid="ns-1")) == ""
    assert "an earlier namespace shop" in snapshots.not_of("h", record, Tenant(uid="ns-2"))
    assert snapshots.not_of("h", record, Tenant(uid="ns-2", accepts_former=True)) == ""


def test_the_class_of_a_snapshot() -> None:
    """The class that it names counts; without a name, the one default class of the driver."""
    other = structs.replace(DEFAULT, driver="other", metadata=structs.replace(DEFAULT.metadata, name="other"))
    second = structs.replace(DEFAULT, metadata=structs.replace(DEFAULT.metadata, name="second"))
    assert snapshots.class_of(SNAPSHOT, {"snaps": CLASS}, samples.US) == CLASS
    assert snapshots.class_of(SNAPSHOT, {}, samples.US) is None
    assert snapshots.class_of(UNNAMED, {"snaps": CLASS}, samples.US) is None
    assert snapshots.class_of(UNNAMED, {"snaps": DEFAULT, "other": other}, samples.US) == DEFAULT
    assert snapshots.class_of(UNNAMED, {"snaps": DEFAULT, "second": second}, samples.US) is None


def test_a_snapshot_that_names_no_class() -> None:
    """It gets the default class if its volume is of this provisioner, else it is left alone."""
    view = replace(VIEW, snapshot=UNNAMED, snapshot_class=DEFAULT)
    assert snapshots.decide(view) == Take(RECORD)
    created = structs.replace(CONTENT, spec=structs.replace(CONTENT.spec, volume_snapshot_class_name="snaps"))
    assert snapshots.decide(replace(view, content=created, snapshot_class=None)) == Take(RECORD)
    assert snapshots.decide(replace(view, stored=RECORD)) == Serve(UID, RECORD)
    without = replace(view, snapshot_class=None)
    assert isinstance(snapshots.decide(without), Fail)
    assert isinstance(snapshots.decide(replace(without, stored=RECORD)), Ignore)
    foreign = structs.replace(VOLUME, metadata=Metadata(name=VOLUME.name))
    for volume in (None, foreign):
        assert isinstance(snapshots.decide(replace(view, volume=volume)), Ignore)
    bare = replace(view, content=CONTENT, snapshot_class=None)
    assert snapshots.decide(bare) == Take(structs.replace(RECORD, class_name=""))


def test_a_source_that_is_gone() -> None:
    """A copy goes on although its claim is gone, from the volume that was the claim's."""
    released = samples.volume(phase="Released")
    assert snapshots.decide(replace(WITH, claim=None, volume=released)) == Take(RECORD)
    unclaimed = structs.replace(released, spec=structs.replace(released.spec, claim_ref=None))
    assert isinstance(snapshots.decide(replace(WITH, claim=None, volume=unclaimed)), Fail)


def test_a_complete_snapshot() -> None:
    """The ledger's record makes a snapshot complete, whatever became of its source; then nothing is left to do."""
    view = replace(WITH, stored=RECORD, claim=None, volume=None)
    assert snapshots.decide(view) == Serve(UID, RECORD)
    ready = structs.replace(CONTENT, status=READY)
    assert isinstance(snapshots.decide(replace(view, content=ready)), Ignore)
    for status in (
        structs.replace(READY, error=ContentError("x")),
        structs.replace(READY, snapshot_handle="forged"),
        structs.replace(READY, ready_to_use=False),
    ):
        assert snapshots.decide(replace(view, content=structs.replace(CONTENT, status=status))) == Serve(UID, RECORD)
    assert snapshots.decide(replace(view, content=None)) == Serve(UID, RECORD)
    other = structs.replace(RECORD, namespace="other")
    assert isinstance(snapshots.decide(replace(view, content=None, stored=other)), Fail)
    assert isinstance(snapshots.decide(replace(view, stored=other)), Fail)


def test_a_content_that_the_ledger_does_not_know() -> None:
    """A content is served only with the ledger's record; while an export is unknown, it can have the record."""
    ready = replace(WITH, content=structs.replace(CONTENT, status=READY))
    foreign = replace(WITH, content=spec(CONTENT, source=ContentSource(snapshot_handle="h")))
    for view in (ready, foreign):
        assert isinstance(snapshots.decide(view), Fail)
        assert isinstance(snapshots.decide(replace(view, all_read=False)), Wait)
    assert snapshots.decide(replace(foreign, stored=RECORD)) == Serve("h", RECORD)
    renamed = structs.replace(CONTENT, metadata=Metadata(name="by-hand"))
    assert isinstance(snapshots.decide(replace(WITH, content=renamed)), Fail)


def test_a_snapshot_whose_data_is_lost() -> None:
    """It fails until a ledger has its data again: newer data never takes its place."""
    view = replace(WITH, content=structs.replace(CONTENT, status=READY))
    assert isinstance(snapshots.decide(view), Fail)
    reported = structs.replace(CONTENT, status=structs.replace(READY, ready_to_use=False, error=ContentError("x")))
    assert isinstance(snapshots.decide(replace(view, content=reported)), Fail)
    assert isinstance(snapshots.decide(replace(view, content=deleted(reported, asked=False))), Wait)
    assert snapshots.decide(replace(view, content=reported, stored=RECORD)) == Serve(UID, RECORD)
    assert snapshots.decide(replace(view, content=reported, begun=True)) == Take(RECORD)  # a forged handle


def test_a_snapshot_that_is_gone() -> None:
    """A snapshot that is gone before its copy is complete leaves no content and no copy."""
    leaving = structs.replace(SNAPSHOT, metadata=structs.replace(SNAPSHOT.metadata, deletion_timestamp=NOW))
    assert snapshots.decide(replace(VIEW, snapshot=None)) == Withdraw()
    assert snapshots.decide(replace(WITH, snapshot=None)) == Withdraw()
    assert isinstance(snapshots.decide(replace(WITH, snapshot=None, all_read=False)), Wait)
    assert snapshots.decide(replace(VIEW, snapshot=leaving)) == Withdraw()
    assert isinstance(snapshots.decide(replace(VIEW, snapshot=leaving, stored=RECORD)), Ignore)
    assert isinstance(snapshots.decide(replace(WITH, snapshot=leaving)), Wait)


def test_a_snapshot_that_is_deleted_during_its_copy() -> None:
    """What has begun goes on, as a claim that restores from the snapshot can hold up its deletion."""
    leaving = structs.replace(SNAPSHOT, metadata=structs.replace(SNAPSHOT.metadata, deletion_timestamp=NOW))
    view = replace(WITH, snapshot=leaving, begun=True)
    assert snapshots.decide(view) == Take(RECORD)
    by_hand = replace(view, content=deleted(CONTENT, asked=False))
    assert snapshots.decide(by_hand) == Take(RECORD)
    assert snapshots.decide(replace(by_hand, stored=RECORD, begun=False)) == Serve(UID, RECORD)
    assert snapshots.decide(replace(view, content=deleted(CONTENT))) == Release(data=False)
    assert snapshots.decide(replace(view, content=None)) == Withdraw()


def test_a_snapshot_that_the_controller_never_saw() -> None:
    """A complete content goes if its snapshot was deleted before the snapshot-controller saw it, and only then."""
    unseen = structs.replace(CONTENT, status=READY, metadata=structs.replace(CONTENT.metadata, finalizers=()))
    view = replace(WITH, content=unseen, stored=RECORD, snapshot=None)
    assert snapshots.decide(view) == Release(data=True)
    assert snapshots.decide(replace(view, content=spec(unseen, deletion_policy="Retain"))) == Release(data=False)
    assert isinstance(snapshots.decide(replace(view, snapshot=SNAPSHOT)), Ignore)
    seen = structs.replace(unseen, metadata=CONTENT.metadata)
    assert isinstance(snapshots.decide(replace(view, content=seen)), Ignore)
    foreign = spec(unseen, source=ContentSource(snapshot_handle=UID))
    assert isinstance(snapshots.decide(replace(view, content=foreign)), Ignore)


def test_deletion() -> None:
    """Data goes only with policy Delete, by the snapshot-controller's wish, and if the record is this cluster's."""
    leaving = deleted(CONTENT)
    view = replace(WITH, content=leaving, stored=RECORD)
    assert snapshots.decide(view) == Release(data=True)
    kept = deleted(spec(CONTENT, deletion_policy="Retain"))
    assert snapshots.decide(replace(view, content=kept)) == Release(data=False)
    assert snapshots.decide(replace(view, stored=structs.replace(RECORD, cluster="c2"))) == Release(data=False)
    assert snapshots.decide(replace(view, stored=None)) == Release(data=False)
    assert isinstance(snapshots.decide(replace(view, stored=None, all_read=False)), Wait)
    assert isinstance(snapshots.decide(replace(view, content=kept, stored=None, all_read=False)), Wait)
    served = structs.replace(kept, status=READY)
    assert snapshots.decide(replace(view, content=served, stored=None, all_read=False)) == Release(data=False)
    lost = replace(view, content=structs.replace(leaving, status=READY), stored=None)
    assert isinstance(snapshots.decide(lost), Fail)
    begun = structs.replace(leaving, status=ContentStatus())
    assert snapshots.decide(replace(lost, content=begun)) == Release(data=False)
    released = structs.replace(CONTENT, metadata=structs.replace(CONTENT.metadata, finalizers=()))
    assert isinstance(snapshots.decide(replace(view, content=deleted(released))), Ignore)


def test_a_content_that_is_deleted_by_hand() -> None:
    """A content under a snapshot becomes ready, and stays with its data until the snapshot is deleted too."""
    view = replace(WITH, content=deleted(CONTENT, asked=False), stored=RECORD)
    assert snapshots.decide(view) == Serve(UID, RECORD)
    assert snapshots.decide(replace(view, stored=None)) == Take(RECORD)
    assert isinstance(snapshots.decide(replace(view, stored=None, volume=None)), Fail)
    ready = deleted(structs.replace(CONTENT, status=READY), asked=False)
    leaving = structs.replace(SNAPSHOT, metadata=structs.replace(SNAPSHOT.metadata, deletion_timestamp=NOW))
    foreign = deleted(spec(CONTENT, source=ContentSource(snapshot_handle=UID)), asked=False)
    renamed = structs.replace(ready, status=None, metadata=structs.replace(ready.metadata, name="by-hand"))
    assert isinstance(snapshots.decide(replace(view, content=ready)), Wait)
    assert isinstance(snapshots.decide(replace(view, content=foreign)), Wait)
    assert isinstance(snapshots.decide(replace(view, content=renamed, stored=None)), Wait)
    assert isinstance(snapshots.decide(replace(view, snapshot=None)), Wait)
    assert isinstance(snapshots.decide(replace(view, stored=None, snapshot=leaving)), Wait)
    assert snapshots.decide(replace(view, stored=None, snapshot=None)) == Release(data=False)
    unbound = deleted(spec(CONTENT, volume_snapshot_ref=ClaimRef("shop", "nightly")), asked=False)
    assert snapshots.decide(replace(view, content=unbound)) == Release(data=True)


def test_restoring() -> None:
    """A snapshot can become a volume if it and its content name each other, and the ledger has its data."""
    assert snapshots.unusable(CONTENT, SNAPSHOT, RECORD, samples.US) == ""
    assert "another driver" in snapshots.unusable(None, SNAPSHOT, RECORD, samples.US)
    assert "another driver" in snapshots.unusable(CONTENT, SNAPSHOT, RECORD, "x")
    assert "no ledger" in snapshots.unusable(CONTENT, SNAPSHOT, None, samples.US)
    other = spec(CONTENT, volume_snapshot_ref=ClaimRef("shop", "nightly", "other"))
    assert "name each other" in snapshots.unusable(other, SNAPSHOT, RECORD, samples.US)
    assert DataSource("VolumeSnapshot", "x", names.SNAPSHOT_GROUP).is_snapshot
    assert not DataSource("VolumeSnapshot", "x", "other").is_snapshot


def test_objects() -> None:
    """A content names its snapshot and the volume; its status has a time only once the copy is complete."""
    body: Any = snapshots.content_body(SNAPSHOT, CLASS, VOLUME.name)
    assert body["metadata"]["name"] == CONTENT.name
    assert body["spec"]["source"] == {"volumeHandle": VOLUME.name}
    assert "creationTime" not in snapshots.BEGUN["status"]
    status: Any = snapshots.complete_status(UID, RECORD)["status"]
    assert (status["creationTime"], status["restoreSize"]) == (1767312000 * 10**9, 2**30)
    odd: Any = snapshots.complete_status(UID, structs.replace(RECORD, created="odd"))["status"]
    assert odd["creationTime"] is None
    failed: Any = snapshots.failed_status("why", NOW)["status"]
    assert failed == {"readyToUse": False, "error": {"message": "why", "time": NOW}}


def test_names() -> None:
    """The name of a content has the snapshot's uid, and a copy's source is a snapshot or a volume."""
    assert names.snapshot_uid(names.content_name(UID)) == UID
    assert names.snapshot_uid("by-hand") == ""
    assert names.snapshot_handle(names.snapshot_source(UID)) == UID
    assert names.snapshot_handle("pvc-1") == ""
    assert SNAPSHOT.key == RECORD.key == "shop/nightly"


def test_records() -> None:
    """The record of a snapshot survives, and one that is too long or no record is refused."""
    assert decode_snapshot(encode(RECORD)) == RECORD
    with pytest.raises(InvalidRecord):
        encode(structs.replace(RECORD, claim="x" * 1024))
    with pytest.raises(InvalidRecord):
        decode_snapshot("odd")


def test_listing() -> None:
    """Snapshots are listed by claim, the newest first; their objects have their handles, and keep the data."""
    later = structs.replace(RECORD, created="2026-01-03T00:00:00Z", cluster="c2")
    rows = snapshots.in_order(
        snapshots.listed(handle, each, export="nas:/x", cluster="c1") for handle, each in (("a", RECORD), ("b", later))
    )
    assert [(each.handle, each.own) for each in rows] == [("b", False), ("a", True)]
    content, snapshot, *_ = cast(Any, snapshots.manifests(rows, samples.US)["items"])
    assert content["spec"]["source"] == {"snapshotHandle": "b"}
    assert content["spec"]["deletionPolicy"] == "Retain"
    assert snapshot["spec"]["source"] == {"volumeSnapshotContentName": content["metadata"]["name"]}
    assert snapshot["metadata"] == {"namespace": "shop", "name": "nightly"}
