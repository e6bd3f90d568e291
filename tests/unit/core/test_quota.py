"""core.quota."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core import times
from provisioner.core.errors import InvalidRecord
from provisioner.core.quota import (
    SILENT_S,
    Answer,
    Heartbeat,
    answer_path,
    brief,
    decode_answer,
    decode_heartbeat,
    differs,
    encode,
    enforces,
    is_alive,
    is_limit,
    limit_for,
    stamp,
)
from provisioner.core.records import RECORD_LIMIT_BYTES, decode
from provisioner.core.records import encode as encode_record
from tests.support import samples

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
SIZES = st.integers(0, 1 << 62)
ANSWERS = st.builds(
    Answer,
    project=st.integers(0, 0xFFFFFFFE),
    limit_bytes=SIZES,
    used_bytes=SIZES,
    inodes=SIZES,
    whole=st.booleans(),
    special=SIZES,
    busy=SIZES,
    reason=st.sampled_from(["", "busy", "held"]),
    why=st.text(max_size=3000),
    at=st.just("2026-11-28T09:00:00Z"),
    record=st.builds(stamp, st.text(max_size=30)),
)
TARGETS = st.binary(max_size=200).map(lambda target: target.decode("utf-8", "surrogateescape"))


@given(ANSWERS)
@example(Answer(why="long " * 1000))
@example(
    Answer(1 << 32, 1 << 62, 1 << 62, 1 << 62, True, 1 << 62, 1 << 62, "labelling", "\0" * 999, "2" * 20, "\0" * 20)
)
def test_an_answer_fits(answer: Answer) -> None:
    """Every answer fits into a symlink and is read back; only a long text is cut."""
    target = encode(answer)
    assert len(target.encode()) <= RECORD_LIMIT_BYTES
    found = decode_answer(target)
    assert found == structs.replace(answer, why=brief(answer.why))
    assert answer.why.startswith(found.why)


@given(st.text(max_size=3000), st.text(max_size=3000))
@example("long " * 1000, "more " * 1000)
def test_a_heartbeat_fits(lacks: str, warns: str) -> None:
    """Every heartbeat fits into a symlink; only long texts are cut."""
    beat = Heartbeat(at="2026-11-28T09:00:00Z", version="1", filesystem="xfs", lacks=lacks, warns=warns)
    found = decode_heartbeat(encode(beat))
    assert len(encode(beat).encode()) <= RECORD_LIMIT_BYTES
    assert (found.at, lacks.startswith(found.lacks), warns.startswith(found.warns)) == (beat.at, True, True)


@given(TARGETS)
@example("{}")
@example('{"v":2}')
@example("a\udcff")
def test_any_target(target: str) -> None:
    """Any text is decoded or refused with InvalidRecord."""
    for decoder in (decode_answer, decode_heartbeat):
        with contextlib.suppress(InvalidRecord):
            assert decoder(target)


@pytest.mark.parametrize("number", [-1, 2**63, 10**400])
def test_impossible_numbers(number: int) -> None:
    """A record with a number that no agent writes is refused: a metric or an event could not show it."""
    for name in ("id", "limit", "used", "inodes", "special", "busy"):
        with pytest.raises(InvalidRecord):
            decode_answer(json.dumps({"v": 1, name: number}))
    for name in ("volumes", "limited"):
        with pytest.raises(InvalidRecord):
            decode_heartbeat(json.dumps({"v": 1, "at": "2026-01-02T03:04:05Z", name: number}))


def test_a_newer_version() -> None:
    """An answer of a newer agent, with fields that this version does not know, is read."""
    assert decode_answer('{"v":1,"id":7,"limit":4096,"whole":true,"colour":"blue"}').project == 7
    assert decode_heartbeat('{"v":1,"at":"","colour":"blue"}').at == ""


def test_a_text_that_is_not_unicode() -> None:
    """A text that names a file whose name is not Unicode is written in a form that can be read."""
    assert "caf" in decode_answer(encode(Answer(why="caf\udce9"))).why
    assert "caf" in decode_heartbeat(encode(Heartbeat(at="", warns="caf\udce9"))).warns


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 1 << 30, 1 << 70])
def test_a_limit_holds_its_size(size: int) -> None:
    """A limit is the size in whole blocks, and at most what kernels accept."""
    limit = limit_for(size)
    assert limit % 4096 == 0
    assert min(size, 1 << 60) <= limit < size + 4096


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [(4096, 4096, True), (65536, 4096, True), (4096 + 65536, 4096, False), (4095, 4096, False), (0, 0, True),
     (1, 0, False)],
)  # fmt: skip
def test_a_limit_that_the_kernel_rounds(found: int, wanted: int, *, same: bool) -> None:
    """A limit that was rounded up to a block is the one that was set; none is only none."""
    assert is_limit(found, wanted) is same


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, False),
        (Answer(project=1, limit_bytes=8192, whole=True), True),
        (Answer(project=1, limit_bytes=8192), False),
        (Answer(project=1, limit_bytes=4096, whole=True), False),
        (Answer(project=1, whole=True), False),
        (Answer(project=1, limit_bytes=1 << 30, whole=True), False),
    ],
)
def test_a_size_is_enforced(answer: Answer | None, *, expected: bool) -> None:
    """A size is enforced if all content counts, and the limit in force is exactly the size."""
    assert enforces(answer, 8000) is expected


@pytest.mark.parametrize(
    ("late_s", "alive"), [(0, True), (SILENT_S, True), (SILENT_S + 1, False), (-SILENT_S - 1, False)]
)
def test_an_agent_is_alive(late_s: float, *, alive: bool) -> None:
    """An agent is alive while its heartbeat is recent; one from the future is as wrong as an old one."""
    assert is_alive(Heartbeat(at=times.text(NOW - timedelta(seconds=late_s))), NOW) is alive


def test_no_heartbeat() -> None:
    """Without a heartbeat, or with one whose time cannot be read, there is no agent."""
    assert not is_alive(None, NOW)
    assert not is_alive(Heartbeat(at="soon"), NOW)


BASE = Answer(project=1, limit_bytes=1 << 30, used_bytes=100 << 20, inodes=1000, whole=True, at="then")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"at": "now"}, False),
        ({"used_bytes": (100 << 20) + 4096}, False),
        ({"used_bytes": 101 << 20}, True),
        ({"used_bytes": 0}, True),
        ({"inodes": 1010}, False),
        ({"inodes": 1100}, True),
        ({"limit_bytes": 2 << 30}, True),
        ({"reason": "overfull"}, True),
        ({"whole": False}, True),
    ],
)
def test_what_is_worth_a_write(changes: dict[str, object], *, expected: bool) -> None:
    """An answer is written again for anything but a small change of the usage."""
    assert differs(BASE, structs.replace(BASE, **changes)) is expected
    assert differs(None, BASE)


def test_where_an_answer_is() -> None:
    """Each volume has an answer of its own."""
    assert answer_path("pvc-1") == (".provisioner", "quota", "pvc-1")


def test_the_wish_in_a_record() -> None:
    """A record says whether its class asks for a quota; without the wish it is written as before."""
    assert "quota" not in encode_record(samples.record())
    wished = structs.replace(samples.record(), quota="required")
    assert json.loads(encode_record(wished))["quota"] == "required"
    assert decode(encode_record(wished)).quota == "required"
    with pytest.raises(InvalidRecord):
        decode(encode_record(wished).replace("required", "perhaps"))
