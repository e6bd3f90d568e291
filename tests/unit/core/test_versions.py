"""core.versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.versions import is_below


@given(st.integers(0, 2**80), st.integers(0, 2**80), st.integers(0, 3))
def test_numbers_compare_as_numbers(one: int, two: int, zeros: int) -> None:
    """Of two versions that are numbers, the smaller one is older, with or without leading zeros."""
    assert is_below("0" * zeros + str(one), str(two)) == (one < two)


@pytest.mark.parametrize(("version", "other"), [("", "5"), ("5", ""), ("v1", "5"), ("1", "v2"), ("-1", "5")])
def test_what_is_no_number_does_not_compare(version: str, other: str) -> None:
    """A version that is missing or not a number is never older."""
    assert not is_below(version, other)


def test_any_length() -> None:
    """A version can be longer than Python converts to a number."""
    assert is_below("9" * 5000, "1" + "0" * 5000)
