"""A cluster that is restored beside its original: both have one id, and neither may destroy what the other one has."""

from __future__ import annotations

import pytest

from tests.simulation.histories import CLONES, Cloned, told


@pytest.mark.parametrize("clones", CLONES, ids=str)
def test_a_copy_beside_its_original(clones: Cloned) -> None:
    """Nothing is destroyed in either until an admin has stopped one and decided, whatever restarts and fails."""
    for seed in range(8):
        world = clones.play(seed)
        assert not world.judge.violations, told(world, f"Cloned({clones}).play({seed})")
