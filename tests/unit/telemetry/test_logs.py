"""telemetry.logs: a line is written for any fields, and logging never raises."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from provisioner.telemetry import logs

NAME = b"caf\xe9".decode("utf-8", "surrogateescape")


class Odd:
    """An object whose repr() raises."""

    def __repr__(self) -> str:
        raise RuntimeError("odd")


def nested() -> list[object]:
    """A nested list, deeper than any encoder goes."""
    inner: list[object] = []
    for _ in range(10_000):
        inner = [inner]
    return inner


ODD: dict[str, object] = {
    "a name": NAME,
    "a list of names": [NAME],
    "a key": {NAME: 1},
    "a surrogate": "\ud800",
    "a number": 10**10_000,
    "not a number": float("nan"),
    "an object": Odd(),
    "nested": nested(),
    "an error": ValueError(NAME),
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore the logging configuration after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def stream() -> io.TextIOWrapper:
    """A file that accepts only UTF-8."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)


def written(to: io.TextIOWrapper) -> list[str]:
    to.seek(0)
    return to.read().splitlines()


@pytest.mark.parametrize("json_lines", [True, False], ids=["json", "console"])
@pytest.mark.parametrize("odd", ODD)
def test_any_field_is_written(odd: str, json_lines: bool) -> None:
    """Each line is written, in either format, from the product and from a library, and JSON is valid."""
    to = stream()
    logs.set_up(json=json_lines, level="info", stream=to)
    structlog.get_logger().warning("orphans", unknown=ODD[odd])
    logging.getLogger("aiohttp").warning("a library says %s", NAME)
    lines = written(to)
    assert any("orphans" in line for line in lines)
    assert any("a library says caf\\" in line for line in lines)
    if json_lines:
        assert len([json.loads(line) for line in lines]) == 2


@pytest.mark.parametrize("json_lines", [True, False], ids=["json", "console"])
def test_a_traceback(json_lines: bool) -> None:
    """An error is logged with its traceback and without local variables, some of which are tokens."""
    to = stream()
    logs.set_up(json=json_lines, level="info", stream=to)
    token = "".join(["s3", "cret"])
    try:
        raise ValueError(NAME + token[:0])
    except ValueError as exc:
        structlog.get_logger().error("unexpected_error", exc_info=exc, loop="sweep")
    text = "\n".join(written(to))
    assert "test_a_traceback" in text
    assert "ValueError" in text
    assert "s3cret" not in text


def test_a_name_cannot_write_a_line() -> None:
    """On a terminal, a tenant's text neither adds a line nor moves the cursor."""
    to = stream()
    logs.set_up(json=False, level="info", stream=to)
    structlog.get_logger().warning("orphans", export="a\n2026 [info] all is well \x1b[2J")
    assert len(written(to)) == 1
    assert "\x1b[2J" not in written(to)[0]


class Gone(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("json_lines", [True, False], ids=["json", "console"])
def test_a_stream_that_takes_nothing(json_lines: bool) -> None:
    """A line that cannot be written is dropped, and ends no work."""
    logs.set_up(json=json_lines, level="info", stream=Gone())
    structlog.get_logger().warning("orphans")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("log_format", "stream", "expected"),
    [
        (None, io.StringIO(), True),
        (None, Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
)
def test_the_format(log_format: str | None, stream: io.StringIO, expected: bool) -> None:
    """Lines are JSON unless a terminal reads them; a format that was chosen counts everywhere."""
    assert logs.is_json(log_format, stream) is expected
