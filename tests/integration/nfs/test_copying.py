"""Copies within the server: with the Linux kernel's server, which supports them, and Ganesha 4.3, which does not."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from provisioner.nfs.client import copy_file
from provisioner.nfs.client.connect import Endpoint
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Place
from provisioner.nfs.client.nfs4 import Client4, lookup_ops
from provisioner.nfs.client.resolver import Resolver
from provisioner.nfs.protocol import nfs4, nfs4_files, xdr
from provisioner.nfs.protocol.nfs4 import Operation
from provisioner.nfs.protocol.nfs4_files import ANONYMOUS, UNSTABLE4, FileAttributes, Time, settable
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.nfs.protocol.xdr import Cursor
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists, PathMissing
from testbed import vm
from testbed.ganesha import Ganesha
from testbed.vm import KernelServer
from tests.support.nfs.relay import Cut, Relay, relay_to

pytestmark = pytest.mark.timeout(180)

FOREVER = Deadline(at_s=float("inf"))
ROOT, OTHER_USER = Credentials(), Credentials(uid=1000, gid=1000)
CHUNK_BYTES = 60_000
SIZE_BYTES = (6 << 20) + 12_345
"""More than the kernel's server copies in one call, and no multiple of a block."""

_OWNED = settable(owner="1000", group="1001"), settable(mode=0o4751, modified=Time(1_000_000_000, 5000))

CLONE, COPY, UNKNOWN = (xdr.uint(number) + ANONYMOUS for number in (71, 60, 9999))
CLOSE_OPEN = xdr.uint(4) + xdr.uint(0) + nfs4_files.CURRENT
COMMIT = xdr.uint(5) + bytes(12)
SETATTR = xdr.uint(34) + ANONYMOUS


class Desk:
    """A directory of a server in which tests write, copy and read files."""

    def __init__(self, client: Client4, root: bytes) -> None:
        self.client = client
        self.root = root

    def at(self, *path: str) -> Place:
        """Return the place of a path."""
        return Place(self.root, path)

    async def write(self, name: str, content: bytes, *attributes: bytes) -> None:
        """Create a file with this content, and set these attributes one after the other."""
        create = nfs4_files.create(name, settable(mode=0o600))
        getfh = nfs4.getfh()
        made = await self.client.complete(
            FOREVER, self.at(name), nfs4.putfh(self.root), create, getfh, nfs4_files.close()
        )
        file = nfs4.putfh(made[getfh])
        for offset in range(0, len(content), CHUNK_BYTES):
            write = _write(offset, content[offset : offset + CHUNK_BYTES])
            await self.client.complete(FOREVER, self.at(name), file, write)
        setattrs = map(nfs4.setattr, attributes)
        await self.client.complete(FOREVER, self.at(name), file, nfs4_files.commit(), *setattrs)

    async def read(self, name: str) -> bytes:
        """Return the content of a file."""
        content = b""
        while True:
            read = Operation(25, ANONYMOUS + xdr.hyper(len(content)) + xdr.uint(CHUNK_BYTES), _read4resok)
            answer = await self.client.complete(FOREVER, self.at(name), *lookup_ops(self.at(name)), read)
            end, data = answer[read]
            content += data
            if end:
                return content

    async def seen(self, name: str) -> FileAttributes:
        """Return the attributes of a file."""
        getattr_ = nfs4_files.getattr()
        return (await self.client.complete(FOREVER, self.at(name), *lookup_ops(self.at(name)), getattr_))[getattr_]


def _write(offset: int, data: bytes) -> Operation[bytes]:
    """WRITE (RFC 8881 section 18.32)."""
    arguments = ANONYMOUS + xdr.hyper(offset) + xdr.uint(UNSTABLE4) + xdr.opaque(data)
    return Operation(38, arguments, lambda reply: reply.fixed(16), changes=True)


def _read4resok(reply: Cursor) -> tuple[bool, bytes]:
    """READ (RFC 8881 section 18.22)."""
    return reply.bool(), reply.opaque(CHUNK_BYTES)


@contextlib.asynccontextmanager
async def _desk(port: int, export: str, identity: Credentials = ROOT, version: int = 2) -> AsyncIterator[Desk]:
    """Return a client at the root of an export."""
    endpoint = Endpoint("127.0.0.1", port, nfs4.PROGRAM, nfs4.VERSION)
    client = Client4(Connection(endpoint, identity, Resolver(), timeout_s=30.0), version)
    try:
        yield Desk(client, (await client.root(FOREVER, (export,))).handle)
    finally:
        client.close()


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelServer]:
    """One virtual machine for the module; skips the tests if none can run."""
    reason = vm.missing()
    if reason:
        pytest.skip(f"this machine cannot run the kernel's NFS server: {reason}")
    with KernelServer() as running:
        yield running


@pytest.fixture
async def relay(kernel: KernelServer) -> AsyncIterator[Relay]:
    """A relay in front of the kernel's server."""
    async with relay_to(kernel.port) as relay:
        yield relay


@pytest.fixture
async def desk(relay: Relay) -> AsyncIterator[Desk]:
    """A new directory of the kernel's server, owned by another user, and used as root through the relay."""
    name = secrets.token_hex(6)
    async with _desk(relay.port, "srv") as top:
        access = Ownership(mode=0o755, uid=OTHER_USER.uid, gid=OTHER_USER.gid)
        await top.client.make_directory(FOREVER, top.at(name), access)
        yield Desk(top.client, (await top.client.look_up(FOREVER, top.at(name))).handle)


@pytest.fixture
async def ganesha_desk(server: Ganesha) -> AsyncIterator[Desk]:
    """An empty export of Ganesha."""
    async with _desk(server.port, "plain") as desk:
        yield desk


def _content(size_bytes: int = 300_001) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


@pytest.mark.parametrize("way", ["clone", "copy"])
async def test_a_copy_is_whole_and_its_bytes_stay_at_the_server(desk: Desk, relay: Relay, way: str) -> None:
    """A copy has content, mode, owner and times of the source, and little data crosses the network."""
    await desk.write("a", _content(SIZE_BYTES), *_OWNED)
    source = await desk.seen("a")
    before = relay.sent_bytes + relay.received_bytes
    if way == "clone":
        assert await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b")) == "clone"
    else:
        await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert relay.sent_bytes + relay.received_bytes - before < 8192
    made = await desk.seen("b")
    assert (made.mode, made.owner, made.group, made.size_bytes) == (0o4751, "1000", "1001", SIZE_BYTES)
    assert (made.modified, made.accessed) == (source.modified, source.accessed)
    assert await desk.read("b") == _content(SIZE_BYTES)


async def test_a_clone_shares_what_is_stored(desk: Desk) -> None:
    """A clone of a file uses almost no space."""
    await desk.write("a", _content(SIZE_BYTES))
    before = await desk.client.space(FOREVER, desk.root)
    await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    after = await desk.client.space(FOREVER, desk.root)
    assert before.free_bytes - after.free_bytes < SIZE_BYTES // 4


async def test_a_server_without_clone_copies(desk: Desk, relay: Relay) -> None:
    """If the server does not support CLONE, a clone becomes a copy, and reports it."""
    relay.change = lambda call: call.replace(CLONE, UNKNOWN)
    await desk.write("a", _content())
    assert await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b")) == "copy"
    assert await desk.read("b") == _content()


@pytest.mark.parametrize("way", [copy_file.clone, copy_file.copy])
async def test_an_empty_file_is_copied(desk: Desk, way: Callable[..., Awaitable[object]]) -> None:
    """An empty file is copied like any other."""
    await desk.write("a", b"", settable(mode=0o640))
    await way(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert ((await desk.seen("b")).size_bytes, (await desk.seen("b")).mode) == (0, 0o640)


@pytest.mark.parametrize("size_bytes", [0, 1000])
async def test_an_existing_target_is_refused(desk: Desk, size_bytes: int) -> None:
    """A file, a directory, a symlink, a finished copy and the source are refused as targets, unchanged."""
    await desk.write("a", _content(size_bytes))
    await desk.write("file", b"theirs")
    await desk.write("writeonly", b"theirs", settable(mode=copy_file.UNFINISHED_MODE))
    await desk.client.make_directory(FOREVER, desk.at("directory"), Ownership())
    await desk.client.make_symlink(FOREVER, desk.at("symlink"), "nowhere")
    await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("done"))
    for name in ("file", "writeonly", "directory", "symlink", "done", "a"):
        with pytest.raises(PathExists):
            await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at(name))
    assert (await desk.read("file"), await desk.read("writeonly")) == (b"theirs", b"theirs")
    assert await desk.read("done") == await desk.read("a") == _content(size_bytes)
    assert await desk.client.read_symlink(FOREVER, desk.at("symlink")) == "nowhere"
    with pytest.raises(PathMissing):
        await desk.seen("nowhere")


async def test_an_unfinished_copy_of_another_source_is_refused(desk: Desk, relay: Relay) -> None:
    """Only an unfinished copy of the same source is continued."""
    await desk.write("a", b"one")
    await desk.write("other", b"two")
    relay.cut = _once(CLONE, "before")
    with pytest.raises(ExportError):
        await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    with pytest.raises(PathExists):
        await copy_file.clone(desk.client, FOREVER, desk.at("other"), desk.at("b"))
    await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert await desk.read("b") == b"one"


@pytest.mark.parametrize(
    ("operation", "way"),
    [(CLOSE_OPEN, "copy"), (COPY, "copy"), (CLONE, "clone"), (SETATTR, "clone")],
    ids=["create", "copy", "clone", "last"],
)
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_interrupted_copy_is_continued(desk: Desk, relay: Relay, operation: bytes, way: str, cut: Cut) -> None:
    """After a connection ends at any point, no user can read the partial copy, and a retry completes it.

    Only where the very last answer is lost is the copy whole already, and refused as what is there.
    """
    await desk.write("a", _content(), settable(mode=0o644))
    relay.cut = _once(operation, cut)
    run = copy_file.clone if way == "clone" else copy_file.copy
    with pytest.raises(ExportError) as caught:
        await run(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert caught.value.cause is Cause.UNREACHABLE
    if (operation, cut) == (SETATTR, "after"):
        with pytest.raises(PathExists):
            await run(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    else:
        with contextlib.suppress(PathMissing):
            assert (await desk.seen("b")).mode == copy_file.UNFINISHED_MODE
        await run(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert await desk.read("b") == _content()
    assert (await desk.seen("b")).mode == 0o644


async def test_data_that_a_restart_lost_is_copied_again(desk: Desk, relay: Relay) -> None:
    """If COMMIT returns another verifier than COPY, the server lost data, and the file is copied again."""
    copies: list[bytes] = []

    def of_another_life(call: bytes, reply: bytes) -> bytes:
        copies.extend([call] if COPY in call else [])
        return reply[:-8] + b"restart!" if COMMIT in call and len(copies) == 1 else reply

    await desk.write("a", _content())
    relay.change_reply = of_another_life
    await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert len(copies) == 2
    assert await desk.read("b") == _content()


async def test_an_unfinished_copy_is_known_after_a_restart(desk: Desk, relay: Relay, kernel: KernelServer) -> None:
    """A copy that a power loss of the server interrupted continues after the restart."""
    await desk.write("a", _content(), settable(mode=0o644))
    relay.cut = _once(COPY, "after")
    with pytest.raises(ExportError):
        await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    kernel.kill()
    kernel.start()
    assert (await desk.seen("b")).mode == copy_file.UNFINISHED_MODE
    await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert await desk.read("b") == _content()
    assert (await desk.seen("b")).mode == 0o644


async def test_an_interrupted_copy_of_a_file_that_shrank(desk: Desk, relay: Relay) -> None:
    """A retry of an interrupted copy of a file that has shrunk leaves no data behind the new end."""
    await desk.write("a", _content())
    relay.cut = _once(COPY, "after")
    with pytest.raises(ExportError):
        await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    shorter = nfs4.setattr(settable(size_bytes=1000))
    await desk.client.complete(FOREVER, desk.at("a"), *lookup_ops(desk.at("a")), shorter)
    await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
    assert await desk.read("b") == _content()[:1000]


async def test_another_user_copies_files_it_can_read(desk: Desk, kernel: KernelServer) -> None:
    """A user other than root can copy its own file, and is denied a file that it cannot read."""
    await desk.write("a", _content(), settable(owner="1000", group="1000"), settable(mode=0o400))
    await desk.write("secret", b"not theirs")
    async with _desk(kernel.port, "srv", OTHER_USER) as theirs:
        here = Desk(theirs.client, desk.root)
        assert await copy_file.clone(here.client, FOREVER, here.at("a"), here.at("b")) == "clone"
        with pytest.raises(ExportError) as caught:
            await copy_file.clone(here.client, FOREVER, here.at("secret"), here.at("c"))
        assert caught.value.cause is Cause.DENIED
    assert await desk.read("b") == _content()
    assert (await desk.seen("b")).mode == 0o400


async def test_no_source_or_parent_is_followed(desk: Desk) -> None:
    """A symlink or a directory as source and symlinks as parents are refused; a missing entry is reported."""
    await desk.write("a", b"content")
    await desk.client.make_directory(FOREVER, desk.at("directory"), Ownership())
    await desk.client.make_symlink(FOREVER, desk.at("file-link"), "a")
    await desk.client.make_symlink(FOREVER, desk.at("directory-link"), "directory")
    await _assert_refused(desk)
    with pytest.raises(PathMissing, match="missing"):
        await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("missing", "b"))
    with pytest.raises(PathMissing):
        await copy_file.copy(desk.client, FOREVER, desk.at("missing"), desk.at("b"))


async def test_a_server_without_copy(ganesha_desk: Desk) -> None:
    """Without CLONE and COPY, the error says what is required; other refusals come first."""
    desk = ganesha_desk
    await desk.write("a", b"content")
    await desk.client.make_directory(FOREVER, desk.at("directory"), Ownership())
    await desk.client.make_symlink(FOREVER, desk.at("file-link"), "a")
    await desk.client.make_symlink(FOREVER, desk.at("directory-link"), "directory")
    for _ in range(2):
        with pytest.raises(ExportError) as caught:
            await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("b"))
        assert "takes NFS 4.2 with CLONE or COPY" in caught.value.hint
        assert (await desk.seen("b")).mode == copy_file.UNFINISHED_MODE
    await _assert_refused(desk)
    for name in ("a", "file-link", "directory"):
        with pytest.raises(PathExists):
            await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at(name))


@pytest.mark.parametrize("minor", [0, 1])
async def test_an_older_version_without_copy(server: Ganesha, minor: int) -> None:
    """Before NFS 4.2, the error says what is required, and nothing is created."""
    async with _desk(server.port, "plain", version=minor) as desk:
        await desk.client.make_symlink(FOREVER, desk.at("a"), "x")
        with pytest.raises(ExportError) as caught:
            await copy_file.copy(desk.client, FOREVER, desk.at("a"), desk.at("b"))
        assert "takes NFS 4.2" in caught.value.hint
    assert os.listdir(server.exports[0].directory) == ["a"]


async def _assert_refused(desk: Desk) -> None:
    for source in (("file-link",), ("directory",), ("directory-link",), ("directory-link", "x")):
        with pytest.raises(ExportError) as caught:
            await copy_file.clone(desk.client, FOREVER, desk.at(*source), desk.at("new"))
        assert caught.value.cause is Cause.SYMLINK
    with pytest.raises(ExportError) as caught:
        await copy_file.clone(desk.client, FOREVER, desk.at("a"), desk.at("directory-link", "new"))
    assert caught.value.cause is Cause.SYMLINK
    with pytest.raises(PathMissing):
        await desk.seen("new")


def _once(operation: bytes, cut: Cut) -> Callable[[bytes], Cut | None]:
    """Cut the connection at the first call with this operation."""
    cuts = [cut]
    return lambda call: cuts.pop() if operation in call and cuts else None
