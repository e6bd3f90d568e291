"""core.times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core import times

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC))


@given(MOMENTS)
def test_round_trip(at: datetime) -> None:
    """A time is read back as it was written, to the second."""
    assert times.parse(times.text(at)) == at.replace(microsecond=0)


@pytest.mark.parametrize(
    "written", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00+01:00", "2026-13-01T00:00:00Z"]
)
def test_no_time(written: str) -> None:
    """Any other text is not a time."""
    assert times.parse(written) is None


@given(MOMENTS, MOMENTS)
def test_file_stamps_sort_as_time_does(one: datetime, other: datetime) -> None:
    """Names that end in a time sort by it, and differ if the times differ."""
    assert (one < other) == (times.file_stamp(one) < times.file_stamp(other))


@given(MOMENTS, st.text(max_size=20))
def test_the_time_in_a_name(at: datetime, name: str) -> None:
    """The time at the end of any name is read back."""
    assert times.stamped(f"{name}.{times.file_stamp(at)}") == at


@pytest.mark.parametrize("name", ["", "pvc-1", "pvc-1.20260101T000000Z", "20260101T000000.000000"])
def test_a_name_without_a_time(name: str) -> None:
    """A name that ends in anything else has no time."""
    assert times.stamped(name) is None
