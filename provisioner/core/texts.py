"""Foreign text, made safe to show in a log line, an event, a table, JSON, or a metric's label.

A name on an export can have any bytes. Bytes that are not UTF-8 are lone surrogates in memory (PEP 383), which no
encoder accepts; and a terminal interprets control characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGE = 1 << 63
"""Larger integers become text: Python refuses to write integers of more than some thousand digits."""
_DEPTH = 20
"""How deep plain() looks into a value; no value that is shown is nested deeper."""


def encodable(text: str) -> str:
    r"""Return the text as Unicode that every encoder accepts: a byte that is not UTF-8 becomes `\xNN`."""
    return text if text.isascii() else _SURROGATE.sub(lambda found: _escaped(found.group()), text)


def printable(text: str) -> str:
    r"""Like encodable(), and without control characters: each becomes `\xNN` or the like."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """Escape a character as Python writes it.

    One that stands for a byte is written as that byte.
    """
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def plain(value: object, *, depth: int = _DEPTH) -> object:
    """Convert a value for JSON, with every text safe to show.

    Other types become text. Never raises.
    """
    if value is None or (isinstance(value, int) and abs(value) < _LARGE) or _is_finite(value):
        return value
    if isinstance(value, str):
        return encodable(value)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {_text(key): plain(inner, depth=depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, depth=depth - 1) for inner in value]
    return _text(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _text(value: object) -> str:
    try:
        return encodable(str(value))
    except Exception:  # noqa: BLE001  # a foreign __str__ can raise anything; the rest must still be shown
        return f"<{type(value).__name__}>"
