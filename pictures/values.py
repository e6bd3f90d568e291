"""Numbers in Grafana's format, by unit."""

from __future__ import annotations

_DURATIONS_S = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_MANY = 2
"""From this number on, minutes, hours and days are the unit."""
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", " K", " M", " G")


def written(value: float, unit: str) -> str:
    """Return a value with its unit.

    The unit is `s`, `bytes`, `percentunit`, `short`, or `suffix:` with the text after the number.
    """
    if unit.startswith("suffix:"):
        return _short(value) + unit.removeprefix("suffix:")
    return {"s": _duration, "bytes": _bytes, "percentunit": _percent, "short": _short}[unit](value)


def base(largest: float, unit: str) -> float:
    """Return the base of the ticks of an axis up to `largest`, such as 1 MiB or a minute."""
    if unit == "bytes":
        return float(1024 ** _scale(largest, 1024.0, len(_BINARY)))
    if unit == "s":
        return next((size for size, _ in _DURATIONS_S if largest >= size), 1e-6)
    return 0.01 if unit == "percentunit" else 1.0


def _number(value: float) -> str:
    """Return at most three significant digits, without trailing zeros."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scale(value: float, factor: float, scales: int) -> int:
    scale = 0
    while abs(value) >= factor and scale < scales - 1:
        value, scale = value / factor, scale + 1
    return scale


def _short(value: float) -> str:
    scale = _scale(value, 1000.0, len(_DECIMAL))
    return _number(value / 1000.0**scale) + _DECIMAL[scale]


def _bytes(value: float) -> str:
    scale = _scale(value, 1024.0, len(_BINARY))
    return f"{_number(value / 1024.0**scale)} {_BINARY[scale]}"


def _duration(value: float) -> str:
    for size, name in _DURATIONS_S:
        if abs(value) >= size * (_MANY if size > 1 else 1):
            return f"{_number(value / size)} {name}"
    return "0 s"


def _percent(value: float) -> str:
    return f"{_number(100 * value)} %"
