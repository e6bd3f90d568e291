"""core.places."""

from __future__ import annotations

from provisioner.core.locations import Location
from provisioner.core.places import Places

A, B, C, D = (Location(server, "/x") for server in "abcd")


def test_locations_of_one_export() -> None:
    """Locations that were united in whatever order are those of one export; all others stand for themselves."""
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


def test_locations_that_part() -> None:
    """What is forgotten of an export is forgotten of all its locations, and of no other ones."""
    places = Places()
    places.unite(A, B)
    places.unite(C, D)
    places.part(B)
    assert places.same(A) == (A,)
    assert places.same(C) == (C, D)
