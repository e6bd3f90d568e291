"""One and two volumes: every fault at every single call."""

from __future__ import annotations

import pytest

from tests.simulation import scripts
from tests.simulation.histories import (
    BACKUPS,
    BINDINGS,
    FULL,
    HEIRS,
    HELD_UP,
    RESTORES,
    ROLLBACKS,
    SCRIPTED,
    Scripted,
    faulted,
    told,
    unrecorded,
)

ALWAYS = [
    faulted(1, "delete"),
    faulted(1, "delete", scripts.delete),
    faulted(1, "delete", scripts.recreate),
    faulted(1, "archive", scripts.recreate),
    faulted(1, "retain", scripts.recreate),
    faulted(2, "delete", scripts.remove),
]
MORE = [
    faulted(lives, rule, meddle)
    for lives in (1, 2)
    for rule in ("delete", "archive", "retain")
    for meddle in (scripts.leave, scripts.delete, scripts.recreate, scripts.remove)
] + [*SCRIPTED]


@pytest.mark.parametrize("history", MORE if FULL else ALWAYS, ids=str)
def test_one_fault(history: Scripted) -> None:
    """A crash before or after, an error, a refusal or a lost answer at any call harms nobody and leaves nothing."""
    for at, world in history.all():
        assert not world.judge.violations, told(world, f"{history}, {at or 'no fault'}")


@pytest.mark.parametrize("history", [*BACKUPS, *BINDINGS, *HEIRS], ids=str)
def test_backups_bindings_and_heirs(history: Scripted) -> None:
    """Data outlive each volume that comes from a backup, and go with the claim that has them, when nobody else does.

    A namespace that was created again has nothing of the one before, and an admin hands over what nobody has.
    """
    world = history.play(None)
    assert not world.judge.violations, told(world, str(history))


@pytest.mark.parametrize("history", HELD_UP, ids=str)
def test_a_leader_that_is_held_up(history: Scripted) -> None:
    """What a leader does after the next one has done it moves nothing of the claim that has the directory then."""
    world = history.play(None)
    assert len(world.judge.homes) == 2
    assert not world.judge.violations, told(world, str(history))


@pytest.mark.parametrize("history", RESTORES, ids=str)
def test_archives_that_are_brought_back(history: Scripted) -> None:
    """What was archived is never deleted, and kept as long, by way of a class with another rule."""
    world = history.play(None)
    assert not world.judge.violations, told(world, str(history))


@pytest.mark.parametrize("history", ROLLBACKS, ids=str)
def test_etcd_goes_back(history: Scripted) -> None:
    """Data whose volume is there again are kept, its event says how to have them, and they come back as they were."""
    world = history.play(None)
    assert not world.judge.violations, told(world, str(history))


def test_a_record_that_goes_behind_the_leaders_back() -> None:
    """A directory whose record is no more on the export is not touched, whatever the leader remembers."""
    world = unrecorded()
    assert world.judge.homes
    assert not world.judge.violations, told(world, "scripts.unrecorded")
