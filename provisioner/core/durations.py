"""Durations as users write them in flags and parameters: `15s`, `1m30s`, `720h`, `30d`, or seconds only."""

from __future__ import annotations

import re

from provisioner.core.errors import InvalidSettings

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)


def parse_s(text: str) -> float:
    """Return a duration in seconds. Raises InvalidSettings."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text, re.ASCII):
        raise InvalidSettings(f"{text!r} is not a duration: write for example 15s, 1m30s, 720h or 30d")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
