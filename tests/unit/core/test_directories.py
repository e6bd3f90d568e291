"""core.directories: who has a directory of a server, or one above or below it."""

from __future__ import annotations

import pytest

from provisioner.core.directories import DirectoryIndex
from provisioner.core.locations import Location

NAS = Location("nas", "/exports")
ALIAS = Location("10.0.0.5", "/srv")


def index(*directories: tuple[str, str, str]) -> DirectoryIndex:
    """An index of these directories: server, path, owner."""
    made = DirectoryIndex()
    for server, path, owner in directories:
        made.add(server, path, owner)
    return made


@pytest.mark.parametrize(
    ("server", "path", "held"),
    [
        ("nas", "/exports/a/b", True),
        ("NAS", "/exports//a/b/", True),
        ("nas", "/exports/a", True),
        ("nas", "/exports/a/b/c", True),
        ("nas", "/exports/a/bc", False),
        ("nas", "/exports", False),
        ("nas", "/", False),
        ("other", "/exports/a/b", False),
        ("10.0.0.5", "/srv/a/b", True),
    ],
)
def test_holder(server: str, path: str, held: bool) -> None:
    """A directory is held at, above and below its path, by any location; a volume of the whole export holds none."""
    found = index((server, path, "pv")).holder([NAS, ALIAS], ("a", "b"), folds=False)
    assert found == ("pv" if held else None)


def test_holders_that_do_not_count() -> None:
    """Owners can be left out of a look-up: the next one is returned."""
    two = index(("nas", "/exports/a", "pv1"), ("nas", "/exports/a/b", "pv2"))
    assert two.holder([NAS], ("a",), folds=False, other_than=("pv1",)) == "pv2"
    assert two.holder([NAS], ("a",), folds=False, other_than=("pv1", "pv2")) is None


def test_folded_names() -> None:
    """With folding, other spellings are the same directory, for those added before and after the first look-up."""
    made = index(("nas", "/exports/A", "pv1"))
    assert made.holder([NAS], ("a",), folds=False) is None
    assert made.holder([NAS], ("a",), folds=True) == "pv1"
    made.add("nas", "/exports/B", "pv2")
    assert made.holder([NAS], ("b",), folds=True) == "pv2"
    made.remove("nas", "/exports/A", "pv1")
    assert made.holder([NAS], ("a",), folds=True) is None
    made.remove("nas", "/exports/B", "pv2")
    assert made.holder([NAS], ("b",), folds=True) is None


def test_remove() -> None:
    """A removed directory is free; removing what is not there changes nothing."""
    made = index(("nas", "/exports/a", "pv1"))
    made.remove("nas", "/exports/b", "pv1")
    made.remove("other", "/exports/a", "pv1")
    assert made.holder([NAS], ("a",), folds=False) == "pv1"
    made.remove("nas", "/exports/a", "pv1")
    assert made.holder([NAS], ("a",), folds=False) is None


def test_anywhere() -> None:
    """The same absolute path is found on every server, whatever the server's name."""
    made = index(("nas", "/exports/a", "pv1"), ("other", "/exports/A/b", "pv2"), ("third", "/exports/c", "pv3"))
    assert set(made.anywhere([NAS], ("a",), folds=False)) == {"pv1"}
    assert set(made.anywhere([NAS], ("a",), folds=True)) == {"pv1", "pv2"}


def test_a_whole_server_is_nowhere() -> None:
    """A volume of a server's root is in the way of no directory: it would be in the way of all."""
    assert not list(index(("other", "/", "pv")).anywhere([NAS], ("a",), folds=False))


def test_has_below() -> None:
    """An export is in use while any directory lies below its root."""
    assert index(("nas", "/exports/a", "pv1")).has_below([ALIAS, NAS])
    assert not index(("nas", "/exports", "pv1")).has_below([NAS])
    assert not index().has_below([NAS])
