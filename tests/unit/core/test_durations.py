"""core.durations."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidSettings

UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15), ("1m30s", 90), ("720h", 2592000), ("30d", 2592000), ("250ms", 0.25), ("1.5h", 5400), ("7", 7),
        ("0.5", 0.5), (" 2s ", 2), ("0", 0),
    ],
)  # fmt: skip
def test_accepted(text: str, seconds: float) -> None:
    """Durations are parsed in all spellings; a number without a unit is seconds."""
    assert parse_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "-1s", "1 s", "1x", "1s1", "1e3", "inf", "nan", ".5s", "1.s", "٣s", "٣"]
)
def test_refused(text: str) -> None:
    """Any other text is refused, with an example of a duration."""
    with pytest.raises(InvalidSettings, match="15s"):
        parse_s(text)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS_S))), min_size=1, max_size=5))
def test_sum(parts: list[tuple[int, str]]) -> None:
    """A duration of several parts is their sum."""
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_s(text) == pytest.approx(sum(number * UNITS_S[unit] for number, unit in parts))


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is a duration of at least zero, or is refused."""
    with contextlib.suppress(InvalidSettings):
        assert parse_s(text) >= 0
