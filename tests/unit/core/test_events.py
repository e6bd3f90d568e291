"""core.events."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.events import MESSAGE_LIMIT, Occurrence, clip, occurred


def test_first_at_once() -> None:
    """The first occurrence is written immediately."""
    assert occurred(None, 100.0) == Occurrence(1, 130.0)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=50))
def test_repetitions_are_seldom(pauses_s: list[float]) -> None:
    """Repetitions raise the count one by one, with at least half a minute between two writes."""
    now_s, previous = 0.0, None
    written_s: list[float] = []
    for pause_s in pauses_s:
        now_s += pause_s
        occurrence = occurred(previous, now_s)
        if occurrence is not None:
            assert occurrence.count == len(written_s) + 1
            assert occurrence.next_s > now_s
            written_s.append(now_s)
            previous = occurrence
    assert all(later - earlier >= 30.0 for earlier, later in itertools.pairwise(written_s))


def test_repetitions_grow_apart() -> None:
    """The pause between two writes doubles, up to ten minutes."""
    previous, pauses_s, now_s = occurred(None, 0.0), [], 0.0
    for _ in range(7):
        assert previous is not None
        pauses_s.append(previous.next_s - now_s)
        now_s = previous.next_s
        previous = occurred(previous, now_s)
    assert pauses_s == [30, 60, 120, 240, 480, 600, 600]


@given(st.text(max_size=3 * MESSAGE_LIMIT))
def test_clip(message: str) -> None:
    """A message is never longer than the limit; a shorter one stays as it is."""
    clipped = clip(message)
    assert len(clipped) <= MESSAGE_LIMIT
    assert clipped == message or (clipped.endswith("…") and message.startswith(clipped[:-1]))


def test_a_message_with_a_name_of_any_bytes() -> None:
    """A byte that is not UTF-8 is escaped in an event, so that the API server accepts it."""
    assert clip("directory 'caf\udce9' is taken") == "directory 'caf\\xe9' is taken"
