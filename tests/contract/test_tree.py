"""Contract of the `Tree` port: each sentence of its docstrings, for each driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from provisioner.core.locations import RelPath
from provisioner.ports.tree import (
    Cause,
    Change,
    Entry,
    ExportError,
    MakeDirectory,
    MakeSymlink,
    MoveSymlink,
    NotEmpty,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Rename,
    Tree,
)
from tests.contract.sites import Seen, Site

pytestmark = pytest.mark.timeout(60)

PLAIN = Ownership(mode=0o755)
KEPT = ("outside", "kept")


async def make(site: Site, *paths: RelPath) -> None:
    """Create directories."""
    for path in paths:
        await site.tree.make_directory(path, PLAIN)


async def refused(cause: Cause, call: Awaitable[object]) -> ExportError:
    """Check that a call fails with this cause."""
    with pytest.raises(ExportError) as caught:
        await call
    assert caught.value.cause is cause
    return caught.value


async def mode(site: Site, *path: str) -> int:
    """Return the mode of a directory, as a tenant sees it."""
    seen = await site.look(path)
    assert seen is not None
    assert seen.type == "directory"
    return seen.mode


@pytest.fixture
async def lured(site: Site) -> Site:
    """A site with a directory `outside`, a symlink to it, a dangling symlink, and a file."""
    await make(site, ("outside",), ("home",))
    await site.write_file(KEPT, "kept")
    await site.plant_symlink(("link",), "outside")
    await site.plant_symlink(("dangling",), "nowhere")
    await site.write_file(("file",), "text")
    return site


async def assert_untouched(site: Site) -> None:
    """Check that symlinks, their targets and the file are unchanged."""
    assert await site.tree.list(("outside",)) == [Entry("kept", "file")]
    assert await site.look(KEPT) == Seen("file", text="kept")
    assert await mode(site, "outside") == 0o755
    assert await site.look(("nowhere",)) is None
    assert await site.look(("link",)) == Seen("symlink", text="outside")
    assert await site.look(("dangling",)) == Seen("symlink", text="nowhere")
    assert await site.look(("file",)) == Seen("file", text="text")


# ---------------------------------------------------------------------------------------------------- the root


async def test_the_root_has_an_id(site: Site) -> None:
    """root_id() returns the same text each time."""
    assert await site.tree.root_id() == await site.tree.root_id() != ""


async def test_a_pinned_root(site: Site) -> None:
    """Calls work while the root is the pinned one; "" lifts the pin."""
    site.tree.pin(await site.tree.root_id())
    await make(site, ("made",))
    site.tree.pin("another")
    site.tree.pin("")
    await site.tree.remove_directory(("made",))


async def test_another_root_than_the_pinned_one(lured: Site) -> None:
    """If the root is not the pinned one, every call except root_id() raises Cause.CHANGED and does nothing."""
    root_id = await lured.tree.root_id()
    lured.tree.pin("another")
    for call in INTO.values():
        await refused(Cause.CHANGED, call(lured.tree, ("home",)))
    for call in ONTO.values():
        await refused(Cause.CHANGED, call(lured.tree, ("home",)))
    await refused(Cause.CHANGED, lured.tree.space())
    assert await lured.tree.root_id() == root_id
    lured.tree.pin("")
    assert await lured.tree.is_empty(("home",))
    await assert_untouched(lured)


# ---------------------------------------------------------------------------------------------------- directories


@pytest.mark.parametrize("asked", [0o700, 0o755, 0o777, 0o2770, 0o1777])
async def test_a_directory_has_the_mode_asked_for(site: Site, asked: int) -> None:
    """The mode is set regardless of the umask, including set-group-ID and sticky bits."""
    await site.tree.make_directory(("made",), Ownership(mode=asked))
    assert await mode(site, "made") == asked


async def test_a_mode_of_none_is_left_to_the_server(site: Site) -> None:
    """Without a mode, the directory is created and its owner can use it."""
    await site.tree.make_directory(("made",), Ownership(mode=None))
    assert await mode(site, "made") & 0o700 == 0o700


async def test_a_directory_has_the_owner_asked_for(site: Site) -> None:
    """Owner and group are set, and the set-group-ID bit is kept."""
    if not site.owners:
        pytest.skip("this machine does not permit chown: the tests do not run as root")
    await site.tree.make_directory(("both",), Ownership(mode=0o2770, uid=1234, gid=2345))
    await site.tree.make_directory(("group",), Ownership(mode=0o2770, gid=2345))
    both, group = await site.look(("both",)), await site.look(("group",))
    assert both == Seen("directory", 0o2770, 1234, 2345)
    assert group is not None
    assert (group.mode, group.gid) == (0o2770, 2345)
    assert group.uid != 1234


async def test_parents_are_made_with_0755(site: Site) -> None:
    """Missing parents get mode 0755, and the directory its own mode."""
    await site.tree.make_directory(("a", "b", "c"), Ownership(mode=0o700))
    assert [await mode(site, *path) for path in (("a",), ("a", "b"), ("a", "b", "c"))] == [0o755, 0o755, 0o700]


async def test_existing_parents_stay_as_they_are(site: Site) -> None:
    """Creating a directory does not change existing parents."""
    await site.tree.make_directory(("a",), Ownership(mode=0o711))
    await make(site, ("a", "b"))
    assert await mode(site, "a") == 0o711


@pytest.mark.parametrize("name", ["link", "dangling", "file", "home"])
async def test_making_a_directory_is_exclusive(lured: Site, name: str) -> None:
    """Any existing entry, even a dangling symlink, is PathExists and stays unchanged."""
    with pytest.raises(PathExists):
        await lured.tree.make_directory((name,), Ownership(mode=0o777))
    await assert_untouched(lured)
    assert await mode(lured, "home") == 0o755


async def test_the_root_exists(site: Site) -> None:
    """Creating the root raises PathExists."""
    with pytest.raises(PathExists):
        await site.tree.make_directory((), PLAIN)


async def test_of_many_concurrent_creations_one_succeeds(site: Site) -> None:
    """Of 32 concurrent calls that create one directory below new parents, one succeeds and 31 get PathExists."""
    calls = (site.tree.make_directory(("a", "b", "c"), PLAIN) for _ in range(32))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, PathExists) for outcome in outcomes) == 31
    assert await mode(site, "a", "b") == 0o755


async def test_many_concurrent_creations(site: Site) -> None:
    """64 concurrent calls below one new parent all succeed."""
    await asyncio.gather(*(site.tree.make_directory(("parent", str(number)), PLAIN) for number in range(64)))
    assert len(await site.tree.list(("parent",))) == 64


async def test_access_can_be_set_later(site: Site) -> None:
    """set_access changes only the given attributes of an existing directory."""
    await make(site, ("made",))
    await site.tree.set_access(("made",), Ownership(mode=0o2775))
    await site.tree.set_access(("made",), Ownership(mode=None))
    assert await mode(site, "made") == 0o2775
    with pytest.raises(PathMissing):
        await site.tree.set_access(("missing",), PLAIN)


async def test_an_empty_directory_is_removed(site: Site) -> None:
    """remove_directory removes an empty directory, and raises PathMissing the second time."""
    await make(site, ("a", "b"))
    await site.tree.remove_directory(("a", "b"))
    assert await site.look(("a", "b")) is None
    with pytest.raises(PathMissing):
        await site.tree.remove_directory(("a", "b"))


async def test_a_non_empty_directory_stays(site: Site) -> None:
    """remove_directory raises NotEmpty for a directory with a file or a directory in it."""
    await make(site, ("a", "b"), ("c",))
    await site.write_file(("c", "file"), "text")
    for path in (("a",), ("c",)):
        with pytest.raises(NotEmpty):
            await site.tree.remove_directory(path)
    assert await site.look(("a", "b")) is not None
    assert await site.look(("c", "file")) is not None


# ---------------------------------------------------------------------------------------------------- rename


async def test_rename_moves_a_directory_with_its_content(site: Site) -> None:
    """A renamed directory keeps its content, and nothing stays at the old path."""
    await make(site, ("a", "b"), ("trash",))
    await site.write_file(("a", "b", "file"), "text")
    await site.tree.rename(("a", "b"), ("trash", "gone"))
    assert await site.look(("a", "b")) is None
    assert await site.look(("trash", "gone", "file")) == Seen("file", text="text")


@pytest.mark.parametrize("name", ["link", "dangling", "file", "home"])
async def test_rename_replaces_nothing(lured: Site, name: str) -> None:
    """An existing target, even an empty directory or a dangling symlink, is PathExists, and both stay."""
    await make(lured, ("source",))
    with pytest.raises(PathExists):
        await lured.tree.rename(("source",), (name,))
    assert await lured.look(("source",)) is not None
    assert await lured.look(("home",)) is not None
    await assert_untouched(lured)


async def test_rename_of_nothing(site: Site) -> None:
    """A missing source is PathMissing, whether or not the target exists."""
    await make(site, ("there",))
    for target in ("target", "there"):
        with pytest.raises(PathMissing):
            await site.tree.rename(("missing",), (target,))


async def test_rename_makes_no_parents(site: Site) -> None:
    """A target whose parent is missing is refused, and the source stays."""
    await make(site, ("source",))
    with pytest.raises(PathMissing):
        await site.tree.rename(("source",), ("missing", "target"))
    assert await site.look(("source",)) is not None


@pytest.mark.parametrize("name", ["link", "dangling", "file"])
async def test_only_directories_are_renamed(lured: Site, name: str) -> None:
    """A source that is a symlink or a file is Cause.SYMLINK, and stays."""
    await refused(Cause.SYMLINK, lured.tree.rename((name,), ("target",)))
    assert await lured.look(("target",)) is None
    await assert_untouched(lured)


async def test_a_directory_is_not_renamed_below_itself(site: Site) -> None:
    """A target below the source is refused, and the source stays."""
    await make(site, ("a",))
    with pytest.raises(ExportError):
        await site.tree.rename(("a",), ("a", "b"))
    assert await site.tree.is_empty(("a",))


# ---------------------------------------------------------------------------------------------------- proofs

WORD, OTHER_WORD = ("ledger", "word"), ("ledger", "other")


@pytest.fixture
async def proven(site: Site) -> Site:
    """A site with a directory, a free target, and two symlinks to use as proofs."""
    await make(site, ("ledger",), ("a", "b"), ("trash",))
    await site.write_file(("a", "b", "file"), "text")
    await site.tree.make_symlink(WORD, "yes")
    await site.tree.make_symlink(OTHER_WORD, '{"dir":"ä/é€"}')
    return site


BOTH = (Proof(WORD, "yes"), Proof(OTHER_WORD, '{"dir":"ä/é€"}'))


async def test_rename_with_proofs(proven: Site) -> None:
    """A directory and a symlink are renamed if the proofs hold, with paths of any length."""
    await proven.tree.rename(("a", "b"), ("trash", "b"), proofs=BOTH[:1])
    await proven.tree.rename(("trash", "b"), ("a", "b"), proofs=BOTH)
    assert await proven.look(("a", "b", "file")) is not None
    deep = tuple("abcdefghijklmnopqrstuvwxyz")
    await make(proven, deep)
    await proven.tree.rename(deep, (*deep[:-1], "moved"), proofs=BOTH)
    assert await proven.look((*deep[:-1], "moved")) is not None
    for replace in (False, True):
        await proven.tree.make_symlink(("draft",), "no" if replace else "maybe")
        await proven.tree.move_symlink(("draft",), ("moved",), replace=replace, proofs=BOTH)
    assert await proven.tree.read_symlink(("moved",)) == "no"


@pytest.mark.parametrize("word", [None, "no", "yes!", "file", "directory"])
async def test_a_proof_that_does_not_hold(proven: Site, word: str | None) -> None:
    """If a proof is missing, has another text or is not a symlink, the rename is Cause.RECORD and moves nothing."""
    await proven.tree.remove_symlink(WORD)
    if word == "file":
        await proven.write_file(WORD, "yes")
    elif word == "directory":
        await make(proven, WORD)
    elif word is not None:
        await proven.tree.make_symlink(WORD, word)
    await proven.tree.make_symlink(("draft",), "text")
    for proofs in (BOTH[:1], BOTH, BOTH[::-1]):
        await refused(Cause.RECORD, proven.tree.rename(("a", "b"), ("trash", "b"), proofs=proofs))
        for replace in (False, True):
            move = proven.tree.move_symlink(("draft",), OTHER_WORD, replace=replace, proofs=proofs)
            with pytest.raises(ExportError):
                await move
    assert await proven.look(("trash", "b")) is None
    assert await proven.look(("a", "b", "file")) is not None
    assert await proven.tree.read_symlink(OTHER_WORD) == BOTH[1].text
    assert await proven.tree.read_symlink(("draft",)) == "text"


async def test_proofs_replace_nothing_either(proven: Site) -> None:
    """With proofs, a missing source is PathMissing and an existing target PathExists, and nothing moves."""
    with pytest.raises(PathMissing):
        await proven.tree.rename(("missing",), ("trash", "b"), proofs=BOTH)
    with pytest.raises(PathExists):
        await proven.tree.rename(("a", "b"), ("trash",), proofs=BOTH)
    assert await proven.look(("a", "b", "file")) is not None


async def test_a_non_empty_target_refuses_a_rename(proven: Site) -> None:
    """A non-empty directory at the target makes a rename fail, and nothing moves."""
    await make(proven, ("trash", "b", "gone"))
    with pytest.raises(PathExists):
        await proven.tree.rename(("a", "b"), ("trash", "b"), proofs=BOTH)
    assert await proven.look(("a", "b", "file")) is not None


# ---------------------------------------------------------------------------------------------------- symlinks

INTO: dict[str, Callable[[Tree, RelPath], Awaitable[object]]] = {
    "make_directory": lambda tree, path: tree.make_directory((*path, "made"), PLAIN),
    "make_directory_deep": lambda tree, path: tree.make_directory((*path, "made", "deep"), PLAIN),
    "set_access": lambda tree, path: tree.set_access((*path, "kept"), Ownership(mode=0o777)),
    "rename_from": lambda tree, path: tree.rename((*path, "kept"), ("stolen",)),
    "rename_to": lambda tree, path: tree.rename(("home",), (*path, "home")),
    "remove_directory": lambda tree, path: tree.remove_directory((*path, "kept")),
    "move_symlink_from": lambda tree, path: tree.move_symlink((*path, "kept"), ("stolen",)),
    "move_symlink_to": lambda tree, path: tree.move_symlink(("link",), (*path, "link")),
    "make_symlink": lambda tree, path: tree.make_symlink((*path, "made"), "target"),
    "carry_out": lambda tree, path: tree.carry_out(
        MakeSymlink((*path, "made"), "a"), MakeSymlink((*path, "more"), "b")
    ),
    "read_symlink": lambda tree, path: tree.read_symlink((*path, "kept")),
    "remove_symlink": lambda tree, path: tree.remove_symlink((*path, "kept")),
    "list": lambda tree, path: tree.list((*path, "kept")),
    "is_empty": lambda tree, path: tree.is_empty((*path, "kept")),
    "remove_tree": lambda tree, path: tree.remove_tree((*path, "kept")),
}
ONTO: dict[str, Callable[[Tree, RelPath], Awaitable[object]]] = {
    "set_access": lambda tree, path: tree.set_access(path, Ownership(mode=0o777)),
    "remove_directory": lambda tree, path: tree.remove_directory(path),
    "list": lambda tree, path: tree.list(path),
    "read_symlinks": lambda tree, path: tree.read_symlinks(path, ["kept"]),
    "is_empty": lambda tree, path: tree.is_empty(path),
    "remove_tree": lambda tree, path: tree.remove_tree(path),
}


@pytest.mark.parametrize("name", ["link", "dangling", "file"])
@pytest.mark.parametrize("call", INTO)
async def test_a_parent_that_is_not_a_directory_is_refused(lured: Site, call: str, name: str) -> None:
    """A symlink or a file as parent is Cause.SYMLINK, and the target of the symlink is unchanged."""
    await refused(Cause.SYMLINK, INTO[call](lured.tree, (name,)))
    await assert_untouched(lured)


@pytest.mark.parametrize("name", ["link", "dangling", "file"])
@pytest.mark.parametrize("call", ONTO)
async def test_a_last_component_that_is_not_a_directory_is_refused(lured: Site, call: str, name: str) -> None:
    """A symlink or a file instead of a directory is Cause.SYMLINK, and the target of the symlink is unchanged."""
    await refused(Cause.SYMLINK, ONTO[call](lured.tree, (name,)))
    await assert_untouched(lured)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/"])
async def test_a_name_is_one_component(site: Site, name: str) -> None:
    """A component that is not a single name is refused before anything happens."""
    await make(site, ("a",), ("b",))
    for call in (*INTO.values(), *ONTO.values()):
        with pytest.raises(ExportError):
            await call(site.tree, ("a", name, "b"))
    assert sorted(entry.name for entry in await site.tree.list(())) == ["a", "b"]
    assert await site.tree.is_empty(("a",))


@pytest.mark.parametrize("target", ["x", "r" * 1023, '{"dir":"ä/é€","ns":"n"}', "../../outside", "/etc"])
async def test_a_symlink_comes_back_as_it_was_written(site: Site, target: str) -> None:
    """The target of a symlink round-trips, up to 1,023 bytes of any content."""
    await make(site, ("ledger",))
    await site.tree.make_symlink(("ledger", "record"), target)
    assert await site.tree.read_symlink(("ledger", "record")) == target
    assert await site.look(("ledger", "record")) == Seen("symlink", text=target)


@pytest.mark.parametrize("name", ["link", "dangling", "file", "home"])
async def test_making_a_symlink_is_exclusive(lured: Site, name: str) -> None:
    """Any existing entry is PathExists and stays."""
    with pytest.raises(PathExists):
        await lured.tree.make_symlink((name,), "other")
    await assert_untouched(lured)


async def test_of_many_symlinks_one_is_made(site: Site) -> None:
    """Of 32 concurrent calls that create one symlink, one succeeds, and its target stays."""
    calls = (site.tree.make_symlink(("record",), f"target-{number}") for number in range(32))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, PathExists) for outcome in outcomes) == 31
    assert await site.tree.read_symlink(("record",)) == f"target-{outcomes.index(None)}"


async def test_a_symlink_needs_its_parent(site: Site) -> None:
    """A missing parent is PathMissing and is not created."""
    with pytest.raises(PathMissing):
        await site.tree.make_symlink(("missing", "record"), "target")
    assert await site.tree.is_empty(())


async def test_a_symlink_is_removed(lured: Site) -> None:
    """remove_symlink removes the link and not its target, and raises PathMissing the second time."""
    await lured.tree.make_symlink(("record",), "outside")
    await lured.tree.remove_symlink(("record",))
    with pytest.raises(PathMissing):
        await lured.tree.remove_symlink(("record",))
    await assert_untouched(lured)


async def test_a_symlink_is_moved(lured: Site) -> None:
    """A moved symlink keeps its target and leaves nothing behind; the second time it is PathMissing."""
    await make(lured, ("pending",), ("volumes",))
    await lured.tree.make_symlink(("pending", "record"), "text")
    await lured.tree.move_symlink(("pending", "record"), ("volumes", "record"))
    assert await lured.tree.read_symlink(("volumes", "record")) == "text"
    assert await lured.tree.is_empty(("pending",))
    with pytest.raises(PathMissing):
        await lured.tree.move_symlink(("pending", "record"), ("volumes", "other"))


@pytest.mark.parametrize("name", ["link", "dangling", "file", "home"])
async def test_moving_a_symlink_replaces_nothing(lured: Site, name: str) -> None:
    """An existing target is PathExists, and both stay."""
    await lured.tree.make_symlink(("record",), "text")
    with pytest.raises(PathExists):
        await lured.tree.move_symlink(("record",), (name,))
    assert await lured.tree.read_symlink(("record",)) == "text"
    assert await lured.look(("home",)) is not None
    await assert_untouched(lured)


async def test_a_symlink_replaces_another_in_one_step(lured: Site) -> None:
    """With `replace`, a moved symlink replaces an existing one, but never a directory."""
    await make(lured, ("pending",), ("volumes",))
    await lured.tree.make_symlink(("pending", "record"), "new")
    await lured.tree.make_symlink(("volumes", "record"), "old")
    await lured.tree.move_symlink(("pending", "record"), ("volumes", "record"), replace=True)
    assert await lured.tree.read_symlink(("volumes", "record")) == "new"
    assert await lured.tree.is_empty(("pending",))
    await refused(Cause.SYMLINK, lured.tree.move_symlink(("volumes", "record"), ("home",), replace=True))
    assert await lured.tree.read_symlink(("volumes", "record")) == "new"
    await assert_untouched(lured)


async def test_moving_a_symlink_makes_no_parents(lured: Site) -> None:
    """A target whose parent is missing is PathMissing, and the symlink stays."""
    with pytest.raises(PathMissing):
        await lured.tree.move_symlink(("link",), ("missing", "link"))
    await assert_untouched(lured)


@pytest.mark.parametrize("name", ["file", "home"])
async def test_only_symlinks_are_read_moved_and_removed(lured: Site, name: str) -> None:
    """Reading, moving or removing a directory or a file as a symlink is Cause.SYMLINK."""
    await refused(Cause.SYMLINK, lured.tree.read_symlink((name,)))
    await refused(Cause.SYMLINK, lured.tree.remove_symlink((name,)))
    await refused(Cause.SYMLINK, lured.tree.move_symlink((name,), ("moved",)))
    assert await lured.look(("home",)) is not None
    await assert_untouched(lured)


async def test_a_missing_symlink(site: Site) -> None:
    """Reading a missing symlink raises PathMissing."""
    with pytest.raises(PathMissing):
        await site.tree.read_symlink(("missing",))


async def test_many_symlinks_are_read(site: Site) -> None:
    """read_symlinks returns all targets, even for several batches, and omits missing symlinks."""
    await make(site, ("ledger",))
    written = {f"pvc-{number}": f"target-{number}" for number in range(600)}
    await asyncio.gather(*(site.tree.make_symlink(("ledger", name), text) for name, text in written.items()))
    assert await site.tree.read_symlinks(("ledger",), [*written, "gone"]) == written
    assert await site.tree.read_symlinks(("ledger",), []) == {}
    with pytest.raises(PathMissing):
        await site.tree.read_symlinks(("missing",), ["gone"])


# ---------------------------------------------------------------------------------------------------- many changes


RECORD, DRAFT, SETTLED = ("ledger", "pending", "v"), ("ledger", "drafts", "v"), ("ledger", "volumes", "v")
OLD = Proof(RECORD, "old")


@pytest.fixture
async def kept(site: Site) -> Site:
    """A site with the directories of a ledger."""
    await make(site, *((*path[:-1],) for path in (RECORD, DRAFT, SETTLED)))
    return site


async def stopped(cause: Cause, done: int, call: Awaitable[object]) -> None:
    """Check that changes fail with this cause after so many of them."""
    error = await refused(cause, call)
    assert error.done == done


async def test_changes_are_carried_out(kept: Site) -> None:
    """A symlink and a directory with its owner's mode are created in one call."""
    await kept.tree.carry_out(MakeSymlink(RECORD, "new"), MakeDirectory(("made",), Ownership(mode=0o2770)))
    assert await kept.tree.read_symlink(RECORD) == "new"
    assert await mode(kept, "made") == 0o2770


async def test_changes_with_missing_parents(kept: Site) -> None:
    """A directory among the changes gets its missing parents, and a symlink does not."""
    deep = MakeDirectory(("some", "more", "made"), Ownership(mode=0o700))
    await kept.tree.carry_out(MakeSymlink(RECORD, "new"), deep)
    assert [await mode(kept, *deep.path[:depth]) for depth in (1, 2, 3)] == [0o755, 0o755, 0o700]
    beside = MakeSymlink(("missing", "link"), "text")
    await stopped(Cause.NOT_FOUND, 1, kept.tree.carry_out(MakeSymlink(DRAFT, "text"), beside))


async def test_changes_stop_at_the_first_that_fails(kept: Site) -> None:
    """An error says how many changes were carried out before it, and those after it are not begun."""
    await kept.tree.make_symlink(RECORD, "old")
    made = MakeDirectory(("made",), PLAIN)
    await stopped(Cause.EXISTS, 0, kept.tree.carry_out(MakeSymlink(RECORD, "new"), made))
    assert await kept.look(("made",)) is None
    await make(kept, ("made",))
    changes = MakeSymlink(DRAFT, "new"), made, MakeSymlink(SETTLED, "new")
    await stopped(Cause.EXISTS, 1, kept.tree.carry_out(*changes))
    assert await kept.tree.read_symlink(DRAFT) == "new"
    assert await kept.look(SETTLED) is None
    assert await kept.tree.read_symlink(RECORD) == "old"


async def test_changes_that_replace_and_move_a_symlink(kept: Site) -> None:
    """A symlink is replaced by a draft and moved, in one call that relies on its old text."""
    await kept.tree.make_symlink(RECORD, "old")
    await kept.tree.carry_out(
        MakeSymlink(DRAFT, "new"), MoveSymlink(DRAFT, RECORD, replace=True, proofs=(OLD,)), MoveSymlink(RECORD, SETTLED)
    )
    assert await kept.tree.read_symlink(SETTLED) == "new"
    assert await kept.look(RECORD) is None
    assert await kept.look(DRAFT) is None


@pytest.mark.parametrize("text", ["other", None])
async def test_changes_whose_proof_does_not_hold(kept: Site, text: str | None) -> None:
    """A change whose proof is missing or has another text moves nothing, and neither do those after it."""
    if text is not None:
        await kept.tree.make_symlink(RECORD, text)
    changes = (
        MakeSymlink(DRAFT, "new"),
        MoveSymlink(DRAFT, RECORD, replace=True, proofs=(OLD,)),
        MoveSymlink(RECORD, SETTLED),
    )
    await stopped(Cause.RECORD, 1, kept.tree.carry_out(*changes))
    assert await kept.tree.read_symlink(DRAFT) == "new"
    assert await kept.look(RECORD) == (None if text is None else Seen("symlink", text=text))
    assert await kept.look(SETTLED) is None


async def test_changes_replace_nothing(kept: Site) -> None:
    """A change whose target exists is PathExists, after the changes before it."""
    await kept.tree.make_symlink(RECORD, "old")
    await kept.tree.make_symlink(SETTLED, "another")
    changes = (
        MakeSymlink(DRAFT, "new"),
        MoveSymlink(DRAFT, RECORD, replace=True, proofs=(OLD,)),
        MoveSymlink(RECORD, SETTLED),
    )
    await stopped(Cause.EXISTS, 2, kept.tree.carry_out(*changes))
    assert await kept.tree.read_symlink(RECORD) == "new"
    assert await kept.tree.read_symlink(SETTLED) == "another"


async def test_changes_rename_a_directory(kept: Site) -> None:
    """A directory is renamed, and one is created in it."""
    await kept.tree.make_symlink(RECORD, "old")
    await make(kept, ("volume",))
    within = MakeDirectory(("ledger", "gone", "within"), Ownership(mode=0o700))
    await kept.tree.carry_out(Rename(("volume",), ("ledger", "gone"), (OLD,)), within)
    assert await kept.look(("volume",)) is None
    assert await mode(kept, *within.path) == 0o700


async def test_changes_that_cannot_be_sent(kept: Site) -> None:
    """A change with a name that is no component fails after those before it."""
    wrong: list[Change] = [MakeDirectory(("..", "made"), PLAIN), MakeSymlink(("a/b",), "text")]
    for number, change in enumerate(wrong):
        before = MakeSymlink(("ledger", str(number)), "text")
        await stopped(Cause.OTHER, 1, kept.tree.carry_out(before, change))
        assert await kept.tree.read_symlink(before.path) == "text"


async def test_changes_on_another_root(kept: Site) -> None:
    """If the root is not the pinned one, no change is made."""
    kept.tree.pin("another")
    changes = MakeSymlink(RECORD, "new"), MakeDirectory(("made",), PLAIN)
    await stopped(Cause.CHANGED, 0, kept.tree.carry_out(*changes))
    kept.tree.pin("")
    assert await kept.look(RECORD) is None


async def test_of_many_pairs_of_changes_one_is_made(kept: Site) -> None:
    """Of 16 concurrent calls that create one symlink and a directory each, one does both and the others neither."""
    calls = (
        kept.tree.carry_out(MakeSymlink(RECORD, str(number)), MakeDirectory((f"made-{number}",), PLAIN))
        for number in range(16)
    )
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    first = outcomes.index(None)
    assert await kept.tree.read_symlink(RECORD) == str(first)
    assert [entry.name for entry in await kept.tree.list(()) if entry.name != "ledger"] == [f"made-{first}"]


# ---------------------------------------------------------------------------------------------------- names and lists


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "日本", "with space", "-", "...", "new\nline"])
async def test_unusual_names(site: Site, name: str) -> None:
    """Names of 255 bytes, with multi-byte and unusual characters work and are listed unchanged."""
    await site.tree.make_directory(("parent", name), PLAIN)
    assert await site.tree.list(("parent",)) == [Entry(name, "directory")]
    await site.tree.rename(("parent", name), ("moved",))
    await site.tree.rename(("moved",), ("parent", name))
    assert await site.tree.remove_tree(("parent", name)) == 1


@pytest.mark.parametrize("name", ["n" * 256, "ä" * 128])
async def test_names_that_are_too_long(site: Site, name: str) -> None:
    """A name of more than 255 bytes is Cause.NAME_TOO_LONG in every call that creates an entry."""
    await make(site, ("source",))
    await refused(Cause.NAME_TOO_LONG, site.tree.make_directory((name,), PLAIN))
    await refused(Cause.NAME_TOO_LONG, site.tree.make_directory((name, "below"), PLAIN))
    await refused(Cause.NAME_TOO_LONG, site.tree.rename(("source",), (name,)))
    await refused(Cause.NAME_TOO_LONG, site.tree.make_symlink((name,), "target"))


async def test_a_list_has_types(lured: Site) -> None:
    """A list has every entry with its type, without `.` and `..`."""
    assert {entry.name: entry.type for entry in await lured.tree.list(())} == {
        "outside": "directory",
        "home": "directory",
        "link": "symlink",
        "dangling": "symlink",
        "file": "file",
    }


async def test_a_long_list_is_whole(site: Site) -> None:
    """A directory of 1,500 entries is listed without gaps or repetitions, and up to the limit if there is one."""
    names = {f"{number:04}-{'x' * 60}" for number in range(1500)}
    await make(site, ("big",))
    await asyncio.gather(*(site.tree.make_symlink(("big", name), "target") for name in names))
    listed = [entry.name for entry in await site.tree.list(("big",))]
    assert sorted(listed) == sorted(names)
    some = [entry.name for entry in await site.tree.list(("big",), at_most=700)]
    assert len(set(some)) == len(some) == 700
    assert set(some) < names


async def test_a_missing_directory_has_no_list(site: Site) -> None:
    """Listing a missing directory, or asking whether it is empty, raises PathMissing."""
    with pytest.raises(PathMissing):
        await site.tree.list(("missing",))
    with pytest.raises(PathMissing):
        await site.tree.is_empty(("missing", "below"))


async def test_empty_or_not(site: Site) -> None:
    """A directory is empty until it has an entry; this includes the root."""
    assert await site.tree.is_empty(())
    await make(site, ("a",))
    assert await site.tree.is_empty(("a",))
    assert not await site.tree.is_empty(())
    await site.plant_symlink(("a", "link"), "nowhere")
    assert not await site.tree.is_empty(("a",))


async def test_free_space_is_within_the_size(site: Site) -> None:
    """Sizes are not 0, and free bytes and inodes are within them."""
    space = await site.tree.space()
    assert 0 <= space.free_bytes <= space.size_bytes > 0
    assert 0 <= space.free_inodes <= space.inodes


# ---------------------------------------------------------------------------------------------------- remove_tree


async def test_a_tree_is_removed_with_its_content(lured: Site) -> None:
    """remove_tree removes and counts all entries and the directory; targets of symlinks stay."""
    await make(lured, ("gone", "a", "b"), ("gone", "c"))
    await lured.write_file(("gone", "a", "file"), "text")
    await lured.plant_symlink(("gone", "a", "b", "link"), "../../../outside")
    await lured.plant_symlink(("gone", "dangling"), "nowhere")
    assert await lured.tree.remove_tree(("gone",)) == 7
    assert await lured.look(("gone",)) is None
    await assert_untouched(lured)


async def test_a_missing_tree_is_nothing_to_remove(site: Site) -> None:
    """remove_tree returns 0 for a missing directory or parent."""
    assert await site.tree.remove_tree(("missing",)) == 0
    assert await site.tree.remove_tree(("missing", "below")) == 0


async def test_the_root_is_never_removed(site: Site) -> None:
    """remove_tree and remove_directory refuse the root and keep its content."""
    await make(site, ("a",))
    for call in (site.tree.remove_tree(()), site.tree.remove_directory(())):
        with pytest.raises(ExportError):
            await call
    assert await site.tree.list(()) == [Entry("a", "directory")]


@pytest.mark.parametrize("shut", [0o000, 0o300, 0o400, 0o500, 0o600])
async def test_directories_without_permissions_are_opened_up(site: Site, shut: int) -> None:
    """A directory whose mode denies even its owner is removed with its content."""
    await make(site, ("gone", "shut", "below"))
    await site.write_file(("gone", "shut", "file"), "text")
    await site.tree.set_access(("gone", "shut"), Ownership(mode=shut))
    assert await site.tree.remove_tree(("gone",)) == 4


async def test_a_wide_tree(site: Site) -> None:
    """A directory of 1,500 entries is removed, and all entries are counted."""
    await make(site, ("gone",))
    await asyncio.gather(*(site.tree.make_symlink(("gone", str(number)), "target") for number in range(1500)))
    assert await site.tree.remove_tree(("gone",)) == 1501


async def test_a_removal_reports_progress_and_can_be_stopped(site: Site) -> None:
    """The progress callback counts every entry once and can stop the removal; another call removes the rest."""
    await make(site, *(("gone", str(number), "below") for number in range(100)))
    removed_counts: list[int] = []

    def not_long(removed: int) -> bool:
        removed_counts.append(removed)
        return sum(removed_counts) < 20

    removed = [await site.tree.remove_tree(("gone",), on_progress=not_long)]
    while removed[-1]:
        removed_counts.clear()
        removed.append(await site.tree.remove_tree(("gone",), on_progress=not_long))
        assert sum(removed_counts) == removed[-1]
    assert sum(removed) == 201
    assert await site.look(("gone",)) is None


async def test_a_deep_tree(site: Site) -> None:
    """A chain of 200 directories is removed."""
    await make(site, ("gone", *(["deep"] * 200)))
    assert await site.tree.remove_tree(("gone",)) == 201


async def test_trees_are_removed_concurrently(site: Site) -> None:
    """Concurrent removals do not disturb each other or other calls."""
    await make(site, *((f"gone-{tree}", str(number)) for tree in range(6) for number in range(20)))
    removals = (site.tree.remove_tree((f"gone-{tree}",)) for tree in range(6))
    counts = await asyncio.gather(*removals, site.tree.make_directory(("beside",), PLAIN))
    assert counts == [21] * 6 + [None]
    assert await site.tree.list(()) == [Entry("beside", "directory")]


async def test_the_directories_above(site: Site) -> None:
    """Trees of directories above the root contain the root at the stated path, if the server grants access."""
    found = 0
    for name, above, path in site.tree.above():
        assert name
        try:
            found += await above.is_empty(path)
        except ExportError:
            pass  # a directory that the server does not export
        finally:
            await above.close()
    assert found or site.local is None


async def test_closing_is_quick_and_final(site: Site) -> None:
    """A tree can be closed quickly, and more than once."""
    await site.tree.close()
    await site.tree.close()
