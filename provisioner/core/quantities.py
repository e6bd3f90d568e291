"""Kubernetes quantities: `2Gi` is 2^31 bytes, `2G` is 2·10^9 (apimachinery, pkg/api/resource)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from provisioner.core.errors import InvalidQuantity

_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,3}))?", re.ASCII)
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)}
_UNITS = ("", *_BINARY)
_DECIMAL = {letter: Decimal(1000) ** power for power, letter in enumerate("num kMGTPE", start=-3) if letter != " "}


@lru_cache(maxsize=1024)
def parse_bytes(text: str) -> int:
    """Return a quantity in whole bytes, rounded up. Raises InvalidQuantity.

    Results are kept: ten thousand volumes have few different sizes.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or len(text) > 64:
        raise InvalidQuantity(f"{text!r} is not a quantity: write for example 10Gi or 500M")
    number, binary, decimal, exponent = match.groups()
    value = Decimal(number)
    if binary:
        value *= _BINARY[binary]
    elif decimal:
        value *= _DECIMAL[decimal]
    elif exponent:
        value = value.scaleb(int(exponent))
    return int(value.to_integral_value(ROUND_CEILING))


def total_bytes(texts: Iterable[str]) -> int:
    """Return the sum of quantities; an invalid one counts as zero."""
    total = 0
    for text in texts:
        with suppress(InvalidQuantity):
            total += parse_bytes(text)
    return total


def readable(size_bytes: int) -> str:
    """Return a number of bytes in the largest binary unit that fits, such as `3.1Gi`."""
    power = 0
    while size_bytes >= 1024 ** (power + 1) and power + 1 < len(_UNITS):
        power += 1
    return f"{size_bytes / 1024**power:.1f}".removesuffix(".0") + _UNITS[power]


def exact(size_bytes: int) -> str:
    """Return a number of bytes as a quantity in the largest binary unit that has no fraction, such as `12Gi`."""
    power = 0
    while size_bytes and size_bytes % 1024 == 0 and power + 1 < len(_UNITS):
        size_bytes, power = size_bytes // 1024, power + 1
    return f"{size_bytes}{_UNITS[power]}"


def is_less(left: str, right: str) -> bool:
    """Return True if the left quantity is smaller, in any units. Raises InvalidQuantity."""
    return parse_bytes(left) < parse_bytes(right)
