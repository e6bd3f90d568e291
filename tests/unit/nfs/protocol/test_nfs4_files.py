"""nfs.protocol.nfs4_files: it reads valid replies, sends what the RFCs define, and other bytes do no harm."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import nfs4, nfs4_files, nfs4_xattrs, xdr
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_files import ANONYMOUS, Copied, Opened
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Facts, Position
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.files import Kept, Kind
from tests.support.nfs.replies import words

pytestmark = pytest.mark.timeout(120)

OPERATIONS: tuple[Operation[object], ...] = (
    nfs4_files.getattr(),
    nfs4_files.create("name", nfs4_files.settable(mode=0o200)),
    nfs4_files.close(),
    nfs4_files.commit(),
    nfs4_files.clone(),
    nfs4_files.copy(0, 1 << 20),
    nfs4_files.readdir(Position(), 4096),
    nfs4_files.readlink(),
    nfs4_files.create_fifo("name", nfs4_files.settable(mode=0o600)),
    nfs4_files.link("name"),
    nfs4_files.read(0, 4096),
    nfs4_files.write(0, b"data", stable=True),
    nfs4_files.seek(0, data=True),
    nfs4_files.set_client_id(bytes(8), b"id"),
    nfs4_files.confirm_client_id(1, bytes(8)),
    nfs4_files.create40("name", nfs4_files.settable(mode=0o600), 1, b"owner"),
    nfs4_files.confirm(bytes(16)),
    nfs4_files.close40(bytes(16), 2),
    nfs4_files.largest_sizes(),
    nfs4_xattrs.support(),
    nfs4_xattrs.list_names(0),
    nfs4_xattrs.get("name"),
    nfs4_xattrs.set("name", b"value"),
)
OPENED_RESULT = bytes(16) + words(1) + bytes(16) + words(4, 0)
"""OPEN4resok up to its delegation."""

hypers = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8"), max_size=40)
times = st.integers(-(2**63) * 10**9, 2**63 * 10**9 - 1)
kinds: dict[Kind, int] = {"file": 1, "directory": 2, "other": 4, "symlink": 5, "fifo": 7}
files = st.builds(
    Facts,
    st.sampled_from(list(kinds)),
    st.tuples(hypers, hypers),
    hypers,
    st.integers(0, 2**32 - 1),
    hypers,
    hypers,
    st.builds(Kept, st.integers(0, 0o7777), names, names, times, times),
)


def nfstime4(time_ns: int) -> bytes:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return xdr.hyper(seconds % 2**64) + words(nanoseconds)


def fattr4(found: Facts, handle: bytes = b"") -> bytes:
    """Encode `fattr4` as GETATTR returns it; with a handle, as READDIR does."""
    kept = found.kept
    values = words(kinds[found.kind]) + xdr.hyper(found.size_bytes) + b"".join(map(xdr.hyper, found.fsid))
    values += (words(0) + xdr.opaque(handle)) if handle else b""
    values += xdr.hyper(found.fileid) + words(kept.mode, found.links) + xdr.string(kept.owner)
    values += (
        xdr.string(kept.group) + xdr.hyper(found.used_bytes) + nfstime4(kept.accessed_ns) + nfstime4(kept.modified_ns)
    )
    return attributes4.bitmap(*(nfs4_files.ENTRY if handle else nfs4_files.FACTS)) + xdr.opaque(values)


def result_of(operation: Operation[object], result: bytes) -> object:
    """Decode the result of a compound with one operation."""
    reply = Cursor(words(0, 0, 1, operation.number, 0) + result)
    return nfs4.compound((operation,), minor=2).decode(reply)[operation]


@given(files)
def test_attributes_come_back(found: Facts) -> None:
    """GETATTR returns type, size, mode, the server's owner strings, and times before and after 1970."""
    assert result_of(nfs4_files.getattr(), fattr4(found)) == found


@given(files)
def test_a_directory_comes_back(found: Facts) -> None:
    """READDIR returns handle and attributes of each entry, and what it knows of one without attributes."""
    error = attributes4.bitmap(attributes4.RDATTR_ERROR) + xdr.opaque(words(13))
    entries = words(1) + xdr.hyper(7) + xdr.string("a") + fattr4(found, b"handle")
    entries += words(1) + xdr.hyper(8) + xdr.string("b") + error
    readdir = nfs4_files.readdir(Position(), 4096)
    expected = DirectoryEntry("a", b"handle", None, 7, found), DirectoryEntry("b", None, None, 8)
    assert result_of(readdir, bytes(8) + entries + words(0, 1)) == DirectoryPage(expected, None)
    assert result_of(readdir, bytes(8) + entries + words(0, 0)) == DirectoryPage(expected, Position(8))
    few = result_of(nfs4_files.readdir(Position(), 16), bytes(8) + entries + words(0, 0))
    assert few == DirectoryPage(expected[:1], Position(7))


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
        size_bytes=9, mode=0o640, owner="u", group="g", accessed_ns=2 - 10**9, modified_ns=3 * 10**9 + 4
    )
    values = xdr.hyper(9) + words(0o640) + xdr.string("u") + xdr.string("g")
    values += words(1, 2**32 - 1, 2**32 - 1, 2) + words(1, 0, 3, 4)
    assert encoded == words(2, 1 << 4, 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 22) + xdr.opaque(values)


@given(hypers, hypers)
def test_the_largest_sizes(read: int, written: int) -> None:
    """GETATTR returns the largest READ and WRITE, and 0 for one that the server does not say."""
    both = attributes4.bitmap(30, 31) + xdr.opaque(xdr.hyper(read) + xdr.hyper(written))
    assert result_of(nfs4_files.largest_sizes(), both) == (read, written)
    one = attributes4.bitmap(31) + xdr.opaque(xdr.hyper(written))
    assert result_of(nfs4_files.largest_sizes(), one) == (0, written)


@given(st.lists(names, max_size=4), st.binary(max_size=50), hypers)
def test_extended_attributes_come_back(found: list[str], value: bytes, cookie: int) -> None:
    """LISTXATTRS returns names and where to go on, GETXATTR a value, and GETATTR whether there are any."""
    listed = xdr.hyper(cookie) + xdr.array(map(xdr.string, found))
    assert result_of(nfs4_xattrs.list_names(0), listed + words(1)) == (tuple(found), None)
    if found:
        assert result_of(nfs4_xattrs.list_names(0), listed + words(0)) == (tuple(found), cookie)
    assert result_of(nfs4_xattrs.get("a"), xdr.opaque(value)) == value
    for has in (True, False):
        supported = attributes4.bitmap(82) + xdr.opaque(words(has))
        assert result_of(nfs4_xattrs.support(), supported) is has
    assert result_of(nfs4_xattrs.support(), attributes4.bitmap() + xdr.opaque(b"")) is False


def test_an_extended_attribute_is_set_as_the_rfc_draws_it() -> None:
    """SETXATTR has its option (either way), the name without a namespace, and the value."""
    set_ = nfs4_xattrs.set("ab", b"xyz")
    assert (set_.number, set_.changes) == (73, True)
    assert set_.arguments == words(0, 2) + b"ab\0\0" + words(3) + b"xyz\0"


@pytest.mark.parametrize("delegation", [(0,), (3, 0), (3, 1, 1), (3, 2, 0), (3, 8)])
def test_a_file_without_a_delegation_is_open(delegation: tuple[int, ...]) -> None:
    """OPEN is decoded with each reason why a server grants no delegation."""
    opened = result_of(nfs4_files.create("a", nfs4_files.settable()), OPENED_RESULT + words(*delegation))
    assert opened == Opened(bytes(16), unconfirmed=False)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (OPERATIONS[1], OPENED_RESULT + words(1)),  # a delegation
        (OPERATIONS[5], words(1) + bytes(16) + bytes(8) + words(2) + bytes(16)),  # still copying
        (OPERATIONS[5], words(0) + xdr.hyper((1 << 20) + 1) + words(2) + bytes(16)),  # more than was asked for
        (OPERATIONS[5], words(0) + xdr.hyper(1) + words(3) + bytes(16)),  # an unknown stable_how4
        (OPERATIONS[0], attributes4.bitmap(2) + xdr.opaque(words(1))),  # attributes that were not asked for
        (nfs4_files.largest_sizes(), attributes4.bitmap(2) + xdr.opaque(words(1))),
        (nfs4_xattrs.support(), attributes4.bitmap(2) + xdr.opaque(words(1))),  # attributes that were not asked for
        (nfs4_xattrs.list_names(0), xdr.hyper(7) + words(0, 0)),  # no names, and no end
        (nfs4_files.write(0, b"data", stable=True), words(5, 2) + bytes(8)),  # more than was sent
        (nfs4_files.write(0, b"data", stable=True), words(0, 2) + bytes(8)),  # nothing
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
def test_a_reply_with_a_changed_byte_is_read_or_refused(found: Facts, draw: st.DataObject) -> None:
    """File attributes that are cut, or have one changed byte, do no harm."""
    reply = bytearray(fattr4(found))
    reply[draw.draw(st.integers(0, len(reply) - 1))] = draw.draw(st.integers(0, 255))
    for data in (bytes(reply), bytes(reply[: draw.draw(st.integers(0, len(reply)))])):
        with contextlib.suppress(ProvisionerError):
            result_of(nfs4_files.getattr(), data)
