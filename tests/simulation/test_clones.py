"""A copy of a cluster in parallel to its original: both have one id, and neither may destroy the other's data."""

from __future__ import annotations

import pytest

from tests.simulation.histories import CLONES, Cloned, report


@pytest.mark.parametrize("clones", CLONES, ids=str)
def test_a_copy_beside_its_original(clones: Cloned) -> None:
    """Whatever restarts or fails, nothing is destroyed until an admin has stopped one of them and decided."""
    for seed in range(8):
        world = clones.play(seed)
        assert not world.judge.violations, report(world, f"Cloned({clones}).play({seed})")
