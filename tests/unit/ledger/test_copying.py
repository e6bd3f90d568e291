"""ledger.copying: a copy equals its source, whatever is in it and whatever happens to the server."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.core.locations import RelPath
from provisioner.ledger import copying
from provisioner.ledger.copying import Progress, TreeCopy
from provisioner.ledger.errors import CopyFailed
from provisioner.ledger.shares import Share
from provisioner.ports.files import Item
from provisioner.ports.tree import Cause, ExportError
from tests.support.fakes.clock import simulate
from tests.support.fakes.tree import Directory, File, MemoryTree, Node, Symlink

SOURCE, TARGET = ("source",), (".provisioner", "copies", "x")
COPIED = (*TARGET, "tree")


def content_of(node: Node) -> Any:
    """Return all that a copy keeps of a node, with the names of each file that has several."""
    names: dict[int, list[RelPath]] = {}

    def seen(node: Node, path: RelPath) -> Any:
        about = (type(node).__name__, node.uid, node.gid, node.accessed_ns, node.modified_ns)
        match node:
            case Directory():
                entries = {name: seen(each, (*path, name)) for name, each in node.entries.items()}
                return (*about, node.mode, node.attributes, entries)
            case Symlink():
                return (*about, node.target)
            case File():
                names.setdefault(id(node), []).append(path)
                return (*about, node.kind, node.mode, node.attributes, node.content)

    return seen(node, ()), sorted(sorted(paths) for paths in names.values())


def sample() -> Directory:
    """A tree with everything that a copy keeps."""
    shared = File(b"shared", mode=0o4755, uid=1, modified_ns=5, attributes={"user.a": b"1", "user.b": b"\xff"})
    return Directory(
        mode=0o2750,
        uid=7,
        gid=8,
        modified_ns=10**18 + 1,
        entries={
            "empty": Directory(mode=0o500, accessed_ns=3, attributes={"user.c": b""}),
            "deep": Directory(entries={"er": Directory(entries={"link": shared, "file": File(b"x" * 50)})}),
            "shared": shared,
            "hole": File(b"ab" + bytes(61) + b"cd" * 20 + bytes(30), uid=3),
            "zeros": File(bytes(40)),
            "nothing": File(b""),
            "fifo": File(kind="fifo", mode=0o622),
            "dangling": Symlink("../no\udcff where", uid=9),
            "name \udcfe\n": File(b"bytes"),
        },
    )


def tree_with(node: Node) -> MemoryTree:
    tree = MemoryTree()
    tree.root.entries["source"] = node
    tree.root.entries["other"] = File(b"untouched")
    return tree


async def copied(source: MemoryTree, target: MemoryTree | None = None, **about: Any) -> Progress:
    """Copy the tree at SOURCE; its links are left out of what is compared."""
    progress = Progress()
    into = target or source
    copy = TreeCopy(source, into, progress, allows=about.get("allows", lambda: True))
    await copy.run(SOURCE, TARGET)
    links = into.look((*TARGET, "links"))
    assert isinstance(links, Directory)
    links.entries.clear()
    return progress


def is_copied(source: MemoryTree, target: MemoryTree | None = None) -> bool:
    original, made = source.look(SOURCE), (target or source).look(COPIED)
    assert original is not None
    assert made is not None
    return bool(content_of(original) == content_of(made))


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..", ".zfs")
)
NUMBERS = st.integers(0, 2**31)
BYTES = st.one_of(
    st.binary(max_size=70),
    st.builds(lambda a, n, b: a + bytes(n) + b, st.binary(), NUMBERS.map(lambda n: n % 60), st.binary(max_size=9)),
)
FILES = st.builds(
    File,
    BYTES,
    mode=st.integers(0, 0o7777),
    uid=NUMBERS,
    gid=NUMBERS,
    accessed_ns=NUMBERS,
    modified_ns=st.integers(-(10**18), 10**18),
    attributes=st.dictionaries(st.sampled_from(["user.a", "user.b"]), st.binary(max_size=3), max_size=2),
)
FIFOS = st.builds(File, kind=st.just("fifo"), mode=st.integers(0, 0o7777), uid=NUMBERS)
LINKS = st.builds(
    Symlink, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), NUMBERS
)
TREES = st.recursive(
    st.one_of(FILES, FIFOS, LINKS),
    lambda nodes: st.builds(
        Directory, st.integers(0, 0o7777), NUMBERS, NUMBERS, st.dictionaries(NAMES, nodes, max_size=4), NUMBERS, NUMBERS
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    top=st.builds(Directory, st.just(0o750), NUMBERS, NUMBERS, st.dictionaries(NAMES, TREES, max_size=5)),
    data=st.data(),
)
def test_any_tree(top: Directory, data: st.DataObject) -> None:
    """A copy of any tree equals it, with its hard links, in each way of copying, within a tree and between two."""
    tree = tree_with(top)
    files = [node for node in _nodes(top) if isinstance(node, File)]
    for number in range(data.draw(st.integers(0, 3)) if files else 0):
        top.entries[f"linked {number}"] = data.draw(st.sampled_from(files))
    tree.files.clones, tree.files.copies, tree.files.seeks = (data.draw(st.booleans()) for _ in range(3))
    other = data.draw(st.sampled_from([None, MemoryTree()]))
    progress = simulate(copied(tree, other))
    assert is_copied(tree, other)
    assert progress.left_out == 0
    assert progress.entries == 1 + sum(1 for _ in _nodes(top, again=True)) - 1


def _nodes(node: Node, *, again: bool = False) -> list[Node]:
    found = [node]
    if isinstance(node, Directory):
        for each in node.entries.values():
            found += _nodes(each)
    return found


@pytest.mark.parametrize("clones", [True, False])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("seeks", [True, False])
@pytest.mark.parametrize("wholes", [True, False])
@pytest.mark.parametrize("other", [True, False], ids=["to another export", "within an export"])
def test_a_mixed_tree(clones: bool, copies: bool, seeks: bool, wholes: bool, other: bool) -> None:
    """A copy keeps contents, holes, modes, owners, times, symlinks, hard links, FIFOs and empty directories."""
    tree = tree_with(sample())
    tree.files.clones, tree.files.copies, tree.files.seeks, tree.files.wholes = clones, copies, seeks, wholes
    target = MemoryTree() if other else None
    progress = simulate(copied(tree, target))
    assert is_copied(tree, target)
    assert progress.trouble == ""
    assert tree.look(("other",)) == File(b"untouched")


def test_a_single_worker() -> None:
    """A copy with one worker is complete: no step waits for another worker while it holds one."""
    tree, target = tree_with(sample()), MemoryTree()
    simulate(TreeCopy(tree, target, Progress(), allows=lambda: True, share=Share(1)).run(SOURCE, TARGET))
    links = target.look((*TARGET, "links"))
    assert isinstance(links, Directory)
    links.entries.clear()
    assert is_copied(tree, target)


def test_holes_are_not_written() -> None:
    """Zeros are neither written nor, where the server tells holes, read."""
    tree, target, calls = tree_with(Directory(entries={"a": File(bytes(400) + b"x" + bytes(99))})), MemoryTree(), []

    async def note(call: str, _path: RelPath) -> None:
        calls.append(call)

    tree.before = target.before = note
    simulate(copied(tree, target))
    assert is_copied(tree, target)
    assert (calls.count("read"), calls.count("write")) == (1, 1)


def test_what_no_copy_can_have() -> None:
    """Sockets, other file systems and snapshots are left out, counted and named, and the rest is copied."""
    mounted = Directory(entries={"inside": File(b"a")})
    entries: dict[str, Node] = {f"socket {number}": File(kind="other") for number in range(6)}
    entries |= {"mount": mounted, ".snapshot": Directory(entries={"old": File(b"b")}), "file": File(b"c")}
    tree = tree_with(Directory(entries={"below": Directory(entries=entries)}))
    tree.files.mounts.add(id(mounted))
    progress = simulate(copied(tree))
    assert tree.look((*COPIED, "below")) == Directory(entries={"file": File(b"c")})
    assert progress.left_out == 8
    assert progress.names == [f"below/socket {number}" for number in range(5)]


def test_attributes_that_the_target_does_not_keep() -> None:
    """An extended attribute that the target's server does not keep is counted and named; the rest is copied."""
    file, below = File(b"c", attributes={"user.a": b"1"}), Directory(attributes={"user.b": b"2"})
    tree = tree_with(Directory(attributes={"user.c": b"3"}, entries={"file": file, "below": below}))
    target = MemoryTree()
    target.files.attributed = False
    progress = simulate(copied(tree, target))
    assert sorted(progress.names) == [". (user.c)", "below (user.b)", "file (user.a)"]
    assert progress.left_out == 3
    assert target.look((*COPIED, "file")) == File(b"c")
    assert target.look((*COPIED, "below")) == Directory()


@pytest.mark.parametrize("free_bytes", [0, 1 << 30])
def test_attributes_without_room(free_bytes: int) -> None:
    """An attribute for which a file has no room is left out; a full disk ends the copy."""
    tree = tree_with(Directory(entries={"file": File(b"c", attributes={"user.a": b"1"})}))
    tree.statfs = dataclasses.replace(tree.statfs, free_bytes=free_bytes)
    failing(tree, "set_attribute", ExportError(Cause.NO_SPACE))
    if free_bytes:
        assert simulate(copied(tree)).names == ["file (user.a)"]
    else:
        with pytest.raises(CopyFailed) as caught:
            simulate(copied(tree))
        assert caught.value.refusal.cause is Cause.NO_SPACE


@pytest.mark.parametrize("cause", [Cause.UNREACHABLE, Cause.BUSY, Cause.NOT_YET])
@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("other", [True, False])
def test_a_server_that_is_away(cause: Cause, effect: str, other: bool) -> None:
    """A call that fails for a passing reason, with or without effect, is repeated; the copy is complete."""
    number = 0
    while True:
        tree, target = tree_with(sample()), MemoryTree() if other else None
        tree.files.copies = tree.files.clones = number % 2 == 0
        tree.files.wholes = number % 3 > 0
        calls = 0
        progress = Progress()

        async def fail(_call: str, _path: RelPath, number: int = number) -> None:
            nonlocal calls
            calls += 1
            if calls in (number, number + 1):
                raise ExportError(cause)

        setattr(target or tree, effect, fail)
        copy = TreeCopy(tree, target or tree, progress, allows=lambda: True)
        simulate(copy.run(SOURCE, TARGET))
        (target or tree).before = (target or tree).after = _quiet
        links = (target or tree).look((*TARGET, "links"))
        assert isinstance(links, Directory)
        links.entries.clear()
        assert is_copied(tree, target)
        if calls < number:
            return
        number += 1


async def _quiet(_call: str, _path: RelPath) -> None:
    pass


def failing(tree: MemoryTree, name: str, error: ExportError) -> None:
    """Let each call of this name fail."""

    async def fail(call: str, _path: RelPath) -> None:
        if call == name:
            raise error

    tree.before = fail


@pytest.mark.parametrize("call", ["look", "page", "make", "write", "keep", "read_link", "link", "read", "set_size"])
@pytest.mark.parametrize("cause", [Cause.NO_SPACE, Cause.DENIED])
def test_a_refusal(call: str, cause: Cause) -> None:
    """What source or target refuses for good ends the copy, with the refusal as its reason."""
    tree = tree_with(sample())
    tree.files.clones = tree.files.copies = False
    failing(tree, call, ExportError(cause))
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree))
    assert (caught.value.refusal.cause, caught.value.reason) == (cause, ExportError(cause).reason)


def test_an_unexpected_error() -> None:
    """A bug in a driver is no refusal."""
    tree = tree_with(sample())

    async def fail(call: str, _path: RelPath) -> None:
        if call == "keep":
            raise ZeroDivisionError

    tree.before = fail
    with pytest.raises(ZeroDivisionError):
        simulate(copied(tree))


def test_a_source_that_is_no_directory() -> None:
    """A symlink at the source's path is not followed."""
    with pytest.raises(CopyFailed, match="symlink"):
        simulate(copied(tree_with(Symlink("other"))))


def test_a_copy_that_is_no_longer_wanted() -> None:
    """A copy ends at its next step once this replica may not go on."""
    tree = tree_with(sample())
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree, allows=lambda: tree.look((*COPIED, "hole")) is None))
    assert caught.value.refusal.cause is Cause.UNSETTLED


def vanishing(tree: MemoryTree, call: str, names: tuple[str, ...], cause: Cause = Cause.NOT_FOUND) -> None:
    """Remove entries of the source right before the first such call on one of them."""

    async def remove(made: str, path: RelPath) -> None:
        top = tree.look(SOURCE)
        assert isinstance(top, Directory)
        if made == call and path[-1] in names and path[-1] in top.entries:
            del top.entries[path[-1]]

    tree.before = remove


@pytest.mark.parametrize(
    ("call", "ways"),
    [
        ("page", 0),
        ("read_link", 0),
        ("clone", 2),
        ("copy_range", 1),
        ("next_data", 0),
        ("read", 0),
        ("copy_whole", 0),
        ("attributes", 0),
    ],
)
def test_an_entry_that_disappears(call: str, ways: int) -> None:
    """An entry that is removed during the copy is left out of it, whole."""
    tree = tree_with(sample())
    tree.files.clones, tree.files.copies, tree.files.wholes = ways == 2, ways >= 1, call == "copy_whole"
    vanishing(tree, call, ("hole", "deep", "dangling", "empty", "nothing"))
    assert simulate(copied(tree)).vanished > 0
    made = tree.look(COPIED)
    assert isinstance(made, Directory)
    left = tree.look(SOURCE)
    assert isinstance(left, Directory)
    assert "hole" not in made.entries or "hole" in left.entries or call in ("page", "read_link", "attributes")
    assert tree.look((*COPIED, "shared")) is not None


def test_a_linked_file_that_disappears() -> None:
    """A file with several names is left out if it disappears, and leaves nothing in `links`."""
    tree = tree_with(sample())
    tree.files.clones = tree.files.copies = False

    async def remove(call: str, path: RelPath) -> None:
        if call == "read" and path[-1] in ("shared", "link"):
            for directory in (tree.look(SOURCE), tree.look((*SOURCE, "deep", "er"))):
                assert isinstance(directory, Directory)
                directory.entries.pop(path[-1], None)
            raise ExportError(Cause.STALE)

    tree.before = remove
    simulate(copied(tree))
    assert tree.look((*COPIED, "shared")) is None
    assert tree.look((*COPIED, "deep", "er", "file")) is not None


def replacing(tree: MemoryTree, call: str, new: list[Node]) -> None:
    """Replace the file `a` of the source right before each such call on it, with these in turn."""

    async def replace(made: str, path: RelPath) -> None:
        top = tree.look(SOURCE)
        if made == call and path == (*SOURCE, "a") and new:
            assert isinstance(top, Directory)
            top.entries["a"] = new.pop(0)

    tree.before = replace


@pytest.mark.parametrize("new", [File(b"new" * 20), Symlink("new"), File(kind="fifo")])
def test_a_file_that_is_replaced(new: Node) -> None:
    """A file that is replaced by a rename is copied as the new one, whole: its name is never without a file."""
    tree, target = tree_with(Directory(entries={"a": File(b"old" * 20)})), MemoryTree()
    replacing(tree, "read", [File(b"between" * 20), new])
    assert simulate(copied(tree, target)).vanished == 0
    assert target.look((*COPIED, "a")) == new


@pytest.mark.parametrize(("call", "name"), [("page", "deep"), ("read_link", "dangling"), ("read", "hole")])
def test_a_path_that_gets_another_type(call: str, name: str) -> None:
    """A mounted export refuses a path that has become another type: the copy goes on without the former object."""
    tree, target = tree_with(sample()), MemoryTree()

    async def replace(made: str, path: RelPath) -> None:
        top = tree.look(SOURCE)
        assert isinstance(top, Directory)
        if made == call and path == (*SOURCE, name) and name in top.entries:
            top.entries[name] = File(kind="other")
            raise ExportError(Cause.SYMLINK)

    tree.before = replace
    assert simulate(copied(tree, target)).vanished == 1
    assert target.look((*COPIED, "shared")) is not None
    found = target.look((*COPIED, name))
    assert found is None or (isinstance(found, Directory) and not found.entries)


@pytest.mark.parametrize("kind", ["directory", "other"])
def test_a_file_that_becomes_something_else(kind: str) -> None:
    """A file in whose place a directory or a socket is now is left out."""
    tree, target = tree_with(Directory(entries={"a": File(b"x" * 30)})), MemoryTree()
    replacing(tree, "read", [Directory() if kind == "directory" else File(kind="other")])
    assert simulate(copied(tree, target)).vanished == 1
    assert target.look((*COPIED, "a")) is None


def test_a_file_that_is_replaced_all_the_time() -> None:
    """A copy fails with advice, and never without a file that the source has."""
    tree, target = tree_with(Directory(entries={"a": File(b"x" * 30)})), MemoryTree()
    replacing(tree, "read", [File(b"y" * 30) for _ in range(3 * copying.REPLACED_TRIES)])
    with pytest.raises(CopyFailed, match="replaced") as caught:
        simulate(copied(tree, target))
    assert "stop" in caught.value.refusal.hint


def test_the_target_that_disappears() -> None:
    """A target that another leader has moved away is not mistaken for a source that is gone."""
    for clones in (True, False):
        tree = tree_with(sample())
        tree.files.clones = clones

        async def remove(call: str, _path: RelPath, tree: MemoryTree = tree) -> None:
            copies = tree.look(TARGET[:-1])
            if call in ("clone", "copy_range") and isinstance(copies, Directory):
                copies.entries.clear()

        tree.before = remove
        with pytest.raises(CopyFailed) as caught:
            simulate(copied(tree))
        assert caught.value.refusal.cause is Cause.NOT_FOUND


def test_a_source_that_is_moved_away() -> None:
    """A source that was moved away for its removal never gives a copy that lacks what is removed already."""
    tree = tree_with(sample())

    async def replace(call: str, path: RelPath) -> None:
        if call == "keep" and path == COPIED:
            tree.root.entries["source"] = Directory()

    tree.before = replace
    with pytest.raises(CopyFailed, match="replaced"):
        simulate(copied(tree))


@pytest.mark.parametrize("cause", [Cause.NO_SPACE, Cause.DENIED])
def test_a_refusal_of_a_whole_file(cause: Cause) -> None:
    """A small file that is refused ends the copy, with the refusal as its reason."""
    tree = tree_with(sample())
    tree.files.wholes = True
    failing(tree, "copy_whole", ExportError(cause))
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree))
    assert caught.value.refusal.cause == cause


def test_a_whole_file_in_a_target_that_folds_names() -> None:
    """A small file never replaces another one whose name is equal for the target's server."""
    tree = tree_with(Directory(entries={"a": File(b"0"), "A": File(b"1")}))
    tree.files.wholes = True

    async def fold(made: str, path: RelPath) -> None:
        top = tree.look(COPIED)
        if made == "copy_whole" and path[-1] == "A" and isinstance(top, Directory):
            top.entries.setdefault("A", File())

    tree.before = fold
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree))
    assert "equal" in caught.value.refusal.hint


@pytest.mark.parametrize("call", ["make", "link"])
def test_a_target_that_folds_names(call: str) -> None:
    """Two names that the target's server treats as one end the copy: neither file replaces the other."""
    shared = File(b"1")
    entries: dict[str, Node] = {"a": File(b"0"), "A": File(b"1")} if call == "make" else {"a": shared, "A": shared}
    tree, target = tree_with(Directory(entries=entries)), MemoryTree()

    async def fold(made: str, path: RelPath) -> None:
        top = target.look(COPIED)
        if made == call and path[-1] == "A" and isinstance(top, Directory):
            top.entries.setdefault("A", File())

    target.before = fold
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree, target))
    assert "equal" in caught.value.refusal.hint


def test_a_tree_that_is_too_deep() -> None:
    """Directories that nest too deep for bounded memory end the copy with advice."""
    top = inner = Directory()
    for _ in range(copying.DEPTH_LIMIT):
        inner.entries["d"] = inner = Directory()
    with pytest.raises(CopyFailed) as caught:
        simulate(copied(tree_with(top)))
    assert "deep" in caught.value.refusal.hint


def test_a_server_that_loses_writes() -> None:
    """Data that the server has lost before it was stable is written again; a server that always does so is refused."""
    tree, target = tree_with(Directory(entries={"a": File(b"x" * 100)})), MemoryTree()
    target.files.verifier = b"restarted"

    async def settle(call: str, _path: RelPath) -> None:
        if call == "flush":
            target.files.verifier = bytes(8)

    target.after = settle
    simulate(copied(tree, target))
    assert is_copied(tree, target)
    tree, target = tree_with(Directory(entries={"a": File(b"x" * 100)})), MemoryTree()
    target.files.verifier = b"restarted"
    with pytest.raises(CopyFailed, match="lost"):
        simulate(copied(tree, target))


@pytest.mark.parametrize("copies", [True, False])
def test_a_file_that_becomes_shorter(copies: bool) -> None:
    """A file that is cut during the copy is copied as far as it goes, with the size that it had."""
    tree = tree_with(Directory(entries={"a": File(b"x" * 100)}))
    tree.files.clones, tree.files.copies = False, copies

    async def cut(call: str, path: RelPath) -> None:
        found = tree.look(("source", "a"))
        if call in ("read", "copy_range") and isinstance(found, File):
            found.content = b"x" * 10

    tree.before = cut
    simulate(copied(tree))
    assert tree.look((*COPIED, "a")) == File(b"x" * 10 + bytes(90))


def test_a_server_without_holes_in_its_answers() -> None:
    """A region of data that is empty does not keep the copy busy for long."""
    tree, target = tree_with(Directory(entries={"a": File(b"x" * 100)})), MemoryTree()

    async def empty(file: Item, offset_bytes: int) -> tuple[int, int] | None:
        return offset_bytes, offset_bytes

    tree.files.next_data = empty  # type: ignore[method-assign]
    simulate(copied(tree, target))
    assert is_copied(tree, target)


@pytest.mark.parametrize("copies", [True, False])
def test_a_server_that_tells_holes_where_there_is_data(copies: bool) -> None:
    """A file that takes space is never copied as a hole: every byte is read, and the holes stay holes."""
    tree = tree_with(Directory(entries={"a": File(bytes(40) + b"x" * 40 + bytes(40))}))
    tree.files.clones, tree.files.copies = False, copies
    calls: list[str] = []

    async def none(file: Item, offset_bytes: int) -> tuple[int, int] | None:
        return None

    async def note(call: str, _path: RelPath) -> None:
        calls.append(call)

    tree.before = note
    tree.files.next_data = none  # type: ignore[method-assign]
    simulate(copied(tree))
    assert is_copied(tree)
    assert "copy_range" not in calls
    assert calls.count("write") == 3


def test_a_cancelled_copy() -> None:
    """A copy that is cancelled stops immediately."""

    async def scene() -> None:
        tree = tree_with(sample())
        began = asyncio.Event()

        async def hang(call: str, _path: RelPath) -> None:
            if call == "clone":
                began.set()
                await asyncio.Event().wait()

        tree.before = hang
        task = asyncio.create_task(copied(tree))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    simulate(scene())
