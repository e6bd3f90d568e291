"""core.enforcement: when the size of a volume is enforced, and what is missing if it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from msgspec import structs

from provisioner.core.enforcement import Shortfall, requested_bytes, shortfall, sizes
from provisioner.core.quota import SILENT_S, Answer, Heartbeat, Reason
from provisioner.core.records import Quota, Record
from tests.support import samples

NOW = datetime(2026, 11, 28, 9, 0, 0, tzinfo=UTC)
BEAT = Heartbeat(at="2026-11-28T09:00:00Z", version="2", filesystem="xfs", enforces=True, holds_root=True)
ANSWER = Answer(project=1, limit_bytes=1 << 30, whole=True)


def held(quota: Quota, capacity: str, **more: Any) -> Record:
    return structs.replace(samples.record("a"), quota=quota, capacity=capacity, **more)


def found(
    answer: Answer | None = ANSWER, beat: Heartbeat | None = BEAT, *, size: str = "1Gi", now: datetime = NOW
) -> Shortfall | None:
    return shortfall(held("required", size), answer, beat, export="nas:/x", now=now)


@pytest.mark.parametrize("size", ["1Gi", "1073741824", "1073741823"])
def test_enforced(size: str) -> None:
    """A size is enforced if all content counts and the limit is the size in whole blocks."""
    assert found(size=size) is None


def test_a_limit_outlives_its_agent() -> None:
    """A limit that is in force stays in force while the agent is silent."""
    assert found(now=NOW + timedelta(days=1)) is None


@pytest.mark.parametrize("filesystem", ["xfs", "zfs", ""])
def test_root_is_held_elsewhere(filesystem: str) -> None:
    """Only on ext4 an admin has to say that root is held; an agent of an older version does not say so either."""
    assert found(beat=structs.replace(BEAT, filesystem=filesystem, holds_root=False)) is None
    assert found(beat=structs.replace(BEAT, filesystem="ext4")) is None


@pytest.mark.parametrize(
    ("beat", "words"),
    [
        (None, "no quota agent has reported on export nas:/x: run `nfs-provisioner quota-agent` on its server"),
        (
            structs.replace(BEAT, enforces=False, lacks="/x is mounted without prjquota: add it"),
            "the quota agent of export nas:/x cannot set limits: /x is mounted without prjquota: add it",
        ),
        (structs.replace(BEAT, enforces=False), "the quota agent of export nas:/x cannot set limits: see its log"),
        (structs.replace(BEAT, filesystem="ext4", holds_root=False), "--root-is-held"),
    ],
)
def test_an_admin_is_needed(beat: Heartbeat | None, words: str) -> None:
    """No size can be enforced without an agent, with one that lacks something, and for root on ext4."""
    lacking = found(beat=beat)
    assert lacking is not None
    assert lacking.needs_admin
    assert words in lacking.message


@pytest.mark.parametrize(
    ("answer", "size", "words"),
    [
        (None, "1Gi", "has not answered for the volume yet"),
        (structs.replace(ANSWER, limit_bytes=0), "1Gi", "about to set its limit"),
        (ANSWER, "2Gi", "about to set its limit"),
        (ANSWER, "500Mi", "about to set its limit"),
        (structs.replace(ANSWER, whole=False), "1Gi", "about to set its limit"),
        (structs.replace(ANSWER, whole=False, reason="labelling"), "1Gi", "still labelling"),
        (structs.replace(ANSWER, whole=False, reason="busy", why="3 files"), "1Gi", "hold files open"),
        (structs.replace(ANSWER, limit_bytes=2 << 30, reason="overfull", why="9Gi"), "1Gi", "more data than its size"),
        (structs.replace(ANSWER, reason="held"), "1Gi", "has not read its record yet"),
        (structs.replace(ANSWER, reason="conflict", why="pvc-9 has it"), "1Gi", "another volume's record"),
        (structs.replace(ANSWER, reason="no-free-id", why="enlarge --project-ids"), "1Gi", "enlarge --project-ids"),
        (structs.replace(ANSWER, reason="from-the-future"), "1Gi", "from-the-future"),
        (Answer(whole=True), "much", "about to set its limit"),
        (Answer(whole=True), "0", "about to set its limit"),
    ],
    ids=str,
)
def test_not_yet(answer: Answer | None, size: str, words: str) -> None:
    """What is missing follows from the answer, without details that change and without names of other volumes."""
    lacking = found(answer, size=size)
    assert lacking is not None
    assert not lacking.needs_admin
    assert words in lacking.message
    assert not any(each in lacking.message for each in ("3 files", "9Gi", "pvc-9"))


@pytest.mark.parametrize("reason", [each for each in get_args(Reason) if each])
def test_an_answer_with_a_reason(reason: str) -> None:
    """An answer with any reason enforces nothing for sure: it can be about an earlier directory."""
    assert found(structs.replace(ANSWER, reason=reason, why="why")) is not None


@pytest.mark.parametrize(("of", "is_so"), [("2026-01-01T00:00:00Z", True), ("", True), ("2026-01-01T00:00:01Z", False)])
def test_an_answer_about_an_earlier_record(of: str, *, is_so: bool) -> None:
    """An answer counts for the record that it names, or for any if it is an older agent's."""
    assert (found(structs.replace(ANSWER, record=of)) is None) is is_so


def test_a_silent_agent() -> None:
    """An agent that has been silent for long is what is missing, and the message stays the same."""
    late = [found(None, now=NOW + timedelta(seconds=SILENT_S + more)) for more in (1.0, 999.0)]
    assert late[0] == late[1]
    assert late[0] is not None
    assert "has been silent since 2026-11-28T09:00:00Z: start it again" in late[0].message
    assert not late[0].needs_admin


@pytest.mark.parametrize(
    ("volumes", "records", "counted"),
    [
        ({"a": "1Gi"}, {}, {"a": "1Gi"}),
        ({"a": "1Gi"}, {"a": held("none", "3Gi"), "b": held("none", "3Gi")}, {"a": "1Gi"}),
        ({"a": "1Gi"}, {"a": held("required", "3Gi")}, {"a": "3Gi"}),
        ({"a": "3Gi"}, {"a": held("preferred", "1Gi")}, {"a": "3Gi"}),
        ({"a": "1Gi"}, {"a": held("required", "much")}, {"a": "1Gi"}),
        ({}, {"a": held("required", "1Gi")}, {"a": "1Gi"}),
        ({}, {"a": held("required", "1Gi", retained="2026-01-01T00:00:00Z")}, {}),
    ],
    ids=str,
)
def test_sizes(volumes: dict[str, str], records: dict[str, Record], counted: dict[str, str]) -> None:
    """Capacities count, and what is in force where a volume asks for a quota, also before the volume is there."""
    assert sizes(volumes, records) == counted


def test_what_volumes_request() -> None:
    """The sizes of all records add up; a retained directory has no volume, and an invalid size counts as zero."""
    records = [held("none", "1Gi"), held("required", "1Gi"), held("none", "2Gi"), held("none", "much")]
    assert requested_bytes([*records, held("none", "8Gi", retained="2026-11-28T09:00:00Z")]) == 4 << 30
