"""kube.codec: decoding of objects, pages and watch lines."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.kube import codec, leases
from provisioner.ports.cluster import ApiUnavailable, Expired, WatchEvent


def claim(name: str = "data", **metadata: Any) -> dict[str, Any]:
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": "7", **metadata},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    }


def page(*items: Any, **fields: Any) -> bytes:
    answer = {"kind": "PersistentVolumeClaimList", "metadata": {"resourceVersion": "9"}, "items": items, **fields}
    return json.dumps(answer).encode()


def line(type_: str, obj: Any) -> bytes:
    return json.dumps({"type": type_, "object": obj}).encode()


class Undecodable(list[tuple[str, str, str]]):
    """Records the calls to `on_undecodable`."""

    def __call__(self, kind: str, name: str, reason: str) -> None:
        self.append((kind, name, reason))


def read(data: bytes, undecodable: codec.OnUndecodable = lambda kind, name, reason: None) -> WatchEvent[Any] | None:
    return codec.CLAIMS.event("watch /x", data, undecodable)


# ------------------------------------------------------------------------------------------------ objects and pages


def test_kubectls_copy_of_an_object_is_not_kept() -> None:
    """The last-applied annotation is dropped from objects, pages and watch lines; other annotations stay."""
    obj = claim(annotations={codec.LAST_APPLIED: "{}", "a": "b"})
    event = read(line("ADDED", obj))
    assert event is not None
    page_items = codec.CLAIMS.page(page(obj), Undecodable()).items
    for item in (codec.CLAIMS.item(json.dumps(obj).encode()), page_items[0], event.item):
        assert item is not None
        assert item.metadata.annotations == {"a": "b"}


@pytest.mark.parametrize("field", ["annotations", "labels", "finalizers"])
def test_a_null_counts_as_a_field_left_out(field: str) -> None:
    """JSON's null for a map or a list does not break decoding anywhere."""
    obj = claim() | {"status": None}
    obj["metadata"][field] = None
    obj["spec"]["volumeName"] = None
    undecodable = Undecodable()
    expected = codec.CLAIMS.item(json.dumps(claim()).encode())
    event = read(line("MODIFIED", obj), undecodable)
    assert event is not None
    assert event.item == expected
    assert codec.CLAIMS.item(json.dumps(obj).encode()) == expected
    assert list(codec.CLAIMS.page(page(obj, claim()), undecodable).items) == [expected, expected]
    assert undecodable == []


def test_a_page_has_version_and_token() -> None:
    """A page has the list's resourceVersion and continue token."""
    decoded = codec.CLAIMS.page(page(metadata={"resourceVersion": "12", "continue": "abc"}), Undecodable())
    assert (decoded.version, decoded.continue_token) == ("12", "abc")
    assert codec.CLAIMS.page(page(), Undecodable()).continue_token == ""


@pytest.mark.parametrize("items", [None, []])
def test_null_items_are_an_empty_list(items: object) -> None:
    """A list whose items are null, as a Go server can write, is an empty list."""
    answer = json.dumps(json.loads(page()) | {"items": items}).encode()
    assert codec.CLAIMS.page(answer, Undecodable()).items == []


def test_an_unreadable_item_does_not_hide_the_others() -> None:
    """A page leaves out an item that cannot be decoded, reports its name and error, and keeps all others."""
    undecodable = Undecodable()
    broken = claim("broken", labels={"a": 5})
    decoded = codec.CLAIMS.page(page(claim("a"), broken, "?", claim("b")), undecodable)
    assert [item.metadata.name for item in decoded.items] == ["a", "b"]
    assert [(kind, name) for kind, name, _ in undecodable] == [
        ("PersistentVolumeClaim", "team/broken"),
        ("PersistentVolumeClaim", "?"),
    ]
    assert "labels" in undecodable[0][2]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"<html>",
        b"",
        b'{"kind":"Status","metadata":{},"status":"Success"}',
        b'{"kind":"PersistentVolumeList","metadata":{"resourceVersion":"1"},"items":[]}',
        b'{"kind":"PersistentVolumeClaimList","metadata":{},"items":[]}',
    ],
)
def test_no_other_answer_passes_for_an_empty_cluster(body: bytes) -> None:
    """An answer that is not a list of the requested kind raises: it must not read as "there are no claims"."""
    with pytest.raises(codec.DECODE_ERRORS):
        codec.CLAIMS.page(body, Undecodable())


@pytest.mark.parametrize("body", [b"{}", b'{"kind":"Status","status":"Success"}', b"<html>", b"\xff", b'{"spec":null}'])
def test_no_other_answer_passes_for_an_object(body: bytes) -> None:
    """An answer without a name or a uid is not an object."""
    with pytest.raises(codec.DECODE_ERRORS):
        codec.VOLUMES.item(body)


# ------------------------------------------------------------------------------------------------ lines of a watch


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED", "DELETED"])
def test_a_change_carries_its_object_and_version(type_: str) -> None:
    """A watch line yields the object and the version at which a new watch resumes."""
    event = read(line(type_, claim()))
    assert event is not None
    assert (event.type, event.version) == (type_, "7")
    assert event.item is not None
    assert event.item.key == "team/data"


def test_a_bookmark_is_a_version_and_no_object() -> None:
    """A bookmark advances the version and carries no object."""
    for obj in ({"metadata": {"resourceVersion": "99"}}, {"metadata": {"resourceVersion": "99"}, "spec": None}):
        assert read(line("BOOKMARK", obj)) == WatchEvent("BOOKMARK", "99")


@pytest.mark.parametrize("codec", [codec.CLAIMS, codec.VOLUMES, codec.CLASSES])
def test_an_error_line_raises_for_every_kind(codec: codec.Codec[Any]) -> None:
    """An ERROR line is a Status in every watch: 410 is Expired, everything else ApiUnavailable."""
    gone = {"kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410, "message": "old"}
    with pytest.raises(Expired):
        codec.event("watch /x", line("ERROR", gone), Undecodable())
    with pytest.raises(ApiUnavailable):
        codec.event("watch /x", line("ERROR", gone | {"code": 500}), Undecodable())


def test_an_unreadable_change_becomes_a_bookmark() -> None:
    """An undecodable object is reported and becomes a bookmark, so that the next watch does not meet it again."""
    undecodable = Undecodable()
    assert read(line("MODIFIED", claim("broken", labels=5)), undecodable) == WatchEvent("BOOKMARK", "7")
    assert read(line("MODIFIED", 5), undecodable) is None
    assert [name for _, name, _ in undecodable] == ["team/broken", "?"]


def test_an_unknown_type_is_ignored() -> None:
    """A line of an unknown type does not end the watch."""
    assert read(line("SYNCED", claim())) == WatchEvent("BOOKMARK", "7")


def test_a_line_that_is_not_json_raises() -> None:
    """Garbage in a watch is an error of the connection, not an event."""
    for garbage in (b"<html>", b"[]", b'{"type": "ADDED"}'):
        with pytest.raises(msgspec.DecodeError):
            read(garbage)


@given(
    lines=st.lists(st.binary(min_size=1).filter(lambda data: b"\n" not in data and data.strip()), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=20),
    end=st.sampled_from([b"\n", b"\n\n"]),
)
def test_lines_survive_any_cut(lines: list[bytes], cuts: list[int], end: bytes) -> None:
    """However TCP cuts a watch into chunks, the same lines come out, and nothing is left over."""
    data = b"".join(text + end for text in lines)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    splitter = codec.LineSplitter()
    out = [text for start, stop in pairwise(edges) for text in splitter.feed(data[start:stop])]
    assert out == lines
    assert not splitter.pending


def test_a_truncated_line_is_pending() -> None:
    """A watch that ends in the middle of a line is distinguished from one that ends cleanly."""
    splitter = codec.LineSplitter()
    assert splitter.feed(b"whole\npa") == [b"whole"]
    assert splitter.pending
    assert splitter.feed(b"rt\n") == [b"part"]
    assert not splitter.pending


# ------------------------------------------------------------------------------------------------ leases


def test_an_empty_lease_has_no_holder() -> None:
    """Null and missing fields of a Lease count as empty."""
    for spec in ({}, {"spec": None}, {"spec": {"holderIdentity": None, "renewTime": None}}):
        body = json.dumps({"kind": "Lease", "metadata": {"resourceVersion": "3"}} | spec).encode()
        record = leases.decode(body)
        assert (record.holder, record.renewed, record.version) == ("", "", "3")


def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never ends a line cannot fill the memory."""
    monkeypatch.setattr(codec, "LINE_BYTES", 100)
    splitter = codec.LineSplitter()
    assert splitter.feed(b"x" * 90 + b"\n" + b"y" * 90) == [b"x" * 90]
    assert splitter.feed(b"y\nz") == [b"y" * 91]
    with pytest.raises(codec.DECODE_ERRORS):
        splitter.feed(b"z" * 100)
