"""core.records."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.records import RECORD_LIMIT_BYTES, Record, archived, decode, encode, is_foreign, require_room
from tests.support import samples

TEXTS = st.text(max_size=120)
RECORDS = st.builds(
    Record,
    directory=TEXTS,
    namespace=TEXTS,
    claim=TEXTS,
    claim_uid=TEXTS,
    class_name=TEXTS,
    on_delete=st.sampled_from(["delete", "archive", "retain"]),
    capacity=TEXTS,
    created=TEXTS,
)
TARGETS = st.binary(max_size=200).map(lambda target: target.decode("utf-8", "surrogateescape"))
"""A result of readlink(2): any bytes."""


@given(RECORDS)
def test_round_trip(record: Record) -> None:
    """A record is read back as it was written, and none is written that a server could truncate."""
    try:
        target = encode(record)
    except InvalidRecord:
        return
    assert len(target.encode()) <= RECORD_LIMIT_BYTES
    assert "\0" not in target
    assert decode(target) == record


def test_limit() -> None:
    """A record of exactly the limit is accepted, one byte more is refused with what to change."""
    room = RECORD_LIMIT_BYTES - len(encode(samples.record("")))
    assert len(encode(samples.record("x" * room))) == RECORD_LIMIT_BYTES
    with pytest.raises(InvalidRecord, match="shorter pathPattern"):
        encode(samples.record("x" * (room + 1)))


def test_the_longest_usual_record_fits() -> None:
    """With the default pattern and the longest names that Kubernetes allows, the record still fits."""
    record = Record(
        directory="x" * 255,
        namespace="n" * 63,
        claim="c" * 253,
        claim_uid="0" * 36,
        class_name="s" * 253,
        on_delete="archive",
        capacity="999999999Ti",
        created="2026-01-01T00:00:00Z",
    )
    assert decode(encode(record)) == record


@given(st.integers(0, 900), st.sampled_from(["", "pv", "pvc-" + "0" * 36]))
def test_room_for_the_uid(size: int, volume: str) -> None:
    """If a record and that of its archive fit, there is also room for the uid of the PersistentVolume."""
    record = samples.record("x" * size)
    with contextlib.suppress(InvalidRecord):
        require_room(volume, record)
        named = structs.replace(record, volume_uid="0" * 36)
        assert decode(encode(named)) == named
        assert archived(named) == record


def test_an_older_version() -> None:
    """A record without a uid is written as before; one with a uid is refused by versions without this field."""
    assert "pvuid" not in encode(samples.record())
    assert "pvuid" in encode(samples.record(volume_uid="u"))


def test_path() -> None:
    """A record has its directory as components, too."""
    assert samples.record("shop/data").path == ("shop", "data")


@given(TARGETS)
@example("{}")
@example("null")
@example('{"dir":"a\udcff"}')
@example('{"\udcff":1}')
def test_any_target(target: str) -> None:
    """Any text is decoded as a record or refused with InvalidRecord."""
    with contextlib.suppress(InvalidRecord):
        assert isinstance(decode(target), Record)


@given(st.integers(0, 300), st.binary(max_size=3))
def test_damaged_record(position: int, damage: bytes) -> None:
    """A record that was damaged at any place is decoded as it was, or refused."""
    whole = encode(samples.record()).encode()
    position %= len(whole)
    damaged = whole[:position] + damage + whole[position + 1 :]
    with contextlib.suppress(InvalidRecord):
        assert isinstance(decode(damaged.decode("utf-8", "surrogateescape")), Record)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"v": 0}, {"v": "1"}, {"del": "destroy"}, {"del": None}, {"dir": 5}, {"dir": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_not_ours(change: dict[str, object]) -> None:
    """Another version, another rule, a wrong type or an unknown field is refused."""
    fields = {**json.loads(encode(samples.record())), **change}
    with pytest.raises(InvalidRecord):
        decode(json.dumps(fields))


def test_a_record_with_what_is_not_unicode() -> None:
    """A record with a name that is not Unicode is refused with a message."""
    with pytest.raises(InvalidRecord, match="not valid Unicode"):
        encode(samples.record("caf\udce9"))


@pytest.mark.parametrize(
    ("target", "foreign"),
    [
        ('{"v":2,"dir":"a"}', True),
        ('{"v":1,"more":1}', True),
        ("garbage", False),
        ('{"dir":"a"}', False),
        ("[]", False),
    ],
)
def test_what_another_version_wrote(target: str, *, foreign: bool) -> None:
    """An unreadable text with a version is another version's record; any other text is damaged."""
    assert is_foreign(target) is foreign


def test_what_is_not_unicode_is_damaged() -> None:
    """Any bytes get an answer."""
    assert not is_foreign("caf\udce9")
    assert not is_foreign('"\ud800')
