"""nfs.protocol.rpc: calls byte by byte, every kind of reply, and records from a stream cut anywhere."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.nfs.protocol import rpc, xdr
from provisioner.nfs.protocol.rpc import CallRejected, CredentialRejected, Credentials, Procedure, RecordReader
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

pytestmark = pytest.mark.timeout(60)

LIMIT = 1000
VERIFIER = xdr.uint(0) + xdr.opaque(b"")


def words(*numbers: int) -> bytes:
    """Encode unsigned integers."""
    return b"".join(map(xdr.uint, numbers))


def test_a_call_is_as_the_rfc_draws_it() -> None:
    """A call is one fragment: xid, CALL, RPC 2, program, version, procedure, AUTH_SYS, no verifier, arguments."""
    identity = Credentials(uid=7, gid=8, groups=(9, 10), machine="abcde")
    procedure = Procedure(100003, 4, 1, b"args", Cursor.uint)
    body = words(0, 5) + b"abcde\0\0\0" + words(7, 8, 2, 9, 10)
    message = words(99, 0, 2, 100003, 4, 1) + words(1, len(body)) + body + words(0, 0) + b"args"
    assert rpc.call(99, procedure, identity.credential()) == words(0x8000_0000 | len(message)) + message


def test_a_server_sees_sixteen_groups() -> None:
    """AUTH_SYS sends the first 16 groups."""
    many = Credentials(groups=tuple(range(40))).credential()
    assert many == Credentials(groups=tuple(range(16))).credential()


def test_an_accepted_reply_ends_where_the_result_begins() -> None:
    """After SUCCESS comes the procedure's own result."""
    reply = rpc.results(words(5, 1, 0) + VERIFIER + words(0, 42))
    assert reply.uint() == 42
    reply.finish()


def test_a_missing_version_names_the_supported_ones() -> None:
    """PROG_MISMATCH has the lowest and highest version that the server supports."""
    with pytest.raises(CallRejected, match="PROG_MISMATCH") as caught:
        rpc.results(words(5, 1, 0) + VERIFIER + words(2, 3, 4))
    assert (caught.value.lowest, caught.value.highest) == (3, 4)


@pytest.mark.parametrize("status", [1, 3, 4, 5, 77])
def test_a_rejected_call_is_an_error(status: int) -> None:
    """Each other accept_stat raises CallRejected."""
    with pytest.raises(CallRejected):
        rpc.results(words(5, 1, 0) + VERIFIER + words(status))


@pytest.mark.parametrize("status", [1, 2, 5, 77])
def test_a_rejected_credential_is_an_error(status: int) -> None:
    """MSG_DENIED with AUTH_ERROR raises CredentialRejected with the reason."""
    with pytest.raises(CredentialRejected) as caught:
        rpc.results(words(5, 1, 1, 1, status))
    assert caught.value.status == status


@pytest.mark.parametrize("message", [(5, 0, 2), (5, 1, 1, 0, 2, 2), (5, 1, 7), (5, 1, 0, 0, 4000), (5,), ()])
def test_anything_but_a_reply_is_malformed(message: tuple[int, ...]) -> None:
    """A call, another RPC version, an unknown reply_stat, an endless verifier and a cut reply are malformed."""
    with pytest.raises(MalformedReply):
        rpc.results(words(*message))


records = st.lists(st.binary(max_size=60), max_size=6)


@given(records, st.data())
def test_records_from_a_stream_cut_anywhere(given_records: list[bytes], draw: st.DataObject) -> None:
    """Any split into fragments, and of the stream into pieces, yields the same records."""
    stream = b""
    for record in given_records:
        places = st.sets(st.integers(1, len(record) - 1), max_size=3) if len(record) > 1 else st.just(set[int]())
        cuts = sorted(draw.draw(places))
        parts = [record[start:end] for start, end in zip([0, *cuts], [*cuts, len(record)], strict=True)]
        for part in parts[:-1]:
            stream += xdr.uint(len(part)) + part
        stream += xdr.uint(0x8000_0000 | len(parts[-1])) + parts[-1]
    size = draw.draw(st.integers(1, 50))
    reader = RecordReader(LIMIT)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [record for piece in pieces for record in reader.feed(piece)] == given_records


@given(st.integers(LIMIT + 1, 2**31 - 1), st.booleans())
def test_an_oversized_record_is_refused_at_its_header(size: int, last: bool) -> None:
    """A fragment above the limit is malformed before its bytes arrive."""
    with pytest.raises(MalformedReply):
        list(RecordReader(LIMIT).feed(xdr.uint(size | (0x8000_0000 if last else 0))))


def test_an_endless_record_is_refused() -> None:
    """Endless fragments are malformed once they exceed the limit."""
    reader = RecordReader(LIMIT)
    endless = (xdr.uint(100) + bytes(100) for _ in range(LIMIT))
    with pytest.raises(MalformedReply):
        list(itertools.chain.from_iterable(map(reader.feed, endless)))


def test_endless_empty_fragments_are_refused() -> None:
    """An empty fragment that is not the last is malformed, because a server could send them endlessly."""
    with pytest.raises(MalformedReply):
        list(RecordReader(LIMIT).feed(xdr.uint(0)))


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_stream_is_read_or_refused(pieces: list[bytes]) -> None:
    """Arbitrary bytes yield records below the limit, or are malformed."""
    reader = RecordReader(LIMIT)
    try:
        for piece in pieces:
            assert all(len(record) <= LIMIT for record in reader.feed(piece))
    except MalformedReply:
        pass
