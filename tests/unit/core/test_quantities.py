"""core.quantities, against exact fractions."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidQuantity
from provisioner.core.quantities import exact, is_less, parse_bytes, readable, total_bytes

SUFFIXES = {
    "": Fraction(1),
    **{
        letter: Fraction(1000) ** power
        for letter, power in zip("numkMGTPE", (-3, -2, -1, 1, 2, 3, 4, 5, 6), strict=True)
    },
    **{f"{letter}i": Fraction(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}
NUMBERS = st.builds(
    lambda whole, part: f"{whole}{part}", st.integers(0, 10**12), st.from_regex(r"(\.[0-9]{1,5})?", fullmatch=True)
)
LARGEST = 2**63 - 1
"""Kubernetes caps quantities there (apimachinery, resource.Quantity)."""


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("2Gi", 2**31), ("2G", 2 * 10**9), ("1Ki", 1024), ("1k", 1000), ("1E", 10**18), ("1e3", 1000), ("1E3", 1000),
        ("12e-1", 2), ("1e+2", 100), ("100m", 1), ("1n", 1), ("0", 0), (".5Ki", 512), ("5.", 5), ("+3", 3),
        ("-1Gi", -(2**30)), ("-1.5", -1),
    ],
)  # fmt: skip
def test_accepted(text: str, size_bytes: int) -> None:
    """Quantities count as in Kubernetes, and parts of a byte are rounded up."""
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "Gi", "1gi", "1K", "1 Gi", "1Gi ", "1GiB", "e3", "1e", "0x10", "٣", "1e9999", "9" * 65]
)
def test_refused(text: str) -> None:
    """Any other text is refused."""
    with pytest.raises(InvalidQuantity):
        parse_bytes(text)


@given(NUMBERS, st.sampled_from(sorted(SUFFIXES)))
def test_model(number: str, suffix: str) -> None:
    """Every quantity that Kubernetes can hold is exact."""
    exact = Fraction(number) * SUFFIXES[suffix]
    assume(exact <= LARGEST)
    assert parse_bytes(number + suffix) == math.ceil(exact)


QUANTITIES = st.tuples(NUMBERS, st.sampled_from(sorted(SUFFIXES)))


@given(QUANTITIES, QUANTITIES)
def test_order(one: tuple[str, str], other: tuple[str, str]) -> None:
    """A smaller quantity never counts as the larger one, in any units."""
    (smaller, small), (larger, large) = sorted(
        (Fraction(number) * SUFFIXES[suffix], number + suffix) for number, suffix in (one, other)
    )
    assume(larger <= LARGEST)
    assert not is_less(large, small)
    assert is_less(small, large) == (math.ceil(smaller) < math.ceil(larger))


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is a quantity or is refused."""
    with contextlib.suppress(InvalidQuantity):
        parse_bytes(text)


def test_total() -> None:
    """Quantities of all units add up; an invalid one counts as zero."""
    assert total_bytes(["1Ki", "1k", "much", ""]) == 2024
    assert total_bytes([]) == 0


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (3 * 2**30 + 2**27, "3.1Gi"),
        (2**50, "1Pi"),
        (2**63, "8Ei"),
        (2**73, "8192Ei"),
    ],
)
def test_readable(size_bytes: int, text: str) -> None:
    """A number of bytes is written in the largest binary unit that fits."""
    assert readable(size_bytes) == text


@given(st.integers(0, 2**70))
def test_exact(size_bytes: int) -> None:
    """A size as text means the same size again, in the largest unit without a fraction."""
    text = exact(size_bytes)
    assert parse_bytes(text) == size_bytes
    number = text.rstrip("KMGTPEi")
    assert number.isdecimal()
    assert text.endswith("Ei") or int(number) % 1024 or not size_bytes


def test_exact_units() -> None:
    """Whole units have no fraction, and others are written in smaller ones."""
    assert [exact(size) for size in (0, 1023, 12 << 30, (12 << 30) + (1 << 20))] == ["0", "1023", "12Gi", "12289Mi"]
