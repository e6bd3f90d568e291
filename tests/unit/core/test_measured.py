"""core.measured: usage by the agent's answer or by a walk, and its order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provisioner.core import measured, times
from provisioner.core.listing import listed
from provisioner.core.objects import ClaimRef, Metadata, Volume, VolumeSpec
from provisioner.core.quota import Answer, Heartbeat

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALIVE = Heartbeat(at=times.text(NOW))
SILENT = Heartbeat(at=times.text(NOW - timedelta(hours=1)))
WHOLE = Answer(used_bytes=512, inodes=3, whole=True)


def volume(capacity: str = "1Ki") -> Volume:
    return Volume(Metadata(name="pv"), VolumeSpec({"storage": capacity}, claim_ref=ClaimRef("shop", "data")))


ROW = listed(volume())


def test_of_an_agent() -> None:
    """A recent answer about the whole volume counts."""
    row = measured.of_agent(ROW, WHOLE, ALIVE, NOW)
    assert row is not None
    assert (row.claim, row.used_bytes, row.files, row.percent, row.source) == ("data", 512, 3, 50, "agent")
    assert row.complete


@pytest.mark.parametrize(
    ("answer", "heartbeat"), [(None, ALIVE), (Answer(used_bytes=1), ALIVE), (WHOLE, SILENT), (WHOLE, None)]
)
def test_not_of_an_agent(answer: Answer | None, heartbeat: Heartbeat | None) -> None:
    """No answer, one about a part, and one of a silent agent do not count."""
    assert measured.of_agent(ROW, answer, heartbeat, NOW) is None


def test_of_a_walk() -> None:
    """A walk that did not come to its end is not complete; without a size there is no percentage."""
    row = measured.counted(ROW, 2048, 9, source="walk", why="it was interrupted")
    assert (row.percent, row.complete, row.why) == (200, False, "it was interrupted")
    for capacity in ("odd", "0"):
        assert measured.counted(listed(volume(capacity)), 1, 1, source="walk", why="").percent is None


def test_order() -> None:
    """The largest comes first, what is unknown last."""
    small, large = (measured.counted(ROW, size, 1, source="walk", why="") for size in (1, 2))
    assert measured.largest_first([measured.unknown(ROW, "x"), small, large], "used_bytes")[:2] == [large, small]
