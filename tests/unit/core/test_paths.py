"""core.paths: the rules, and the index against a plain model."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidPath
from provisioner.core.locations import RelPath
from provisioner.core.paths import PathIndex, ancestors, archive_name, check, components, shorten, shown


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("shop/data", ("shop", "data")),
        ("...", ("...",)),
        (".volumes/x", (".volumes", "x")),
        ("shop/@anything", ("shop", "@anything")),
        ("a b/ü", ("a b", "ü")),
        ("x" * 255, ("x" * 255,)),
        ("ü" * 127, ("ü" * 127,)),
    ],
)
def test_accepted(text: str, path: RelPath) -> None:
    """A path of valid names below the export is accepted."""
    assert check(text) == path


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "export's root"),
        ("/", "begins with /"),
        ("/a", "begins with /"),
        ("..", "component '..'"),
        ("a/../b", "component '..'"),
        ("a/..", "component '..'"),
        (".", "component '.'"),
        ("a/./b", "component '.'"),
        ("a/", "empty component"),
        ("a//b", "empty component"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        (".provisioner", "reserved for the provisioner"),
        (".provisioner/trash/x", "reserved for the provisioner"),
        (".provisioner2", "reserved for the provisioner"),
        ("team/.provisioner/drafts/x", "reserved for the provisioner"),
        ("team/.PROVISIONER", "reserved for the provisioner"),
        ("team/.pro\u200dvisioner", "reserved for the provisioner"),
        ("team/\uff0eprovisioner", "reserved for the provisioner"),
        ("ARCHIVED-x/y", "inside an archive"),
        ("x" * 256, "256 bytes"),
        ("ü" * 128, "256 bytes"),
        ("a/" + "x" * 256, "256 bytes"),
        ("a\ud800", "not valid Unicode"),
        ("lost+found/x", "lost\\+found"),
        ("#recycle/x", "#recycle"),
        (".snapshot/x", "keep for themselves"),
        ("shop/.ZFS/snapshot", "'.ZFS'"),
        ("$RECYCLE.BIN", "keep for themselves"),
        ("System Volume Information/x", "keep for themselves"),
        ("shop/@eaDir", "@eaDir"),
        ("@anything", "@anything"),
        ("~user/x", "~user"),
        ("aquota.user", "keep for themselves"),
        (".Trash-1000/x", "keep for themselves"),
    ],
)
def test_refused(text: str, rule: str) -> None:
    """A path that breaks a rule is refused, and the message names the rule."""
    with pytest.raises(InvalidPath, match=rule):
        check(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a/b", ["a", "b"]),
        ("/a//b/", ["a", "b"]),
        ("./a/././b/.", ["a", "b"]),
        ("a/../b", ["a", "..", "b"]),
        (".a/...", [".a", "..."]),
        ("", []),
        ("//./", []),
    ],
)
def test_components(text: str, names: list[str]) -> None:
    """Slashes and dots that add nothing are dropped; `..` is kept, so that check() refuses it."""
    assert components(text) == names


@given(st.lists(st.sampled_from(["a", "ü", " ", "", ".", "..", "...", "a b"]), max_size=8).map("/".join))
def test_components_mean_the_same(text: str) -> None:
    """The dropped parts change nothing: the operating system finds the same directory."""
    assert posixpath.normpath("/" + "/".join(components(text))) == posixpath.normpath("/" + text.lstrip("/"))


def test_a_long_path_leaves_room_for_the_advice() -> None:
    """A message has only the beginning of a long path, since events are limited to 1024 characters."""
    with pytest.raises(InvalidPath) as caught:
        check("x" * 100_000 + "/..")
    assert len(str(caught.value)) < 400
    assert shown("short") == "'short'"


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=80))
def test_shorten(start: str, middle: str, end: str) -> None:
    """A shortened name has at most 255 bytes and keeps its end; a name that fits stays as it is."""
    end = end.encode()[:200].decode(errors="ignore")
    name = shorten(start, middle, end)
    assert len(name.encode()) <= 255
    assert name.endswith(end)
    if len((start + middle + end).encode()) <= 255:
        assert name == start + middle + end


@given(st.text(st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs")), min_size=1, max_size=255))
def test_archive_name(last: str) -> None:
    """An archive is named after its directory and its time, and its name is valid for a directory."""
    last = last.encode()[:255].decode(errors="ignore")
    name = archive_name(("shop", last), "20260101T000000.000000Z")
    assert check(name) == (name,)
    assert name.startswith("archived-")
    assert name.endswith("-20260101T000000.000000Z")


def test_ancestors() -> None:
    """A path's ancestors go from below the root to its parent."""
    assert list(ancestors(("a", "b", "c"))) == [("a",), ("a", "b")]
    assert list(ancestors(("a",))) == []


PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(tuple)
OWNERS = st.sampled_from(["v1", "v2", "v3"])
CHANGES = st.lists(st.tuples(st.booleans(), PATHS, OWNERS), max_size=30)


def touch(one: RelPath, other: RelPath) -> bool:
    depth = min(len(one), len(other))
    return one[:depth] == other[:depth]


@given(CHANGES, PATHS, st.sampled_from(["", "v1", "v2"]), st.integers(0, 3))
@example([(True, ("a",), "v1")], ("a", "b"), "v1", 0)
@example([(True, ("a", "b"), "v1")], ("a",), "v1", 0)
@example([(True, ("a",), "v1"), (True, ("a",), "v2")], ("a",), "v1", 0)
def test_index_against_a_model(
    changes: list[tuple[bool, RelPath, str]], path: RelPath, other_than: str, below: int
) -> None:
    """After any changes the index tells of a conflict exactly where there is one, and names one who is part of it."""
    index, model = PathIndex(), set[tuple[RelPath, str]]()
    for enter, held, owner in changes:
        (index.add if enter else index.remove)(held, owner)
        (model.add if enter else model.discard)((held, owner))
    below = min(below, len(path))
    expected = {owner for held, owner in model if touch(held, path) and owner != other_than and len(held) > below}
    found = index.touching(path, other_than=(other_than,), below=below)
    assert found in expected if expected else found is None


@given(CHANGES)
def test_index_ends_empty(changes: list[tuple[bool, RelPath, str]]) -> None:
    """When all paths are taken out, whatever came before, everything is free."""
    index = PathIndex()
    for enter, held, owner in changes:
        (index.add if enter else index.remove)(held, owner)
    for _, held, owner in changes:
        index.remove(held, owner)
    assert all(index.touching((name,)) is None for name in "ab")


@given(CHANGES, PATHS)
def test_owners(changes: list[tuple[bool, RelPath, str]], path: RelPath) -> None:
    """owners() returns all owners of exactly a path, and none above or below it."""
    index, model = PathIndex(), set[tuple[RelPath, str]]()
    for enter, held, owner in changes:
        (index.add if enter else index.remove)(held, owner)
        (model.add if enter else model.discard)((held, owner))
    assert index.owners(path) == {owner for held, owner in model if held == path}
    assert index.leads_on(path) == any(held[: len(path)] == path and held != path for held, _ in model)


def test_a_root_leads_on() -> None:
    """The root leads on while any path is below it; an index without paths is empty."""
    index = PathIndex()
    assert not index
    index.add((), "v1")
    assert index
    assert not index.leads_on(())
    index.add(("a",), "v2")
    assert index.leads_on(())


def test_an_index_keeps_the_text_of_its_caller() -> None:
    """A path that its caller keeps as a text is in memory once; another text is not taken for the path."""
    index, text = PathIndex(), "/".join(["a", "b"])
    index.add(("a", "b"), "one", text=text)
    index.add(("a", "c"), "two", text="elsewhere")
    assert any(key is text for key in index._owners)
    assert index.owners(("a", "c")) == {"two"}
    assert index.owners(("elsewhere",)) == set()


def test_an_index_that_folds_names() -> None:
    """With folding, all spellings of a path are the same, above, below, and for removal."""
    index = PathIndex(folds=True)
    index.add(("Team", "caf\u00e9"), "one")
    assert index.owners(("TEAM", "CAFE\u0301")) == {"one"}
    assert index.leads_on(("team",))
    assert index.touching(("tEAM",)) == index.touching(("team", "CAF\u00c9", "x")) == "one"
    assert index.touching(("teams",)) is None
    index.remove(("TEAM", "cafe\u0301"), "one")
    assert not index
    assert not index.leads_on(("Team",))


def test_all_who_touch_a_path() -> None:
    """All owners of a path, and of those above and below it, are found, each entry once."""
    index = PathIndex()
    for path, owner in ((("a",), "1"), (("a", "b"), "2"), (("a", "b"), "3"), (("a", "b", "c"), "4"), (("a", "d"), "5")):
        index.add(path, owner)
    assert index.all_touching(("a", "b")) == ["1", "2", "3", "4"]
    assert index.all_touching(("a", "b", "c", "d")) == ["1", "2", "3", "4"]
    assert index.all_touching(("x",)) == []
