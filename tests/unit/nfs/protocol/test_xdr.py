"""nfs.protocol.xdr: values round-trip, and data that is cut or has a wrong length is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.nfs.protocol import xdr
from provisioner.nfs.protocol.xdr import Cursor, MalformedReply

pytestmark = pytest.mark.timeout(60)

uints = st.integers(0, 2**32 - 1)


@given(uints)
def test_a_number_comes_back(number: int) -> None:
    """An unsigned integer takes four bytes, big-endian, and round-trips."""
    assert xdr.uint(number) == number.to_bytes(4, "big")
    assert Cursor(xdr.uint(number)).uint() == number


@given(st.integers(0, 2**64 - 1))
def test_a_long_number_comes_back(number: int) -> None:
    """An unsigned hyper integer takes eight bytes and round-trips."""
    assert Cursor(xdr.hyper(number)).hyper() == number


@given(st.binary(max_size=300))
def test_opaque_data_comes_back(data: bytes) -> None:
    """Opaque data is padded to four bytes and round-trips."""
    encoded = xdr.opaque(data)
    cursor = Cursor(encoded)
    assert len(encoded) % 4 == 0
    assert cursor.opaque(300) == data
    cursor.finish()


@given(st.binary(max_size=300))
def test_any_name_comes_back(name: bytes) -> None:
    """A name of any bytes, UTF-8 or not, round-trips as text."""
    text = Cursor(xdr.opaque(name)).string(300)
    assert xdr.string(text) == xdr.opaque(name)


@given(st.lists(uints))
def test_an_array_comes_back(numbers: list[int]) -> None:
    """An array round-trips item by item."""
    assert Cursor(xdr.array(map(xdr.uint, numbers))).array(Cursor.uint) == numbers


@given(st.none() | uints)
def test_optional_data_comes_back(number: int | None) -> None:
    """Optional data round-trips, present or absent."""
    encoded = xdr.optional(None if number is None else xdr.uint(number))
    assert Cursor(encoded).optional(Cursor.uint) == number


@given(st.binary(max_size=64), st.data())
def test_cut_data_is_refused(data: bytes, draw: st.DataObject) -> None:
    """Opaque data that is cut at any byte is malformed."""
    encoded = xdr.opaque(data)
    end = draw.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(MalformedReply):
        Cursor(encoded[:end]).opaque(64)


@given(st.integers(65, 2**32 - 1), st.binary(max_size=100))
def test_a_length_above_the_limit_is_refused(length: int, data: bytes) -> None:
    """A length above the limit is malformed before any of its bytes is read."""
    with pytest.raises(MalformedReply):
        Cursor(xdr.uint(length) + data).opaque(64)


@given(st.integers(26, 2**32 - 1))
def test_an_array_larger_than_the_reply_is_refused(count: int) -> None:
    """A count that the rest of the reply cannot hold is malformed before any item is read."""
    with pytest.raises(MalformedReply):
        Cursor(xdr.uint(count) + bytes(100)).array(Cursor.uint)


@given(st.integers(2, 2**32 - 1))
def test_a_boolean_is_0_or_1(number: int) -> None:
    """A boolean other than 0 or 1 is malformed."""
    with pytest.raises(MalformedReply):
        Cursor(xdr.uint(number)).bool()


def test_no_bytes_may_be_left() -> None:
    """Bytes after the end of a result are malformed."""
    with pytest.raises(MalformedReply):
        Cursor(bytes(4)).finish()
