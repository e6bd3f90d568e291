"""core.volumes: what a volume needs, and when its directory can be reclaimed."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import names
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, NfsSource, Volume
from provisioner.core.reasons import Reason
from provisioner.core.records import OnDelete, Record
from provisioner.core.volumes import (
    Deny,
    Finalizer,
    Leave,
    Reclaim,
    ReclaimFacts,
    authorize,
    cloned_message,
    decide,
    missing_message,
    moved,
    nowhere,
    snapshot_message,
)
from tests.support import samples

SEVERITY: tuple[OnDelete, ...] = ("retain", "archive", "delete")


@pytest.mark.parametrize(
    ("volume", "answer"),
    [
        pytest.param(samples.volume(), Reclaim("delete"), id="released"),
        pytest.param(samples.volume(deleted=True), Reclaim("delete"), id="released and terminating"),
        pytest.param(samples.volume(finalizers=()), Reclaim("delete"), id="released without the finalizer"),
        pytest.param(samples.volume(annotations={names.ON_DELETE: "?"}), Reclaim("retain"), id="no known rule"),
        pytest.param(samples.volume(phase="Bound", finalizers=()), Finalizer(present=True), id="bound"),
        pytest.param(samples.volume(policy="Retain"), Finalizer(present=False), id="retained with finalizer"),
        pytest.param(samples.volume(phase="Available", deleted=True), Finalizer(present=False), id="nobody's, deleted"),
        pytest.param(samples.volume(phase="Failed"), Reclaim("delete"), id="failed"),
        pytest.param(samples.peers_volume(), Reclaim("retain"), id="a peer's, released"),
    ],
)
def test_something_to_do(volume: Volume, answer: object) -> None:
    """A volume with policy Delete gets the finalizer, and is reclaimed when released; a retained one loses it."""
    assert decide(volume, samples.US) == answer


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        pytest.param(samples.volume(provisioner="other/one"), "another provisioner's", id="another's"),
        pytest.param(samples.volume(nfs=None), "not an NFS volume", id="no NFS"),
        pytest.param(samples.csi_volume({}, phase="Bound"), "not an NFS volume", id="csi-driver-nfs's"),
        pytest.param(samples.peers_volume(phase="Bound"), "Bound", id="a peer's, bound"),
        pytest.param(samples.peers_volume(policy="Retain"), "reclaim policy is Retain", id="a peer's, retained"),
        pytest.param(samples.volume(policy="Retain", finalizers=()), "reclaim policy is Retain", id="retained"),
        pytest.param(samples.volume(policy="Recycle", finalizers=()), "reclaim policy is Recycle", id="recycled"),
        pytest.param(samples.volume(deleted=True, finalizers=("other",)), "already reclaimed", id="done"),
        pytest.param(samples.volume(phase="Bound"), "Bound", id="bound"),
        pytest.param(samples.volume(phase="Bound", deleted=True), "Bound", id="bound and terminating"),
        pytest.param(samples.volume(phase="Available", finalizers=()), "Available", id="available"),
    ],
)
def test_left(volume: Volume, why: str) -> None:
    """Every other volume is left alone."""
    answer = decide(volume, samples.US)
    assert isinstance(answer, Leave)
    assert why in answer.why


def test_a_csi_volume_that_asks_for_us() -> None:
    """A released volume of csi-driver-nfs with the provisioner's name is not reclaimed, and its event says so."""
    answer = decide(samples.csi_volume({"server": "nas", "share": "/exports"}), samples.US)
    assert isinstance(answer, Deny)
    assert "csi-driver-nfs" in answer.message
    assert answer.reason == Reason.UNSUPPORTED_DRIVER


def evidence(
    *,
    volume: Volume | None = None,
    claim: Claim | None = None,
    path: RelPath = (samples.DIRECTORY,),
    record: Record | None = None,
    export_id: str = samples.EXPORT_ID,
) -> ReclaimFacts:
    """Facts that all match, with changes."""
    return ReclaimFacts(
        volume=volume or samples.volume(),
        claim=claim,
        export="nas:/exports",
        export_id=export_id,
        path=path,
        record=record or samples.record(),
    )


def test_authorized() -> None:
    """A directory is reclaimed if volume, ledger and export match and the claim is gone."""
    assert authorize(evidence(), samples.US) == Reclaim("delete")


def test_another_claim_of_the_name() -> None:
    """A new claim of the same name does not keep the volume that the record names."""
    again = evidence(claim=samples.claim(uid="another"), record=samples.record(volume_uid=f"uid-of-{samples.VOLUME}"))
    assert authorize(again, samples.US) == Reclaim("delete")


LATE = structs.replace(samples.volume().metadata, creation_timestamp="2026-01-02T00:00:00Z")


@pytest.mark.parametrize(
    ("of", "words"),
    [
        pytest.param(evidence(record=samples.record(volume_uid="former")), "another uid", id="another object"),
        pytest.param(evidence(record=samples.record(volume_uid="none")), "another uid", id="about to be recovered"),
        pytest.param(evidence(volume=structs.replace(samples.volume(), metadata=LATE)), "clearly older", id="younger"),
        pytest.param(evidence(claim=samples.claim(uid="another")), "has the name shop/data", id="its name is taken"),
    ],
)
def test_created_again(of: ReclaimFacts, words: str) -> None:
    """A volume that can be another object than the record's is not reclaimed, and its event says what to do."""
    answer = authorize(of, samples.US)
    assert isinstance(answer, Deny)
    assert words in answer.message
    assert f"recover --volume {samples.VOLUME}" in answer.message
    assert answer.reason == Reason.RECREATED_VOLUME


def test_the_recorded_object() -> None:
    """If the record has a uid, the time of creation does not matter."""
    record = samples.record(volume_uid=f"uid-of-{samples.VOLUME}")
    late = structs.replace(samples.volume(), metadata=LATE)
    assert authorize(evidence(volume=late, record=record), samples.US) == Reclaim("delete")


@pytest.mark.parametrize(
    ("of", "why"),
    [
        pytest.param(evidence(volume=samples.volume(phase="Bound")), "changed since", id="bound again"),
        pytest.param(evidence(volume=samples.volume(policy="Retain")), "changed since", id="retained now"),
        pytest.param(evidence(volume=samples.volume(deleted=True, finalizers=())), "changed since", id="done"),
        pytest.param(evidence(claim=samples.claim()), "claim still exists", id="claim exists"),
        pytest.param(evidence(claim=samples.claim(deleted=True)), "claim still exists", id="claim is terminating"),
    ],
)
def test_left_after_all(of: ReclaimFacts, why: str) -> None:
    """A volume that has changed since, or still has its claim, is left alone."""
    answer = authorize(of, samples.US)
    assert isinstance(answer, Leave)
    assert why in answer.why


@pytest.mark.parametrize(
    ("of", "reason", "words"),
    [
        pytest.param(
            evidence(volume=samples.volume(claim_uid=None)), Reason.MISSING_CLAIM_REF, "no claimRef", id="no claimRef"
        ),
        pytest.param(evidence(path=()), Reason.INVALID_PATH, "not a directory below", id="the export's root"),
        pytest.param(evidence(path=("..", "a")), Reason.INVALID_PATH, "not a directory below", id="dots"),
        pytest.param(evidence(path=(".",)), Reason.INVALID_PATH, "not a directory below", id="dot"),
        pytest.param(
            evidence(volume=samples.volume(annotations={names.ON_DELETE: ""})),
            Reason.INVALID_RULE,
            "is not delete, archive or retain",
            id="no rule",
        ),
        pytest.param(evidence(export_id="e2"), Reason.EXPORT_MISMATCH, "another export", id="another export"),
        pytest.param(dataclasses.replace(evidence(), record=None), Reason.MISSING_RECORD, "no record", id="no record"),
        pytest.param(
            evidence(record=samples.record(claim_uid="another")),
            Reason.RECORD_MISMATCH,
            "does not match",
            id="another claim",
        ),
        pytest.param(
            evidence(record=samples.record("elsewhere")),
            Reason.RECORD_MISMATCH,
            "does not match",
            id="another directory's record",
        ),
        pytest.param(
            evidence(path=(samples.DIRECTORY, "sub")),
            Reason.RECORD_MISMATCH,
            "does not match",
            id="a path below the record's",
        ),
        pytest.param(evidence(path=("elsewhere",)), Reason.RECORD_MISMATCH, "does not match", id="an edited path"),
    ],
)
def test_denied(of: ReclaimFacts, reason: Reason, words: str) -> None:
    """If anything does not match, nothing is deleted, and the event says what, with a machine reason."""
    answer = authorize(of, samples.US)
    assert isinstance(answer, Deny)
    assert words in answer.message
    assert answer.reason == reason


def test_a_recovered_volume() -> None:
    """A record that was recovered for a claim's name matches any later claim of that name."""
    recovered = evidence(record=samples.record(claim_uid=""), volume=samples.volume(claim_uid="new"))
    assert authorize(recovered, samples.US) == Reclaim("delete")
    elsewhere = samples.record(claim_uid="", namespace="another")
    assert isinstance(authorize(dataclasses.replace(recovered, record=elsewhere), samples.US), Deny)


def test_a_claim_that_a_volume_waits_for() -> None:
    """A volume whose claimRef has no uid is kept while any claim of that name exists."""
    waiting = evidence(volume=samples.volume(claim_uid=""), record=samples.record(claim_uid=""))
    assert isinstance(authorize(dataclasses.replace(waiting, claim=samples.claim()), samples.US), Leave)
    assert authorize(waiting, samples.US) == Reclaim("delete")


def taken_over(**changes: Any) -> ReclaimFacts:
    """Matching facts for a volume that was taken over from nfs-subdir."""
    record = samples.record(peer=True, on_delete=changes.pop("on_delete", "archive"))
    return dataclasses.replace(evidence(volume=samples.peers_volume(), record=record, export_id="any"), **changes)


@pytest.mark.parametrize("on_delete", SEVERITY)
def test_a_peers_volume(on_delete: OnDelete) -> None:
    """A volume of nfs-subdir is reclaimed by the rule that was recorded at its takeover."""
    assert authorize(taken_over(on_delete=on_delete), samples.US) == Reclaim(on_delete)


@pytest.mark.parametrize(
    ("of", "reason", "words"),
    [
        pytest.param(taken_over(record=None), Reason.MISSING_RECORD, "no record", id="no record"),
        pytest.param(
            taken_over(record=samples.record()),
            Reason.MISSING_ANNOTATION,
            "restore them",
            id="a record of a created volume",
        ),
        pytest.param(taken_over(path=("elsewhere",)), Reason.RECORD_MISMATCH, "does not match", id="an edited path"),
        pytest.param(taken_over(path=()), Reason.INVALID_PATH, "not a directory below", id="the export's root"),
        pytest.param(
            taken_over(volume=samples.peers_volume(claim_uid="x")),
            Reason.RECORD_MISMATCH,
            "does not match",
            id="another claim",
        ),
        pytest.param(
            taken_over(neighbour="pv2"), Reason.OVERLAPPING_DIRECTORY, "pv2", id="another volume in its directory"
        ),
        pytest.param(
            taken_over(neighbour="pv2", volume=samples.volume(annotations={names.EXPORT_ID: "any"})),
            Reason.OVERLAPPING_DIRECTORY,
            "pv2",
            id="another volume in the directory of a recreated one",
        ),
    ],
)
def test_a_peers_volume_denied(of: ReclaimFacts, reason: Reason, words: str) -> None:
    """If anything does not match, or another volume needs the directory, nothing is deleted."""
    answer = authorize(of, samples.US)
    assert isinstance(answer, Deny)
    assert words in answer.message
    assert answer.reason == reason


def test_a_peers_volume_whose_claim_exists() -> None:
    """A volume of nfs-subdir whose claim still exists is left alone."""
    assert isinstance(authorize(taken_over(claim=samples.claim()), samples.US), Leave)


@pytest.mark.parametrize("claim_uid", [samples.UID, ""], ids=["as made", "recovered"])
@pytest.mark.parametrize("cluster", ["old", ""], ids=["another cluster", "no cluster"])
def test_a_record_of_another_cluster(claim_uid: str, cluster: str) -> None:
    """A record of another cluster authorizes nothing, even if everything else matches."""
    record = structs.replace(samples.record(claim_uid=claim_uid), cluster="new")
    of = dataclasses.replace(evidence(), record=record, cluster="new")
    assert authorize(of, samples.US) == Reclaim("delete")
    answer = authorize(dataclasses.replace(of, record=structs.replace(record, cluster=cluster)), samples.US)
    assert isinstance(answer, Deny)
    assert f"recover --volume {samples.VOLUME}" in answer.message
    assert answer.reason == Reason.FOREIGN_RECORD


def test_forged_volume() -> None:
    """A volume that was created manually in another's directory destroys nothing: it has no record."""
    forged = samples.volume(name="pv1", claim_uid="nobody", nfs=NfsSource("nas", f"/exports/{samples.DIRECTORY}"))
    assert isinstance(authorize(dataclasses.replace(evidence(volume=forged), record=None), samples.US), Deny)


@pytest.mark.parametrize("rule", SEVERITY)
@pytest.mark.parametrize("peer", [False, True])
def test_a_directory_that_another_volume_needs(rule: OnDelete, peer: bool) -> None:
    """A directory that another volume uses is neither deleted nor archived, but it can be retained."""
    volume = samples.peers_volume() if peer else samples.volume(annotations={names.ON_DELETE: rule})
    of = evidence(volume=volume, record=samples.record(on_delete=rule, peer=peer))
    answer = authorize(dataclasses.replace(of, neighbour="static"), samples.US)
    if rule == "retain":
        assert answer == Reclaim("retain")
    else:
        assert isinstance(answer, Deny)
        assert "static" in answer.message
        assert answer.reason == Reason.OVERLAPPING_DIRECTORY


@pytest.mark.parametrize(("annotated", "recorded"), list(itertools.product(SEVERITY, SEVERITY)))
def test_the_milder_rule_holds(annotated: OnDelete, recorded: OnDelete) -> None:
    """The milder of the rules on the volume and in the ledger wins."""
    of = evidence(
        volume=samples.volume(annotations={names.ON_DELETE: annotated}), record=samples.record(on_delete=recorded)
    )
    assert authorize(of, samples.US) == Reclaim(min(annotated, recorded, key=SEVERITY.index))


def test_reclaim_needs_everything() -> None:
    """Of all combinations of matching and contradicting facts, only a full match reclaims a directory."""
    volumes = [samples.volume(), samples.volume(annotations={names.EXPORT_ID: "e2"}), samples.volume(claim_uid="x")]
    claims = [None, samples.claim()]
    paths: list[RelPath] = [(samples.DIRECTORY,), (), ("elsewhere",)]
    fitting = [samples.record(), samples.record("elsewhere")]
    records = [*fitting, None, samples.record(claim_uid="y")]
    for volume, claim, path, record in itertools.product(volumes, claims, paths, records):
        of = dataclasses.replace(evidence(volume=volume, claim=claim, path=path), record=record)
        recorded = [each.path for each in fitting if each == record]
        agrees = volume is volumes[0] and claim is None and recorded == [path]
        assert isinstance(authorize(of, samples.US), Reclaim) == agrees


def test_a_directory_that_was_not_there() -> None:
    """The message for a missing directory says what was done, and where its data can be."""
    assert "its record is kept" in missing_message("retain", "a/b", "nas:/x")
    assert "nothing to delete" in missing_message("delete", "a/b", "nas:/x")
    assert "nothing to archive" in missing_message("archive", "a/b", "nas:/x")


def test_a_volume_on_no_export() -> None:
    """The message for a volume without an export names the mount option that is in the way, if known."""
    unknown, unusable = nowhere(""), nowhere("mount option sec=krb5: …")
    assert "no export" in unknown.message
    assert "sec=krb5" in unusable.message
    assert (unknown.reason, unusable.reason) == (Reason.UNKNOWN_EXPORT, Reason.INVALID_MOUNT_OPTION)


def test_a_server_that_moved() -> None:
    """The message for a volume of an otherwise unknown server says where its record is, and what to do."""
    denial = moved("pvc-1", "old:/x", "new:/x")
    assert denial.reason == Reason.EXPORT_MOVED
    assert all(word in denial.message for word in ("old:/x", "new:/x", "recover --volume pvc-1"))


def test_the_message_of_a_volume_that_is_being_cloned() -> None:
    """It names the claim for which the volume waits, and how to end that."""
    message = cloned_message("shop/clone")
    assert "claim shop/clone is being cloned from it" in message
    assert "delete that claim" in message


def test_the_event_of_a_snapshot() -> None:
    """The event names the snapshot that holds a volume up, and how to end that."""
    assert snapshot_message("shop/nightly").startswith("snapshot shop/nightly of it is being taken")
