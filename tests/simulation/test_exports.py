"""Exports as found in practice: one within another, one whose server ignores case, unknown and damaged ones."""

from __future__ import annotations

import pytest

from tests.simulation.histories import DAMAGED, Scripted, folding, nested, report, unlocated


def test_an_export_in_another_one() -> None:
    """No claim gets a directory above or inside another cluster's export, whose volume keeps its data."""
    world = nested()
    assert world.judge.homes
    assert not world.judge.violations, report(world, "scripts.nested")


def test_an_export_whose_server_folds_names() -> None:
    """No claim gets a directory that is another claim's to the server, or above or below it."""
    world = folding()
    assert world.judge.homes
    assert not world.judge.violations, report(world, "scripts.folding")


def test_a_volume_on_no_known_export() -> None:
    """No claim gets a directory inside that of a volume on an unknown server; other claims are provisioned."""
    world = unlocated()
    assert not world.judge.violations, report(world, "scripts.unlocated")


@pytest.mark.parametrize("history", DAMAGED, ids=str)
def test_a_ledger_that_is_damaged(history: Scripted) -> None:
    """No ledger is created while volumes carry the id of a lost one; once restored, each volume follows its rule."""
    world = history.play(None)
    assert world.judge.homes
    assert not world.judge.violations, report(world, str(history))
