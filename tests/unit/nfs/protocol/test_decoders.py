"""nfs.protocol decoders: they read valid replies, and other bytes do no harm."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import ProvisionerError
from provisioner.nfs.protocol import mount3, nfs3, nfs4, nfs4_files, nfs4_sessions, portmap, rpc, xdr
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.rpc import Procedure
from provisioner.nfs.protocol.values import Attributes, DirectoryEntry, DirectoryPage, Position
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply
from provisioner.ports.tree import FilesystemStats
from tests.support.nfs import replies
from tests.support.nfs.replies import accepted, decoded, words

pytestmark = pytest.mark.timeout(120)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda name: name not in (".", ".."))
handles = st.binary(min_size=1, max_size=64)
hypers = st.integers(0, 2**64 - 1)
kinds = st.sampled_from(["directory", "symlink", "file"])
modes = st.integers(0, 0o7777)
positions = st.none() | st.builds(Position, st.integers(1, 2**64 - 1), st.binary(min_size=8, max_size=8))

attributes3 = st.builds(
    Attributes, kinds, modes, st.tuples(hypers, st.just(0)), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)
)
attributes_of_4 = st.builds(Attributes, kinds, modes, st.tuples(hypers, hypers))
entries3 = st.builds(DirectoryEntry, names, st.none() | handles, st.none() | attributes3)
entries4 = st.builds(DirectoryEntry, names, handles, attributes_of_4)

OPERATIONS: tuple[Operation[object], ...] = (
    nfs4.putrootfh(),
    nfs4.getfh(),
    nfs4.lookup("name"),
    nfs4.getattr(*attributes4.OBJECT),
    nfs4.setattr(attributes4.settable(mode=0o755)),
    nfs4.create_directory("name", attributes4.settable(uid=1)),
    nfs4.readlink(),
    nfs4.remove("name"),
    nfs4.rename("a", "b"),
    nfs4.readdir(Position(), 4096, *attributes4.ENTRY),
    nfs4_sessions.exchange_id(bytes(8), b"owner"),
    nfs4_sessions.create_session(nfs4_sessions.ClientId(1, 1), *([nfs4_sessions.Channel(1, 1, 1, 1, 1)] * 2)),
    nfs4_sessions.sequence(bytes(16), 1, 0, 0),
    nfs4.getattr(*attributes4.SPACE),
    nfs4_files.getattr(),
    nfs4_files.create("name", nfs4_files.settable(mode=0o600)),
    nfs4_files.commit(),
    nfs4_files.copy(0, 100),
)
PROCEDURES: tuple[Procedure[object], ...] = (
    *replies.PROCEDURES3,
    mount3.mnt("/export"),
    portmap.getport(100003, 3),
    nfs4.compound(OPERATIONS, minor=2),
    *(nfs4.compound((operation,), minor=1) for operation in OPERATIONS),
)


@given(st.lists(entries3, max_size=8), positions)
def test_a_page_of_nfs3_comes_back(entries: list[DirectoryEntry], position: Position | None) -> None:
    """READDIRPLUS returns all entries but `.` and `..`, with handle and attributes, and the next position."""
    page = DirectoryPage(tuple(entries), position)
    assert decoded(nfs3.readdirplus(b"h", Position(), 4096), replies.page3(page)) == page


@given(st.lists(entries4, min_size=1, max_size=8), positions)
def test_a_page_of_nfs4_comes_back(entries: list[DirectoryEntry], position: Position | None) -> None:
    """READDIR returns all entries with handle, type, mode and file system, and the next position."""
    page = DirectoryPage(tuple(entries), position)
    readdir = nfs4.readdir(Position(), 4096, *attributes4.ENTRY)
    answer = nfs4.compound((readdir,), minor=1).decode(Cursor(words(0, 0, 1, 26, 0) + replies.page4(page)))
    assert answer[readdir] == page


def test_a_compound_is_as_the_rfc_draws_it() -> None:
    """COMPOUND has a tag, the minor version, and the operations with number and arguments."""
    procedure = nfs4.compound((nfs4.putrootfh(), nfs4.lookup("ab"), nfs4.getfh()), minor=1)
    assert procedure.arguments == words(0, 1, 3, 24, 15, 2) + b"ab\0\0" + words(10)
    assert not procedure.changes
    assert nfs4.compound((nfs4.putrootfh(), nfs4.remove("x")), minor=0).changes


def test_an_answer_says_where_a_compound_stopped() -> None:
    """An answer has the results before the failed operation, whose index is their number."""
    getfh, lookup = nfs4.getfh(), nfs4.lookup("x")
    procedure = nfs4.compound((nfs4.putrootfh(), getfh, lookup, nfs4.remove("y")), minor=0)
    result = words(2, 0, 3, 24, 0, 10, 0) + xdr.opaque(b"root") + words(15, 2)
    answer = procedure.decode(Cursor(result))
    assert (answer.status, answer.completed, answer[getfh], answer.changed) == (2, 2, b"root", False)


def test_a_minor_version_that_is_missing_answers_no_operation() -> None:
    """NFS4ERR_MINOR_VERS_MISMATCH has no results."""
    answer = nfs4.compound((nfs4.putrootfh(),), minor=2).decode(Cursor(words(10021, 0, 0)))
    assert (answer.status, answer.completed) == (nfs4.Status.NFS4ERR_MINOR_VERS_MISMATCH, 0)


@pytest.mark.parametrize(
    "result",
    [
        words(0, 0, 0),  # success without a result
        words(0, 0, 2, 24, 0, 24, 0),  # more results than operations
        words(0, 0, 1, 25, 0),  # the result of another operation
        words(2, 0, 1, 24, 5),  # two different statuses
        words(0, 0, 1, 24, 0, 0),  # more than was expected
    ],
)
def test_an_answer_that_does_not_fit_is_malformed(result: bytes) -> None:
    """An answer that does not fit the compound is malformed."""
    with pytest.raises(MalformedReply):
        nfs4.compound((nfs4.putrootfh(),), minor=0).decode(Cursor(result))


def test_owners_are_sent_as_numbers() -> None:
    """Owner and group are decimal strings after the mode, in the order of the attribute numbers."""
    encoded = attributes4.settable(mode=0o700, uid=65534, gid=12)
    values = words(0o700) + xdr.string("65534") + xdr.string("12")
    assert encoded == words(2, 0, 1 << 1 | 1 << 4 | 1 << 5) + xdr.opaque(values)


def test_an_unrequested_attribute_is_malformed() -> None:
    """A bitmap with an unknown bit is malformed, because the length of its value is unknown."""
    with pytest.raises(MalformedReply):
        attributes4.fattr4(Cursor(attributes4.bitmap(4) + xdr.opaque(bytes(8))))


def test_a_refused_mount_is_an_error() -> None:
    """A refused MNT raises MountRefused, for unknown values as well."""
    for status, text in ((13, "MNT3ERR_ACCES"), (12345, "mountstat3 12345")):
        with pytest.raises(mount3.MountRefused, match=text):
            decoded(mount3.mnt("/x"), words(status))


def test_a_mount_gives_handle_and_flavors() -> None:
    """MNT returns the root of the export and the authentication flavors that the export accepts."""
    reply = words(0) + xdr.opaque(b"handle") + words(2, 390003, 1)
    assert decoded(mount3.mnt("/x"), reply) == mount3.Mounted(b"handle", (390003, 1))


@given(st.sampled_from(PROCEDURES), st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(procedure: Procedure[object], data: bytes) -> None:
    """For arbitrary bytes, a decoder returns a result or raises ProvisionerError, in bounded time."""
    for reply in (data, accepted(data)):
        try:
            procedure.decode(rpc.results(reply))
        except ProvisionerError:
            continue


@given(st.sampled_from(PROCEDURES), st.lists(st.integers(0, 64) | st.integers(0, 2**32 - 1), max_size=60))
def test_any_numbers_are_read_or_refused(procedure: Procedure[object], numbers: list[int]) -> None:
    """For arbitrary numbers, lengths and counts, a decoder returns a result or raises ProvisionerError."""
    with contextlib.suppress(ProvisionerError):
        procedure.decode(Cursor(words(*numbers)))


@given(st.integers(1, 2**32 - 1), st.lists(st.integers(0, 3), max_size=5))
def test_a_failed_compound_names_an_operation_of_its_own(status: int, statuses: list[int]) -> None:
    """An answer with an error status names the failed operation, or is malformed."""
    operations = tuple(nfs4.lookup(str(number)) for number in range(5))
    result = words(status, 0, len(statuses)) + b"".join(words(15, each) for each in statuses)
    with contextlib.suppress(MalformedReply):
        answer = nfs4.compound(operations, minor=0).decode(Cursor(result))
        assert answer.completed < len(operations)


@given(st.lists(entries4, min_size=2, max_size=8), st.integers(1, 2000))
def test_a_page_ends_at_the_requested_size(entries: list[DirectoryEntry], size_bytes: int) -> None:
    """Entries beyond the requested size are left for the next page, which begins behind the last entry."""
    entries = [replace(entry, cookie=cookie) for cookie, entry in enumerate(entries, 3)]
    reply = replies.page4(DirectoryPage(tuple(entries), None))
    readdir = nfs4.readdir(Position(), size_bytes, *attributes4.ENTRY)
    page = nfs4.compound((readdir,), minor=1).decode(Cursor(words(0, 0, 1, 26, 0) + reply))[readdir]
    assert page.entries == tuple(entries[: len(page.entries)])
    assert page.entries
    if page.next is not None:
        assert page.next.cookie == page.entries[-1].cookie
        assert len(reply) > size_bytes
    cut = page.first(1)
    assert cut is page if len(page.entries) == 1 else cut.next == Position(entries[0].cookie, page.verifier)


@given(st.binary(max_size=4000))
def test_a_bitmap_never_grows_with_a_reply(data: bytes) -> None:
    """A bitmap is limited to the attributes of all minor versions, whatever length it claims."""
    claimed = words(len(data) // 4) + data
    with contextlib.suppress(MalformedReply):
        assert len(attributes4.numbers(Cursor(claimed))) <= 32 * attributes4.BITMAP_LIMIT_WORDS
    huge = words(200_000) + b"\xff" * 800_000
    with pytest.raises(MalformedReply):
        attributes4.numbers(Cursor(huge))


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 5))
def test_any_limits_of_a_session_are_read(limits: tuple[int, int, int, int, int]) -> None:
    """CREATE_SESSION returns any limits; the lower value of server and client applies."""
    channel = nfs4_sessions.Channel(*limits)
    create = nfs4_sessions.create_session(nfs4_sessions.ClientId(1, 1), channel, channel)
    resok = bytes(16) + words(1, 0) + channel.encoded() * 2
    answer = nfs4.compound((create,), minor=1).decode(Cursor(words(0, 0, 1, 43, 0) + resok))
    assert answer[create].channel == channel
    ours = nfs4_sessions.Channel(100, 200, 300, 400, 500)
    assert channel.within(ours) == nfs4_sessions.Channel(*map(min, limits, (100, 200, 300, 400, 500)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_largest_sizes(read: int, written: int) -> None:
    """FSINFO returns the largest READ and WRITE."""
    reply = words(0, 0, read, 4096, 512, written, 4096, 512, 4096) + bytes(8 + 8) + words(0)
    assert decoded(nfs3.largest_sizes(b"h"), reply) == (read, written)


@given(st.tuples(*[hypers] * 4))
def test_any_space_is_counted(said: tuple[int, int, int, int]) -> None:
    """FSSTAT returns 0 for negative numbers of the server, and all others unchanged."""
    size, available, files, files_available = said
    numbers = (size, available, available, files, files_available, files_available)
    reply = words(0, 0) + b"".join(map(xdr.hyper, numbers)) + words(0)
    space = decoded(nfs3.fsstat(b"h"), reply)
    assert isinstance(space, FilesystemStats)
    seen = (space.size_bytes, space.free_bytes, space.inodes, space.free_inodes)
    assert seen == tuple(0 if number >= 2**63 else number for number in said)


@given(st.lists(entries4, min_size=1, max_size=4), st.data())
def test_a_reply_with_a_changed_byte_is_read_or_refused(entries: list[DirectoryEntry], draw: st.DataObject) -> None:
    """A page of a directory that is cut, or has one changed byte, does no harm."""
    readdir = nfs4.compound((nfs4.readdir(Position(), 4096, *attributes4.ENTRY),), minor=1)
    reply = bytearray(words(0, 0, 1, 26, 0) + replies.page4(DirectoryPage(tuple(entries), None)))
    reply[draw.draw(st.integers(0, len(reply) - 1))] = draw.draw(st.integers(0, 255))
    for data in (bytes(reply), bytes(reply[: draw.draw(st.integers(0, len(reply)))])):
        try:
            readdir.decode(Cursor(data))
        except ProvisionerError:
            continue
