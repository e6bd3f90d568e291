"""One and two volumes: every fault at every single call."""

from __future__ import annotations

import pytest

from tests.simulation import scripts
from tests.simulation.histories import FULL, Faulted, told, unrecorded

ALWAYS = [
    Faulted(1, "delete"),
    Faulted(1, "delete", scripts.delete),
    Faulted(1, "delete", scripts.recreate),
    Faulted(1, "archive", scripts.recreate),
    Faulted(1, "retain", scripts.recreate),
    Faulted(2, "delete", scripts.remove),
]
MORE = [
    Faulted(lives, rule, meddle)
    for lives in (1, 2)
    for rule in ("delete", "archive", "retain")
    for meddle in (scripts.leave, scripts.delete, scripts.recreate, scripts.remove)
]


@pytest.mark.parametrize("history", MORE if FULL else ALWAYS, ids=str)
def test_one_fault(history: Faulted) -> None:
    """A crash before or after, an error, a refusal or a lost answer at any call harms nobody and leaves nothing."""
    for at, world in history.all():
        assert not world.judge.violations, told(world, f"{history}, {at or 'no fault'}")


def test_a_record_that_goes_behind_the_leaders_back() -> None:
    """A directory whose record is no more on the export is not touched, whatever the leader remembers."""
    world = unrecorded()
    assert world.judge.homes
    assert not world.judge.violations, told(world, "scripts.unrecorded")
