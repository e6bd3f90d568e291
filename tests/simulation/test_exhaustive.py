"""One and two volumes: every fault at every single call."""

from __future__ import annotations

import pytest

from tests.simulation import scripts
from tests.simulation.histories import (
    BACKUPS,
    BINDINGS,
    COPIED,
    FULL,
    HEIRS,
    HELD_UP,
    RESTORES,
    ROLLBACKS,
    SCRIPTED,
    SNAPPED,
    Scripted,
    faulted,
    report,
    unrecorded,
)

ALWAYS = [
    faulted(1, "delete"),
    faulted(1, "delete", scripts.delete),
    faulted(1, "delete", scripts.recreate),
    faulted(1, "archive", scripts.recreate),
    faulted(1, "retain", scripts.recreate),
    faulted(2, "delete", scripts.remove),
    *COPIED[:1],
]
MORE = [
    faulted(lives, rule, meddle)
    for lives in (1, 2)
    for rule in ("delete", "archive", "retain")
    for meddle in (scripts.leave, scripts.delete, scripts.recreate, scripts.remove)
] + [*SCRIPTED]


@pytest.mark.parametrize("history", MORE if FULL else ALWAYS, ids=str)
def test_one_fault(history: Scripted) -> None:
    """Any fault at any call loses no data and leaves nothing behind."""
    for at, world in history.all():
        assert not world.judge.violations, report(world, f"{history}, {at or 'no fault'}")


@pytest.mark.parametrize("history", [*BACKUPS, *BINDINGS, *HEIRS], ids=str)
def test_backups_bindings_and_heirs(history: Scripted) -> None:
    """Data outlive volumes from backups, and are reclaimed with the claim that owns them, if no other volume uses them.

    A namespace that is created again gets no data of the earlier one, and admins can adopt directories without owner.
    """
    world = history.play(None)
    assert not world.judge.violations, report(world, str(history))


@pytest.mark.parametrize("history", HELD_UP, ids=str)
def test_a_leader_that_is_held_up(history: Scripted) -> None:
    """A delayed step of an earlier leader does not move the directory of the claim that owns it by then."""
    world = history.play(None)
    assert len(world.judge.homes) == 2
    assert not world.judge.violations, report(world, str(history))


@pytest.mark.parametrize("history", RESTORES, ids=str)
def test_restored_archives(history: Scripted) -> None:
    """Restoring an archive with another class never gets it deleted, or kept for a shorter time."""
    world = history.play(None)
    assert not world.judge.violations, report(world, str(history))


@pytest.mark.parametrize("history", SNAPPED, ids=str)
def test_contents_deleted_by_hand(history: Scripted) -> None:
    """The data of a snapshot stays until the snapshot itself is deleted, and goes then."""
    world = history.play(None)
    assert not world.judge.violations, report(world, str(history))
    assert world.site.cluster.snapshot_contents() == []


@pytest.mark.parametrize("history", ROLLBACKS, ids=str)
def test_etcd_goes_back(history: Scripted) -> None:
    """Data whose volume exists again are kept, an event says how to recover them, and they come back complete."""
    world = history.play(None)
    assert not world.judge.violations, report(world, str(history))


def test_a_record_that_is_removed_behind_the_leaders_back() -> None:
    """A directory whose record is gone from the export is not changed, whatever the leader remembers."""
    world = unrecorded()
    assert world.judge.homes
    assert not world.judge.violations, report(world, "scripts.unrecorded")
