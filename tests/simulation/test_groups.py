"""Groups of volumes: many claims in one moment, with processes that are killed, and ids that run out."""

from __future__ import annotations

import asyncio

import pytest

from provisioner.core import names
from tests.simulation.faults import Nothing
from tests.simulation.histories import FULL, GROUPS, Scripted, report
from tests.simulation.world import UNIQUE, World, play

CLAIMS = 1_000 if FULL else 200
"""A thousand take minutes."""
KILLS = 12


async def burst(world: World) -> None:
    """Many claims in one moment; two processes lead, and one is killed every second. Half of the claims are deleted."""
    site, chance = world.site, world.chance
    world.add_class("nfs", onDelete="delete", gid="auto", pathPattern=UNIQUE)
    keys = [f"shop/data-{number}" for number in range(CLAIMS)]
    for key in keys:
        world.claim(key, "nfs")
    for number in range(KILLS):
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        living = [process for process in site.processes if not process.dead]
        if living and number % 2:
            chance.choice(living).die()
        else:
            world.start(site)
    world.mend()
    assert await world.until(lambda: all(claim.status.phase == "Bound" for claim in site.cluster.claims()))
    gids = [volume.metadata.annotations[names.GID] for volume in site.cluster.volumes()]
    assert len(set(gids)) == CLAIMS
    for key in keys[::2]:
        world.delete_claim(key)
    await world.until(lambda: len(site.cluster.volumes()) == CLAIMS // 2)
    await world.rest()


def test_many_claims() -> None:
    """Each of many claims gets its own group, whatever is killed, and no id stays in use without a volume."""
    world = play(lambda chance: World(chance, plan=Nothing(call_s=0.002)), burst, 1)
    assert len(world.judge.homes) >= CLAIMS
    assert not world.judge.violations, report(world, "SIMULATION_FULL=1 pytest tests/simulation -k test_many_claims")


@pytest.mark.parametrize("history", GROUPS, ids=str)
def test_ids_in_use(history: Scripted) -> None:
    """No volume gets the group of a directory that exists, wherever it is."""
    world = history.play(None)
    assert not world.judge.violations, report(world, str(history))


async def scarce(world: World) -> None:
    """Three claims want groups of a range of two; the third one waits until one is free."""
    site = world.site
    world.add_class("nfs", onDelete="delete", gid="auto", pathPattern=UNIQUE, gidRange="70-71")
    keys = [f"shop/data-{number}" for number in range(3)]
    for key in keys:
        world.claim(key, "nfs")

    def bound() -> list[str]:
        return [claim.key for claim in site.cluster.claims() if claim.status.phase == "Bound"]

    assert await world.until(lambda: len(bound()) == 2)
    await asyncio.sleep(30.0)
    assert len(bound()) == 2
    (waiting,) = set(keys) - set(bound())
    events = [each.event for each in site.cluster.events.values() if each.event.about.name == waiting.split("/")[1]]
    assert any("no group id of gidRange 70-71 is free" in event.message for event in events)
    world.delete_claim(next(key for key in keys if key != waiting))
    assert await world.until(lambda: waiting in bound())
    await world.rest()


def test_a_range_that_is_exhausted() -> None:
    """A claim without a free id gets an event that says what to change, and its volume once an id is free."""
    for seed in range(3):
        world = play(lambda chance: World(chance), scarce, seed)
        assert not world.judge.violations, report(world, "test_a_range_that_is_exhausted")
