"""nfs.protocol.nfs4_files: it reads valid replies, sends what the RFCs define, and other bytes do no harm."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import nfs4, nfs4_files, xdr
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_files import ANONYMOUS, Copied, FileAttributes, Time
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from tests.support.nfs.replies import words

pytestmark = pytest.mark.timeout(120)

OPERATIONS: tuple[Operation[object], ...] = (
    nfs4_files.getattr(),
    nfs4_files.create("name", nfs4_files.settable(mode=0o200)),
    nfs4_files.close(),
    nfs4_files.commit(),
    nfs4_files.clone(),
    nfs4_files.copy(0, 1 << 20),
)
OPENED_RESULT = bytes(16) + words(1) + bytes(16) + words(4, 0)
"""OPEN4resok up to its delegation."""

hypers = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8"), max_size=40)
times = st.builds(Time, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
files = st.builds(FileAttributes, st.booleans(), hypers, st.integers(0, 0o7777), names, names, times, times)


def fattr4(found: FileAttributes) -> bytes:
    """Encode `fattr4` as GETATTR returns it."""
    values = words(1 if found.regular else 5) + xdr.hyper(found.size_bytes) + words(found.mode)
    values += xdr.string(found.owner) + xdr.string(found.group) + found.accessed.encoded() + found.modified.encoded()
    return attributes4.bitmap(*nfs4_files.FILE) + xdr.opaque(values)


def result_of(operation: Operation[object], result: bytes) -> object:
    """Decode the result of a compound with one operation."""
    reply = Cursor(words(0, 0, 1, operation.number, 0) + result)
    return nfs4.compound((operation,), minor=2).decode(reply)[operation]


@given(files)
def test_attributes_come_back(found: FileAttributes) -> None:
    """GETATTR returns type, size, mode, the server's owner strings, and times before and after 1970."""
    assert result_of(nfs4_files.getattr(), fattr4(found)) == found


@given(hypers, st.booleans(), st.binary(min_size=8, max_size=8), st.integers(0, 1), st.integers(0, 1))
def test_the_result_of_a_copy(size_bytes: int, stable: bool, verifier: bytes, one: int, other: int) -> None:
    """COPY returns the number of bytes, whether they are stable, and the verifier."""
    reply = words(0) + xdr.hyper(size_bytes) + words(2 if stable else 0) + verifier + words(one, other)
    assert result_of(nfs4_files.copy(0, 2**64 - 1), reply) == Copied(size_bytes, stable, verifier)


def test_a_copy_is_as_the_rfc_draws_it() -> None:
    """COPY has two stateids, two offsets, a count, consecutive and synchronous, and no source servers."""
    copy = nfs4_files.copy(5, 7)
    assert (copy.number, copy.changes) == (60, True)
    assert copy.arguments == ANONYMOUS * 2 + xdr.hyper(5) + xdr.hyper(5) + xdr.hyper(7) + words(1, 1, 0)


def test_a_clone_is_as_the_rfc_draws_it() -> None:
    """CLONE has two stateids, two offsets, and the count 0, which means the whole file."""
    clone = nfs4_files.clone()
    assert (clone.number, clone.changes) == (71, True)
    assert clone.arguments == ANONYMOUS * 2 + bytes(24)


def test_a_file_is_made_as_the_rfc_draws_it() -> None:
    """OPEN is by name, without a delegation, and exclusive; CLOSE uses the current stateid."""
    attributes = nfs4_files.settable(mode=0o200)
    create = nfs4_files.create("ab", attributes)
    assert create.arguments == (
        words(0, 0x402, 0)
        + bytes(8)
        + xdr.opaque(b"nfs-provisioner")
        + words(1, 1)
        + attributes
        + words(0, 2)
        + b"ab\0\0"
    )
    assert nfs4_files.close().arguments == words(0, 1, 0, 0, 0)


def test_attributes_are_in_the_order_of_their_numbers() -> None:
    """`fattr4` has size, mode, owner, group and client times, in the order of the attribute numbers."""
    encoded = nfs4_files.settable(
        size_bytes=9, mode=0o640, owner="u", group="g", accessed=Time(-1, 2), modified=Time(3, 4)
    )
    values = xdr.hyper(9) + words(0o640) + xdr.string("u") + xdr.string("g")
    values += words(1, 2**32 - 1, 2**32 - 1, 2) + words(1, 0, 3, 4)
    assert encoded == words(2, 1 << 4, 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 22) + xdr.opaque(values)


@pytest.mark.parametrize("delegation", [(0,), (3, 0), (3, 1, 1), (3, 2, 0), (3, 8)])
def test_a_file_without_a_delegation_is_open(delegation: tuple[int, ...]) -> None:
    """OPEN is decoded with each reason why a server grants no delegation."""
    assert result_of(nfs4_files.create("a", nfs4_files.settable()), OPENED_RESULT + words(*delegation)) is None


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (OPERATIONS[1], OPENED_RESULT + words(1)),  # a delegation
        (OPERATIONS[5], words(1) + bytes(16) + bytes(8) + words(2) + bytes(16)),  # still copying
        (OPERATIONS[5], words(0) + xdr.hyper((1 << 20) + 1) + words(2) + bytes(16)),  # more than was asked for
        (OPERATIONS[5], words(0) + xdr.hyper(1) + words(3) + bytes(16)),  # an unknown stable_how4
        (OPERATIONS[0], attributes4.bitmap(1) + xdr.opaque(words(1))),  # attributes left out
    ],
)
def test_an_unrequested_result_is_malformed(operation: Operation[object], result: bytes) -> None:
    """A delegation, an asynchronous copy, and results beyond or below the request are malformed."""
    with pytest.raises(MalformedReply):
        result_of(operation, result)


@given(st.sampled_from(OPERATIONS), st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(operation: Operation[object], data: bytes) -> None:
    """For arbitrary bytes, a decoder returns a result or raises ProvisionerError."""
    with contextlib.suppress(ProvisionerError):
        result_of(operation, data)


@given(st.sampled_from(OPERATIONS), st.lists(st.integers(0, 64) | st.integers(0, 2**32 - 1), max_size=60))
def test_any_numbers_are_read_or_refused(operation: Operation[object], numbers: list[int]) -> None:
    """For arbitrary numbers, lengths and counts, a decoder returns a result or raises ProvisionerError."""
    with contextlib.suppress(ProvisionerError):
        result_of(operation, words(*numbers))


@given(files, st.data())
def test_a_reply_with_a_changed_byte_is_read_or_refused(found: FileAttributes, draw: st.DataObject) -> None:
    """File attributes that are cut, or have one changed byte, do no harm."""
    reply = bytearray(fattr4(found))
    reply[draw.draw(st.integers(0, len(reply) - 1))] = draw.draw(st.integers(0, 255))
    for data in (bytes(reply), bytes(reply[: draw.draw(st.integers(0, len(reply)))])):
        with contextlib.suppress(ProvisionerError):
            result_of(nfs4_files.getattr(), data)
