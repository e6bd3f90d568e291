"""Exports as they lie in the field: one in another one, and one whose server folds names."""

from __future__ import annotations

import pytest

from tests.simulation.histories import DAMAGED, Scripted, folding, homeless, nested, told


def test_an_export_in_another_one() -> None:
    """No claim gets a directory on the way to, or inside of, another cluster's export, and its volume stays whole."""
    world = nested()
    assert world.judge.homes
    assert not world.judge.violations, told(world, "scripts.nested")


def test_an_export_whose_server_folds_names() -> None:
    """No claim gets what the server takes for another claim's directory, or for one above or below it."""
    world = folding()
    assert world.judge.homes
    assert not world.judge.violations, told(world, "scripts.folding")


def test_a_volume_on_no_known_export() -> None:
    """No claim gets a directory in that of a volume whose server nothing names; others are served."""
    world = homeless()
    assert not world.judge.violations, told(world, "scripts.homeless")


@pytest.mark.parametrize("history", DAMAGED, ids=str)
def test_a_ledger_that_is_damaged(history: Scripted) -> None:
    """No ledger is begun anew while volumes carry its id; written again, each volume goes by its rule, and no other."""
    world = history.play(None)
    assert world.judge.homes
    assert not world.judge.violations, told(world, str(history))
