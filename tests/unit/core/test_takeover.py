"""core.takeover: the record of a volume of nfs-subdir."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import names
from provisioner.core.objects import NfsSource, Volume, VolumeStatus
from provisioner.core.reasons import Reason
from provisioner.core.records import OnDelete, Record
from provisioner.core.takeover import Enter, Find, Refuse, decide, is_of_nfs_subdir, rule
from tests.support import samples


def find(**changes: Any) -> Find:
    """A volume of nfs-subdir that can be taken over, with changes."""
    found = Find(
        volume=samples.peers_volume(phase="Bound", mount_options=("nfsvers=4.1", "hard")),
        path=(samples.DIRECTORY,),
        storage_class=samples.storage_class({"archiveOnDelete": "false"}),
        holder=None,
        provisioner=samples.US,
        cluster="c1",
        now="2026-01-01T00:00:00Z",
        since="",
    )
    return dataclasses.replace(found, **changes)


def test_a_record() -> None:
    """The record has all data of the volume, so that the volume can be recreated from it."""
    assert decide(find()) == Enter(
        Record(
            directory=samples.DIRECTORY,
            namespace="shop",
            claim="data",
            claim_uid=samples.UID,
            class_name="nfs",
            on_delete="delete",
            capacity="1Gi",
            created="2026-01-01T00:00:00Z",
            cluster="c1",
            modes="RWX",
            mount_options="nfsvers=4.1,hard",
            peer=True,
            volume_uid=f"uid-of-{samples.VOLUME}",
        )
    )


@pytest.mark.parametrize("volume", [samples.peers_volume(), samples.peers_volume(phase="Bound", claim_uid="x")])
def test_what_makes_it_credible(volume: Volume) -> None:
    """A volume is recorded if a claim is bound to it, or if its name has its claim's uid."""
    assert isinstance(decide(find(volume=volume)), Enter)


def released(created: str) -> Volume:
    """A volume without a bound claim, created at a given time."""
    made = samples.peers_volume()
    return structs.replace(made, metadata=structs.replace(made.metadata, creation_timestamp=created))


@pytest.mark.parametrize("parameters", [{"archiveOnDelete": "false"}, {"onDelete": "retain"}, {}])
def test_released_before(parameters: dict[str, str]) -> None:
    """A released volume that is older than the ledger, or whose ledger is new, is never deleted."""
    milder = "retain" if "onDelete" in parameters else "archive"
    for since in ("", "2026-01-01T00:00:01Z"):
        storage_class = samples.storage_class(parameters)
        answer = decide(find(volume=released("2026-01-01T00:00:00Z"), storage_class=storage_class, since=since))
        assert isinstance(answer, Enter)
        assert answer.record.on_delete == milder


@pytest.mark.parametrize("created", ["", "2026-01-01T00:00:02Z"], ids=["unknown", "later"])
def test_released_and_younger_than_the_ledger(created: str) -> None:
    """A released volume that is younger than the ledger can come from a backup: it gets no record."""
    answer = decide(find(volume=released(created), since="2026-01-01T00:00:01Z"))
    assert isinstance(answer, Refuse)
    assert "backup" in answer.message
    bound = structs.replace(released(created), status=VolumeStatus("Bound"))
    assert isinstance(decide(find(volume=bound, since="2026-01-01T00:00:01Z")), Enter)


@pytest.mark.parametrize(
    ("volume", "answer"),
    [
        pytest.param(samples.peers_volume(), True, id="a peer's"),
        pytest.param(samples.peers_volume(phase="Bound", policy="Retain"), True, id="retained"),
        pytest.param(samples.volume(), False, id="this provisioner's"),
        pytest.param(samples.peers_volume(annotations={names.EXPORT_ID: "e1"}), False, id="with one annotation"),
        pytest.param(samples.peers_volume(annotations={names.PROVISIONED_BY: "another"}), False, id="another name"),
        pytest.param(samples.peers_volume(nfs=None), False, id="no NFS"),
        pytest.param(samples.csi_volume({"server": "nas", "share": "/exports"}), False, id="csi-driver-nfs's"),
    ],
)
def test_whose_it_is(volume: Volume, answer: bool) -> None:
    """A volume of nfs-subdir is an NFS volume with the provisioner's name and none of its other annotations."""
    assert is_of_nfs_subdir(volume, samples.US) == answer


@pytest.mark.parametrize(
    ("parameters", "on_delete"),
    [
        ({}, "archive"),
        ({"archiveOnDelete": "true"}, "archive"),
        ({"archiveOnDelete": "1"}, "archive"),
        ({"archiveOnDelete": "False"}, "delete"),
        ({"onDelete": "delete"}, "delete"),
        ({"onDelete": "retain"}, "retain"),
        ({"onDelete": "archive"}, "archive"),
        ({"onDelete": "delete", "archiveOnDelete": "true"}, "delete"),
        ({"onDelete": "retain", "archiveOnDelete": "false"}, "retain"),
        ({"onDelete": "archive", "archiveOnDelete": "false"}, "archive"),
        ({"onDelete": "Retain", "archiveOnDelete": "false"}, "delete"),
        ({"onDelete": ""}, "archive"),
    ],
    ids=str,
)
def test_rule(parameters: dict[str, str], on_delete: OnDelete) -> None:
    """The rule is what nfs-subdir would read from the class's parameters, or onDelete."""
    assert rule(samples.storage_class(parameters), samples.US) == (on_delete, "")


def test_rule_in_doubt() -> None:
    """If the class is gone, another's or invalid, the rule is archive, and the log says why."""
    assert rule(None, samples.US) == ("archive", "its class is gone")
    another = samples.storage_class({"onDelete": "delete"}, provisioner="another")
    assert rule(another, samples.US) == ("archive", "its class is another provisioner's now")
    on_delete, note = rule(samples.storage_class({"archiveOnDelete": "no"}), samples.US)
    assert on_delete == "archive"
    assert "archiveOnDelete" in note
    entered = decide(find(storage_class=None))
    assert isinstance(entered, Enter)
    assert (entered.record.on_delete, entered.note) == ("archive", "its class is gone")


LONG = "/".join(["d" * 200] * 6)


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        pytest.param(
            find(volume=samples.peers_volume(claim_uid=None)), Reason.MISSING_CLAIM_REF, "no claimRef", id="no claimRef"
        ),
        pytest.param(
            find(volume=samples.peers_volume(claim_uid="x")),
            Reason.UNBOUND_VOLUME,
            "no claim is bound",
            id="never bound",
        ),
        pytest.param(find(path=()), Reason.INVALID_PATH, "the export's root", id="the export's root"),
        pytest.param(find(path=("..", "a")), Reason.INVALID_PATH, "'..'", id="outside"),
        pytest.param(find(path=("a", "..", "b")), Reason.INVALID_PATH, "'..'", id="another's"),
        pytest.param(
            find(path=(".provisioner", "trash")), Reason.INVALID_PATH, "reserved for the provisioner", id="the ledger"
        ),
        pytest.param(find(path=("archived-a", "b")), Reason.INVALID_PATH, "inside an archive", id="within an archive"),
        pytest.param(find(path=tuple(LONG.split("/"))), Reason.INVALID_RECORD, "bytes", id="too long"),
        pytest.param(
            find(holder=samples.volume(name="pv2", nfs=NfsSource())),
            Reason.OVERLAPPING_DIRECTORY,
            "pv2",
            id="another volume's directory",
        ),
    ],
)
def test_refused(found: Find, reason: Reason, words: str) -> None:
    """A volume that may not be genuine gets no record, so that its data is never touched."""
    answer = decide(found)
    assert isinstance(answer, Refuse)
    assert words in answer.message
    assert answer.reason == reason
    assert "nothing was" in answer.message
