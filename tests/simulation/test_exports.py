"""Exports as they lie in the field: one in another one."""

from __future__ import annotations

from tests.simulation.histories import nested, told


def test_an_export_in_another_one() -> None:
    """No claim gets a directory on the way to, or inside of, another cluster's export, and its volume stays whole."""
    world = nested()
    assert world.judge.homes
    assert not world.judge.violations, told(world, "scripts.nested")
