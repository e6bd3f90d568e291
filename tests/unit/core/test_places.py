"""core.places."""

from __future__ import annotations

import pytest

from provisioner.core.locations import Location, RelPath
from provisioner.core.places import Places

A, B, C, D = (Location(server, "/x") for server in "abcd")


def test_locations_of_one_export() -> None:
    """Locations that were united, in any order, belong to one export; all others stand for themselves."""
    places = Places()
    assert places.same(A) == (A,)
    assert places.relative(A, "b", "/x/dir") is None
    places.unite(A, B)
    assert places.relative(A, "b", "/x/dir") == places.relative(A, "A", "/x/dir") == ("dir",)
    places.unite(C, D)
    assert places.same(B) == (A, B)
    places.unite(B, C)
    places.unite(A, D)
    assert {places.same(each) for each in (A, B, C, D)} == {(A, B, C, D)}


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        (("team",), True),
        (("team", "db"), True),
        (("team", "db", "inside"), True),
        (("team", "db", "inside", "more"), True),
        (("team", "other"), False),
        (("teams",), False),
    ],
)
def test_an_export_in_an_export(path: RelPath, taken: bool) -> None:
    """A directory that overlaps with another export's root is found by any location of either."""
    places = Places()
    outer, inner = Location("nas", "/exports"), Location("nas", "/exports/team/db/inside")
    by_address, inner_by_address = Location("10.0.0.5", "/srv"), Location("10.0.0.5", "/srv/team/db/inside")
    assert (places.root_within(outer, path, [B, inner]) is not None) == taken
    assert places.root_within(outer, path, [inner_by_address]) is None
    places.unite(outer, by_address)
    assert (places.root_within(outer, path, [inner_by_address]) is not None) == taken
    assert places.root_within(inner, path, [outer]) is None


def test_locations_that_part() -> None:
    """Forgetting an export forgets all its locations, and no others."""
    places = Places()
    places.unite(A, B)
    places.unite(C, D)
    places.part(B)
    assert places.same(A) == (A,)
    assert places.same(C) == (C, D)


def test_an_export_that_folds_names() -> None:
    """Whether a server folds names is known for all locations of the export, until it is forgotten."""
    places = Places()
    outer, inner = Location("nas", "/exports"), Location("nas", "/exports/team")
    assert places.root_within(outer, ("Team", "db"), [inner]) is None
    places.note(outer, folds=True)
    places.unite(outer, B)
    assert places.folds(B)
    assert places.root_within(outer, ("Team", "db"), [inner]) == inner
    places.note(outer, folds=False)
    assert not places.folds(B)
    places.note(B, folds=True)
    places.part(outer)
    assert not places.folds(B)
