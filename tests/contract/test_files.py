"""Contract of the `Files` part of the `Tree` port: each sentence of its docstrings, for each driver."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from provisioner.core.locations import RelPath
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.mounted.tree import MountedTree
from provisioner.ports.files import Item, Kept
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists, PathMissing
from tests.contract.sites import MemorySite, Site
from tests.support.planting import found_in, plant

pytestmark = pytest.mark.timeout(120)

ODD = "odd \udcff\n name"


async def made(site: Site, *names: str) -> Item:
    """Create a directory and look at it."""
    await site.tree.make_directory(names, Ownership(mode=0o755))
    return await site.tree.files.look(names)


async def listed(site: Site, directory: Item) -> dict[str, Item]:
    """Return all entries of a directory."""
    found: dict[str, Item] = {}
    more: object | None = None
    while True:
        page = await site.tree.files.page(directory, more)
        found |= {item.path[-1]: item for item in page.items}
        more = page.more
        if more is None:
            return found


async def content(site: Site, file: Item) -> bytes:
    """Return the content of a file."""
    data = b""
    while chunk := await site.tree.files.read(file, len(data), 1 << 20):
        data += chunk
    return data


async def test_a_look_at_what_is_not_there(site: Site) -> None:
    """look() raises PathMissing for an entry and for its parent."""
    for path in (("none",), ("none", "below")):
        with pytest.raises(PathMissing):
            await site.tree.files.look(path)


async def test_each_type(site: Site) -> None:
    """Each type that make() creates is listed and found with its type, and has one name."""
    files, top = site.tree.files, await made(site, "top")
    await files.make(top, "directory", "directory")
    await files.make(top, "file", "file")
    await files.make(top, "fifo", "fifo")
    await files.make(top, ODD, "symlink", "../no\udcfe where")
    found = await listed(site, top)
    assert {name: item.kind for name, item in found.items()} == {
        "directory": "directory",
        "file": "file",
        "fifo": "fifo",
        ODD: "symlink",
    }
    for name, item in found.items():
        assert await files.look(("top", name)) == item
    assert await files.read_link(found[ODD]) == "../no\udcfe where"
    assert (found["file"].links, found["file"].size_bytes, found["file"].kept.mode) == (1, 0, 0o600)
    assert len({item.id for item in found.values()}) == 4
    assert {item.filesystem for item in found.values()} == {top.filesystem}


async def test_a_long_symlink(site: Site) -> None:
    """read_link() returns the whole target, however long."""
    files, top = site.tree.files, await made(site, "top")
    target = "/".join(["x" * 200] * 5)[:1000]
    symlink = await files.make(top, "a", "symlink", target)
    assert await files.read_link(symlink) == target


@pytest.mark.parametrize("kind", ["directory", "file", "fifo", "symlink"])
async def test_an_entry_that_is_there(site: Site, kind: str) -> None:
    """make() and link() replace nothing: they raise PathExists."""
    files, top = site.tree.files, await made(site, "top")
    for name in ("directory", "file", "fifo", "symlink"):
        await files.make(top, name, name, "text")
    file = await files.look(("top", "file"))
    for name in ("directory", "file", "fifo", "symlink"):
        with pytest.raises(PathExists):
            await files.make(top, name, kind, "text")  # type: ignore[arg-type]
        with pytest.raises(PathExists):
            await files.link(file, top, name)


async def test_content(site: Site) -> None:
    """What is written can be read, in any order and size; a read ends at the end of the file."""
    files, top = site.tree.files, await made(site, "top")
    file = await files.make(top, "file", "file")
    size = await files.chunk_bytes(top)
    verifiers = {
        await files.write(file, size, b"b" * size, stable=False),
        await files.write(file, 0, b"a" * size, stable=False),
    }
    assert {await files.flush(file)} == verifiers
    await files.write(file, 2 * size, b"end", stable=True)
    file = await files.look(("top", "file"))
    assert file.size_bytes == 2 * size + 3
    assert await content(site, file) == b"a" * size + b"b" * size + b"end"
    assert await files.read(file, 2 * size + 3, 10) == b""
    assert await files.read(file, 2 * size + 1, 10) == b"nd"


async def test_holes(site: Site) -> None:
    """A file can be extended by a hole and cut; next_data() finds all data, and ends."""
    files, top = site.tree.files, await made(site, "top")
    file, size = await files.make(top, "file", "file"), 1 << 20
    await files.write(file, size // 2, b"middle", stable=True)
    await files.set_size(file, size)
    file = await files.look(("top", "file"))
    assert file.size_bytes == size
    covered: list[tuple[int, int]] = []
    offset = 0
    while (found := await files.next_data(file, offset)) is not None:
        assert found[0] >= offset
        assert found[1] > found[0]
        covered.append(found)
        offset = found[1]
    assert any(begin <= size // 2 and end >= size // 2 + 6 for begin, end in covered)
    assert await files.next_data(file, size) is None
    await files.set_size(file, 3)
    assert (await files.look(("top", "file"))).size_bytes == 3


async def test_hard_links(site: Site) -> None:
    """A linked file has one id and two names."""
    files, top = site.tree.files, await made(site, "top")
    file = await files.make(top, "a", "file")
    await files.link(file, top, ODD)
    found = await listed(site, top)
    assert found["a"].id == found[ODD].id
    assert found["a"].links == found[ODD].links == 2


async def test_a_file_that_was_replaced(site: Site) -> None:
    """read() and copy_range() never take bytes of the file that has replaced theirs."""
    files, top = site.tree.files, await made(site, "top")
    old, new, copy = [await files.make(top, name, "file") for name in ("old", "new", "copy")]
    for file in (old, new):
        await files.write(file, 0, file.path[-1].encode(), stable=True)
    old = await files.look(old.path)
    await files.remove(top, "old")
    await files.link(new, top, "old")
    for call in (files.read(old, 0, 3), files.copy_range(old, copy, 0, 3)):
        try:
            assert await call in (b"old", None)
        except ExportError as exc:
            assert exc.cause in (Cause.NOT_FOUND, Cause.STALE)  # noqa: PT017


async def test_remove(site: Site) -> None:
    """remove() removes an entry; none there is success; a directory with entries stays."""
    files, top = site.tree.files, await made(site, "top")
    for name in ("file", "fifo", "symlink"):
        await files.make(top, name, name, "text")
        await files.remove(top, name)
        await files.remove(top, name)
    assert await listed(site, top) == {}
    await files.make(top, "directory", "directory")
    await site.tree.make_directory(("top", "directory", "inside"), Ownership())
    with pytest.raises(ExportError):
        await files.remove(top, "directory")
    assert set(await listed(site, top)) == {"directory"}


@pytest.mark.parametrize("kind", ["directory", "file", "fifo", "symlink"])
async def test_keep(site: Site, kind: str) -> None:
    """keep() sets owner, mode with its set-ID bits, and times; those before 1970 too."""
    files, top = site.tree.files, await made(site, "top")
    item = await files.make(top, "it", kind, "text")  # type: ignore[arg-type]
    for number, modified_ns in enumerate((1_700_000_000_123_456_789, -5_000_000_000)):
        if modified_ns < 0 and "3" in str(getattr(site.tree, "_address", "")):
            continue  # nfstime3 is unsigned: servers disagree
        owner, group = ("1000", "1001") if site.owners else (item.kept.owner, item.kept.group)
        kept = Kept(0o4751 + number, owner, group, 1_600_000_000_000_000_000, modified_ns)
        await files.keep(item, kept)
        seen = await files.look(("top", "it"))
        if kind != "symlink":
            assert seen.kept == kept
        assert (seen.kept.owner, seen.kept.group) == (owner, group)


@pytest.mark.parametrize("kind", ["directory", "file"])
async def test_extended_attributes(site: Site, kind: str) -> None:
    """What set_attribute() accepts, attributes() returns, values of any bytes; without support there are none."""
    files, top = site.tree.files, await made(site, "top")
    item = await files.make(top, ODD, kind)  # type: ignore[arg-type]
    assert await files.attributes(item) == {}
    values = {"user.empty": b"", "user.bytes \udcff": bytes(range(256)), "user.large": b"x" * 3000}
    values |= {f"user.{number} {'n' * 150}": b"v" for number in range(3)}
    accepted = {name: value for name, value in values.items() if await files.set_attribute(item, name, value)}
    assert accepted in ({}, values)
    assert await files.attributes(item) == accepted
    if accepted:
        assert await files.set_attribute(item, "user.large", b"small")
        assert (await files.attributes(item))["user.large"] == b"small"
        assert not await files.set_attribute(item, "user.huge", bytes(1 << 20)) or isinstance(site, MemorySite)


async def test_sharing(site: Site) -> None:
    """If clone() and copy_range() can do it, the content is there; if not, they say so and nothing has changed."""
    files, top = site.tree.files, await made(site, "top")
    source = await files.make(top, "source", "file")
    await files.write(source, 0, b"content" * 1000, stable=True)
    source = await files.look(("top", "source"))
    cloned = await files.make(top, "cloned", "file")
    if not files.shares(files):
        return
    done = await files.clone(source, cloned)
    assert await content(site, cloned) == (b"content" * 1000 if done else b"")
    copied, at = await files.make(top, "copied", "file"), 0
    while at < source.size_bytes:
        outcome = await files.copy_range(source, copied, at, source.size_bytes - at)
        if outcome is None:
            assert at == 0
            break
        at += outcome[0]
    assert await content(site, copied) == (b"content" * 1000)[:at]


async def test_a_whole_file(site: Site) -> None:
    """copy_whole() creates a file with content, mode and times, or says that the tree has no such call."""
    files, top = site.tree.files, await made(site, "top")
    source = await files.make(top, "source", "file")
    await files.write(source, 0, b"content", stable=True)
    source = await files.look(("top", "source"))
    kept = Kept(0o4640, source.kept.owner, source.kept.group, 10**18 + 1000, -(10**9))
    copied = await files.copy_whole(source, top, "copy", kept)
    if copied is None:
        with pytest.raises(PathMissing):
            await files.look(("top", "copy"))
        return
    made_ = await files.look(("top", "copy"))
    assert (copied, await content(site, made_), made_.kept) == (7, b"content", kept)
    with pytest.raises(PathExists):
        await files.copy_whole(source, top, "copy", kept)
    assert await content(site, made_) == b"content"
    # A source that is cut is copied as far as it goes; one that has grown, up to the size that it had.
    await files.set_size(source, 3)
    assert await files.copy_whole(source, top, "cut", kept) == 3
    short = await files.look(("top", "source"))
    await files.write(source, 0, b"longer than before", stable=True)
    assert await files.copy_whole(short, top, "grown", kept) == 3
    assert await content(site, await files.look(("top", "grown"))) == b"lon"
    await files.remove(top, "source")
    with pytest.raises(ExportError) as caught:
        await files.copy_whole(source, top, "gone", kept)
    assert caught.value.cause in (Cause.NOT_FOUND, Cause.STALE)
    with pytest.raises(PathMissing):
        await files.look(("top", "gone"))


async def test_a_whole_file_that_is_refused(site: Site) -> None:
    """copy_whole() leaves no file if its owner is refused."""
    files, top = site.tree.files, await made(site, "top")
    source = await files.make(top, "source", "file")
    kept = Kept(0o640, "someone@elsewhere", source.kept.group, 0, 0)
    try:
        assert await files.copy_whole(source, top, "copy", kept) is None
    except ExportError as exc:
        assert "someone" in str(exc)  # noqa: PT017
    with pytest.raises(PathMissing):
        await files.look(("top", "copy"))


async def test_a_directory_that_is_gone(site: Site) -> None:
    """page() raises Cause.NOT_FOUND or STALE for a directory that was removed."""
    top = await made(site, "top")
    await site.tree.remove_directory(("top",))
    with pytest.raises(ExportError) as caught:
        await site.tree.files.page(top)
    assert caught.value.cause in (Cause.NOT_FOUND, Cause.STALE)


async def test_a_large_directory(site: Site) -> None:
    """All entries of a directory are listed, each once."""
    files, top = site.tree.files, await made(site, "top")
    names = {f"{number} {'x' * 100}" for number in range(600)}
    for name in names:
        await files.make(top, name, "symlink", "x")
    assert set(await listed(site, top)) == names


# ------------------------------------------------------------------------------------------- whole trees


async def copy(site: Site, source: RelPath, target: RelPath) -> Progress:
    """Copy a tree of a site."""
    progress = Progress()
    await TreeCopy(site.tree, site.tree, progress, allows=lambda: True).run(source, target)
    await site.tree.remove_tree((*target, "links"))
    return progress


async def seen(site: Site, path: RelPath) -> dict[str, object]:
    """Return what a copy must keep of everything below a path, by the tree's own calls."""
    found: dict[str, object] = {}
    names: dict[str, str] = {}

    async def walk(item: Item) -> None:
        for each in (await listed(site, item)).values():
            below = "/".join((*each.path[len(path) :],))
            text = await site.tree.files.read_link(each) if each.kind == "symlink" else ""
            data = await content(site, each) if each.kind == "file" else b""
            first = names.setdefault(each.id, below)
            found[below] = (each.kind, each.kept.mode, each.kept.owner, each.kept.group, text, data, first)
            if each.kind != "symlink":
                found[below] = (found[below], each.kept.modified_ns)
            if each.kind in ("file", "directory"):
                found[below] = (found[below], await site.tree.files.attributes(each))
            if each.kind == "directory":
                await walk(each)

    await walk(await site.tree.files.look(path))
    return found


async def test_a_copy_of_each_type(site: Site) -> None:
    """A copy equals its source on every server, in the best way that this one has."""
    files, top = site.tree.files, await made(site, "source")
    directory = await files.make(top, "directory", "directory")
    await files.make(directory, "empty", "directory")
    file, size = await files.make(directory, ODD, "file"), await files.chunk_bytes(top)
    for number in range(5):
        await files.write(file, number * size, bytes([number]) * size, stable=True)
    await files.set_size(file, 20 * size + 1)
    await files.link(file, top, "again")
    await files.make(top, "fifo", "fifo")
    await files.make(top, "symlink", "symlink", "../no\udcfe where")
    await files.make(top, "nothing", "file")
    for item in (file, directory, top):
        await files.set_attribute(item, "user.comment", b"any \xff")
    await files.keep(file, Kept(0o4755, file.kept.owner, file.kept.group, 10**18, 10**18 + 10**9))
    await files.keep(directory, Kept(0o2750, directory.kept.owner, directory.kept.group, 10**18, 10**18 + 2 * 10**9))
    before = await seen(site, ("source",))
    progress = await copy(site, ("source",), ("target",))
    assert (progress.left_out, progress.entries) == (0, 8)
    assert await seen(site, ("target", "tree")) == before
    assert (await files.look(("target", "tree", "again"))).links == 2


async def test_a_copied_tree(shared_site: tuple[Site, pathlib.Path]) -> None:
    """A copy of a tree equals it, and its holes take no space."""
    site, root = shared_site
    plant(root / "source")
    symlink_times = isinstance(site.tree, MountedTree)
    before = found_in(root / "source", symlink_times=symlink_times)
    progress = await copy(site, ("source",), ("target",))
    assert progress.left_out == 0
    assert found_in(root / "target" / "tree", symlink_times=symlink_times) == before
    assert (root / "target" / "tree" / "sparse").stat().st_blocks * 512 < 4 << 20


async def test_what_a_copy_leaves_out(shared_site: tuple[Site, pathlib.Path]) -> None:
    """Sockets and devices are counted and named."""
    site, root = shared_site
    (root / "source").mkdir()
    (root / "source" / "file").write_text("text")
    script = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run(["python3", "-c", script, "socket"], cwd=root / "source", check=True)  # noqa: ASYNC221
    progress = await copy(site, ("source",), ("target",))
    assert (progress.left_out, progress.names) == (1, ["socket"])
    assert [each.name for each in (root / "target" / "tree").iterdir()] == ["file"]
