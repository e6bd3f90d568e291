"""core.fullness."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.fullness import REPORTED, Level, level, message, to_report
from provisioner.core.quota import Answer

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
LATELY, LONG_AGO = "2026-11-28T11:30:00Z", "2026-11-28T10:30:00Z"
GIB = 1 << 30


def answer(percent: float, *, limit_bytes: int = 10 * GIB, whole: bool = True, at: str = LATELY) -> Answer:
    """An answer about a volume that is full to this part."""
    return Answer(limit_bytes=limit_bytes, used_bytes=int(limit_bytes * percent / 100), whole=whole, at=at)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0, Level.ROOM),
        (84.9, Level.ROOM),
        (85, Level.NEARLY),
        (94.9, Level.NEARLY),
        (95, Level.ALMOST),
        (99, Level.ALMOST),
        (99.6, Level.FULL),
        (100, Level.FULL),
        (120, Level.FULL),
    ],
)
def test_level(percent: float, expected: Level) -> None:
    """A volume is full as soon as the usage can have reached the limit: answers are exact to half a percent."""
    assert level(answer(percent)) is expected


def test_no_level_without_a_limit() -> None:
    """A volume without a limit, or with content that is not counted, is never reported."""
    assert level(answer(99, whole=False)) is Level.ROOM
    assert level(Answer(used_bytes=GIB, whole=True)) is Level.ROOM


def test_each_level_is_reported_once() -> None:
    """A level is reported when the usage reaches it, and again only after the usage fell clearly below it."""
    reported: Level | None = None
    events = []
    for percent in (10, 86, 88, 84, 86, 81, 85, 96, 91, 95.5, 89, 95, 100, 97, 100, 20, 100):
        reported, due = to_report(reported, answer(percent), NOW)
        events.append(due)
    none = None
    assert events == [
        none, Level.NEARLY, none, none, none, none, none, Level.ALMOST, none, none, none, Level.ALMOST, Level.FULL,
        none, none, none, Level.FULL,
    ]  # fmt: skip


@pytest.mark.parametrize("reported", REPORTED)
def test_a_former_leader_s_report_is_not_repeated(reported: Level) -> None:
    """After a start, only a volume whose answer changed lately is reported: the rest was reported before."""
    assert to_report(None, answer(reported, at=LONG_AGO), NOW) == (reported, None)
    assert to_report(None, answer(reported, at=""), NOW) == (reported, None)
    assert to_report(None, answer(reported, at=LATELY), NOW) == (reported, reported)
    assert to_report(None, answer(10), NOW) == (Level.ROOM, None)


@given(st.lists(st.floats(0, 110), max_size=30))
def test_between_two_reports_of_a_level_it_fell_below(usages: list[float]) -> None:
    """Whatever the usage does: two events of one level have a usage clearly below that level between them."""
    reported: Level | None = Level.ROOM
    lowest: dict[Level, float] = {}
    for percent in usages:
        for each in lowest:
            lowest[each] = min(lowest[each], percent)
        reported, due = to_report(reported, answer(percent), NOW)
        if due is not None:
            assert lowest.get(due, 0) < due - 4.9
            lowest[due] = percent


def test_message() -> None:
    """The text does not change with the usage, so that a repeated event is the same event."""
    assert message(Level.NEARLY, answer(86)) == message(Level.NEARLY, answer(93))
    assert message(Level.ALMOST, answer(96)).startswith("the volume uses at least 95 % of its limit of 10Gi: expand")
    assert message(Level.FULL, answer(100)).startswith("the volume is full, at its limit of 10Gi: expand")
