"""core.texts: any foreign name can be shown."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.texts import encodable, plain, printable

ANY = st.text(alphabet=st.characters(codec=None, exclude_categories=()))


@given(ANY)
def test_any_text_can_be_encoded(text: str) -> None:
    """Every encoder accepts the result; Unicode stays as it is."""
    encodable(text).encode()
    assert encodable(encodable(text)) == encodable(text)
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert encodable(text) == text


@given(ANY)
def test_any_text_can_be_printed(text: str) -> None:
    """The result has no control characters for a terminal."""
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("café ✓ 𝕏", "café ✓ 𝕏"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\u2028c\u202e", "a\\nb\\u2028c\\u202e"),
    ],
)
def test_what_it_looks_like(text: str, said: str) -> None:
    """Bytes that are not UTF-8 and control characters are escaped as in Python."""
    assert printable(text) == said


class Odd:
    """A value whose text raises an error."""

    def __str__(self) -> str:
        raise RuntimeError("odd")


def nested(depth: int) -> list[object]:
    """A list in a list, and so on."""
    inner: list[object] = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (math.nan, "nan"),
        (1 << 70, str(1 << 70)),
        ({"caf\udce9": ("a\udce9", {1})}, {"caf\\xe9": ["a\\xe9", [1]]}),
        ({1: Odd()}, {"1": "<Odd>"}),
        (b"\xe9", "b'\\xe9'"),
    ],
)
def test_plain(value: object, said: object) -> None:
    """Any value has a form in JSON."""
    assert plain(value) == said
    json.loads(json.dumps(plain(value), allow_nan=False))


def test_plain_ends() -> None:
    """Endless nesting is cut, and large numbers become text."""
    json.dumps(plain(nested(10_000)))
    json.dumps(plain(10**10_000))
