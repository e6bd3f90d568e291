"""The quota agent as one more process of the simulation, beside a provisioner that meets faults and restarts.

The agent limits every volume, so that each directory that the provisioner moves has a project of its own.
"""

from __future__ import annotations

import random

import pytest

from provisioner.core.records import OnDelete
from tests.simulation import scripts
from tests.simulation.agents import with_agent
from tests.simulation.faults import Chance
from tests.simulation.histories import report
from tests.simulation.world import Script, World, play


def history(script: Script, seed: int) -> World:
    """Run a history; seed 0 is without faults."""

    def make(chance: random.Random) -> World:
        return World(chance, plan=Chance(chance, rate=0.02, slow=True) if seed else None)

    return play(make, with_agent(script, kill_rate=0.005 if seed else 0.0), seed)


@pytest.mark.parametrize("rule", ["delete", "archive", "retain"])
@pytest.mark.parametrize("seed", range(8))
def test_the_life_of_a_volume(rule: OnDelete, seed: int) -> None:
    """The provisioner keeps its promises beside an agent; at rest each volume has its limit, and an id of its own."""
    world = history(scripts.lifecycle(rule), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")


@pytest.mark.parametrize("rule", ["delete", "archive"])
@pytest.mark.parametrize("seed", range(4))
def test_two_volumes(rule: OnDelete, seed: int) -> None:
    """The same for two volumes whose directories need different names."""
    world = history(scripts.lifecycle(rule, pattern="${.PVC.namespace}-${.PV.name}"), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")
